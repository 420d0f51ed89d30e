"""How far a partition had read its inputs, and the ids that it remembers of them, made again.

Rules of this file:
1. An id is remembered exactly where the live code remembers it (`rows`, `usage`): of every record with an entry
   but a capture or release that was refused, and of every transfer leg; from the clock of its entry on, unless the same
   id was known when it arrived.
2. Its content is that of its input record. Where retention has removed the record, the id is made from the entry and
   its content is unknown: the same id sent again is not booked, but a dead letter instead of a duplicate. It is noted.
3. More is remembered than the live code would rather than less: what an input that is behind may still bring.
4. The record in the input must be the one that the entry names. Where it is not, the topic was made again, and no
   position in it means anything: `StateLostError`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from confluent_kafka import Message

from schemas.codec import DecodedBatch, rows_of
from schemas.enums import EntryKind, HoldAction, InputKind, LegKind
from schemas.events import ID_FIELDS, INPUTS
from schemas.topics import INPUT_TOPICS, Topics
from streams.engine.failures import PositionBeyondEndError, RetentionGapError, StateLostError
from streams.engine.ports import Digests, OutcomeName, SeenWindow, UInt64s
from streams.engine.seen import Blob, SeenMemory, contents, digests, repeats
from streams.ledger.entry import Leg
from streams.processing.history import (
    RESTORE,
    Booked,
    History,
    Int64s,
    Log,
    SourceOffsets,
    SourceRows,
    arrived_at,
    booked_rows,
    key_of,
    offset_of,
    sources_of,
    value_of,
)
from streams.processing.references import usage_id, usage_ids
from streams.processing.rows import MONEY_IDS, unique_id, unique_leg
from streams.processing.state import USAGE_IDS

ENTRIES_PER_HINT: Final = 10_000
"""How many entries share one hint, as those of a large batch do: a look-up reads on from there."""

UNKNOWN_CONTENT: Final = 0


@dataclass(slots=True)
class Reached:
    """How far each input topic was read. `passed_at`: no record that is still to come arrived before this."""

    next_offsets: dict[str, int] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    passed_at: int = 0


@dataclass(slots=True)
class Remembered:
    """What the inputs say. `clock_at`: when the latest record that was read arrived."""

    seen: dict[str, list[Blob]]
    counters: dict[str, dict[OutcomeName, int]] = field(default_factory=dict)
    clock_at: int = 0


def find_positions(
    log: Log, topics: Topics, history: History, shown: Mapping[str, int], *, accept_gaps: bool
) -> Reached:
    """The position in each input topic. `shown`: the offsets of the consumer group.

    Raises `RetentionGapError` where records are gone of which nothing says that they were read, unless `accept_gaps`.
    """
    reached = Reached(passed_at=history.clock_at)
    for topic in topics.inputs:
        low, high = log.ends(topic)
        named = history.named.get(topic, SourceOffsets())
        position = named.last + 1
        if topic == topics.name("transfer_legs"):
            position = _after_answered(log, topics, position)
        if position > high:
            raise PositionBeyondEndError(
                f"the ledger has booked {topic}/{log.number} up to offset {position - 1}, but the log ends at {high}",
                "was the topic made again? restore it, or use another CREDITS_NAMESPACE",
            )
        if position < low:
            position = _over_a_gap(log, topic, position, history, shown.get(topic, 0), accept_gaps)
        if not named.last + 1:
            reached.starts[topic] = min(low, position)
        reached.next_offsets[topic] = position
        unread = log.first_at(topic, position) if position < high else None
        if unread is not None:
            reached.passed_at = min(reached.passed_at, arrived_at(unread))
    return reached


def _over_a_gap(log: Log, topic: str, position: int, history: History, shown: int, accept_gaps: bool) -> int:
    """Retention has removed the position; whether what nothing names was read, the group's offset (`shown`) says."""
    number, (low, _) = log.number, log.ends(topic)
    if position == 0 and topic not in history.named:
        history.notes.append(f"nothing of {topic}/{number} was booked; it is read from offset {low} on, as at first")
    elif shown < low and not accept_gaps:
        raise RetentionGapError(
            f"offsets {position} to {low - 1} of {topic}/{number} are gone, and nothing shows that they were read",
            "restore them; or say --accept-gaps, if they were duplicates or are given up",
        )
    else:
        why = "as the consumer group's offset shows" if shown >= low else "as --accept-gaps says"
        history.notes.append(
            f"{topic}/{number} goes on at offset {low}, {why}: retention removed {position} to {low - 1}"
        )
    return low


