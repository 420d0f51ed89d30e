"""The fold of the ledger topic, from its first entry, with the checks that each entry must pass.

Rules of this file, in plain arithmetic on what the contract says of an entry:
1. `seq` of an org is 1, 2, 3… without gaps (and an entry with a number that was there before is reported).
2. `balance` = balance before + `amount`; `amount` = sum of `grants` added − sum of `slices` drawn.
3. `available` = `balance` − `held`, and `held` is the sum of the open holds: placing one adds what it sets aside, usage
   that names it takes at most its cost from it, a release takes the rest. A hold is placed once and ends once.
4. No grant is drawn below zero. What no grant covers is the overdraft; grants less the overdraft are the balance.
5. An id has one effect within its window: no two entries of one org that share kind, topic, cause and revision, where
   the kind allows one only, are recorded less than the window apart (decision 7, exact memory of ids). After
   it the id stands for something of its own.
   (The capture of a hold is usage whose cause is the hold's record: its id may be that of a usage event as well.)
6. A transfer that left arrives once or returns once, with the same amount. What did neither is on the way. The source
   notes the arrival once, by a `transfer_out` of 0; it does not note one of a transfer that returned. An id that is
   used again after its window makes a transfer of its own (`transfers`).
7. Every unit adds up: in + spent + taken back + expired + moved = what the wallets hold; moved = −(on the way).
8. What a wallet is shown to have on the way is what its own org's entries tell: from the entry that it left with to
   the one that notes its arrival, or its return (product rule 22). By the entries of both orgs (rule 6) it may be
   less: what has arrived is on the way no more, noted or not.
9. The components of a usage add up to its cost, and what they count is never taken back twice (`components`).

Amounts are ints of any size: nothing overflows here, whatever the ledger wrote.
"""

from __future__ import annotations

import itertools
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from schemas.enums import OVERDRAFT_GRANT_ID, EntryKind, GrantKind
from schemas.topics import Topics
from streams.verify.components import ComponentFold
from streams.verify.transfers import TransferFold, Transfers

HOUR_US = 3_600_000_000
DIFFERENCES_MAX = 1_000
"""More are counted, not kept."""

# Kinds that the units' sums are split by (rule 7).
IN = {EntryKind.PURCHASE, EntryKind.ALLOWANCE, EntryKind.ROLLOVER, EntryKind.ADJUSTMENT}
SPENT = {EntryKind.USAGE, EntryKind.CORRECTION}
MOVED = {EntryKind.TRANSFER_OUT, EntryKind.TRANSFER_IN, EntryKind.TRANSFER_RETURN}
STILL = {EntryKind.HOLD, EntryKind.HOLD_RELEASE, EntryKind.SETTING, EntryKind.REJECTED}
"""Kinds that never change a settled balance."""
ONCE = {
    EntryKind.USAGE,
    EntryKind.PURCHASE,
    EntryKind.REFUND,
    EntryKind.TRANSFER_OUT,
    EntryKind.TRANSFER_IN,
    EntryKind.TRANSFER_RETURN,
}
"""Kinds of which one cause makes one entry at most, while its id is remembered (rule 5)."""

COLUMNS = (
    "org_id",
    "seq",
    "kind",
    "wallet",
    "amount_nanos",
    "balance_nanos",
    "available_nanos",
    "held_nanos",
    "event_id",
    "revision",
    "hold_id",
    "correlation_id",
    "counterparty_org_id",
    "source_topic",
    "recorded_at",
)


