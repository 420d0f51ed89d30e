"""What the outputs of one partition say of its state: its accounts, and how far each input was read.

Rules of this file:
1. The ledger is folded by the ledger's own `evolve`: an account is a function of its entries, to the byte.
2. An input record was read when something says so: an entry or a dead letter that names it or one behind it, the
   ledger's own copy of a price, or the answer to a transfer leg that made no entry. Each later record
   was a duplicate: it is read again, and is a duplicate again. Group offsets are not believed where credits are at
   stake: they outlive a ledger that lost its end.
3. The published balances are the check: they are of another topic, and say up to which entry each org was booked.
4. What contradicts itself raises `StateLostError`. What cannot be had exactly and does no harm is a note.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from confluent_kafka import Message

from schemas.codec import DecodedBatch, WriterSchemas, decode_columns, rows_of
from schemas.dead_letters import OFFSET_HEADER, PARTITION_HEADER, TOPIC_HEADER
from schemas.enums import EntryKind
from schemas.topics import Topics
from streams.engine.failures import StateLostError
from streams.engine.ports import Partition
from streams.kafka.kept_prices import KeptRecords
from streams.kafka.reader import CommittedReader
from streams.ledger.account import decode_account, new_account
from streams.ledger.entry import Entry
from streams.ledger.evolve import evolve
from streams.ledger.refusals import BrokenLedger
from streams.processing.state import PartitionState
from streams.seals import NO_SEALS, Seals

Advance = Callable[[int], None]
"""Called with the number of further offsets that were read."""

Int64s = npt.NDArray[np.int64]

RESTORE: Final = "restore the topic from a copy that is whole (`credits verify` says what differs)"
UNNAMED: Final = -1


class Log:
    """Reads the topics of one partition, from the beginning to where they end now."""

    def __init__(
        self,
        reader: CommittedReader,
        number: int,
        partitions: int,
        writers: WriterSchemas,
        advance: Advance,
        seals: Seals = NO_SEALS,
    ) -> None:
        """`seals`: of the prices that the ledger has kept."""
        self.seals = seals
        self.number = number
        self.partitions = partitions
        self.writers = writers
        self._reader = reader
        self._advance = advance
        self._ends: dict[tuple[str, int], tuple[int, int]] = {}

    def ends(self, topic: str, number: int | None = None) -> tuple[int, int]:
        """(first offset, offset after the last) as of the first time that this is asked."""
        index = topic, self.number if number is None else number
        if index not in self._ends:
            self._ends[index] = self._reader.ends(*index)
        return self._ends[index]

    def records(
        self, topic: str, start: int | None = None, end: int | None = None, number: int | None = None
    ) -> Iterator[list[Message]]:
        """Committed records in lists, those before `end` alone."""
        number = self.number if number is None else number
        low, high = self.ends(topic, number)
        reached, end = max(low, start or 0), high if end is None else end
        for records in self._reader.read(topic, number, reached, end):
            inside = records if offset_of(records[-1]) < end else [each for each in records if offset_of(each) < end]
            if inside:
                self._advance(offset_of(inside[-1]) + 1 - reached)
                reached = offset_of(inside[-1]) + 1
                yield inside
        self._advance(max(0, end - reached))

    def decoded_partly(self, record: str, messages: Sequence[Message]) -> DecodedBatch:
        """What of the records can be read."""
        return decode_columns(record, [value_of(each) for each in messages], self.writers)

    def first_at(self, topic: str, start: int) -> Message | None:
        """The first committed record at or after `start`."""
        with contextlib.closing(self._reader.read(topic, self.number, start, self.ends(topic)[1])) as reading:
            return next((records[0] for records in reading), None)

    def decoded(self, record: str, topic: str, messages: Sequence[Message]) -> DecodedBatch:
        """The records as columns, one row each; raises `StateLostError` for what cannot be read."""
        decoded = decode_columns(record, [value_of(each) for each in messages], self.writers)
        if decoded.failures:
            failure = decoded.failures[0]
            offset = offset_of(messages[failure.position])
            raise StateLostError(f"{topic}/{self.number} at {offset} cannot be read: {failure.message}", RESTORE)
        return decoded


def offset_of(message: Message) -> int:
    """Where a record stands."""
    return int(message.offset() or 0)


def value_of(message: Message) -> bytes | None:
    """The bytes of a record."""
    value = message.value()
    assert value is None or isinstance(value, bytes)
    return value


def key_of(message: Message) -> bytes | None:
    """The key of a record."""
    key = message.key()
    assert key is None or isinstance(key, bytes)
    return key


def arrived_at(message: Message) -> int:
    """When the broker took a record, microseconds."""
    return int(message.timestamp()[1]) * 1_000


@dataclass(slots=True)
class SourceOffsets:
    """The records of one input topic that entries or dead letters name, in this partition.

    `last`: the highest offset. `retained`: how many of them Kafka still has.
    """

    entries: int = 0
    rejected: int = 0
    dead_letters: int = 0
    last: int = UNNAMED
    retained: int = 0

    def note(self, offsets: Int64s, first: int) -> None:
        """Count these offsets; `first`: the first offset that Kafka still has."""
        self.last = max(self.last, int(offsets.max()))
        self.retained += int((offsets >= first).sum())


@dataclass(frozen=True, slots=True)
class Booked:
    """Records of one input topic that had an effect, each with the first entry that names it.

    `at`: the clock then. `entries`: offset of the entry. `names`: hash of org and id, to know the record by.
    """

    offsets: Int64s
    at: Int64s
    entries: Int64s
    names: Int64s

    def __len__(self) -> int:
        return len(self.offsets)

    @staticmethod
    def joined(parts: Sequence[Booked]) -> Booked:
        """All of them, by offset."""
        if not parts:
            none = np.zeros(0, np.int64)
            return Booked(none, none, none, none)
        offsets = np.concatenate([part.offsets for part in parts])
        order = np.argsort(offsets, kind="stable")
        columns = ([part.at for part in parts], [part.entries for part in parts], [part.names for part in parts])
        return Booked(offsets[order], *(np.concatenate(column)[order] for column in columns))


def booked_rows(batch: pa.RecordBatch, messages: Sequence[Message], rows: SourceRows) -> Booked:
    """What these rows of a batch of entries say of the records that they name."""
    orgs, names = batch.column("org_id").to_pylist(), batch.column("event_id").to_pylist()
    indexes = rows.rows.tolist()
    return Booked(
        rows.offsets,
        batch.column("recorded_at").to_numpy()[rows.rows],
        np.array([offset_of(messages[index]) for index in indexes], np.int64),
        np.array([hash((orgs[index], names[index])) for index in indexes], np.int64),
    )


class _States(dict[str, bytes]):
    """Accounts as bytes: `AccountBytes` of the port."""


@dataclass(slots=True)
class History:
    """What was found. `times`: of each list of entries its first offset and the last `recorded_at` in it."""

    accounts: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """Org to due time (0: never) and state."""
    entries: int = 0
    clock_at: int = 0
    named: dict[str, SourceOffsets] = field(default_factory=dict)
    times: list[tuple[int, int]] = field(default_factory=list)
    dead_offsets: dict[str, list[int]] = field(default_factory=dict)
    legs: list[Booked] = field(default_factory=list)
    """Of the transfer legs that made an entry."""
    last_records: dict[str, Message] = field(default_factory=dict)
    """Of the ledger and the balances the last record, by topic."""
    notes: list[str] = field(default_factory=list)


def read_history(log: Log, topics: Topics) -> History:
    """Fold the ledger, read the dead letters, and check the published balances. Raises `StateLostError`."""
    history = History()
    _fold(log, topics, history)
    _read_dead_letters(log, topics, history)
    _read_judged_prices(log, topics, history)
    _check_balances(log, topics, history)
    return history


def _fold(log: Log, topics: Topics, history: History) -> None:
    ledger = topics.name("ledger")
    low, _ = log.ends(ledger)
    if low > 0:
        raise StateLostError(f"{ledger}/{log.number} begins at offset {low}: earlier entries are gone", RESTORE)
    states = _States()
    working = PartitionState(Partition(log.number, states, {}), log.partitions)
    for messages in log.records(ledger):
        batch = log.decoded("entry", ledger, messages).batch
        entries = [Entry.from_record(row) for row in rows_of(batch)]
        for entry in entries:
            try:
                evolve(working.account(entry.org_id), entry)
            except BrokenLedger as error:
                raise StateLostError(f"{ledger}/{log.number} does not follow: {error}", RESTORE) from error
        changed = working.encoded(dict.fromkeys(entry.org_id for entry in entries))
        history.accounts |= changed
        states.update({org: state for org, (_, state) in changed.items()})
        working.forget_some()
        history.entries += len(entries)
        history.clock_at = max(history.clock_at, entries[-1].recorded_at)
        history.times.append((offset_of(messages[0]), history.clock_at))
        history.last_records[ledger] = messages[-1]
        for topic, rows in sources_of(batch, log.number).items():
            _note_sources(history.named.setdefault(topic, SourceOffsets()), rows, log.ends(topic)[0])
            if topic == topics.name("transfer_legs"):
                history.legs.append(booked_rows(batch, messages, rows))


def _note_sources(named: SourceOffsets, rows: SourceRows, first: int) -> None:
    rejected = int(rows.rejected.sum())
    named.rejected += rejected
    named.entries += len(rows.offsets) - rejected
    named.note(rows.offsets, first)


@dataclass(frozen=True, slots=True)
class SourceRows:
    """The entries of a batch that name records of one topic. `rows`: which of the batch they are."""

    rows: npt.NDArray[np.intp]
    offsets: Int64s
    rejected: npt.NDArray[np.bool_]

    def of(self, chosen: npt.NDArray[np.bool_]) -> SourceRows:
        """Some of them."""
        return SourceRows(self.rows[chosen], self.offsets[chosen], self.rejected[chosen])


def sources_of(batch: pa.RecordBatch, number: int) -> dict[str, SourceRows]:
    """By topic, the entries of a batch that name an input record of this partition."""
    coded = batch.column("source_topic").dictionary_encode()
    codes = coded.indices.to_numpy(zero_copy_only=False)
    own = batch.column("source_partition").to_numpy() == number
    offsets = batch.column("source_offset").to_numpy()
    rejected = np.asarray(batch.column("kind").to_pylist()) == EntryKind.REJECTED.value
    found = {}
    for code, topic in enumerate(coded.dictionary.to_pylist()):
        rows = np.flatnonzero((codes == code) & own)
        if topic and len(rows):
            found[topic] = SourceRows(rows, offsets[rows], rejected[rows])
    return found


def _read_dead_letters(log: Log, topics: Topics, history: History) -> None:
    """Which input records ended as dead letters; others than the ledger's own are passed over."""
    letters, inputs = topics.name("dead_letters"), set(topics.inputs)
    strangers = 0
    for messages in log.records(letters):
        for message in messages:
            headers = dict(message.headers() or ())  # the ledger's own come last, and so are the ones that count
            try:
                topic = (headers[TOPIC_HEADER] or b"").decode()
                number, offset = (int(headers[name]) for name in (PARTITION_HEADER, OFFSET_HEADER))
            except (KeyError, TypeError, ValueError):
                strangers += 1
                continue
            if topic not in inputs or number != log.number:
                strangers += 1
                continue
            named = history.named.setdefault(topic, SourceOffsets())
            named.dead_letters += 1
            named.note(np.array([offset], np.int64), log.ends(topic)[0])
            history.dead_offsets.setdefault(topic, []).append(offset)
    if strangers:
        history.notes.append(f"{strangers} records among the dead letters are not the ledger's, and were passed over")