def _after_answered(log: Log, topics: Topics, position: int) -> int:
    """The position after the last leg with an answer: a credit for an unknown org makes no entry."""
    legs = topics.name("transfer_legs")
    waiting: dict[tuple[str, str], list[tuple[int, int]]] = {}  # a leg may be sent again by hand
    for messages in log.records(legs, position):
        for message, leg in zip(messages, _legs(log, legs, messages), strict=True):
            if leg is not None and leg.kind is LegKind.CREDIT:
                sent = offset_of(message), arrived_at(message)
                waiting.setdefault((leg.source_org_id, leg.transfer_id), []).append(sent)
    if not waiting:
        return position
    for number in range(log.partitions):
        for messages in log.records(legs, number=number):
            for message, leg in zip(messages, _legs(log, legs, messages), strict=True):
                if leg is None or leg.kind is LegKind.CREDIT:
                    continue
                for offset, sent_at in waiting.get((leg.source_org_id, leg.transfer_id), ()):
                    if arrived_at(message) >= sent_at:
                        position = max(position, offset + 1)
    return position


def _legs(log: Log, topic: str, messages: Sequence[Message]) -> list[Leg | None]:
    """The transfer legs in these records; None for what is none."""
    decoded = log.decoded_partly("leg", messages)
    legs: list[Leg | None] = [None] * len(messages)
    indexes = range(len(messages)) if decoded.positions is None else decoded.positions
    for index, row in zip(indexes, rows_of(decoded.batch), strict=True):
        try:
            legs[index] = Leg.from_record(row)
        except msgspec.ValidationError:
            continue
    return legs


def remember(
    log: Log, topics: Topics, history: History, reached: Reached, windows: Sequence[SeenWindow], seed: int
) -> Remembered:
    """Read the inputs up to their positions: the ids that are remembered, and how every record ended."""
    remembering = _Remembering(log, topics, history, reached, windows, seed)
    return remembering.all()


