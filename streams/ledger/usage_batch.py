"""Booking of usage in columns: every row classified, then booked in order, then the entries assembled.

Rules of this file:
1. `classify` gives each row one `Disposition` before anything changes. Only rows that share their id wait: which of
   them counts is known in order.
2. The loop books in the order of the log, on the fast path of `streams.ledger.usage` or the slow one; both give the
   same entry. It notes for each row only what depends on the rows before it: number, balance, slices. All else in an
   entry is the usage's own columns.
3. A row that cannot be booked becomes a dead letter and leaves no trace in its account; its neighbours are booked.
4. Accounts and entries are those that `decide` gives record by record, however rows are cut into batches (a property
   test compares them).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol, TypeVar, assert_never

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.encoding import rows_of
from schemas.enums import EntryKind
from schemas.records import arrow_schema
from streams.ledger.account import Account, Grant
from streams.ledger.avro_fields import SHARED
from streams.ledger.budgets import ANY_SCOPE, Scope
from streams.ledger.commands import Usage
from streams.ledger.decide import decide
from streams.ledger.entry import Alert, Entry, HoldDecision, Leg, Outcome, Slice, TopupRequest
from streams.ledger.rating import PriceList, Tariff
from streams.ledger.refusals import DeadLetter, different_content
from streams.ledger.settle import hold_still_open, settle_due
from streams.ledger.source import Context, Source
from streams.ledger.usage import advance_fast, book_usage, wallet_for
from streams.ledger.usage_batch_rating import Kinds, Ratings, rate_rows
from streams.ledger.usage_rows import RowNumbers, UsageRows, revisions, shared_ids

_T = TypeVar("_T")
_SLICES: Final = arrow_schema("entry").field("slices").type


class Disposition(Enum):
    """What becomes of a row."""

    BOOK = "book"
    """Booked by its cost; its entry is assembled from columns."""
    COMMAND = "command"
    """Decided as a command, with entries of its own."""
    DEAD_LETTER = "dead_letter"
    """It cannot be booked."""
    DUPLICATE = "duplicate"
    """An earlier row of the same id and content was booked."""
    SHARES_ID = "shares_id"
    """Another row has its id: not known yet. No row has this once the batch is booked."""


class References(Protocol):
    """The usage entries that commands refer to."""

    def of(self, command: object) -> Mapping[str, Entry]:
        """Those that one command refers to, by event id."""
        ...

    def note_entries(self, entries: Iterable[Entry]) -> None:
        """What a command has just written."""
        ...


@dataclass(slots=True)
class SideOutputs:
    """What leaves with entries, in order."""

    alerts: list[Alert] = field(default_factory=list)
    legs: list[Leg] = field(default_factory=list)
    topup_requests: list[TopupRequest] = field(default_factory=list)
    decisions: list[HoldDecision] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Those of a command, next in order."""
        self.alerts += outcome.alerts
        self.legs += outcome.legs
        self.topup_requests += outcome.topup_requests
        self.decisions += outcome.decisions


@dataclass(slots=True)
class BookedUsage:
    """What a batch came to. Its accounts are changed already."""

    in_columns: RowNumbers
    """The rows whose entries are in `entries`."""
    entries: pa.RecordBatch
    """Columns of the entry record; those left out are at their default."""
    written: dict[int, list[Entry]]
    """By row: entries that stand before the row's own, or instead of it."""
    dead_letters: dict[int, DeadLetter]
    """By row, in the order in which they were found."""
    effective: RowNumbers
    """The rows that had an effect: their ids are to be remembered."""
    duplicates: int
    rejected: int
    """Rows that a rule refused: their effect is an entry `rejected`."""
    side_outputs: SideOutputs


def book_rows(
    rows: UsageRows,
    accounts: Mapping[str, Account],
    prices: PriceList,
    references: References,
    kinds: Kinds | None = None,
) -> BookedUsage:
    """Book every row in order, into `accounts`, which has the account of every org of the rows.

    `kinds`: of the whole input batch, of which the rows may be a part.
    """
    ratings = rate_rows(rows.usages, rows.orgs, accounts, prices, kinds)
    booking = _Booking(rows, accounts, prices, references, ratings)
    booking.run()
    dispositions = booking.dispositions
    in_columns = _rows_with(dispositions, Disposition.BOOK)
    return BookedUsage(
        in_columns=in_columns,
        entries=_entry_columns(rows, ratings, booking, in_columns),
        written=booking.written,
        dead_letters=booking.dead_letters,
        effective=_rows_with(dispositions, Disposition.BOOK, Disposition.COMMAND),
        duplicates=dispositions.count(Disposition.DUPLICATE),
        rejected=booking.rejected,
        side_outputs=booking.side_outputs,
    )


