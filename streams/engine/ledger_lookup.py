"""Finds entries in the ledger topic: from the offset remembered with the id of their cause, or by their time.

Rules of this file:
1. Only committed records are looked at, and one pass looks at `PASS_RECORDS_MAX` of them at most.
2. A remembered offset is at or before the entry, and entries of one batch are close together: such a pass is short.
3. Without an offset, but with a time, the offset is found by halving. The times in the entries decide: they
   never fall within a partition, whereas Kafka's timestamps of the ledger are those of the workers' hosts.
4. With neither, the pass is over the end of the log; it takes 3 to 4 s, and the partition waits: not to be asked for
   again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol

from confluent_kafka import Message

from streams.engine.ports import EntryMatch, TimeOf, UnavailableError
from streams.errors import KafkaUnavailableError
from streams.kafka.reader import CommittedReader
from streams.settings import Settings

READERS_MAX = 4
PASS_RECORDS_MAX = 1_000_000
"""Records of one pass: 3 to 4 s."""

NEAR_RECORDS = 20_000
"""Where halving ends: a pass over this many records takes no longer than two more steps."""

Wanted = Mapping[Any, tuple[bytes, EntryMatch]]
"""What to find: by a name of the caller's, the record's key and what tells it from others of that key."""


class LedgerLookup:
    """`EntrySource` of the port, for one topic. Up to `READERS_MAX` searches at a time."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._free: queue.LifoQueue[CommittedReader] = queue.LifoQueue()
        self._limit = asyncio.Semaphore(READERS_MAX)

    async def find(self, partition: int, hint: int, key: bytes, wanted: EntryMatch) -> bytes | None:
        """See `EntrySource.find`."""
        found = await self._search(lambda reader: self._pass(reader, partition, hint, {None: (key, wanted)}))
        return found.get(None)

    async def find_recent(self, partition: int, wanted: Wanted) -> dict[Any, bytes]:
        """See `EntrySource.find_recent`."""

        def search(reader: CommittedReader) -> dict[Any, bytes]:
            _, high = reader.ends(self._topic, partition)
            return self._pass(reader, partition, high - PASS_RECORDS_MAX, wanted)

        return await self._search(search)

    async def find_since(self, partition: int, at: int, time_of: TimeOf, wanted: Wanted) -> dict[Any, bytes]:
        """See `EntrySource.find_since`."""

        def search(reader: CommittedReader) -> dict[Any, bytes]:
            return self._pass(reader, partition, place_of(reader, self._topic, partition, at, time_of), wanted)

        return await self._search(search)

    def close(self) -> None:
        """Close the readers that are not in use."""
        while not self._free.empty():
            self._free.get_nowait().close()

    async def _search(self, search: Callable[[CommittedReader], dict[Any, bytes]]) -> dict[Any, bytes]:
        """Search in a thread, with a reader of its own."""
        async with self._limit:
            return await asyncio.to_thread(self._with_reader, search)

    def _with_reader(self, search: Callable[[CommittedReader], dict[Any, bytes]]) -> dict[Any, bytes]:
        try:
            reader = self._free.get_nowait()
        except queue.Empty:
            reader = CommittedReader(self._settings, "lookup")
        try:
            found = search(reader)
        except KafkaUnavailableError as error:
            reader.close()
            raise UnavailableError(str(error)) from error
        self._free.put(reader)
        return found

    def _pass(self, reader: CommittedReader, partition: int, start: int, wanted: Wanted) -> dict[Any, bytes]:
        """One pass from `start` until everything is found, or to the end of the log or of a pass."""
        missing: dict[bytes, dict[Any, EntryMatch]] = {}
        for name, (key, match) in wanted.items():
            missing.setdefault(key, {})[name] = match
        found: dict[Any, bytes] = {}
        low, high = reader.ends(self._topic, partition)
        begin = max(start, low)
        end = min(high, begin + PASS_RECORDS_MAX)
        with contextlib.closing(reader.read(self._topic, partition, begin, end)) as batches:
            for record in (record for batch in batches for record in batch):
                key, value = record.key(), record.value()
                assert isinstance(key, bytes)
                of_key = missing.get(key)
                if of_key is None:
                    continue
                assert isinstance(value, bytes)
                for name in [name for name, match in of_key.items() if match(value)]:
                    found[name] = value
                    del of_key[name]
                if len(found) == len(wanted):
                    break
        return found


class Records(Protocol):
    """Committed records of single partitions; `CommittedReader` for one."""

    def ends(self, topic: str, partition: int) -> tuple[int, int]:
        """(first offset, offset after the last one)."""
        ...

    def read(self, topic: str, partition: int, start: int, end: int) -> Generator[list[Message], None, None]:
        """The records from `start` up to `end`, in lists."""
        ...


def place_of(records: Records, topic: str, partition: int, at: int, time_of: TimeOf, near: int = NEAR_RECORDS) -> int:
    """An offset at or before the first record whose time is `at` or later, by halving: at most `near` before it.

    Everything before `low` is earlier than `at`, everything from `high` on is not.
    """
    low, high = records.ends(topic, partition)
    while high - low > near:
        middle = (low + high) // 2
        met = _first(records, topic, partition, middle, high)
        if met is None or time_of(met[1]) >= at:
            high = middle
        else:
            low = met[0] + 1
    return low


def _first(records: Records, topic: str, partition: int, start: int, end: int) -> tuple[int, bytes] | None:
    """Offset and value of the first record from `start` on, if there is one before `end`."""
    with contextlib.closing(records.read(topic, partition, start, end)) as batches:
        for record in (record for batch in batches for record in batch):
            offset, value = record.offset(), record.value()
            assert isinstance(offset, int)
            assert isinstance(value, bytes)
            return (offset, value) if offset < end else None
    return None