class _Remembering:
    def __init__(
        self,
        log: Log,
        topics: Topics,
        history: History,
        reached: Reached,
        windows: Sequence[SeenWindow],
        seed: int,
    ) -> None:
        self._log = log
        self._topics = topics
        self._history = history
        self._reached = reached
        self._seed = seed
        self._memories = {window.name: SeenMemory(window.window_us) for window in windows}
        self._kinds = {topics.name(key): kind for kind, key in INPUT_TOPICS.items()}
        self._gone: Counter[str] = Counter()
        """Ids without content, by topic."""
        self._found = Remembered({}, clock_at=history.clock_at)

    def all(self) -> Remembered:
        booked = self._booked()
        for topic, position in self._reached.next_offsets.items():
            if topic == self._topics.name("transfer_legs"):
                self._legs(topic, position)
            else:
                self._commands(topic, position, booked.get(topic, Booked.joined([])))
        for topic, count in sorted(self._gone.items()):
            self._history.notes.append(
                f"{count} ids of {topic}/{self._log.number} are remembered without their content, since retention "
                "removed the records: sent again they are dead letters instead of duplicates"
            )
        for name, memory in self._memories.items():
            oldest = memory.oldest_bucket(self._reached.passed_at)
            self._found.seen[name] = [blob for blob in memory.take_pending(1) if blob.bucket >= oldest]
        return self._found

    def _memory(self, topic: str) -> SeenMemory:
        usage = self._kinds.get(topic) is InputKind.USAGE
        return self._memories[USAGE_IDS if usage else MONEY_IDS]

    def _remembered_from(self, topic: str) -> int:
        """Ids of the topic that were added before this are forgotten, microseconds."""
        memory = self._memory(topic)
        return memory.oldest_bucket(self._reached.passed_at) * memory.bucket_us

    def _booked(self) -> dict[str, Booked]:
        """The records whose ids are remembered, by topic, from the part of the ledger that their windows reach back to.

        Those that Kafka has no longer are remembered at once.
        """
        topics = [topic for topic, kind in self._kinds.items() if kind is not InputKind.PRICE]
        begins = {topic: self._remembered_from(topic) for topic in topics}
        oldest = min(begins.values())
        ledger = self._topics.name("ledger")
        start = next((offset for offset, last_at in self._history.times if last_at >= oldest), None)
        parts: dict[str, list[Booked]] = {}
        if start is None:
            return {}
        for messages in self._log.records(ledger, start):
            batch = self._log.decoded("entry", ledger, messages).batch
            at = batch.column("recorded_at").to_numpy()
            for topic, rows in sources_of(batch, self._log.number).items():
                if topic not in begins:
                    continue
                rows = rows.of(at[rows.rows] >= begins[topic])
                if self._kinds[topic] is InputKind.HOLD:
                    rows = rows.of(~_resolved_nothing(batch, rows))
                rows = self._take_gone(topic, batch, messages, rows)
                if len(rows.rows):
                    parts.setdefault(topic, []).append(booked_rows(batch, messages, rows))
        return {topic: Booked.joined(each) for topic, each in parts.items()}

    def _take_gone(
        self, topic: str, batch: pa.RecordBatch, messages: Sequence[Message], rows: SourceRows
    ) -> SourceRows:
        """Remember those whose records are gone by what their entries say; the others are left."""
        gone = rows.of(rows.offsets < self._log.ends(topic)[0])
        if len(gone.rows):
            booked = booked_rows(batch, messages, gone)
            ids = [_id_of_entry(self._kinds[topic], row) for row in rows_of(batch.take(pa.array(gone.rows)))]
            unknown = np.full(len(ids), UNKNOWN_CONTENT, np.uint64)
            self._add(self._memory(topic), digests(ids, self._seed), unknown, booked, booked.at)
            self._gone[topic] += len(ids)
        return rows.of(rows.offsets >= self._log.ends(topic)[0])

    def _commands(self, topic: str, position: int, booked: Booked) -> None:
        records = 0
        for messages in self._log.records(topic, end=position):
            records += len(messages)
            self._note_clock(messages)
            offsets = np.array([offset_of(message) for message in messages], np.int64)
            first, last = np.searchsorted(booked.offsets, [offsets[0], offsets[-1] + 1])
            if first < last:
                part = Booked(*(getattr(booked, name)[first:last] for name in Booked.__slots__))
                self._remember_records(topic, messages, offsets, part)
        self._count(topic, records)

    def _remember_records(self, topic: str, messages: Sequence[Message], offsets: Int64s, booked: Booked) -> None:
        wanted, firsts = np.unique(booked.offsets, return_index=True)
        booked = Booked(*(getattr(booked, name)[firsts] for name in Booked.__slots__))
        indexes = np.minimum(np.searchsorted(offsets, wanted), len(offsets) - 1)
        if (offsets[indexes] != wanted).any():
            raise self._made_again(topic, int(wanted[offsets[indexes] != wanted][0]))
        chosen = [messages[index] for index in indexes.tolist()]
        kind = self._kinds[topic]
        decoded = self._log.decoded(kind.value, topic, chosen)
        names, ids = _ids_of_records(kind, chosen, decoded)
        differing = np.flatnonzero(names != booked.names)
        if len(differing):
            raise self._made_again(topic, int(wanted[differing[0]]))
        arrived = np.array([arrived_at(message) for message in chosen], np.int64)
        hashes = contents(decoded.contents(), self._seed)
        self._add(self._memory(topic), digests(ids, self._seed), hashes, booked, arrived)

    def _made_again(self, topic: str, offset: int) -> StateLostError:
        return StateLostError(
            f"the record at offset {offset} of {topic}/{self._log.number} is not the one that the ledger has booked: "
            "the topic was made again, or is another's",
            RESTORE,
        )

    def _add(self, memory: SeenMemory, ids: Digests, hashes: UInt64s, booked: Booked, arrived: Int64s) -> None:
        """Remember ids in the order of the log, each unless it is known when it arrives."""
        if repeats(ids).any():  # the same id again after its window
            for row in range(len(ids)):
                one = Booked(*(getattr(booked, name)[row : row + 1] for name in Booked.__slots__))
                self._add(memory, ids[row : row + 1], hashes[row : row + 1], one, arrived[row : row + 1])
            return
        new = ~memory.lookup(ids, arrived).known
        groups = booked.entries // ENTRIES_PER_HINT
        for group in np.unique(groups[new]).tolist():
            rows = np.flatnonzero(new & (groups == group))
            memory.add(ids[rows], hashes[rows], int(booked.entries[rows].min()), booked.at[rows])

    def _legs(self, topic: str, position: int) -> None:
        """Every leg below the position was decided, unless it was a dead letter or known: also without an entry."""
        traced = Booked.joined(self._history.legs)
        at_of = dict(
            zip(traced.offsets.tolist(), zip(traced.at.tolist(), traced.entries.tolist(), strict=True), strict=True)
        )
        dead = set(self._history.dead_offsets.get(topic, ()))
        memory = self._memories[MONEY_IDS]
        ends: Counter[OutcomeName] = Counter()
        known: dict[bytes, int] = {}
        records, at, entry = 0, 0, 0
        for messages in self._log.records(topic, end=position):
            records += len(messages)
            self._note_clock(messages)
            for message, leg in zip(messages, _legs(self._log, topic, messages), strict=True):
                offset, arrived = offset_of(message), arrived_at(message)
                if offset in dead:
                    continue
                if leg is None:
                    raise StateLostError(
                        f"{topic}/{self._log.number} at {offset} is no leg, and no dead letter", RESTORE
                    )
                at, entry = at_of.get(offset, (max(at, arrived), entry))
                unique = unique_leg(leg)
                before = known.get(unique)
                if offset not in at_of:
                    repeated = before is not None and memory.oldest_bucket(arrived) <= before // memory.bucket_us
                    ends["duplicates" if repeated else "entries"] += 1
                    if repeated:
                        continue
                known[unique] = at
                self._remember_leg(memory, unique, value_of(message) or b"", at, entry)
        self._count_legs(topic, ends)

    def _remember_leg(self, memory: SeenMemory, unique: bytes, value: bytes, at: int, entry: int) -> None:
        if at >= self._remembered_from(self._topics.name("transfer_legs")):
            ids, hashes = digests([unique], self._seed), contents([value], self._seed)
            memory.add(ids, hashes, entry - entry % ENTRIES_PER_HINT, np.array([at], np.int64))

    def _note_clock(self, messages: Sequence[Message]) -> None:
        self._found.clock_at = max(self._found.clock_at, arrived_at(messages[-1]))

    def _count(self, topic: str, records: int) -> None:
        """How the records of a topic ended: what nothing names was a duplicate; of a price, was taken."""
        named = self._history.named.get(topic, SourceOffsets())
        unnamed = records - named.retained
        if unnamed < 0:
            raise StateLostError(
                f"{-unnamed} records of {topic}/{self._log.number} that the ledger has booked are not there", RESTORE
            )
        ends: dict[OutcomeName, int] = {
            "entries": named.entries,
            "rejected": named.rejected,
            "dead_letters": named.dead_letters,
            "duplicates": 0,
        }
        ends["entries" if self._kinds[topic] is InputKind.PRICE else "duplicates"] += unnamed
        self._found.counters[topic] = {name: count for name, count in ends.items() if count}

    def _count_legs(self, topic: str, ends: Mapping[OutcomeName, int]) -> None:
        named = self._history.named.get(topic, SourceOffsets())
        counted: dict[OutcomeName, int] = {
            "entries": named.entries + ends.get("entries", 0),
            "rejected": named.rejected,
            "dead_letters": named.dead_letters,
            "duplicates": ends.get("duplicates", 0),
        }
        self._found.counters[topic] = {name: count for name, count in counted.items() if count}