def _read_judged_prices(log: Log, topics: Topics, history: History) -> None:
    """How far prices were judged: they make no entry, but the ledger writes down what it made of each."""
    topic = topics.name("kept_prices")
    kept = KeptRecords(topic, log.partitions, log.seals)
    records = [kept.of(message) for messages in log.records(topic) for message in messages]
    judged = [record.judged for record in records if record is not None]
    offsets = [offset for _, number, offset in judged if number == log.number]
    if offsets:
        named = history.named.setdefault(topics.name("prices"), SourceOffsets())
        named.last = max(named.last, *offsets)


def _check_balances(log: Log, topics: Topics, history: History) -> None:
    """What was published of an org must not be of a later entry than its last, nor other amounts."""
    balances = topics.name("balances")
    latest: dict[bytes | None, Message] = {}
    for messages in log.records(balances):
        history.last_records[balances] = messages[-1]
        latest |= {key_of(message): message for message in messages}
    published = [message for message in latest.values() if value_of(message) is not None]
    older = 0
    for start in range(0, len(published), 10_000):
        for row in rows_of(log.decoded("balance", balances, published[start : start + 10_000]).batch):
            older += _is_older(row, history, log.number)
    if older or len(published) < len(history.accounts):
        missing = older + max(0, len(history.accounts) - len(published))
        history.notes.append(f"{missing} published balances are older than the ledger; the next entry publishes them")


def _is_older(row: Mapping[str, Any], history: History, number: int) -> bool:
    org = row["org_id"]
    _, state = history.accounts.get(org, (0, b""))
    account = decode_account(state) if state else new_account(org)
    if row["seq"] > account.seq:
        raise StateLostError(
            f"the balance of {org!r} was published after entry {row['seq']}, but the ledger of partition {number} ends "
            f"at its entry {account.seq}: the ledger is an older copy, or has lost its end",
            RESTORE,
        )
    if row["seq"] < account.seq:
        return True
    published = {wallet["unit"]: (wallet["settled_nanos"], wallet["held_nanos"]) for wallet in row["wallets"]}
    if published != {unit: (wallet.settled, wallet.held) for unit, wallet in account.wallets.items()}:
        raise StateLostError(
            f"the published balance of {org!r} differs from the ledger at entry {account.seq}", RESTORE
        )
    return False
