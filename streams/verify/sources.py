"""Every input record accounted for: in the ledger, in the dead letters, or an exact duplicate; exactly one of them.

Rules of this file:
1. What was read is what the positions of the ledger's own state say (the newest committed position record of each
   partition); input beyond it is still to come.
2. The ledger and the dead letters name the input record that caused them. No record may be named by both.
3. What neither names must be a duplicate: its id must have an entry. Anything else was dropped.
4. The counters that the ledger keeps must say the same numbers.
5. What retention has deleted since it was read is no difference: those of its records that became entries or dead
   letters are still named by them, and are counted so; the rest must fit the counters as duplicates. Where dead letters
   were deleted, records that nothing names must fit the number of dead letters that are missing.

Prices change no account, and a transfer leg may make no entry (one to an unknown organisation goes back; one
that is sent again has no effect): for those two topics only the numbers of records are compared, and of a compacted
topic (prices) Kafka may have dropped some since. With those under `no_entry`, the ends of each topic add up.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codec import UndecodableError, WriterSchemas, decode_one
from schemas.topics import BY_KEY, Topics
from streams.verify.fold import Differences

POSITION_KEY = b"\x00partition"
"""Key of a partition's position record in the account changelog; no org id can be it."""

ID_FIELDS = {
    "usage": "event_id",
    "purchases": "purchase_id",
    "transfers": "transfer_id",
    "refunds": "refund_id",
    "holds": "hold_id",
    "settings": "setting_id",
}
"""Topics whose every record has an entry, a dead letter, or a duplicate before it; and the field with its id."""

PLACE_BITS = 40
"""A place is partition · 2⁴⁰ + offset: room for 10¹² records a partition and 8 million partitions."""

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Positions:
    """How far one partition has read each topic, from where, and what it counted."""

    next_offsets: Mapping[str, int]
    starts: Mapping[str, int]
    counters: Mapping[str, Mapping[str, int]]


def positions_of(value: bytes) -> Positions:
    """The position record of a changelog value; raises ValueError when it is not one.

    With `CREDITS_INTERNAL_KEY` it begins with a mark and a checksum of 16 bytes, which is the ledger's to check.
    """
    try:
        record: Any = msgspec.msgpack.decode(value[17:] if value[:1] == b"\xc1" else value)
    except msgspec.DecodeError as error:
        raise ValueError(f"the position record cannot be read: {error}") from error
    if not isinstance(record, dict) or "next_offsets" not in record:
        raise ValueError("the position record has an unknown form")
    return Positions(record["next_offsets"], record.get("starts", {}), record.get("counters", {}))


@dataclass(slots=True)
class TopicCount:
    """How the records of one input topic ended."""

    records: int = 0
    ledger: int = 0
    dead_letters: int = 0
    duplicates: int = 0
    gone: int = 0
    """Read and counted once, deleted by retention since: in none of the numbers above."""
    counted: Counter[str] = field(default_factory=Counter)
    """What the ledger's own counters say."""

    @property
    def no_entry(self) -> int:
        """Those that ended well without an entry of their own: see the rules of this file."""
        return self.records - self.ledger - self.dead_letters - self.duplicates