# --- 1. classify ----------------------------------------------------------------------------------------------------


def classify(rows: UsageRows, accounts: Mapping[str, Account], ratings: Ratings) -> list[Disposition]:
    """The disposition of each row by itself: as if it shared its id with no other."""
    dispositions = [Disposition.BOOK] * len(rows)
    for row in ratings.refused:
        dispositions[row] = Disposition.DEAD_LETTER
    for row in needs_command_path(rows, accounts) | ratings.by_command:
        dispositions[row] = Disposition.COMMAND
    return dispositions


def needs_command_path(rows: UsageRows, accounts: Mapping[str, Account]) -> set[int]:
    """Rows that are more than a new usage: a revision, a void, what names a hold; and what depends on earlier rows."""
    revised = revisions(rows.usages).to_numpy(zero_copy_only=False)
    named = rows.usages.column("hold_id").is_valid().to_numpy(zero_copy_only=False)
    found: set[int] = set(np.flatnonzero(revised | named).tolist())
    of_revised = _of_revised_usages(rows, accounts, np.flatnonzero(revised).tolist())
    return found | _without_wallet(rows, accounts) | of_revised


def _without_wallet(rows: UsageRows, accounts: Mapping[str, Account]) -> set[int]:
    """Rows for the default wallet of an org that has none yet: which one it is, an earlier row may decide."""
    usages, orgs = rows.usages, rows.orgs
    new = {org for org, account in accounts.items() if not account.wallets}
    given = pc.and_(pc.is_valid(usages.column("cost_nanos")), pc.is_null(usages.column("wallet")))
    if not new or not pc.any(given).as_py():
        return set()
    return {row for row, takes_default in enumerate(given.to_pylist()) if takes_default and orgs[row] in new}


def _of_revised_usages(rows: UsageRows, accounts: Mapping[str, Account], revised: Sequence[int]) -> set[int]:
    """Rows of usages that have a revision already, or may get one in this batch, by the rows `revised`."""
    event_ids = rows.usages.column("event_id")
    known = {org: account.corrected for org, account in accounts.items() if account.corrected}
    here = {(rows.orgs[row], event_ids[row].as_py()) for row in revised}
    if not known and not here:
        return set()
    names = zip(rows.orgs, event_ids.to_pylist(), strict=True)
    return {row for row, name in enumerate(names) if name in here or name[1] in known.get(name[0], ())}


# --- 2. book --------------------------------------------------------------------------------------------------------