def _resolved_nothing(batch: pa.RecordBatch, rows: SourceRows) -> npt.NDArray[np.bool_]:
    """Which rows refuse a capture or a release: their ids are not remembered, for they have resolved nothing."""
    details = batch.column("details").to_pylist()
    resolving = (HoldAction.CAPTURE, HoldAction.RELEASE)
    return np.array(
        [
            refused and msgspec.json.decode(details[row] or "{}").get("action") in resolving
            for row, refused in zip(rows.rows.tolist(), rows.rejected.tolist(), strict=True)
        ],
        np.bool_,
    )


def _id_of_entry(kind: InputKind, entry: Mapping[str, Any]) -> bytes:
    """The id of the record that an entry names, by what the entry says."""
    if kind is InputKind.USAGE:
        return usage_id(entry["org_id"], entry["event_id"], entry["revision"])
    fields = {"org_id": entry["org_id"], ID_FIELDS[kind]: entry["event_id"]}
    if kind is InputKind.HOLD:
        fields["action"] = _action_of(entry)
    return unique_id(kind, fields)


def _action_of(entry: Mapping[str, Any]) -> str:
    match EntryKind(entry["kind"]):
        case EntryKind.USAGE:
            return HoldAction.CAPTURE
        case EntryKind.HOLD_RELEASE:
            return HoldAction.RELEASE
        case _:  # placed, or refused to be
            return HoldAction.PLACE


def _ids_of_records(kind: InputKind, messages: Sequence[Message], decoded: DecodedBatch) -> tuple[Int64s, list[bytes]]:
    """Of each record a hash of org and id, as `booked_rows` has it of its entry, and what makes it one."""
    if kind is InputKind.USAGE:
        keys = [key_of(message) or b"" for message in messages]
        ids = usage_ids(keys, decoded.batch)
        names = zip(
            decoded.batch.column("org_id").to_pylist(), decoded.batch.column("event_id").to_pylist(), strict=True
        )
        return np.array([hash(name) for name in names], np.int64), ids
    rows = [INPUTS[kind].from_record(dict(row)).to_record() for row in rows_of(decoded.batch)]
    return (
        np.array([hash((row["org_id"], row[ID_FIELDS[kind]])) for row in rows], np.int64),
        [unique_id(kind, row) for row in rows],
    )
