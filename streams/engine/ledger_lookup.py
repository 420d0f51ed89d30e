"""Finds an entry in the ledger topic from the hint that was remembered with the id of its cause.

A hint is an offset at or before the entry; entries of one batch lie close together, so reading starts there and ends
with the first record that is wanted. Only committed records are looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import Mapping
from typing import Any

from streams.engine.ports import EntryMatch, UnavailableError
from streams.engine.restore import CommittedReader
from streams.errors import KafkaUnavailableError
from streams.settings import Settings

READERS_MAX = 4
# Without a hint the search is a pass over the end of the log: 3 to 4 s for so many records, and the partition waits.
LOOK_BACK_RECORDS_MAX = 1_000_000


class LedgerLookup:
    """`EntrySource` of the port, for one topic. Up to `READERS_MAX` searches at a time."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._free: queue.LifoQueue[CommittedReader] = queue.LifoQueue()
        self._limit = asyncio.Semaphore(READERS_MAX)

    async def find(self, partition: int, hint: int, key: bytes, wanted: EntryMatch) -> bytes | None:
        """See `EntrySource.find`."""
        async with self._limit:
            return await asyncio.to_thread(self._find, partition, hint, key, wanted)

    def close(self) -> None:
        """Close the readers that are not in use."""
        while not self._free.empty():
            self._free.get_nowait().close()

    async def find_recent(self, partition: int, wanted: Mapping[Any, tuple[bytes, EntryMatch]]) -> dict[Any, bytes]:
        """See `EntrySource.find_recent`."""
        async with self._limit:
            return await asyncio.to_thread(self._find_recent, partition, wanted)

    def _find(self, partition: int, hint: int, key: bytes, wanted: EntryMatch) -> bytes | None:
        return self._scan(partition, hint, {None: (key, wanted)}).get(None)

    def _find_recent(self, partition: int, wanted: Mapping[Any, tuple[bytes, EntryMatch]]) -> dict[Any, bytes]:
        return self._scan(partition, None, wanted)

    def _scan(
        self, partition: int, start: int | None, wanted: Mapping[Any, tuple[bytes, EntryMatch]]
    ) -> dict[Any, bytes]:
        """One pass from `start` (None: as far back as is allowed) until everything is found, or to the end."""
        missing = dict(wanted)
        found: dict[Any, bytes] = {}
        try:
            reader = self._free.get_nowait()
        except queue.Empty:
            reader = CommittedReader(self._settings, "lookup")
        try:
            low, high = reader.ends(self._topic, partition)
            begin = high - LOOK_BACK_RECORDS_MAX if start is None else start
            with contextlib.closing(reader.read(self._topic, partition, max(begin, low), high)) as batches:
                for record in (record for batch in batches for record in batch):
                    key, value = record.key(), record.value()
                    assert isinstance(value, bytes)
                    for name in [name for name, (own, match) in missing.items() if own == key and match(value)]:
                        found[name] = value
                        del missing[name]
                    if not missing:
                        break
        except KafkaUnavailableError as error:
            reader.close()
            raise UnavailableError(str(error)) from error
        self._free.put(reader)
        return found
