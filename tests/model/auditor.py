"""What the rules say must happen, worked out anew from the rules: a slow, plain model to hold the ledger against.

It shares no code with the ledger, keeps no clever order, remembers everything and computes with fractions. Product
rules 1-6, 10, 16, 19, 21, 22, 25-28 are in it, for costs that are already rated. Where the contract is silent it
follows the decisions in streams/ledger/README.md.

An operation returns the lines that it must cause; lines of amount 0 that only note something (a month begun, a transfer
acknowledged) are not predicted. What must be said of alerts is their kind and rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

NANOS = 10**9
LOW_DEFAULT = 10 * NANOS
NOTHING_LEFT = "unknown_purchase or exceeds_refundable"
ARRIVED = "transfer/"
"""What the names of lots that came from elsewhere begin with; the rest of their names is the ledger's affair."""
REFUND_WINDOW_US = 35 * 86_400 * 1_000_000
KIND_RANK = {"allowance": 0, "promotional": 1, "adjustment": 2, "transferred": 3, "purchased": 4}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Line:
    """A ledger entry as predicted. `drawn`: what each kind of grant gave (below 0: got back)."""

    org: str
    kind: str
    unit: str
    amount: int
    balance: int
    reason: str | None = None
    drawn: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Alarm:
    """An alert as predicted; `rule` is the rule's id, `left` what a `credit_resolved` lists."""

    org: str
    unit: str
    kind: str
    rule: str | None = None
    left: frozenset[str] = frozenset()


@dataclass
class Lot:
    """A grant: what it is, what is left of it. `monthly`: made by the wallet's own allowance."""

    name: str
    kind: str
    amount: int
    left: int
    priority: int
    expires_at: int | None
    created: int
    monthly: bool = False
    current: bool = False


@dataclass
class Rule:
    """A threshold rule and whether its line is crossed."""

    kind: str
    level: int
    crossed: bool = False


@dataclass
class Wallet:
    """A wallet: its lots, its debt, its settings, its month."""

    unit: str
    month: int
    lots: list[Lot] = field(default_factory=list)
    debt: int = 0
    used: int = 0
    allocation: int = 0
    allowance: int = 0
    rollover_max: int = 0
    low: int = LOW_DEFAULT
    granted_month: int = 0
    touched: bool = False
    low_crossed: bool = False
    depleted: bool = False
    rules: dict[str, Rule] = field(default_factory=dict)

    @property
    def balance(self) -> int:
        return sum(lot.left for lot in self.lots) - self.debt

    def order(self) -> list[Lot]:
        """Rule 3, from all that is there."""
        return sorted(
            (lot for lot in self.lots if lot.left),
            key=lambda lot: (
                not lot.current,
                lot.priority,
                lot.expires_at is None,
                lot.expires_at or 0,
                KIND_RANK[lot.kind],
                lot.created,
                lot.name,
            ),
        )


@dataclass
class Draw:
    """What one booking took from one lot; `lot` None: from nothing (a debt)."""

    lot: Lot | None
    amount: int


@dataclass
class Usage:
    """A booked usage, for refunds."""

    unit: str
    at: int
    draws: list[Draw]
    refunded: int = 0


@dataclass
class Parcel:
    """Credits on the way."""

    source: str
    target: str
    unit: str
    actor: str
    month: int
    pieces: list[Draw]

    @property
    def amount(self) -> int:
        return sum(piece.amount for piece in self.pieces)


@dataclass
class Org:
    """An organisation."""

    zone: str = "UTC"
    closed: bool = False
    known: bool = False
    administrators: tuple[str, ...] = ()
    wallets: dict[str, Wallet] = field(default_factory=dict)
    usages: dict[str, Usage] = field(default_factory=dict)


