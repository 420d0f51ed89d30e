"""What the rules say must happen, worked out anew from the rules: a slow, plain model to hold the ledger against.

It shares no code with the ledger, keeps no clever order, remembers everything and computes with fractions. Product
rules 1-23, 25-28 and 33 are in it, but for days of credit left (26) and what is told of expiries to come (25). Where
the contract is silent it follows the decisions in streams/ledger/README.md.

An operation returns the lines that it must cause; lines of amount 0 that only note something (a month begun, a transfer
acknowledged) are not predicted. What must be said of alerts is their kind and rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

from tests.model.audited import (
    NANOS,
    Budget,
    Draw,
    Hold,
    Limit,
    Lot,
    Org,
    Parcel,
    Rule,
    Scope,
    Topup,
    Usage,
    Wallet,
    month_of,
    month_starts,
    window_of,
    window_starts,
)
from tests.model.audited_rates import Price, Work, rate

NOTHING_LEFT = "unknown_purchase or exceeds_refundable"
ARRIVED = "transfer/"
"""What the names of lots that came from elsewhere begin with; the rest of their names is the ledger's affair."""
REFUND_WINDOW_US = 35 * 86_400 * 1_000_000
HOLD_MAX_US = 86_400 * 1_000_000
TOPUP_AMOUNT_MAX = 100_000 * NANOS
REFUSED_HOLDS = {"credits_not_available": "insufficient_credits"}
"""What the ledger says where the answer to a hold has another word."""
LOW_CREDIT = frozenset({"low_credit_limit"})
NOBODY: Scope = frozenset()


class Unbookable(Exception):  # noqa: N818 - says what the record is
    """The record is a dead letter with this code."""


@dataclass(frozen=True)
class Line:
    """A ledger entry as predicted. `drawn`: what each kind of grant gave (below 0: got back)."""

    org: str
    kind: str
    unit: str
    amount: int
    balance: int
    held: int = 0
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


@dataclass(frozen=True)
class Decision:
    """The answer to a hold. `limits`: the limits of which the answer names one; none: it names none."""

    org: str
    hold: str
    action: str
    code: str
    granted: int
    available: int
    limits: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Request:
    """A request for credits (rule 20)."""

    org: str
    unit: str
    amount: int
    again: bool


