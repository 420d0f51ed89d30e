"""Usage into accounts: a plain loop over a batch, and the entries as columns.

Rules of this file:
1. In the loop an event takes the fast way of `streams.ledger.usage` or the slow one; both give the same entry.
2. What the loop writes per event is only what depends on the events before it: number, balance, slices. The rest of an
   entry is the usage's own columns.
3. An event that cannot be booked leaves a dead letter and no trace in the account; its neighbours are booked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.codec import encode_columns, rows_of
from schemas.enums import EntryKind
from schemas.records import arrow_schema
from streams.engine.ports import SeenIds
from streams.kafka.inbound import Inbound
from streams.ledger.account import Account, Grant
from streams.ledger.budgets import ANY_SCOPE, Scope
from streams.ledger.commands import Usage
from streams.ledger.decide import decide
from streams.ledger.entry import Entry, Slice
from streams.ledger.rating import Tariff
from streams.ledger.refusals import DeadLetter
from streams.ledger.settle import settle_due
from streams.ledger.source import Context, Source
from streams.ledger.usage import book_usage, wallet_for
from streams.processing.gathered import Gathered
from streams.processing.outbound import Outbound
from streams.processing.references import revisions
from streams.processing.state import PartitionState
from streams.processing.usage_guards import UsageRows, taken
from streams.processing.usage_rating import Kinds, Ratings, rate
from streams.processing.validation import different_content

CARRIED: Final = tuple(
    name
    for name in arrow_schema("usage").names
    if name in arrow_schema("entry").names and name not in {"org_id", "wallet"}
)
"""Fields of a usage that stand unchanged in its entry."""

Places = npt.NDArray[np.intp]
_T = TypeVar("_T")
_SLICES: Final = arrow_schema("entry").field("slices").type


class UsageBooking:
    """Books the admitted rows of one inbound batch and hands their entries to the outbound."""

    def __init__(
        self,
        state: PartitionState,
        inbound: Inbound,
        rows: UsageRows,
        kinds: Kinds | None,
        gathered: Gathered,
        outbound: Outbound,
    ) -> None:
        """`kinds`: of the whole inbound batch, of which `rows` may be a part."""
        self._kinds = kinds
        self._state = state
        self._inbound = inbound
        self._rows = rows
        self._gathered = gathered
        self._outbound = outbound
        size = len(rows)
        self._seqs = [0] * size
        self._settled = [0] * size
        self._held = [0] * size
        self._drawn: list[Grant | Slice] = []
        self._drawn_amounts: list[int] = []
        self._draws: dict[int, int] = {}
        """Slices of the rows that have not exactly one."""
        self._before: dict[int, list[Entry]] = {}
        """Entries that stand in the ledger before the row's own, or in its place."""
        self._dropped: set[int] = set()
        """Rows without an effect."""
        self._alone: set[int] = set()
        """Rows that are decided as commands: corrections, and what names a hold."""
        self._watched: set[int] = set()
        """Rows that share their id with another row."""
        self._unrated: dict[int, DeadLetter] = {}
        """Of the watched rows, those without a price: whether they repeat another comes first."""
        self._first: dict[bytes, int] = {}
        """Of the watched ids, the row that was tried last."""
        self._scopes: list[list[str | None]] | None = None

    def book(self, seen: SeenIds) -> UsageRows:
        """Decide every row in order; afterwards accounts, seen ids and outbound say so. Returns the booked rows."""
        rows = self._rows
        accounts = {org: self._state.account(org) for org in set(rows.orgs)}
        ratings = rate(rows.batch, rows.orgs, accounts, self._gathered.prices, self._kinds)
        self._alone = set(np.flatnonzero(decided_alone(rows.batch)).tolist()) | self._without_wallet(accounts)
        self._alone |= self._of_revised_usages(accounts)
        if rows.repeated.any():
            self._watched = self._watch_repeats()
        refused = ratings.refused.keys() - self._alone
        for row in sorted(refused - self._watched):
            self._drop(row, ratings.refused[row])
        self._unrated = {row: ratings.refused[row] for row in refused & self._watched}
        self._loop(ratings)
        booked = self._without(self._dropped)
        effective = rows if booked is None else taken(rows, booked)
        seen.add(effective.digests, effective.contents, self._state.partition.ledger_end, effective.clocks)
        in_columns = self._without(self._dropped | self._alone)
        self._emit(ratings, np.arange(len(rows)) if in_columns is None else in_columns)
        return effective

    def _of_revised_usages(self, accounts: Mapping[str, Account]) -> set[int]:
        """Rows of usages that have a revision already, or may get one earlier in this batch: the core judges them."""
        rows, event_ids = self._rows, self._rows.batch.column("event_id")
        known = {org: account.corrected for org, account in accounts.items() if account.corrected}
        here = {(rows.orgs[row], event_ids[row].as_py()) for row in np.flatnonzero(is_revised(rows.batch)).tolist()}
        if not known and not here:
            return set()
        names = zip(rows.orgs, event_ids.to_pylist(), strict=True)
        return {row for row, name in enumerate(names) if name in here or name[1] in known.get(name[0], ())}

    def _without_wallet(self, accounts: Mapping[str, Account]) -> set[int]:
        """Rows for the default wallet of an org that has none yet: which one it is, an earlier row may decide."""
        batch, orgs = self._rows.batch, self._rows.orgs
        new = {org for org, account in accounts.items() if not account.wallets}
        given = pc.and_(pc.is_valid(batch.column("cost_nanos")), pc.is_null(batch.column("wallet")))
        if not new or not pc.any(given).as_py():
            return set()
        return {row for row, takes_default in enumerate(given.to_pylist()) if takes_default and orgs[row] in new}

    def _without(self, some: set[int]) -> Places | None:
        """All rows but some; None: all."""
        if not some:
            return None
        kept = np.ones(len(self._rows), np.bool_)
        kept[list(some)] = False
        return np.flatnonzero(kept)

    def _watch_repeats(self) -> set[int]:
        """The rows that share their id with another row of the batch."""
        digests = [self._rows.digests[row].tobytes() for row in range(len(self._rows))]
        repeated = {digests[row] for row in np.flatnonzero(self._rows.repeated).tolist()}
        return {row for row, digest in enumerate(digests) if digest in repeated}

    def _loop(self, ratings: Ratings) -> None:
        live, rows = self._state.live, self._rows
        seqs, settled, held = self._seqs, self._settled, self._held
        drawn, drawn_amounts = self._drawn.append, self._drawn_amounts.append
        aside = self._dropped | self._alone | self._watched
        for row, org, at, cost, unit in zip(
            range(len(rows)), rows.orgs, rows.clocks.tolist(), ratings.costs, ratings.units, strict=True
        ):
            if aside and row in aside and self._is_done(row, at):
                continue
            account = live[org]
            wallet = account.wallets.get(unit)
            due_at = account.due_at
            if wallet is not None and 0 < cost < wallet.fast_path_limit and (due_at is None or at < due_at):
                # streams.ledger.usage.advance_fast, written out: a call would cost a tenth of the loop
                grant = wallet.grants[0]
                grant.remaining -= cost
                balance = wallet.settled = wallet.settled - cost
                wallet.used += cost
                if not wallet.allowance_first:
                    wallet.lifetime_spent += cost
                wallet.fast_path_limit -= cost
                seqs[row] = account.seq = account.seq + 1
                settled[row] = balance
                held[row] = wallet.held
                drawn(grant)
                drawn_amounts(cost)
            else:
                self._book_slowly(row, account, unit, cost, at)

    def _is_done(self, row: int, at: int) -> bool:
        """Whether a row that stands aside has its end now; else it is booked like any other."""
        if row in self._dropped:
            return True
        if row in self._watched and self._repeats_a_booked(row):
            return True
        if row in self._unrated:
            self._drop(row, self._unrated[row])
            return True
        if row in self._alone:
            self._decide_alone(row, at)
            return True
        return False

    def _repeats_a_booked(self, row: int) -> bool:
        """Among rows of one id the first that can be booked is; later ones are duplicates, or something else."""
        rows = self._rows
        digest = rows.digests[row].tobytes()
        earlier = self._first.get(digest)
        if earlier is None or earlier in self._dropped:
            self._first[digest] = row
            return False
        if rows.contents[earlier] == rows.contents[row]:
            self._dropped.add(row)
            self._outbound.count(self._inbound.topic, "duplicates")
        else:
            self._drop(row, DeadLetter(*different_content(usage=True)))
        return True

    def _book_slowly(self, row: int, account: Account, unit: str, cost: int, at: int) -> None:
        """One event with everything that may come with it: what is due before it, several slices, alerts."""
        self._settle_due(row, account, at)
        try:
            wallet = wallet_for(account, unit)
            scope = ANY_SCOPE if wallet.budgets is None else self._scope(row)
            booking = book_usage(account, wallet, cost, at, scope)
        except DeadLetter as refusal:
            self._drop(row, refusal)
            return
        self._seqs[row] = booking.seq
        self._settled[row] = booking.balance
        self._held[row] = booking.held
        if len(booking.slices) != 1:
            self._draws[row] = len(booking.slices)
        self._drawn.extend(booking.slices)
        self._drawn_amounts.extend(part.amount_nanos for part in booking.slices)
        self._outbound.alerts(booking.alerts)
        self._outbound.topup_requests(booking.topup_requests)

    def _scope(self, row: int) -> Scope:
        """What budgets know the row by; the columns become lists once a batch, if any wallet in it has budgets."""
        if self._scopes is None:
            batch = self._rows.batch
            self._scopes = [batch.column(name).to_pylist() for name in Scope._fields]
        return Scope(*[column[row] for column in self._scopes])

    def _decide_alone(self, row: int, at: int) -> None:
        """One event as a command, with entries of its own."""
        command = Usage.from_record(rows_of(self._rows.batch.slice(row, 1))[0])
        account = self._state.account(command.org_id)
        self._settle_due(row, account, at)
        inbound, place = self._inbound, int(self._rows.places[row])
        source = Source(inbound.topic, inbound.partition, inbound.offsets[place])
        references = self._gathered.references.of(command)
        try:
            outcome = decide(account, command, Context(at, self._gathered.prices, source, references))
        except DeadLetter as refusal:
            self._drop(row, refusal)
            return
        self._before.setdefault(row, []).extend(outcome.entries)
        self._gathered.references.note_entries(outcome.entries)
        self._outbound.beside(outcome)
        self._outbound.count(inbound.topic, "rejected" if outcome.rejected else "entries")

    def _settle_due(self, row: int, account: Account, at: int) -> None:
        if account.due_at is not None and account.due_at <= at:
            due = settle_due(account, at)
            self._before[row] = due.entries
            self._outbound.beside(due)

    def _drop(self, row: int, refusal: DeadLetter) -> None:
        self._dropped.add(row)
        self._outbound.dead_letter(self._inbound, int(self._rows.places[row]), refusal.code, refusal.message)

    def _emit(self, ratings: Ratings, kept: Places) -> None:
        """Encode the rows that are columns, and hand all entries over in the ledger's order."""
        booked = self._rows if len(kept) == len(self._rows) else taken(self._rows, kept)
        outbound, references = self._outbound, self._gathered.references
        outbound.count(self._inbound.topic, "entries", len(booked))
        values = encode_columns("entry", self._columns(booked, ratings, kept), outbound.entry_schema_id)
        if references.wanted:
            references.note(booked.orgs, booked.batch.column("event_id").to_pylist(), values)
        if not self._before:
            outbound.encoded_entries(booked.keys, values)
            return
        encoded = dict(zip(kept.tolist(), zip(booked.keys, values, strict=True), strict=True))
        for row in range(len(self._rows)):
            for entry in self._before.get(row, ()):
                outbound.entry(entry)
            if row in encoded:
                key, value = encoded[row]
                outbound.encoded_entries([key], [value])

    def _columns(self, booked: UsageRows, ratings: Ratings, kept: Places) -> pa.RecordBatch:
        """The entries of the booked rows, as columns of the entry record; fields left out are at their default."""
        size = len(booked)
        select = _Selection(len(self._rows), kept)
        seqs = np.asarray(select(self._seqs), np.int64)
        settled = np.asarray(select(self._settled), np.int64)
        held = np.asarray(select(self._held), np.int64)
        seq_column = pa.array(seqs)
        columns = {
            "org_id": booked.batch.column("org_id"),
            "seq": seq_column,
            "entry_id": pc.binary_join_element_wise(booked.batch.column("org_id"), seq_column.cast(pa.string()), ":"),
            "kind": _constant(EntryKind.USAGE.value, size),
            "wallet": pa.array(select(ratings.units), pa.string()),
            "amount_nanos": pa.array(-np.asarray(select(ratings.costs), np.int64)),
            "balance_nanos": pa.array(settled),
            "available_nanos": pa.array(settled - held),
            "held_nanos": pa.array(held),
            "recorded_at": pa.array(booked.clocks),
            "source_topic": _constant(self._inbound.topic, size),
            "source_partition": pa.array(np.full(size, self._inbound.partition, np.int32)),
            "source_offset": pa.array(np.asarray(self._inbound.offsets, np.int64)[booked.places]),
            "slices": self._slice_column(kept),
            **_price_columns(select(ratings.tariffs)),
            **{name: booked.batch.column(name) for name in CARRIED},
        }
        names = [name for name in arrow_schema("entry").names if name in columns]
        return pa.RecordBatch.from_arrays([columns[name] for name in names], names=names)

    def _slice_column(self, kept: Places) -> pa.Array:
        counts = np.ones(len(self._rows), np.int64)
        for row, count in self._draws.items():
            counts[row] = count
        offsets = np.zeros(len(kept) + 1, np.int32)
        np.cumsum(counts[kept], out=offsets[1:])
        drawn = self._drawn
        values = {
            "grant_id": [part.grant_id for part in drawn],
            "kind": [part.kind for part in drawn],
            "amount_nanos": self._drawn_amounts,
            "expires_at": [part.expires_at for part in drawn],
        }
        fields = list(_SLICES.value_type)
        struct = pa.StructArray.from_arrays([pa.array(values[f.name], f.type) for f in fields], fields=fields)
        return pa.ListArray.from_arrays(pa.array(offsets), struct, type=_SLICES)