class _Booking:
    """The rows of one batch while they are booked, one after the other."""

    def __init__(
        self,
        rows: UsageRows,
        accounts: Mapping[str, Account],
        prices: PriceList,
        references: References,
        ratings: Ratings,
    ) -> None:
        self._rows = rows
        self._accounts = accounts
        self._prices = prices
        self._references = references
        self._ratings = ratings
        self._shared = shared_ids(rows)
        self._classes = classify(rows, accounts, ratings)
        """Of each row by itself; `dispositions` takes the other rows into account."""
        self.dispositions = self._classes.copy()
        for row in self._shared:
            self.dispositions[row] = Disposition.SHARES_ID
        self._tried: dict[bytes, int] = {}
        """Of each shared id the row that was tried last."""
        self._scopes: list[list[str | None]] | None = None
        size = len(rows)
        self.seqs = [0] * size
        self.settled = [0] * size
        self.held = [0] * size
        self.drawn: list[Grant | Slice | None] = [None] * size
        """What a row drew its whole cost from."""
        self.slices: dict[int, tuple[Slice, ...]] = {}
        """Of the rows that have not exactly one slice."""
        self.written: dict[int, list[Entry]] = {}
        self.dead_letters: dict[int, DeadLetter] = {}
        self.rejected = 0
        self.side_outputs = SideOutputs()

    def run(self) -> None:
        """Book every row."""
        for row, refusal in sorted(self._ratings.refused.items()):
            if self.dispositions[row] is Disposition.DEAD_LETTER:
                self._refuse(row, refusal)
        self._loop()

    def _loop(self) -> None:
        rows, accounts, ratings, book = self._rows, self._accounts, self._ratings, Disposition.BOOK
        seqs, settled, held, drawn = self.seqs, self.settled, self.held, self.drawn
        for row, disposition, org, at, cost, unit in zip(
            range(len(rows)),
            self.dispositions,
            rows.orgs,
            rows.clocks.tolist(),
            ratings.costs,
            ratings.units,
            strict=True,
        ):
            if disposition is not book and not self._is_booked_by_cost(row, at):
                continue
            account = accounts[org]
            wallet = account.wallets.get(unit)
            due_at = account.due_at
            if wallet is not None and 0 < cost < wallet.fast_path_limit and (due_at is None or at < due_at):
                wallet.fast_path_limit -= cost
                drawn[row] = advance_fast(account, wallet, cost)
                seqs[row] = account.seq
                settled[row] = wallet.settled
                held[row] = wallet.held
            else:
                self._book_slowly(row, account, unit, cost, at)

    def _is_booked_by_cost(self, row: int, at: int) -> bool:
        """Whether a row is to be booked by its cost; all others have come to their end after this."""
        if self.dispositions[row] is Disposition.SHARES_ID:
            self.dispositions[row] = self._among_same_id(row)
        match self.dispositions[row]:
            case Disposition.BOOK:
                return True
            case Disposition.COMMAND:
                self._decide(row, at)
            case Disposition.DEAD_LETTER | Disposition.DUPLICATE:
                pass
            case Disposition.SHARES_ID:
                raise AssertionError("decided above")
            case disposition:
                assert_never(disposition)
        return False

    def _among_same_id(self, row: int) -> Disposition:
        """Of rows that share an id the first that can be booked counts. Later ones are duplicates or dead letters."""
        event_id, contents = self._shared[row], self._rows.contents
        earlier = self._tried.get(event_id)
        if earlier is not None and self.dispositions[earlier] in (Disposition.BOOK, Disposition.COMMAND):
            if contents[earlier] == contents[row]:
                return Disposition.DUPLICATE
            self._refuse(row, different_content(usage=True))
            return Disposition.DEAD_LETTER
        self._tried[event_id] = row
        if self._classes[row] is Disposition.DEAD_LETTER:
            self._refuse(row, self._ratings.refused[row])
        return self._classes[row]

    def _book_slowly(self, row: int, account: Account, unit: str, cost: int, at: int) -> None:
        """One event with everything that may come with it: what is due before it, several slices, alerts."""
        self._settle_due(row, account, at)
        wallet = wallet_for(account, unit)
        scope = ANY_SCOPE if wallet.budgets is None else self._scope(row)
        booking = book_usage(account, wallet, cost, at, scope)
        if isinstance(booking, DeadLetter):
            self._refuse(row, booking)
            return
        self.seqs[row] = booking.seq
        self.settled[row] = booking.balance
        self.held[row] = booking.held
        if len(booking.slices) == 1:
            self.drawn[row] = booking.slices[0]
        else:
            self.slices[row] = booking.slices
        self.side_outputs.alerts += booking.alerts
        self.side_outputs.topup_requests += booking.topup_requests

    def _scope(self, row: int) -> Scope:
        """What budgets know the row by; the columns become lists once a batch, if any wallet in it has budgets."""
        if self._scopes is None:
            self._scopes = [self._rows.usages.column(name).to_pylist() for name in Scope._fields]
        return Scope(*[column[row] for column in self._scopes])

    def _decide(self, row: int, at: int) -> None:
        """One event as a command, with entries of its own."""
        rows, references = self._rows, self._references
        command = Usage.from_record(rows_of(rows.usages.slice(row, 1))[0])
        account = self._accounts[command.org_id]
        source = Source(rows.topic, rows.partition, int(rows.offsets[row]))
        with hold_still_open(account, command.hold_id, int(rows.arrived[row]), at):
            self._settle_due(row, account, at)
            outcome = decide(account, command, Context(at, self._prices, source, references.of(command)))
        if isinstance(outcome, DeadLetter):
            self._refuse(row, outcome)
            return
        self.written.setdefault(row, []).extend(outcome.entries)
        references.note_entries(outcome.entries)
        self.side_outputs.add(outcome)
        self.rejected += outcome.rejected

    def _settle_due(self, row: int, account: Account, at: int) -> None:
        if account.due_at is not None and account.due_at <= at:
            due = settle_due(account, at)
            self.written[row] = due.entries
            self.side_outputs.add(due)

    def _refuse(self, row: int, refusal: DeadLetter) -> None:
        self.dispositions[row] = Disposition.DEAD_LETTER
        self.dead_letters[row] = refusal


# --- 3. assemble ----------------------------------------------------------------------------------------------------


def _rows_with(dispositions: Sequence[Disposition], *wanted: Disposition) -> RowNumbers:
    if dispositions.count(Disposition.BOOK) == len(dispositions):
        return np.arange(len(dispositions))
    return np.asarray([row for row, each in enumerate(dispositions) if each in wanted], np.intp)