@dataclass(frozen=True, slots=True)
class Windows:
    """How long the ledger remembers an id that had an effect, in microseconds: those of the topic of usage, and all
    others (decision 7, exact memory of ids). The defaults are those of the settings."""

    usage_us: int = 72 * HOUR_US
    money_us: int = 35 * 24 * HOUR_US
    usage_topic: str = Topics().name("usage")


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it must be. `code` is stable; `place` says where, `message` what."""

    code: str
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.code} {self.place}: {self.message}"


class Differences:
    """The differences found, the first of them kept."""

    def __init__(self) -> None:
        self.kept: list[Difference] = []
        self.count = 0

    def add(self, code: str, place: str, message: str) -> None:
        """Count one, and keep it while there is room."""
        self.count += 1
        if len(self.kept) < DIFFERENCES_MAX:
            self.kept.append(Difference(code, place, message))


@dataclass(slots=True)
class WalletFold:
    """What the entries say of one wallet. Nano-units."""

    settled: int = 0
    held: int = 0
    overdraft: int = 0
    lifetime_added: int = 0
    lifetime_spent: int = 0
    on_the_way: int = 0
    """What left for other orgs and was not answered, as far as the entries of this org tell."""
    grants: dict[str, int] = field(default_factory=dict)

    @property
    def available(self) -> int:
        """Settled less held."""
        return self.settled - self.held


@dataclass(slots=True)
class OpenHold:
    """A hold that was placed and not resolved; `left` is what it still sets aside, in nano-units."""

    wallet: str
    left: int


@dataclass(slots=True)
class OrgFold:
    """What the entries say of one org."""

    seq: int = 0
    wallets: dict[str, WalletFold] = field(default_factory=dict)
    holds: dict[str, OpenHold] = field(default_factory=dict)
    departed: dict[str, tuple[WalletFold, int]] = field(default_factory=dict)
    """Transfers that left and were not answered, by id: the wallet they left, and how much."""


@dataclass(slots=True)
class Snapshot:
    """An org's wallets at one `seq`: settled, held, lifetime added, lifetime spent, on the way."""

    seq: int
    wallets: dict[str, tuple[int, int, int, int, int]]

    @classmethod
    def of(cls, org: OrgFold) -> Snapshot:
        """As the org stands now."""
        shown = {
            unit: (wallet.settled, wallet.held, wallet.lifetime_added, wallet.lifetime_spent, wallet.on_the_way)
            for unit, wallet in org.wallets.items()
        }
        return cls(org.seq, shown)