class Auditor:
    """The model. Every operation settles the org first, as the ledger must (time is the log's)."""

    def __init__(self, prices: Iterable[Price] = ()) -> None:
        self.prices = list(prices)
        self.orgs: dict[str, Org] = {}
        self.parcels: dict[str, Parcel] = {}
        self.lines: list[Line] = []
        self.alarms: list[Alarm] = []
        self.decisions: list[Decision] = []
        self.requests: list[Request] = []
        self._again: dict[tuple[str, str], bool] = {}
        """Whether the last charge of a wallet failed."""

    def forget(self) -> None:
        """Begin a new page of predictions."""
        for page in (self.lines, self.alarms, self.decisions, self.requests):
            page.clear()

    def org(self, name: str) -> Org:
        return self.orgs.setdefault(name, Org())

    def look(self, name: str, unit: str) -> Wallet:
        """The wallet, or what one that nobody has set up looks like."""
        return self.org(name).wallets.get(unit) or Wallet(unit, 0)

    # --- usage

    def use(
        self,
        name: str,
        event_id: str,
        unit: str,
        cost: int,
        at: int,
        scope: Scope = NOBODY,
        hold: str | None = None,
    ) -> None:
        """Usage is always booked, into the negative if need be (rule 16); one that names a hold resolves it."""
        self.settle(name, at)
        org = self.org(name)
        found = None if hold is None else org.hold(hold)
        self._book(name, event_id, unit, cost, at, scope, found)
        if found is not None:
            self._decide(name, found[1].name, "capture", "ok", found[0].unit, cost)
        self.settle(name, at)

    def work(self, name: str, event_id: str, work: Work, at: int, scope: Scope = NOBODY) -> None:
        """Usage that the price list rates (rules 7 to 10)."""
        self.settle(name, at)
        org = self.org(name)
        rated = rate([*self.prices, *org.prices.values()], at, work, org.tier)
        if rated is None:
            raise Unbookable("unknown_price")
        self.use(name, event_id, rated[1], rated[0], at, scope)

    def correct(
        self,
        name: str,
        event_id: str,
        revision: int,
        unit: str,
        cost: int | None,
        at: int,
        scope: Scope = NOBODY,
    ) -> None:
        """Rule 23: what was booked is unwound, the new is booked; a `cost` of None voids."""
        self.settle(name, at)
        org = self.org(name)
        usage = org.usages.get(event_id)
        if usage is None and cost is not None:
            self._book(name, event_id, unit, cost, at, scope, None, revision)
            self.settle(name, at)
            return
        if usage is None or usage.at + REFUND_WINDOW_US < at:
            self._refuse(name, unit, "unknown_usage")
            return
        if revision <= usage.revision:
            raise Unbookable("duplicate_with_different_content")
        rest = sum(draw.amount for draw in usage.draws) - usage.refunded
        # An amendment within one wallet and its budgets is one change: lines are judged at its end.
        once = bool(cost) and rest > 0 and (unit, scope) == (usage.unit, usage.scope)
        self._unwind(name, usage, rest, at, "correction", judged=not once)
        org.usages[event_id] = Usage(usage.unit, at, [], usage.scope, revision)
        if cost is not None:
            self._book(name, event_id, unit, cost, at, scope, None, revision, replenished=once and rest > cost)
        self.settle(name, at)

    def refund_usage(self, name: str, event_id: str, amount: int, at: int, actor: str | None = None) -> None:
        """The slices go back, the last drawn first; at most the usage, in parts (rule 21)."""
        self.settle(name, at)
        usage = self.org(name).usages.get(event_id)
        known = usage is not None and usage.at + REFUND_WINDOW_US >= at
        unit = usage.unit if usage is not None and known else ""
        if not self._may_pay(name, actor):
            self._refuse(name, unit, "not_authorized")
            return
        if usage is None or not known:
            self._refuse(name, "", "unknown_usage")
            return
        if usage.refunded + amount > sum(draw.amount for draw in usage.draws):
            self._refuse(name, unit, "exceeds_refundable")
            return
        self._unwind(name, usage, amount, at, "refund")
        usage.refunded += amount
        self.settle(name, at)

    def _book(
        self,
        name: str,
        event_id: str,
        unit: str,
        cost: int,
        at: int,
        scope: Scope,
        hold: tuple[Wallet, Hold] | None,
        revision: int = 0,
        replenished: bool = False,
    ) -> None:
        """The usage, which takes from the hold what is set aside there; then the rest of the hold comes free."""
        org = self.org(name)
        wallet = self._wallet(org, unit, at)
        draws = self._draw(wallet, cost)
        org.usages[event_id] = Usage(unit, at, draws, scope, revision)
        wallet.used += cost
        wallet.spent += _paid(draws)
        wallet.touched = wallet.touched or bool(cost)
        if hold is not None and hold[0] is wallet and cost:
            hold[1].left -= min(cost, hold[1].left)
            if not hold[1].left:
                self._resolve(org, *hold)
        charged = self._charge(org, wallet, scope, cost, at) if cost else []
        self._line(name, "usage", wallet, -cost, at, replenished=replenished, draws=draws, charged=charged)
        if hold is not None and org.hold(hold[1].name) is not None:
            self._let_go(name, *hold, at, "hold_captured")

    def _unwind(self, name: str, usage: Usage, amount: int, at: int, kind: str, *, judged: bool = True) -> None:
        """`amount` of a usage counts no longer: not as used, nor as spent, nor in budgets whose window is open."""
        org = self.org(name)
        wallet = self._wallet(org, usage.unit, at)
        back = _last_drawn(usage.draws, usage.refunded, amount)
        wallet.used -= amount
        wallet.spent -= _paid(back)
        charged = []
        for budget in wallet.about(usage.scope):
            self._enter(org, budget, at)
            if usage.at >= window_starts(budget.window, budget.number, org.zone):
                budget.spent -= amount
                charged.append(budget)
        if amount:
            wallet.touched = True
        self._give_back(wallet, back, at)
        self._say(name, kind, wallet, amount)
        if judged:
            self._watch(name, wallet, at, replenished=amount > 0, charged=charged)

    # --- holds

    def place(
        self,
        name: str,
        hold: str,
        unit: str,
        amount: int,
        at: int,
        scope: Scope = NOBODY,
        operation: str | None = None,
        on_shortage: str = "reject",
        ends_at: int | None = None,
    ) -> None:
        """Rules 17, 18: credits are set aside, or the first limit in the way is named."""
        self.settle(name, at)
        org = self.org(name)
        if org.hold(hold) is not None:
            raise Unbookable("duplicate_with_different_content")
        if amount <= 0:
            raise Unbookable("invalid_field")
        if hold in org.resolved:
            self._refuse_hold(name, hold, "place", unit, "already_resolved")
            return
        code, room, limits = self._admit(name, unit, amount, at, scope, operation)
        granted: int | None = 0 if code == "free" else amount
        if code not in ("ok", "free"):
            short = code in ("credits_held", "credits_not_available") and not limits
            if on_shortage == "overflow" and short:
                granted = amount
            elif on_shortage == "cap" and (short or code == "limit_reached") and room > 0:
                granted = room
            else:
                granted = None
        if granted is None:
            self._refuse_hold(name, hold, "place", unit, code, limits)
            return
        latest = at + HOLD_MAX_US
        wallet = self._wallet(org, unit, at)
        wallet.holds[hold] = Hold(hold, granted, latest if ends_at is None else min(latest, ends_at), scope)
        self._line(name, "hold", wallet, 0, at)
        self._decide(name, hold, "place", "ok", unit, granted)
        self.settle(name, at)

    def capture(self, name: str, hold: str, unit: str, amount: int, at: int) -> None:
        """Less, as much, or more than held; in the hold's wallet, whatever the record names."""
        self.settle(name, at)
        found = self._to_resolve(name, hold, "capture", unit)
        if found is None:
            return
        if amount < 0:
            raise Unbookable("invalid_field")
        wallet, held = found
        self._book(name, hold, wallet.unit, amount, at, held.scope, found)
        self._decide(name, hold, "capture", "ok", wallet.unit, amount)
        self.settle(name, at)

    def release(self, name: str, hold: str, unit: str, at: int) -> None:
        """All of it comes free."""
        self.settle(name, at)
        found = self._to_resolve(name, hold, "release", unit)
        if found is None:
            return
        wallet, held = found
        released = held.left
        self._let_go(name, wallet, held, at, "hold_released")
        self._decide(name, hold, "release", "ok", wallet.unit, released)
        self.settle(name, at)

    def _to_resolve(self, name: str, hold: str, action: str, unit: str) -> tuple[Wallet, Hold] | None:
        org = self.org(name)
        found = org.hold(hold)
        if found is None:
            code = "already_resolved" if hold in org.resolved else "unknown_hold"
            self._refuse_hold(name, hold, action, unit, code)
        return found

    def _let_go(self, name: str, wallet: Wallet, hold: Hold, at: int, reason: str) -> None:
        self._resolve(self.org(name), wallet, hold)
        self._line(name, "hold_release", wallet, 0, at, reason=reason)

    def _resolve(self, org: Org, wallet: Wallet, hold: Hold) -> None:
        del wallet.holds[hold.name]
        org.resolved.add(hold.name)

    def _refuse_hold(
        self, name: str, hold: str, action: str, unit: str, code: str, limits: frozenset[str] = frozenset()
    ) -> None:
        closed = code == "blocked" and self.org(name).closed
        self._refuse(name, unit, "org_closed" if closed else REFUSED_HOLDS.get(code, code))
        self._decide(name, hold, action, code, unit, 0, limits)

    def _decide(
        self,
        name: str,
        hold: str,
        action: str,
        code: str,
        unit: str,
        granted: int,
        limits: frozenset[str] = frozenset(),
    ) -> None:
        available = self.look(name, unit).available
        self.decisions.append(Decision(name, hold, action, code, granted, available, limits))

    def _admit(
        self, name: str, unit: str, amount: int, at: int, scope: Scope, operation: str | None
    ) -> tuple[str, int, frozenset[str]]:
        """Rules 11 to 13, 15, 17: (code, what could be granted, the limits of which one is named)."""
        org, wallet = self.org(name), self.look(name, unit)
        model = dict(scope).get("model")
        if org.closed:
            return "blocked", 0, frozenset()
        if model is not None and not _allowed(org, model):
            return "model_not_allowed", 0, frozenset()
        if operation is not None and self._is_free(org, Work(operation, model), at):
            return "free", 0, frozenset()
        if wallet.stopped:
            return "blocked", 0, frozenset()
        new_work = operation is not None and operation.split(".")[0] == "deployment"
        spendable = wallet.available + (0 if new_work else wallet.negative)
        left = []  # of each limit, in the order in which they decide
        allowed = wallet.limits["allowed_limit"].level
        if allowed is not None:
            left.append(("allowed_limit", 0, allowed - wallet.used - wallet.held))
        for budget in wallet.about(scope):
            spent = budget.spent if budget.number >= window_of(budget.window, at, org.zone) else 0
            aside = sum(hold.left for hold in wallet.holds.values() if budget.scope <= hold.scope)
            left.append((budget.name, 2 if budget.scope else 1, budget.limit - spent - aside))
        room = max(0, min([spendable, *(rest for _, _, rest in left)]))
        hit = [(rank, limit) for limit, rank, rest in left if rest <= 0 or amount > rest]
        if hit:
            first = min(hit)[0]
            return "limit_reached", room, frozenset(limit for rank, limit in hit if rank == first)
        if new_work and wallet.available <= wallet.low_credit:
            return "credits_not_available", 0, LOW_CREDIT
        if spendable <= 0 or amount > spendable:
            enough = wallet.held and spendable + wallet.held >= max(1, amount)
            return "credits_held" if enough else "credits_not_available", room, frozenset()
        return "ok", room, frozenset()

    def _is_free(self, org: Org, work: Work, at: int) -> bool:
        fitting = [price for price in (*self.prices, *org.prices.values()) if price.fits(at, work, org.tier)]
        return bool(fitting) and max(fitting, key=lambda price: price.rank).free

    # --- money

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
        actor: str | None = None,
        answers: int | None = None,
        failed: bool = False,
    ) -> None:
        """Purchases of at least 1 unit, gifts, adjustments both ways; failed charges (rules 4, 19, 20).

        `answers`: the number of the wallet's request for credits that the purchase answers.
        """
        self.settle(name, at)
        org = self.org(name)
        refusal = self._refuse_purchase(name, unit, amount, kind, actor, failed)
        if refusal is not None:
            self._refuse(name, unit, refusal)
            return
        wallet = self._wallet(org, unit, at)
        if failed:
            self.alarms.append(Alarm(name, unit, "credit_purchase_failed", purchase_id))
            self._answer(name, wallet, answers, at, failed)
            self._line(name, "purchase", wallet, 0, at)
            self.settle(name, at)
            return
        wallet.touched = True
        entry_kind = "adjustment" if kind == "adjustment" else "purchase"
        if amount < 0:
            self._line(name, entry_kind, wallet, amount, at, draws=self._draw(wallet, -amount))
        else:
            lot = Lot(f"purchase/{purchase_id}", kind, amount, amount, priority, expires_at, at)
            wallet.allocation += amount
            wallet.added += amount
            if entry_kind == "purchase":
                self._answer(name, wallet, answers, at, failed)
            self._add(name, entry_kind, wallet, [lot], at)
        self.settle(name, at)

    def _refuse_purchase(
        self, name: str, unit: str, amount: int, kind: str, actor: str | None, failed: bool
    ) -> str | None:
        if not self._may_pay(name, actor):
            return "not_authorized"
        if failed:
            return None
        if kind == "adjustment" and amount < 0:
            return "insufficient_credits" if -amount > max(0, self.look(name, unit).available) else None
        return "amount_not_positive" if amount < (NANOS if kind == "purchased" else 1) else None

    def _answer(self, name: str, wallet: Wallet, number: int | None, at: int, failed: bool) -> None:
        """Rule 20: the charge on its way has gone through, or a back-off begins."""
        topup = wallet.topup
        if topup is None or number is None or topup.in_flight != number:
            return
        topup.in_flight = None
        topup.retry_at = at + topup.backoff if failed else None
        self._again[name, wallet.unit] = failed
        if failed:
            topup.charged = max(0, topup.charged - topup.asked)
        else:
            self.alarms.append(Alarm(name, wallet.unit, "credit_auto_recharge_triggered"))

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
        self._line(name, "refund", wallet, -amount, at, draws=[Draw(lot, amount)])
        self.settle(name, at)

    def _may_pay(self, name: str, actor: str | None) -> bool:
        """Nobody named: the payment service. Else an owner, an admin or billing, where members are recorded."""
        members = self.org(name).members
        return actor is None or not members or members.get(actor) in ("owner", "admin", "billing")

    # --- transfers

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
        elif amount > self.look(source, unit).available:
            refusal = "insufficient_credits"
        if refusal is not None:
            self._refuse(source, unit, refusal)
            return
        wallet = self._wallet(org, unit, at)
        draws = self._draw(wallet, amount)
        self.parcels[transfer_id] = Parcel(source, target, unit, actor, wallet.month, draws)
        self._line(source, "transfer_out", wallet, -amount, at, draws=draws)
        self.settle(source, at)

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
        wallet.added += parcel.amount
        self._add(name, "transfer_in", wallet, lots, at)
        del self.parcels[transfer_id]
        self.settle(name, at)
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
        self._line(parcel.source, "transfer_return", wallet, parcel.amount, at, replenished=True)
        self.settle(parcel.source, at)

    def acknowledged(self, source: str, at: int) -> None:
        """Only the source's clock moves: what fell due is settled."""
        self.settle(source, at)

    # --- settings

    def change(self, name: str, kind: str, body: Mapping[str, Any], actor: str, role: str, at: int) -> None:
        """A setting. A body that breaks a rule is refused, as is who may not (rules 12, 33); else it replaces."""
        self.settle(name, at)
        if _breaks_a_rule(kind, body):
            self._refuse(name, "", "invalid_setting")
            return
        if not self._may_set(name, kind, actor, role):
            self._refuse(name, "", "not_authorized")
            return
        org = self.org(name)
        match kind:
            case "org":
                self._set_org(name, body, at)
            case "member" if body["role"] == "none":
                org.members.pop(body["user_id"], None)
            case "member":
                org.members[body["user_id"]] = body["role"]
            case "model_access":
                org.allow, org.deny = tuple(body["allow"]), tuple(body["deny"])
            case "price_override":
                org.prices[body["price_id"]] = _own_price(body, at)
            case _:
                wallet = self._wallet(org, body["unit"], at)
                self._set_in_wallet(name, wallet, kind, body, at)
        self.settle(name, at)

    def _may_set(self, name: str, kind: str, actor: str, role: str) -> bool:
        if role == "system":
            return True
        permitted = ("owner", "admin", "billing") if kind == "auto_topup" else ("owner", "admin")
        members = self.org(name).members
        return role in permitted and (not members or members.get(actor) in permitted)

    def _set_org(self, name: str, body: Mapping[str, Any], at: int) -> None:
        """Months and windows end by the new zone, and never go back."""
        org, zone = self.org(name), body["time_zone"]
        org.set_up = True
        org.closed, org.administrators, org.tier = body["closed"], tuple(body["administrators"]), body.get("tier")
        if zone != org.zone:
            org.zone = zone
            for wallet in org.wallets.values():
                for lot in wallet.lots:
                    if lot.monthly:
                        lot.expires_at = month_starts(wallet.month + 1, zone)
        for wallet in org.wallets.values():
            self._ask(name, wallet, at)

    def _set_in_wallet(self, name: str, wallet: Wallet, kind: str, body: Mapping[str, Any], at: int) -> None:
        match kind:
            case "wallet":
                self._set_wallet(name, wallet, body, at)
            case "thresholds":
                self._set_rules(name, wallet, body, at)
            case "month_limits":
                self._set_limits(name, wallet, body, at)
            case "budget":
                self._set_budget(name, wallet, body, at)
            case "auto_topup":
                self._set_topup(name, wallet, body, at)
            case _:
                raise ValueError(kind)

    def _set_wallet(self, name: str, wallet: Wallet, body: Mapping[str, Any], at: int) -> None:
        """The allowance of this month is granted when one is first set; a change counts from the next month."""
        line, negative = wallet.low_line, wallet.negative
        wallet.allowance, wallet.rollover_max = _nanos(body["allowance"]), _nanos(body["rollover_max"])
        wallet.low = _nanos(body["low_balance_threshold"])
        wallet.low_credit = _nanos(body["low_credit_limit"])
        wallet.negative = abs(_nanos(body["negative_limit"]))
        left = self._low_line_moved(wallet, line)
        if wallet.negative != negative:
            if wallet.negative_crossed and not wallet.stopped:
                left.append("negative_limit")
            wallet.negative_crossed = False
        self._watch(name, wallet, at, left=left)
        if wallet.granted_month < wallet.month and wallet.allowance:
            self._grant_allowance(name, wallet, wallet.month, at, at)

    def _low_line_moved(self, wallet: Wallet, line: int) -> list[str]:
        """A line that changes is watched anew; the name of one that was crossed and is not any more."""
        if wallet.low_line == line:
            return []
        left = ["low"] if wallet.low_crossed and wallet.available > wallet.low_line else []
        wallet.low_crossed = False
        return left

    def _set_rules(self, name: str, wallet: Wallet, body: Mapping[str, Any], at: int) -> None:
        """One that stays the same keeps its state."""
        old, wallet.rules = wallet.rules, {}
        for wanted in body["rules"]:
            rule = Rule(wanted["type"], _nanos(wanted["level"]))
            before = old.get(wanted["rule_id"])
            if before is not None and (before.kind, before.level) == (rule.kind, rule.level):
                rule.crossed = before.crossed
            wallet.rules[wanted["rule_id"]] = rule
        alarmed = {rule_id for rule_id, rule in wallet.rules.items() if rule.crossed or _met(wallet, rule)}
        left = [rule_id for rule_id, rule in old.items() if rule.crossed and rule_id not in alarmed]
        self._watch(name, wallet, at, left=left)

    def _set_limits(self, name: str, wallet: Wallet, body: Mapping[str, Any], at: int) -> None:
        """Rule 12."""
        left = []
        for limit_id, limit in wallet.limits.items():
            text = body.get(limit_id)
            level = None if text is None else _nanos(text)
            if limit.crossed and (level is None or wallet.used < level):
                left.append(limit_id)
            if level != limit.level:
                wallet.limits[limit_id] = Limit(level)
        self._watch(name, wallet, at, left=left)

    def _set_budget(self, name: str, wallet: Wallet, body: Mapping[str, Any], at: int) -> None:
        """Rule 11: a budget counts from when it is set; the same one goes on counting."""
        org = self.org(name)
        scope: Scope = frozenset(body["scope"].items())
        number = window_of(body["window"], at, org.zone)
        budget = Budget(body["budget_id"], scope, body["window"], _nanos(body["limit"]), number)
        if not scope and budget.window == "month":
            budget.spent = wallet.used
        found = org.budget(budget.name)
        left = []
        if found is not None:
            place, old = found
            self._enter(org, old, at)
            del place.budgets[old.name]
            if (place.unit, old.scope, old.window) == (wallet.unit, scope, budget.window):
                budget.spent, budget.number = old.spent, old.number
                budget.crossed = old.crossed and old.limit == budget.limit
            if old.crossed and place is not wallet:
                self._watch(name, place, at, left=[old.name])
            elif old.crossed and budget.spent < budget.limit:
                left = [old.name]
        wallet.budgets[budget.name] = budget
        self._watch(name, wallet, at, left=left, charged=[budget])

    def _set_topup(self, name: str, wallet: Wallet, body: Mapping[str, Any], at: int) -> None:
        """A charge on its way stays on its way, and what was charged this month counts."""
        line, old = wallet.low_line, wallet.topup
        cap = body.get("monthly_cap")
        wallet.topup = Topup(
            body["enabled"],
            _nanos(body["threshold"]),
            _nanos(body["purchase_amount"]),
            None if cap is None else _nanos(cap),
            body["backoff_seconds"] * 1_000_000,
        )
        if old is not None:
            wallet.topup.requests, wallet.topup.in_flight = old.requests, old.in_flight
            wallet.topup.asked, wallet.topup.charged = old.asked, old.charged
            wallet.topup.retry_at = old.retry_at
        self._watch(name, wallet, at, left=self._low_line_moved(wallet, line))

    # --- time

    def settle(self, name: str, at: int) -> None:
        """Everything due at or before `at`, in order of time.

        At one instant: the month turns, grants expire, holds time out, windows end, a back-off is over.
        """
        org = self.org(name)
        while True:
            due = [
                (month_starts(wallet.month + 1, org.zone), 0, wallet.unit, "")
                for wallet in org.wallets.values()
                if wallet.turns()
            ]
            due += [
                (lot.expires_at, 1, wallet.unit, "")
                for wallet in org.wallets.values()
                for lot in wallet.lots
                if lot.left and lot.expires_at is not None and not self._lapses(org, wallet, lot)
            ]
            due += [(hold.ends_at, 3, wallet.unit, hold.name) for wallet, hold in org.holds()]
            due += [
                (window_starts(budget.window, budget.number + 1, org.zone), 4, wallet.unit, budget.name)
                for wallet in org.wallets.values()
                for budget in wallet.budgets.values()
                if budget.crossed
            ]
            due += [
                (wallet.topup.retry_at, 6, wallet.unit, "")
                for wallet in org.wallets.values()
                if wallet.topup is not None and wallet.topup.retry_at is not None and _wants(org, wallet)
            ]
            due = [each for each in due if each[0] <= at]
            if not due:
                return
            when, what, unit, subject = min(due)
            self._happens(name, org.wallets[unit], when, what, subject)

    def _happens(self, name: str, wallet: Wallet, when: int, what: int, subject: str) -> None:
        if what:  # a turn that changes nothing is caught up with
            self._wallet(self.org(name), wallet.unit, when)
        match what:
            case 0:
                self._turn(name, self.org(name), wallet)
            case 1:
                self._expire(name, wallet, when)
            case 3:
                self._let_go(name, wallet, wallet.holds[subject], when, "hold_timed_out")
            case 4:
                budget = wallet.budgets[subject]
                budget.number, budget.spent, budget.crossed = budget.number + 1, 0, False
                self._watch(name, wallet, when, left=[subject])
            case _:
                assert wallet.topup is not None
                wallet.topup.retry_at = None
                self._ask(name, wallet, when)

    def _lapses(self, org: Org, wallet: Wallet, lot: Lot) -> bool:
        return lot.monthly and lot.expires_at == month_starts(wallet.month + 1, org.zone)

    def _turn(self, name: str, org: Org, wallet: Wallet) -> None:
        """Rule 5: the roll-over up to its limit, the rest lapses, the new allowance; then lines are judged."""
        turned_at = month_starts(wallet.month + 1, org.zone)
        month = wallet.month + 1
        old = [lot for lot in wallet.order() if lot.monthly and (lot.expires_at or 0) <= turned_at]
        wallet.month = month
        for lot in wallet.lots:
            lot.current = False
        keep, carried = wallet.rollover_max, 0
        for lot in reversed(old):
            part = min(keep, lot.left)
            lot.left -= part
            keep -= part
            carried += part
        if carried:
            ends_at = month_starts(month + 1, org.zone)
            wallet.lots.append(
                Lot(f"rolled/{wallet.unit}/{month}", "allowance", carried, carried, 50, ends_at, turned_at, True)
            )
        wallet.used = 0
        going = sum(lot.left for lot in wallet.lots if lot.expires_at is not None and lot.expires_at <= turned_at)
        wallet.allocation = wallet.balance - going
        if wallet.topup is not None:
            wallet.topup.charged, wallet.topup.capped = 0, False
        lapsed = sum(lot.left for lot in old)
        for lot in old:
            lot.left = 0
        if lapsed:
            self._say(name, "expiry", wallet, -lapsed, "allowance_lapsed")
        if wallet.allowance:
            self._grant_allowance(name, wallet, month, turned_at, turned_at)
        else:
            self._watch(name, wallet, turned_at, replenished=True)

    def _grant_allowance(self, name: str, wallet: Wallet, month: int, created: int, at: int) -> None:
        ends_at = month_starts(month + 1, self.org(name).zone)
        amount = wallet.allowance
        lot = Lot(f"allowance/{wallet.unit}/{month}", "allowance", amount, amount, 50, ends_at, created, True, True)
        wallet.granted_month = month
        wallet.allocation += wallet.allowance
        wallet.touched = True
        self._add(name, "allowance", wallet, [lot], at)

    def _expire(self, name: str, wallet: Wallet, when: int) -> None:
        """Rule 4; several at one instant go in draw-down order, each by itself."""
        org = self.org(name)
        lot = next(lot for lot in wallet.order() if lot.expires_at == when and not self._lapses(org, wallet, lot))
        amount, lot.left = lot.left, 0
        if lot.kind == "promotional":
            self.alarms.append(
                Alarm(name, wallet.unit, "credit_free_expired", lot.name.partition(ARRIVED)[1] or lot.name)
            )
        self._line(name, "expiry", wallet, -amount, when, reason="grant_expired")

    def _ask(self, name: str, wallet: Wallet, at: int) -> None:
        """Rule 20: at or below the threshold, one charge at a time, not during a back-off, never over the cap."""
        topup = wallet.topup
        if topup is None or not _wants(self.org(name), wallet):
            return
        if topup.retry_at is not None and at < topup.retry_at:
            return
        if topup.cap is not None and topup.charged + topup.amount > topup.cap:
            if not topup.capped:
                topup.capped = True
                self.alarms.append(Alarm(name, wallet.unit, "credit_auto_recharge_capped", "monthly_cap"))
            return
        topup.requests += 1
        topup.in_flight, topup.asked, topup.retry_at = topup.requests, topup.amount, None
        topup.charged += topup.amount
        again = self._again.get((name, wallet.unit), False)
        self.requests.append(Request(name, wallet.unit, topup.amount, again))

    # --- parts

    def _wallet(self, org: Org, unit: str, at: int) -> Wallet:
        """The wallet, in the month of `at` (what a turn changes has been settled before)."""
        wallet = org.wallets.get(unit)
        if wallet is None:
            wallet = org.wallets[unit] = Wallet(unit, month_of(at, org.zone))
        wallet.month = max(wallet.month, month_of(at, org.zone))
        return wallet

    def _enter(self, org: Org, budget: Budget, at: int) -> None:
        """A new window begins with nothing spent; one that ends while it is reached has been settled before."""
        number = window_of(budget.window, at, org.zone)
        if number > budget.number and not budget.crossed:
            budget.number, budget.spent = number, 0

    def _charge(self, org: Org, wallet: Wallet, scope: Scope, cost: int, at: int) -> list[Budget]:
        charged = wallet.about(scope)
        for budget in charged:
            self._enter(org, budget, at)
            budget.spent += cost
        return charged

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

    def _add(self, name: str, kind: str, wallet: Wallet, lots: Sequence[Lot], at: int) -> None:
        """New credits pay the debt first, the first lot first."""
        amount = sum(lot.amount for lot in lots)
        wallet.funded = True
        for lot in lots:
            wallet.lots.append(lot)
            paid = min(wallet.debt, lot.left)
            lot.left -= paid
            wallet.debt -= paid
        self._line(name, kind, wallet, amount, at, replenished=True)

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
        wallet = self.look(name, unit)
        self.lines.append(Line(name, "rejected", unit, 0, wallet.balance, wallet.held, reason))

    def _line(
        self,
        name: str,
        kind: str,
        wallet: Wallet,
        amount: int,
        at: int,
        *,
        replenished: bool = False,
        reason: str | None = None,
        draws: Sequence[Draw] = (),
        charged: Sequence[Budget] = (),
    ) -> None:
        self._say(name, kind, wallet, amount, reason, draws)
        self._watch(name, wallet, at, replenished=replenished, charged=charged)

    def _say(
        self,
        name: str,
        kind: str,
        wallet: Wallet,
        amount: int,
        reason: str | None = None,
        draws: Sequence[Draw] = (),
    ) -> None:
        """An entry, before lines are judged."""
        drawn: Counter[str] = Counter()
        for draw in draws:
            drawn["overdraft" if draw.lot is None else draw.lot.kind] += draw.amount
        told = tuple(sorted(drawn.items()))
        self.lines.append(Line(name, kind, wallet.unit, amount, wallet.balance, wallet.held, reason, told))

    def _watch(
        self,
        name: str,
        wallet: Wallet,
        at: int,
        *,
        replenished: bool = False,
        left: Sequence[str] = (),
        charged: Sequence[Budget] = (),
    ) -> None:
        """Rules 12, 15, 25-28: once per crossing; armed again by what replenishes; one `resolved` that lists what was
        left. Then credits are asked for, if it is time."""
        resolved = list(left)

        def judge(crossed: bool, on_or_over: bool, kind: str, rule: str) -> bool:
            now = on_or_over or (crossed and not replenished)
            if now and not crossed:
                self.alarms.append(Alarm(name, wallet.unit, kind, rule))
            if crossed and not now and rule != "depleted":
                resolved.append(rule)
            return now

        if wallet.touched:
            low, available = wallet.low_line, wallet.available
            wallet.low_crossed = judge(wallet.low_crossed, available <= low, "credit_balance_low", "low")
            before, empty = wallet.depleted, wallet.balance <= 0
            wallet.depleted = judge(before, empty, "credit_balance_depleted", "depleted")
            if before and not wallet.depleted:
                self.alarms.append(Alarm(name, wallet.unit, "credit_balance_restored", "depleted"))
            if wallet.negative:
                kind, crossed = "credit_negative_limit_crossed", wallet.negative_crossed
                wallet.negative_crossed = judge(crossed, wallet.stopped, kind, "negative_limit")
        for limit_id, limit in wallet.limits.items():
            if limit.level is not None:
                kind = "credit_limit_alert" if limit_id == "alert_threshold" else "credit_limit_reached"
                limit.crossed = judge(limit.crossed, wallet.used >= limit.level, kind, limit_id)
        for rule_id, rule in wallet.rules.items():
            rule.crossed = judge(rule.crossed, _met(wallet, rule), "credit_threshold_crossed", rule_id)
        for budget in charged:
            budget.crossed = judge(budget.crossed, budget.spent >= budget.limit, "budget_reached", budget.name)
        if resolved:
            self.alarms.append(Alarm(name, wallet.unit, "credit_resolved", "resolved", frozenset(resolved)))
        self._ask(name, wallet, at)


