"""Finds an entry in the ledger topic from the hint that was remembered with the id of its cause.

A hint is an offset at or before the entry; entries of one batch lie close together, so reading starts there and ends
with the first record that is wanted. Only committed records are looked at.
"""

from __future__ import annotations

import asyncio
import queue

from streams.engine.ports import EntryMatch, UnavailableError
from streams.engine.restore import CommittedReader
from streams.errors import KafkaUnavailableError
from streams.settings import Settings

READERS_MAX = 4


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

    def _find(self, partition: int, hint: int, key: bytes, wanted: EntryMatch) -> bytes | None:
        try:
            reader = self._free.get_nowait()
        except queue.Empty:
            reader = CommittedReader(self._settings, "lookup")
        try:
            low, high = reader.ends(self._topic, partition)
            for records in reader.read(self._topic, partition, max(hint, low), high):
                for record in records:
                    value = record.value()
                    if record.key() == key and isinstance(value, bytes) and wanted(value):
                        return value
        except KafkaUnavailableError as error:
            reader.close()
            raise UnavailableError(str(error)) from error
        self._free.put(reader)
        return None
