"""The values of a batch as columns, without keeping the event loop waiting for the registry.

Rules of this file:
1. While every schema id is in memory, which is nearly always, decoding asks nobody and costs nothing more.
2. Else all the ids of the batch are asked for in a thread, and the batch is decoded with the answers. The thread is one
   of its own: while the registry is away, nothing else stands in line behind those who ask it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from schemas.codec import DecodedBatch, RegistryUnavailableError, WriterSchemas, decode_columns, schema_ids
from schemas.records import AvroSchema
from streams.engine.ports import UnavailableError
from streams.registry import Kept, NotAskedError

ASKED_AT_ONCE: Final = 200
"""Ids in one go, which takes about a second (`registry.ASK_INTERVAL_S`): a worker that stops may leave in between."""

Values = tuple[str, Sequence[bytes | None]]
"""The name of a record, and values that should be such records."""


class Decoder:
    """Decodes for all partitions of a worker."""

    def __init__(self, registry: Kept) -> None:
        self._registry = registry
        self._asking = ThreadPoolExecutor(max_workers=1, thread_name_prefix="registry")

    async def decoded(self, batches: Sequence[Values]) -> list[DecodedBatch]:
        """Columns of each batch. Raises `UnavailableError` when the registry must be asked and cannot be."""
        try:
            return _decoded(batches, self._registry.remembered)
        except NotAskedError:
            ids = set().union(*(schema_ids(values) for _, values in batches))
            return _decoded(batches, await self._answers(sorted(ids)))

    async def _answers(self, ids: Sequence[int]) -> _Answers:
        loop = asyncio.get_running_loop()
        answers: dict[int, AvroSchema | None] = {}
        try:
            for start in range(0, len(ids), ASKED_AT_ONCE):
                some = ids[start : start + ASKED_AT_ONCE]
                answers |= await loop.run_in_executor(self._asking, self._registry.writers, some)
        except RegistryUnavailableError as error:
            raise UnavailableError(f"the schema registry cannot be asked: {error}") from error
        return _Answers(answers)

    def close(self) -> None:
        """Ask no more."""
        self._asking.shutdown(wait=False, cancel_futures=True)


class _Answers:
    """The registry's answers about the ids of one batch, as writer schemas: they hold until it is decoded."""

    def __init__(self, by_id: Mapping[int, AvroSchema | None]) -> None:
        self._by_id = by_id

    def writer(self, schema_id: int) -> AvroSchema | None:
        return self._by_id[schema_id]


def _decoded(batches: Sequence[Values], writers: WriterSchemas) -> list[DecodedBatch]:
    return [decode_columns(record, values, writers) for record, values in batches]