class Auditor:
    """The model. Every operation settles the org first, as the ledger must (time is the log's)."""

    def __init__(self) -> None:
        self.orgs: dict[str, Org] = {}
        self.parcels: dict[str, Parcel] = {}
        self.lines: list[Line] = []
        self.alarms: list[Alarm] = []

    def org(self, name: str) -> Org:
        return self.orgs.setdefault(name, Org())

    def balance(self, name: str, unit: str) -> int:
        wallet = self.org(name).wallets.get(unit)
        return 0 if wallet is None else wallet.balance

    # --- operations

    def use(self, name: str, event_id: str, unit: str, cost: int, at: int) -> None:
        """Usage is always booked, into the negative if need be (rule 16)."""
        org, wallet = self._open(name, unit, at)
        draws = self._draw(wallet, cost)
        org.usages[event_id] = Usage(unit, at, draws)
        org.known = True
        wallet.used += cost
        if cost:
            wallet.touched = True
        self._line(name, "usage", wallet, -cost, draws=draws)
        self._settle_again(name, at)

    def buy(
        self,
        name: str,
        purchase_id: str,
        unit: str,
        amount: int,
        at: int,
        kind: str = "purchased",
        expires_at: int | None = None,
        priority: int = 50,
    ) -> None:
        """Purchases of at least 1 unit, gifts, adjustments both ways (rules 4, 19)."""
        self.settle(name, at)
        org = self.org(name)
        there = self.balance(name, unit)
        least = NANOS if kind == "purchased" else 1
        if kind == "adjustment" and amount < 0:
            if -amount > max(0, there):
                self._refuse(name, unit, "insufficient_credits")
                return
        elif amount < least:
            self._refuse(name, unit, "amount_not_positive")
            return
        wallet = self._wallet(org, unit, at)
        org.known = True
        wallet.touched = True
        entry_kind = "adjustment" if kind == "adjustment" else "purchase"
        if amount < 0:
            self._line(name, entry_kind, wallet, amount, draws=self._draw(wallet, -amount))
        else:
            lot = Lot(f"purchase/{purchase_id}", kind, amount, amount, priority, expires_at, at)
            wallet.allocation += amount
            self._add(name, entry_kind, wallet, [lot])
        self._settle_again(name, at)

    def refund_purchase(self, name: str, purchase_id: str, amount: int, at: int) -> None:
        """At most what is left of the purchase's own grant (rule 21)."""
        self.settle(name, at)
        found = [
            (wallet, lot)
            for wallet in self.org(name).wallets.values()
            for lot in wallet.lots
            if lot.name == f"purchase/{purchase_id}"
        ]
        if not found:
            self._refuse(name, "", "unknown_purchase")
            return
        wallet, lot = found[0]
        if not lot.left:  # whether an empty gift is still remembered is the ledger's affair
            self._refuse(name, "", NOTHING_LEFT)
            return
        if amount > lot.left:
            self._refuse(name, wallet.unit, "exceeds_refundable")
            return
        self._wallet(self.org(name), wallet.unit, at)
        lot.left -= amount
        self._line(name, "refund", wallet, -amount, draws=[Draw(lot, amount)])
        self._settle_again(name, at)

    def refund_usage(self, name: str, event_id: str, amount: int, at: int) -> None:
        """The slices go back, the last drawn first; at most the usage, in parts (rule 21)."""
        self.settle(name, at)
        org = self.org(name)
        usage = org.usages.get(event_id)
        if usage is None or usage.at + REFUND_WINDOW_US < at:
            self._refuse(name, "", "unknown_usage")
            return
        if usage.refunded + amount > sum(draw.amount for draw in usage.draws):
            self._refuse(name, usage.unit, "exceeds_refundable")
            return
        wallet = self._wallet(org, usage.unit, at)
        back = _last_drawn(usage.draws, usage.refunded, amount)
        usage.refunded += amount
        wallet.used -= amount
        wallet.touched = True
        self._give_back(wallet, back, at)
        self._line(name, "refund", wallet, amount, replenished=True)
        self._settle_again(name, at)

    def send(self, transfer_id: str, source: str, target: str, unit: str, amount: int, actor: str, at: int) -> None:
        """Credits leave the source (rule 22)."""
        self.settle(source, at)
        org = self.org(source)
        refusal = None
        if amount <= 0:
            refusal = "amount_not_positive"
        elif source == target:
            refusal = "same_org"
        elif not org.known:
            refusal = "unknown_org"
        elif actor not in org.administrators:
            refusal = "not_authorized"
        elif org.closed:
            refusal = "org_closed"
        elif amount > self.balance(source, unit):
            refusal = "insufficient_credits"
        if refusal is not None:
            self._refuse(source, unit, refusal)
            return
        wallet = self._wallet(org, unit, at)
        draws = self._draw(wallet, amount)
        self.parcels[transfer_id] = Parcel(source, target, unit, actor, wallet.month, draws)
        self._line(source, "transfer_out", wallet, -amount, draws=draws)
        self._settle_again(source, at)

    def arrive(self, transfer_id: str, at: int) -> bool:
        """The target takes the parcel, or does not: then it must be returned. True when taken."""
        parcel = self.parcels[transfer_id]
        name = parcel.target
        self.settle(name, at)
        org = self.org(name)
        if not org.known:
            return False
        if parcel.actor not in org.administrators or org.closed:
            self._refuse(
                name, parcel.unit, "not_authorized" if parcel.actor not in org.administrators else "org_closed"
            )
            return False
        wallet = self._wallet(org, parcel.unit, at)
        lots = [
            Lot(
                f"{ARRIVED}{transfer_id}/{number}",
                lot.kind,
                piece.amount,
                piece.amount,
                lot.priority,
                lot.expires_at,
                at,
            )
            for number, piece in enumerate(parcel.pieces)
            if (lot := piece.lot) is not None
        ]
        wallet.touched = True
        wallet.allocation += parcel.amount
        self._add(name, "transfer_in", wallet, lots)
        del self.parcels[transfer_id]
        self._settle_again(name, at)
        return True

    def come_back(self, transfer_id: str, at: int) -> None:
        """The parcel returns to the lots that it came from."""
        parcel = self.parcels[transfer_id]
        self.settle(parcel.source, at)
        del self.parcels[transfer_id]
        wallet = self._wallet(self.org(parcel.source), parcel.unit, at)
        if wallet.month != parcel.month:
            wallet.allocation += parcel.amount
        self._give_back(wallet, parcel.pieces, at)
        self._line(parcel.source, "transfer_return", wallet, parcel.amount, replenished=True)
        self._settle_again(parcel.source, at)

    def acknowledged(self, source: str, at: int) -> None:
        """Only the source's clock moves: what fell due is settled."""
        self.settle(source, at)

    def set_org(self, name: str, zone: str, closed: bool, administrators: Sequence[str], at: int) -> None:
        """A later body replaces the earlier; months end by the new zone, and never go back."""
        self.settle(name, at)
        org = self.org(name)
        org.known = True
        org.closed, org.administrators = closed, tuple(administrators)
        if zone != org.zone:
            org.zone = zone
            for wallet in org.wallets.values():
                for lot in wallet.lots:
                    if lot.monthly:
                        lot.expires_at = _starts(wallet.month + 1, zone)
        self._settle_again(name, at)

    def set_wallet(self, name: str, unit: str, allowance: int, rollover_max: int, low: int, at: int) -> None:
        """The allowance of this month is granted when one is first set; a change counts from the next month."""
        self.settle(name, at)
        org = self.org(name)
        org.known = True
        wallet = self._wallet(org, unit, at)
        wallet.allowance, wallet.rollover_max = allowance, rollover_max
        left = []
        if low != wallet.low:
            if wallet.low_crossed and wallet.balance > low:
                left.append("low")
            wallet.low, wallet.low_crossed = low, False
        self._watch(name, wallet, replenished=False, left=left)
        if wallet.granted_month < wallet.month and allowance:
            self._grant_allowance(name, wallet, wallet.month, at)
        self._settle_again(name, at)

    def set_rules(self, name: str, unit: str, rules: Sequence[tuple[str, str, int]], at: int) -> None:
        """Rules as (id, kind, level in nano-units or nano-percent); one that stays the same keeps its state."""
        self.settle(name, at)
        org = self.org(name)
        org.known = True
        wallet = self._wallet(org, unit, at)
        old = wallet.rules
        wallet.rules = {}
        for rule_id, kind, level in rules:
            before = old.get(rule_id)
            same = before is not None and (before.kind, before.level) == (kind, level)
            wallet.rules[rule_id] = Rule(kind, level, bool(same and before is not None and before.crossed))
        left = [
            rule_id
            for rule_id, rule in old.items()
            if rule.crossed
            and not (rule_id in wallet.rules and (wallet.rules[rule_id].crossed or _met(wallet, wallet.rules[rule_id])))
        ]
        self._watch(name, wallet, replenished=False, left=left)
        self._settle_again(name, at)

    # --- time

    def settle(self, name: str, at: int) -> None:
        """Everything due at or before `at`, in order of time; months before expiries at the same instant."""
        org = self.org(name)
        while True:
            due = [
                (_starts(wallet.month + 1, org.zone), 0, wallet.unit)
                for wallet in org.wallets.values()
                if _would_turn(wallet)
            ]
            due += [
                (lot.expires_at, 1, wallet.unit)
                for wallet in org.wallets.values()
                for lot in wallet.lots
                if lot.left and lot.expires_at is not None and not self._lapses(org, wallet, lot)
            ]
            due = [each for each in due if each[0] <= at]
            if not due:
                return
            when, what, unit = min(due)
            if what == 0:
                self._turn(name, org, org.wallets[unit])
            else:
                self._expire(name, org.wallets[unit], when)

    def _settle_again(self, name: str, at: int) -> None:
        """What an operation made due itself (credits back to an expired grant) is settled with it."""
        self.settle(name, at)

    def _lapses(self, org: Org, wallet: Wallet, lot: Lot) -> bool:
        return lot.monthly and lot.expires_at == _starts(wallet.month + 1, org.zone)

    def _turn(self, name: str, org: Org, wallet: Wallet) -> None:
        """Rule 5: the new allowance, then the roll-over up to its limit, then the rest lapses."""
        turned_at = _starts(wallet.month + 1, org.zone)
        month = wallet.month + 1
        old = [lot for lot in wallet.order() if lot.monthly and (lot.expires_at or 0) <= turned_at]
        wallet.month = month
        for lot in wallet.lots:
            lot.current = False
        if wallet.allowance:
            self._grant_allowance(name, wallet, month, turned_at)
        keep, carried = wallet.rollover_max, 0
        for lot in reversed(old):
            part = min(keep, lot.left)
            lot.left -= part
            keep -= part
            carried += part
        if carried:
            ends_at = _starts(month + 1, org.zone)
            wallet.lots.append(
                Lot(f"rolled/{wallet.unit}/{month}", "allowance", carried, carried, 50, ends_at, turned_at, True)
            )
        wallet.used = 0
        going = sum(lot.left for lot in wallet.lots if lot.expires_at is not None and lot.expires_at <= turned_at)
        wallet.allocation = wallet.balance - going
        self._watch(name, wallet, replenished=True)
        lapsed = sum(lot.left for lot in old)
        for lot in old:
            lot.left = 0
        if lapsed:
            self._line(name, "expiry", wallet, -lapsed, reason="allowance_lapsed")

    def _grant_allowance(self, name: str, wallet: Wallet, month: int, at: int) -> None:
        ends_at = _starts(month + 1, self.org(name).zone)
        amount = wallet.allowance
        lot = Lot(f"allowance/{wallet.unit}/{month}", "allowance", amount, amount, 50, ends_at, at, True, True)
        wallet.granted_month = month
        wallet.allocation += wallet.allowance
        wallet.touched = True
        self._add(name, "allowance", wallet, [lot])

    def _expire(self, name: str, wallet: Wallet, when: int) -> None:
        """Rule 4; several at one instant go in draw-down order, each by itself."""
        org = self.org(name)
        lot = next(lot for lot in wallet.order() if lot.expires_at == when and not self._lapses(org, wallet, lot))
        amount, lot.left = lot.left, 0
        if lot.kind == "promotional":
            self.alarms.append(
                Alarm(name, wallet.unit, "credit_free_expired", lot.name.partition(ARRIVED)[1] or lot.name)
            )
        self._line(name, "expiry", wallet, -amount, reason="grant_expired")

    # --- parts

    def _open(self, name: str, unit: str, at: int) -> tuple[Org, Wallet]:
        self.settle(name, at)
        org = self.org(name)
        return org, self._wallet(org, unit, at)

    def _wallet(self, org: Org, unit: str, at: int) -> Wallet:
        """The wallet, in the month of `at` (what a turn changes has been settled before)."""
        wallet = org.wallets.get(unit)
        if wallet is None:
            wallet = org.wallets[unit] = Wallet(unit, _month(at, org.zone))
        wallet.month = max(wallet.month, _month(at, org.zone))
        return wallet

    def _draw(self, wallet: Wallet, amount: int) -> list[Draw]:
        draws = []
        for lot in wallet.order():
            part = min(lot.left, amount)
            if part:
                lot.left -= part
                amount -= part
                draws.append(Draw(lot, part))
        if amount:
            wallet.debt += amount
            draws.append(Draw(None, amount))
        return draws

    def _add(self, name: str, kind: str, wallet: Wallet, lots: Sequence[Lot]) -> None:
        """New credits pay the debt first, the first lot first."""
        amount = sum(lot.amount for lot in lots)
        for lot in lots:
            wallet.lots.append(lot)
            paid = min(wallet.debt, lot.left)
            lot.left -= paid
            wallet.debt -= paid
        self._line(name, kind, wallet, amount, replenished=True)

    def _give_back(self, wallet: Wallet, pieces: Iterable[Draw], at: int) -> None:
        """Each piece to its lot; what is still alive pays the debt first, what has expired stays to expire."""
        for piece in pieces:
            lot = piece.lot
            paid = min(wallet.debt, piece.amount) if lot is None or lot.expires_at is None or lot.expires_at > at else 0
            wallet.debt -= paid
            rest = piece.amount - paid
            if lot is not None:
                lot.left += rest
            elif rest:
                wallet.lots.append(Lot(f"refund/{len(wallet.lots)}", "adjustment", rest, rest, 50, None, at))

    def _refuse(self, name: str, unit: str, reason: str) -> None:
        self.lines.append(Line(name, "rejected", unit, 0, self.balance(name, unit) if unit else 0, reason))

    def _line(
        self,
        name: str,
        kind: str,
        wallet: Wallet,
        amount: int,
        *,
        replenished: bool = False,
        reason: str | None = None,
        draws: Sequence[Draw] = (),
    ) -> None:
        drawn: Counter[str] = Counter()
        for draw in draws:
            drawn["overdraft" if draw.lot is None else draw.lot.kind] += draw.amount
        self.lines.append(Line(name, kind, wallet.unit, amount, wallet.balance, reason, tuple(sorted(drawn.items()))))
        self._watch(name, wallet, replenished=replenished)

    def _watch(self, name: str, wallet: Wallet, *, replenished: bool, left: Sequence[str] = ()) -> None:
        """Rules 25-28: once per crossing; armed again by what replenishes; one `resolved` that lists what was left."""
        resolved = list(left)
        if wallet.touched:
            before, wallet.low_crossed = (
                wallet.low_crossed,
                _next(wallet.low_crossed, wallet.balance <= wallet.low, replenished),
            )
            if wallet.low_crossed and not before:
                self.alarms.append(Alarm(name, wallet.unit, "credit_balance_low", "low"))
            if before and not wallet.low_crossed:
                resolved.append("low")
            before, wallet.depleted = wallet.depleted, _next(wallet.depleted, wallet.balance <= 0, replenished)
            if wallet.depleted and not before:
                self.alarms.append(Alarm(name, wallet.unit, "credit_balance_depleted", "depleted"))
            if before and not wallet.depleted:
                self.alarms.append(Alarm(name, wallet.unit, "credit_balance_restored", "depleted"))
        for rule_id, rule in wallet.rules.items():
            before, rule.crossed = rule.crossed, _next(rule.crossed, _met(wallet, rule), replenished)
            if rule.crossed and not before:
                self.alarms.append(Alarm(name, wallet.unit, "credit_threshold_crossed", rule_id))
            if before and not rule.crossed:
                resolved.append(rule_id)
        if resolved:
            self.alarms.append(Alarm(name, wallet.unit, "credit_resolved", "resolved", frozenset(resolved)))