class LedgerFold:
    """Folds entries, in the order of each partition. `watched`: org id → `seq` of which a snapshot is wanted;
    `windows`: those of the ledger that wrote them."""

    def __init__(self, watched: dict[str, int] | None = None, windows: Windows | None = None) -> None:
        self._windows = windows or Windows()
        self.orgs: dict[str, OrgFold] = {}
        self.entries = 0
        self.kinds: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.totals: Counter[tuple[str, str]] = Counter()
        """Sum of the amounts, by wallet and kind (refunds as `refund` of usage and `refund_purchase`)."""
        self.differences = Differences()
        self.snapshots: dict[str, Snapshot] = {}
        self.transfers = Transfers(self._windows.money_us)
        self.late_nanos: Counter[str] = Counter()
        """By wallet, debits of transfers that lie beyond the cut."""
        self._watched = watched or {}
        self.causes = array("q")
        """64-bit hashes of (org, event id) of every entry, within this process."""
        self._components = ComponentFold(self.differences.add)
        self._recorded: dict[int, int] = {}
        """When the last effect of each cause was recorded (rule 5)."""

    def add(self, batch: pa.RecordBatch) -> None:
        """Fold the entries of a batch: columns as `schemas.codec.decode_columns("entry", …)` gives them."""
        columns = [batch.column(name).to_pylist() for name in COLUMNS]
        slices = _parts(batch.column("slices"), "kind")
        grants = _parts(batch.column("grants"), "kind")
        reasons = batch.column("reason").to_pylist()
        details = batch.column("details").to_pylist()
        for row, *rest in zip(zip(*columns, strict=True), slices, grants, reasons, details, strict=True):
            self._entry(row, *rest)
        self._components.add(batch)

    def _entry(
        self,
        row: tuple,  # type: ignore[type-arg]
        drawn: list[Part],
        given: list[Part],
        reason: str | None,
        details: str | None,
    ) -> None:
        org_id, seq, kind, unit, amount, balance, available, held, event_id, revision, *more = row
        hold_id, cause, other, topic, at = more
        self.entries += 1
        self.kinds[kind] += 1
        self.causes.append(hash((org_id, event_id)))
        org = self.orgs.get(org_id)
        if org is None:
            org = self.orgs[org_id] = OrgFold()
        if seq != org.seq + 1:
            code = "seq_repeated" if seq <= org.seq else "seq_gap"
            self.differences.add(code, org_id, f"entry {seq} follows entry {org.seq}")
        org.seq = seq
        if kind == EntryKind.REJECTED:
            self.rejected[reason or ""] += 1
        if kind in ONCE and (amount or kind != EntryKind.TRANSFER_OUT):  # a second one of 0 is the acknowledgement
            self._effect_once(org_id, seq, kind, topic, event_id, revision, at)
        if unit:
            wallet = org.wallets.get(unit)
            if wallet is None:
                wallet = org.wallets[unit] = WalletFold()
            change = (
                0 if hold_id is None else self._hold(f"{org_id}:{seq}", org, unit, kind, amount, held, hold_id, details)
            )
            self._money(f"{org_id}:{seq}", wallet, kind, amount, balance, available, held, change)
            self._grants(f"{org_id}:{seq}", wallet, kind, amount, drawn, given, details)
            total_kind = "refund_purchase" if kind == EntryKind.REFUND and amount < 0 else kind
            self.totals[unit, total_kind] += amount
            if kind in MOVED:
                source = other if kind == EntryKind.TRANSFER_IN else org_id
                name = f"{source}/{cause or event_id}"
                if not self.transfers.add(name, unit, kind, amount, at):
                    self.differences.add("transfer_twice", f"{org_id}:{seq}", f"a second {kind} of transfer {name}")
                if kind != EntryKind.TRANSFER_IN:
                    _on_the_way(org, wallet, cause or event_id, kind, amount)
        elif amount:
            self.differences.add("amount_without_wallet", f"{org_id}:{seq}", f"{kind} of {amount} names no wallet")
        if self._watched.get(org_id) == seq:
            self.snapshots[org_id] = Snapshot.of(org)

    def _effect_once(
        self, org_id: str, seq: int, kind: str, topic: str | None, event_id: str, revision: int, at: int
    ) -> None:
        """Rule 5; `at`: when it was recorded, in microseconds.

        Of the causes only a 64-bit hash is kept: two in ten million share one by chance once in 10⁵ runs.
        """
        windows = self._windows
        window_us = windows.usage_us if topic == windows.usage_topic else windows.money_us
        effect = hash((org_id, kind, topic, event_id, revision))
        before = self._recorded.get(effect)
        if before is not None and at - before < window_us:
            self.differences.add("effect_twice", f"{org_id}:{seq}", f"a second {kind} for {event_id}")
        self._recorded[effect] = at

    def _money(
        self,
        place: str,
        wallet: WalletFold,
        kind: str,
        amount: int,
        balance: int,
        available: int,
        held: int,
        change: int,
    ) -> None:
        """Rules 2 (the balance) and 3; `change`: what the entry does to what is held."""
        if amount and kind in STILL:
            self.differences.add("amount_of_kind", place, f"{kind} changes the balance by {amount}")
        if balance != wallet.settled + amount:
            message = f"balance {balance}, but {wallet.settled} before and {amount} in this entry"
            self.differences.add("balance", place, message)
        wallet.settled = balance
        if held != wallet.held + change:
            message = f"{kind} changes what is held from {wallet.held} to {held}, not by {change}"
            self.differences.add("held", place, message)
        wallet.held = held
        if held < 0:
            self.differences.add("held_negative", place, f"held {held}")
        if available != balance - held:
            self.differences.add("available", place, f"available {available} is not balance {balance} less held {held}")

    def _hold(
        self, place: str, org: OrgFold, unit: str, kind: str, amount: int, held: int, hold_id: str, details: str | None
    ) -> int:
        """Rule 3: what an entry about a hold changes of what is held in its wallet."""
        hold = org.holds.get(hold_id)
        match kind:
            case EntryKind.HOLD:
                if hold is not None:
                    self.differences.add("hold_twice", place, f"hold {hold_id} is placed while it is open")
                aside = _stated_amount(details, "amount_nanos")
                if aside is None:
                    aside = held - org.wallets[unit].held
                org.holds[hold_id] = OpenHold(unit, aside)
                return aside
            case EntryKind.USAGE if hold is not None and hold.wallet == unit and amount:
                taken = min(-amount, hold.left)
                hold.left -= taken
                if not hold.left:
                    del org.holds[hold_id]
                return -taken
            case EntryKind.HOLD_RELEASE:
                if hold is None:
                    self.differences.add("hold_released_twice", place, f"hold {hold_id} is not open")
                    return 0
                del org.holds[hold_id]
                return -hold.left
            case _:
                return 0

    def _grants(
        self,
        place: str,
        wallet: WalletFold,
        kind: str,
        amount: int,
        drawn: list[Part],
        given: list[Part],
        details: str | None,
    ) -> None:
        """Rules 2 (the slices) and 4; and what counts as added and spent over the wallet's life.

        How much of what comes back had counted as spent its entry says (`spent_nanos`): the grants that it goes to do
        not tell, where a debt was paid meanwhile. Without that word it is worked out from the grants.
        """
        moved = 0
        spent = 0
        lots = wallet.grants
        returns = kind in (EntryKind.CORRECTION, EntryKind.REFUND) and amount >= 0
        for grant_id, grant_kind, nanos in given:
            moved += nanos
            if returns and grant_kind != GrantKind.ALLOWANCE:  # given back as a grant, for its own is forgotten
                spent -= nanos
            lots[grant_id] = lots.get(grant_id, 0) + nanos
        for grant_id, grant_kind, nanos in drawn:
            moved -= nanos
            if grant_kind != GrantKind.ALLOWANCE:
                spent += nanos
            if grant_id == OVERDRAFT_GRANT_ID:
                wallet.overdraft += nanos
                continue
            left = lots.get(grant_id, 0) - nanos
            if left:
                lots[grant_id] = left
            else:
                lots.pop(grant_id, None)
            if left < 0:
                self.differences.add("grant_negative", place, f"grant {grant_id} would have {left} left")
        if moved != amount:
            self.differences.add("slices", place, f"grants less slices make {moved}, the amount is {amount}")
        stated = _stated_amount(details, "spent_nanos") if returns else None
        if stated is not None:
            if not 0 <= stated <= amount:
                self.differences.add("spent", place, f"{amount} come back, of which {stated} are said to be spent")
            spent = -stated
        if kind in SPENT or returns:
            wallet.lifetime_spent += spent
        elif kind in (EntryKind.PURCHASE, EntryKind.TRANSFER_IN) or (kind == EntryKind.ADJUSTMENT and amount > 0):
            wallet.lifetime_added += amount

    def late_departure(self, transfer: TransferFold, amount: int) -> None:
        """The debit of a transfer whose credit is folded was found beyond the cut: take it as folded."""
        transfer.out_nanos = amount
        self.late_nanos[transfer.wallet] += amount

    def unfinished(self) -> Iterator[tuple[str, TransferFold]]:
        """The transfers on the way."""
        return ((name, each) for name, each in self.transfers if each.on_the_way)

    def finish(self) -> None:
        """The checks that need the whole ledger: grants against balances, transfers, and the sum of each unit."""
        for org_id, org in self.orgs.items():
            for unit, wallet in org.wallets.items():
                covered = sum(wallet.grants.values()) - wallet.overdraft
                if covered != wallet.settled:
                    message = f"grants less overdraft are {covered}, the balance {wallet.settled}"
                    self.differences.add("grants", f"{org_id} {unit}", message)
                aside = sum(hold.left for hold in org.holds.values() if hold.wallet == unit)
                if aside != wallet.held:
                    self.differences.add("held", f"{org_id} {unit}", f"open holds are {aside}, held is {wallet.held}")
                if wallet.overdraft < 0:
                    self.differences.add("overdraft_negative", f"{org_id} {unit}", f"overdraft {wallet.overdraft}")
        for transfer_id, transfer in self.transfers:
            self._transfer_ends_once(transfer_id, transfer)
        for row in self.conservation():
            if row.left_over:
                self.differences.add("conservation", row.unit, f"{row.left_over} nano-units too many: {row}")

    def _transfer_ends_once(self, transfer_id: str, transfer: TransferFold) -> None:
        out = transfer.out_nanos
        ends = [nanos for nanos in (transfer.in_nanos, transfer.return_nanos) if nanos is not None]
        if out is None:
            self.differences.add("transfer_from_nowhere", transfer_id, "credits arrived that never left")
        elif len(ends) > 1 or (transfer.acknowledged and transfer.return_nanos is not None):
            self.differences.add("transfer_twice", transfer_id, "arrived and returned")
        elif ends and ends[0] != -out:
            self.differences.add("transfer_amount", transfer_id, f"{-out} left, {ends[0]} arrived")

    def conservation(self) -> list[UnitSum]:
        """The sum of each unit, from the ledger's kinds on one side and its wallets and transfers on the other."""
        rows: dict[str, UnitSum] = {}
        for (unit, kind), nanos in self.totals.items():
            row = rows.setdefault(unit, UnitSum(unit))
            if kind in IN:
                row.added += nanos
            elif kind in SPENT or kind == EntryKind.REFUND:
                row.spent += nanos
            elif kind == EntryKind.EXPIRY:
                row.expired += nanos
            elif kind == "refund_purchase":
                row.taken_back += nanos
            elif kind in MOVED:
                row.moved += nanos
        for org in self.orgs.values():
            for unit, wallet in org.wallets.items():
                row = rows.setdefault(unit, UnitSum(unit))
                row.balances += wallet.settled
                row.held += wallet.held
        for _, transfer in self.unfinished():
            rows[transfer.wallet].on_the_way -= transfer.out_nanos or 0
        for unit, nanos in self.late_nanos.items():
            rows[unit].on_the_way += nanos
        return sorted(rows.values(), key=lambda row: row.unit)