def status(org: Org, wallet: Wallet) -> str:
    """Rule 14, the worst that holds."""
    allowed = wallet.limits["allowed_limit"].level
    reached = allowed is not None and wallet.used >= allowed
    reached = reached or any(budget.spent >= budget.limit for budget in wallet.about(NOBODY))
    if org.closed or wallet.stopped:
        return "blocked"
    if reached:
        return "limit_reached"
    if wallet.balance < 0:
        return "negative"
    if wallet.balance == 0 and wallet.funded:
        return "depleted"
    return "low" if wallet.available <= wallet.low_line else "ok"


def _allowed(org: Org, model: str) -> bool:
    """Rule 11: what `allow` matches and `deny` does not."""
    return any(fnmatchcase(model, each) for each in org.allow) and not any(
        fnmatchcase(model, each) for each in org.deny
    )


def _wants(org: Org, wallet: Wallet) -> bool:
    topup = wallet.topup
    on = topup is not None and topup.enabled and topup.in_flight is None and not org.closed
    return on and topup is not None and wallet.available <= topup.threshold


def _nanos(text: str) -> int:
    amount = Fraction(text) * NANOS
    assert amount.denominator == 1
    return amount.numerator


def _breaks_a_rule(kind: str, body: Mapping[str, Any]) -> bool:
    """Rules 12, 20 and 26: bodies whose shape is right, and which are refused all the same."""
    match kind:
        case "month_limits":
            alert, allowed = body.get("alert_threshold"), body.get("allowed_limit")
            return alert is not None and allowed is not None and _nanos(alert) > _nanos(allowed)
        case "auto_topup":
            amount = _nanos(body["purchase_amount"])
            fine = NANOS <= amount <= TOPUP_AMOUNT_MAX and _nanos(body["threshold"]) <= amount
            return bool(body["enabled"]) and not fine
        case "thresholds":
            return len(body["rules"]) > 20
        case _:
            return False


def _own_price(body: Mapping[str, Any], at: int) -> Price:
    return Price(
        body["price_id"],
        body["operation"],
        _nanos(body["unit_price"]),
        body["billing_unit"],
        body["wallet"],
        body.get("valid_from", at),
        body.get("valid_to"),
        body.get("model"),
        free=body.get("free", False),
        own=True,
    )


def _paid(draws: Iterable[Draw]) -> int:
    """What counts as spent over the wallet's life: all but what an allowance gave."""
    return sum(draw.amount for draw in draws if draw.lot is None or draw.lot.kind != "allowance")


def _met(wallet: Wallet, rule: Rule) -> bool:
    """Whether the line is reached: on the line counts."""
    match rule.kind:
        case "balance_at_or_below":
            return wallet.available <= rule.level
        case "used_percent":
            used = Fraction(100) if wallet.allocation <= 0 else Fraction(100 * wallet.used, wallet.allocation)
            return used >= Fraction(rule.level, NANOS)
        case "left_percent":
            return wallet.allocation <= 0 or Fraction(100 * wallet.available, wallet.allocation) <= Fraction(
                rule.level, NANOS
            )
        case "month_spend_above":
            return wallet.used >= rule.level
        case _:
            raise ValueError(rule.kind)


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