def _next(crossed: bool, on_or_over: bool, replenished: bool) -> bool:
    return on_or_over or (crossed and not replenished)


def _met(wallet: Wallet, rule: Rule) -> bool:
    """Whether the line is reached: on the line counts."""
    match rule.kind:
        case "balance_at_or_below":
            return wallet.balance <= rule.level
        case "used_percent":
            used = Fraction(100) if wallet.allocation <= 0 else Fraction(100 * wallet.used, wallet.allocation)
            return used >= Fraction(rule.level, NANOS)
        case "left_percent":
            return wallet.allocation <= 0 or Fraction(100 * wallet.balance, wallet.allocation) <= Fraction(
                rule.level, NANOS
            )
        case "month_spend_above":
            return wallet.used >= rule.level
        case _:
            raise ValueError(rule.kind)


def _would_turn(wallet: Wallet) -> bool:
    """A turn that changes nothing takes no entry."""
    monthly = any(lot.monthly and lot.left for lot in wallet.lots)
    return bool(wallet.used or wallet.allocation != wallet.balance or wallet.allowance or monthly)


def _last_drawn(draws: Sequence[Draw], already: int, amount: int) -> list[Draw]:
    """The pieces of the next `amount` to give back, after `already`."""
    back = []
    for draw in reversed(draws):
        skipped = min(already, draw.amount)
        already -= skipped
        part = min(amount, draw.amount - skipped)
        amount -= part
        if part:
            back.append(Draw(draw.lot, part))
    return back


def _month(at: int, zone: str) -> int:
    local = (EPOCH + timedelta(microseconds=at)).astimezone(ZoneInfo(zone))
    return local.year * 12 + local.month - 1


def _starts(month: int, zone: str) -> int:
    year, number = divmod(month, 12)
    first = datetime(year, number + 1, 1, tzinfo=ZoneInfo(zone))
    return (first.astimezone(UTC) - EPOCH) // timedelta(microseconds=1)