@dataclass(slots=True)
class UnitSum:
    """Where the credits of one unit came from and went to, in nano-units, signed as they change balances.

    `held` is part of `balances`: set aside, not gone. `on_the_way` is what transfers took out and has not arrived yet.
    """

    unit: str
    added: int = 0
    spent: int = 0
    expired: int = 0
    taken_back: int = 0
    moved: int = 0
    balances: int = 0
    held: int = 0
    on_the_way: int = 0

    @property
    def left_over(self) -> int:
        """What does not add up; 0 in a true ledger."""
        return self.balances + self.on_the_way - (self.added + self.spent + self.expired + self.taken_back)


def added_up(rows: Iterable[UnitSum]) -> list[UnitSum]:
    """One row a unit: the sums of rows of the same unit."""
    sums: dict[str, UnitSum] = {}
    for row in rows:
        total = sums.setdefault(row.unit, UnitSum(row.unit))
        for name in UnitSum.__slots__[1:]:
            setattr(total, name, getattr(total, name) + getattr(row, name))
    return sorted(sums.values(), key=lambda row: row.unit)


def _on_the_way(org: OrgFold, wallet: WalletFold, transfer_id: str, kind: str, amount: int) -> None:
    """Rule 8. What stands under an id ends with its answer, and with a second departure under that id."""
    before, nanos = org.departed.pop(transfer_id, (wallet, 0))
    before.on_the_way -= nanos
    if kind == EntryKind.TRANSFER_OUT and amount:
        org.departed[transfer_id] = wallet, -amount
        wallet.on_the_way -= amount


def _stated_amount(details: str | None, name: str) -> int | None:
    """A number that the details of an entry give; None where they do not."""
    if details is None:
        return None
    number = json.loads(details).get(name)
    return number if isinstance(number, int) else None


Part = tuple[str, str, int]
"""Grant id, kind, nano-units."""

_NONE: list[Part] = []


def _parts(column: pa.ListArray, kind_name: str) -> Iterator[list[Part]]:
    """The slices or grants of each row; flattened first, because nested Python objects are slow to make."""
    offsets = column.offsets.to_pylist()
    values = column.values
    first, last = offsets[0], offsets[-1]
    parts = list(
        zip(
            *(
                values.field(name).slice(first, last - first).to_pylist()
                for name in ("grant_id", kind_name, "amount_nanos")
            ),
            strict=True,
        )
    )
    for start, end in itertools.pairwise(offsets):
        yield parts[start - first : end - first] if end > start else _NONE