def decided_alone(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Rows that are more than a new usage: a revision, a void, or a usage that captures a hold."""
    named: npt.NDArray[np.bool_] = pc.is_valid(batch.column("hold_id")).to_numpy(zero_copy_only=False)
    return is_revised(batch) | named


def is_revised(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Rows that are a revision or a void of a usage."""
    revised: npt.NDArray[np.bool_] = revisions(batch).to_numpy(zero_copy_only=False)
    return revised


class _Selection:
    """Picks the booked rows out of a list; all of them, as a rule."""

    def __init__(self, size: int, kept: Places) -> None:
        self._places = None if len(kept) == size else kept.tolist()

    def __call__(self, values: Sequence[_T]) -> Sequence[_T]:
        return values if self._places is None else [values[place] for place in self._places]


def _constant(text: str, size: int) -> pa.Array:
    return pa.repeat(pa.scalar(text), size)


def _price_columns(tariffs: Sequence[Tariff | None]) -> dict[str, pa.Array]:
    """Unit prices and billing unit of each row; there are few tariffs in a batch, and they are looked at once."""
    numbers: dict[int, int] = {}
    distinct: list[Tariff | None] = []
    places = []
    for tariff in tariffs:
        number = numbers.get(id(tariff))
        if number is None:
            number = numbers[id(tariff)] = len(distinct)
            distinct.append(tariff)
        places.append(number)
    taken_from = pa.array(places, pa.int32())
    return {
        "unit_price_nanos": pa.array([t and t.unit_price for t in distinct], pa.int64()).take(taken_from),
        "output_unit_price_nanos": pa.array([t and t.output_unit_price for t in distinct], pa.int64()).take(taken_from),
        "billing_unit": pa.array([t and t.billing_unit for t in distinct], pa.string()).take(taken_from),
    }