def _entry_columns(rows: UsageRows, ratings: Ratings, booking: _Booking, kept: RowNumbers) -> pa.RecordBatch:
    """The entries of the rows `kept`, as columns of the entry record; fields left out are at their default."""
    size, select = len(kept), _Selection(len(rows), kept)
    usages = rows.usages if select.all else rows.usages.take(pa.array(kept))
    seqs = pa.array(np.asarray(select(booking.seqs), np.int64))
    settled = np.asarray(select(booking.settled), np.int64)
    held = np.asarray(select(booking.held), np.int64)
    columns = {
        "org_id": usages.column("org_id"),
        "seq": seqs,
        "entry_id": pc.binary_join_element_wise(usages.column("org_id"), seqs.cast(pa.string()), ":"),
        "kind": _constant(EntryKind.USAGE.value, size),
        "wallet": pa.array(select(ratings.units), pa.string()),
        "amount_nanos": pa.array(-np.asarray(select(ratings.costs), np.int64)),
        "balance_nanos": pa.array(settled),
        "available_nanos": pa.array(settled - held),
        "held_nanos": pa.array(held),
        "recorded_at": pa.array(rows.clocks[kept]),
        "source_topic": _constant(rows.topic, size),
        "source_partition": pa.array(np.full(size, rows.partition, np.int32)),
        "source_offset": pa.array(rows.offsets[kept]),
        "slices": _slice_column(booking.slices, kept, select(booking.drawn), select(ratings.costs)),
        "components": ratings.components if select.all else ratings.components.take(pa.array(kept)),
        **_price_columns(select(ratings.tariffs)),
        **{name: usages.column(name) for name in SHARED},
    }
    names = [name for name in arrow_schema("entry").names if name in columns]
    return pa.RecordBatch.from_arrays([columns[name] for name in names], names=names)


def _slice_column(
    several: Mapping[int, tuple[Slice, ...]],
    kept: RowNumbers,
    drawn: Sequence[Grant | Slice | None],
    amounts: Sequence[int],
) -> pa.Array:
    """The slices of the rows `kept`: as a rule one each, of `amounts`; `several` has those of the other rows."""
    counts = np.ones(len(kept), np.int32)
    if several:
        parts = [several.get(row) for row in kept.tolist()]
        counts = np.asarray([1 if part is None else len(part) for part in parts], np.int32)
        drawn = [each for one, part in zip(drawn, parts, strict=True) for each in ([one] if part is None else part)]
        amounts = [
            each
            for amount, part in zip(amounts, parts, strict=True)
            for each in ([amount] if part is None else [one.amount_nanos for one in part])
        ]
    grants, of_grant = _distinct(drawn)
    of_grants = {
        "grant_id": pa.array([grant and grant.grant_id for grant in grants], pa.string()),
        "kind": pa.array([grant and grant.kind for grant in grants], pa.string()),
        "expires_at": pa.array([grant and grant.expires_at for grant in grants], pa.int64()),
    }
    values = {**_looked_up(of_grants, of_grant), "amount_nanos": pa.array(amounts, pa.int64())}
    fields = list(_SLICES.value_type)
    struct = pa.StructArray.from_arrays([values[f.name] for f in fields], fields=fields)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), struct, type=_SLICES)


def _price_columns(tariffs: Sequence[Tariff | None]) -> dict[str, pa.Array]:
    """Unit prices and billing unit of each row."""
    distinct, of_tariff = _distinct(tariffs)
    of_tariffs = {
        "unit_price_nanos": pa.array([t and t.unit_price for t in distinct], pa.int64()),
        "output_unit_price_nanos": pa.array([t and t.output_unit_price for t in distinct], pa.int64()),
        "billing_unit": pa.array([t and t.billing_unit for t in distinct], pa.string()),
    }
    return _looked_up(of_tariffs, of_tariff)


def _looked_up(columns: Mapping[str, pa.Array], numbers: pa.Array) -> dict[str, pa.Array]:
    """Of each column the values at `numbers`, by one look-up for all."""
    found = pa.StructArray.from_arrays(list(columns.values()), names=list(columns)).take(numbers)
    return {name: found.field(name) for name in columns}


def _distinct(values: Sequence[_T]) -> tuple[list[_T], pa.Array]:
    """The distinct objects among `values`, and for each value which of them it is: a batch has few grants and tariffs,
    and each is read once."""
    ids = list(map(id, values))
    by_id = dict(zip(ids, values, strict=True))
    numbers = {each: number for number, each in enumerate(by_id)}
    return list(by_id.values()), pa.array(np.fromiter(map(numbers.__getitem__, ids), np.int32, len(ids)))


class _Selection:
    """Picks some rows out of a list; all of them, as a rule."""

    def __init__(self, size: int, kept: RowNumbers) -> None:
        self.all = len(kept) == size
        self._rows = kept.tolist()

    def __call__(self, values: Sequence[_T]) -> Sequence[_T]:
        return values if self.all else [values[row] for row in self._rows]


def _constant(text: str, size: int) -> pa.Array:
    return pa.repeat(pa.scalar(text), size)