class SourceOffsets:
    """Places of input records that some output names, by topic."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Places]] = {}

    def add_columns(self, topics: pa.Array, partitions: pa.Array, offsets: pa.Array) -> None:
        """Count the sources of a batch of entries; an empty topic means that time was the cause."""
        coded = topics.dictionary_encode()
        codes = coded.indices.to_numpy(zero_copy_only=False)
        places = (partitions.to_numpy().astype(np.int64) << PLACE_BITS) + offsets.to_numpy()
        for code, topic in enumerate(coded.dictionary.to_pylist()):
            if topic:
                self._parts.setdefault(topic, []).append(places[codes == code])

    def add(self, topic: str, partition: int, offset: int) -> None:
        """Count one source."""
        self._parts.setdefault(topic, []).append(np.array([(partition << PLACE_BITS) + offset], np.int64))

    def of(self, topic: str) -> Places:
        """The places in a topic that are named, sorted, each once."""
        parts = self._parts.get(topic)
        return np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int64)

    def repeated(self, topic: str) -> int:
        """How many names there are beyond one a place."""
        parts = self._parts.get(topic, [])
        return sum(map(len, parts)) - len(self.of(topic))


@dataclass(frozen=True, slots=True)
class Retained:
    """The first offsets that Kafka still has: of the inputs by topic and partition, of dead letters by partition."""

    inputs: Mapping[tuple[str, int], int] = field(default_factory=dict)
    dead_letters: Mapping[int, int] = field(default_factory=dict)


class InputCount:
    """Counts the records of the input topics against what names them."""

    def __init__(
        self,
        topics: Topics,
        positions: Mapping[int, Positions],
        ledger: SourceOffsets,
        dead: SourceOffsets,
        causes: array[int],
        writers: WriterSchemas,
        differences: Differences,
        retained: Retained | None = None,
    ) -> None:
        self.topics: dict[str, TopicCount] = {}
        self._writers = writers
        self._positions = positions
        self._differences = differences
        self._retained = retained or Retained()
        self._unnamed: dict[str, list[tuple[int, str]]] = {}
        self._causes = np.unique(np.frombuffer(causes, np.int64)) if causes else np.zeros(0, np.int64)
        self._records = {topics.name(key): (BY_KEY[key].record or "", name) for key, name in ID_FIELDS.items()}
        compacted = (topic for topic in BY_KEY.values() if topic.input and topic.cleanup == "compact")
        self._compacted = {topics.name(topic.key) for topic in compacted}
        self._ledger = {name: ledger.of(name) for name in topics.inputs}
        self._dead = {name: dead.of(name) for name in topics.inputs}
        self._scanned: Counter[tuple[str, int]] = Counter()
        for name in topics.inputs:
            both = np.intersect1d(self._ledger[name], self._dead[name], assume_unique=True)
            for place in both.tolist():
                differences.add("two_ends", _shown(name, place), "is in the ledger and in the dead letters")

    def scan(self, topic: str, partition: int, messages: Iterable[Any]) -> None:
        """Count records of one topic and partition, all below its position."""
        messages = list(messages)
        places = np.array([(partition << PLACE_BITS) + message.offset() for message in messages], np.int64)
        self._scanned[topic, partition] += len(messages)
        count = self.topics.setdefault(topic, TopicCount())
        count.records += len(messages)
        in_ledger = np.isin(places, self._ledger[topic], assume_unique=True)
        in_dead = np.isin(places, self._dead[topic], assume_unique=True)
        count.ledger += int(in_ledger.sum())
        count.dead_letters += int(in_dead.sum())
        if topic not in self._records:
            return
        for index in np.flatnonzero(~(in_ledger | in_dead)).tolist():
            lost = self._why_no_duplicate(topic, messages[index])
            if lost is not None and self._retained.dead_letters.get(partition, 0) > 0:
                self._unnamed.setdefault(topic, []).append((int(places[index]), lost))
                continue
            count.duplicates += 1
            if lost is not None:
                self._differences.add("lost", _shown(topic, int(places[index])), lost)

    def _why_no_duplicate(self, topic: str, message: Any) -> str | None:
        """What speaks against a record that nothing names being a duplicate; None when its id has an entry."""
        record, id_field = self._records[topic]
        try:
            fields = decode_one(record, message.value(), self._writers)
        except UndecodableError as error:
            return f"is nowhere, and cannot be read: {error}"
        cause = hash((fields["org_id"], fields[id_field]))
        at = int(np.searchsorted(self._causes, cause))
        if at < len(self._causes) and int(self._causes[at]) == cause:
            return None
        return f"{fields['org_id']} {fields[id_field]} has no entry and no dead letter"

    def finish(self) -> None:
        """Rules 4 and 5: compare with the ledger's own counters."""
        for partition, positions in self._positions.items():
            for topic, counted in positions.counters.items():
                total = self.topics.setdefault(topic, TopicCount())
                total.counted.update(counted)
                scanned, records = self._scanned[topic, partition], sum(counted.values())
                deleted = self._deleted(topic, partition)
                if 0 <= records - scanned <= deleted:
                    total.gone += records - scanned
                elif scanned > records or topic not in self._compacted:
                    place = f"{topic}[{partition}]"
                    message = f"{scanned} records up to the position, the ledger counted {dict(counted)}"
                    self._differences.add("records", place, message)
        for topic in self._records:
            self._compare_counters(topic, self.topics.get(topic, TopicCount()))

    def _deleted(self, topic: str, partition: int) -> int:
        """How many offsets that were read are no longer there. Not every offset is a record."""
        positions = self._positions[partition]
        first, start = self._retained.inputs.get((topic, partition), 0), positions.starts.get(topic, 0)
        return max(0, min(first, positions.next_offsets.get(topic, 0)) - start)

    def _deleted_of(self, topic: str, named: Mapping[str, Places]) -> int:
        """How many of these places of a topic lie before what Kafka still has."""
        bounds = [
            [partition << PLACE_BITS, (partition << PLACE_BITS) + self._retained.inputs.get((topic, partition), 0)]
            for partition in self._positions
        ]
        return int(np.diff(np.searchsorted(named[topic], np.array(bounds, np.int64).reshape(-1, 2))).sum())

    def _compare_counters(self, topic: str, count: TopicCount) -> None:
        ledger, dead = self._deleted_of(topic, self._ledger), self._deleted_of(topic, self._dead)
        own = count.counted
        unnamed = self._unnamed.get(topic, [])
        deleted = sum(self._deleted(topic, partition) for partition in self._positions)
        letters_missing = own["dead_letters"] - count.dead_letters - dead
        letters_deleted = sum(self._retained.dead_letters.values())
        # What is found, what was counted, by how many less it may have been, and by how many more.
        pairs = (
            ("entries and rejected", count.ledger + ledger, own["entries"] + own["rejected"], 0, 0),
            ("dead letters", count.dead_letters + dead, own["dead_letters"], 0, letters_deleted),
            (
                "duplicates",
                count.duplicates,
                own["duplicates"],
                min(letters_missing, letters_deleted) - len(unnamed),  # dead letters with the id of an entry
                deleted - ledger - dead,
            ),
        )
        for what, found, counted, less_max, more_max in pairs:
            if not -max(0, less_max) <= counted - found <= max(0, more_max):
                self._differences.add("counters", topic, f"{found} {what}, the ledger counted {counted}")
        for place, lost in unnamed[max(0, letters_missing) :]:
            self._differences.add("lost", _shown(topic, place), lost)


def _shown(topic: str, place: int) -> str:
    return f"{topic}[{place >> PLACE_BITS}]@{place & ((1 << PLACE_BITS) - 1)}"
