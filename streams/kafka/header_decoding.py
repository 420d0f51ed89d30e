"""Decodes Kafka batches with header names that are not UTF-8. aiokafka refuses such a batch and those fetched with it.

The rules of this file: Kafka does not check header names, so any producer can write such a record, and it must not stop
the partition. Bytes of a name that are not UTF-8 become backslash escapes. Nothing else of the record changes, and
batches without such names take aiokafka's own path.
"""

from __future__ import annotations

from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy


class RereadableRecords:
    """aiokafka's `MemoryRecords`, with its bytes kept so that the last batch can be read a second time."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._records = MemoryRecords(raw)
        self._taken = 0

    def size_in_bytes(self) -> int:
        """Size of the whole response."""
        return int(self._records.size_in_bytes())

    def has_next(self) -> bool:
        """Whether another batch follows."""
        return bool(self._records.has_next())

    def next_batch(self) -> Any:
        """The next batch, as aiokafka makes it; None at the end."""
        self._taken += 1
        return self._records.next_batch()

    def records_of(self, batch: Any) -> list[Any]:
        """All records of the batch that `next_batch` returned last. Raises `CorruptRecordException`."""
        try:
            return list(batch)
        except (UnicodeDecodeError, CorruptRecordException):
            return list(self._leniently())

    def _leniently(self) -> Any:
        reread = _MemoryRecordsPy(self._raw)
        for _ in range(self._taken - 1):
            reread.next_batch()
        batch = _DefaultRecordBatchPy(reread._next_slice)
        batch._maybe_uncompress()
        batch._buffer = _LenientBytes(batch._buffer)
        return batch


class _LenientBytes(bytearray):
    """What aiokafka's reader in Python slices keys, values and header names out of."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _LenientBytes(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        """Header names are all that is decoded."""
        return super().decode(encoding, "backslashreplace")


def patch_header_decoding() -> None:
    """Make aiokafka's fetcher use `RereadableRecords`. Call it before a consumer starts."""
    fetcher.MemoryRecords = RereadableRecords
