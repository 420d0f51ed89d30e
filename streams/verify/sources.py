"""Every input record accounted for: in the ledger, in the dead letters, or an exact duplicate; exactly one of them.

Rules of this file:
1. What was read is what the positions of the ledger's own state say (the newest committed position record of each
   partition); input beyond it is still to come.
2. The ledger and the dead letters name the input record that caused them. No record may be named by both.
3. What neither names must be a duplicate: its id must have an entry. Anything else was dropped.
4. The counters that the ledger keeps must say the same numbers.

Prices change no account, and an acknowledged transfer leg changes no balance: for those two topics only the numbers of
records are compared, and of a compacted topic (prices) Kafka may have dropped some since.
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
    """The position record of a changelog value; raises ValueError when it is not one."""
    try:
        record: Any = msgspec.msgpack.decode(value)
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
    counted: Counter[str] = field(default_factory=Counter)
    """What the ledger's own counters say."""


class Named:
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


class InputCount:
    """Counts the records of the input topics against what names them."""

    def __init__(
        self,
        topics: Topics,
        positions: Mapping[int, Positions],
        ledger: Named,
        dead: Named,
        causes: array[int],
        writers: WriterSchemas,
        differences: Differences,
    ) -> None:
        self.topics: dict[str, TopicCount] = {}
        self._writers = writers
        self._positions = positions
        self._differences = differences
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
            count.duplicates += 1
            self._must_be_duplicate(topic, messages[index], int(places[index]))

    def _must_be_duplicate(self, topic: str, message: Any, place: int) -> None:
        record, id_field = self._records[topic]
        try:
            fields = decode_one(record, message.value(), self._writers)
        except UndecodableError as error:
            self._differences.add("lost", _shown(topic, place), f"is nowhere, and cannot be read: {error}")
            return
        cause = hash((fields["org_id"], fields[id_field]))
        at = int(np.searchsorted(self._causes, cause))
        if at >= len(self._causes) or int(self._causes[at]) != cause:
            message_text = f"{fields['org_id']} {fields[id_field]} has no entry and no dead letter"
            self._differences.add("lost", _shown(topic, place), message_text)

    def finish(self) -> None:
        """Rule 4: compare with the ledger's own counters, partition by partition."""
        for partition, positions in self._positions.items():
            for topic, counted in positions.counters.items():
                total = self.topics.setdefault(topic, TopicCount())
                total.counted.update(counted)
                scanned, records = self._scanned[topic, partition], sum(counted.values())
                if scanned > records or (scanned < records and topic not in self._compacted):
                    place = f"{topic}[{partition}]"
                    message = f"{scanned} records up to the position, the ledger counted {dict(counted)}"
                    self._differences.add("records", place, message)
        for topic in self._records:
            count = self.topics.get(topic, TopicCount())
            own = count.counted
            pairs = (
                ("entries and rejected", count.ledger, own["entries"] + own["rejected"]),
                ("dead letters", count.dead_letters, own["dead_letters"]),
                ("duplicates", count.duplicates, own["duplicates"]),
            )
            for what, found, counted_by_ledger in pairs:
                if found != counted_by_ledger:
                    message = f"{found} {what}, the ledger counted {counted_by_ledger}"
                    self._differences.add("counters", topic, message)


def _shown(topic: str, place: int) -> str:
    return f"{topic}[{place >> PLACE_BITS}]@{place & ((1 << PLACE_BITS) - 1)}"
