"""The values of a batch as columns, without keeping the event loop waiting: for the registry, or for what is expensive.

Rules of this file:
1. Values that are all well, all of one of our own schemas, which is in memory, and bounded by their length are decoded
   at once. That is nearly always so, and costs nothing more.
2. Else all the ids of the batch are asked for in a thread, where they are not in memory. The thread is one of its own:
   while the registry is away, nothing else stands in line behind those who ask it.
3. What a foreign schema describes, and what is too long to be bounded, is decoded in another process
   (`decode_process`), part by part, so that partitions take turns. Where the process fails in the middle of a batch,
   its finished parts are kept for the next try.
4. What is left, our own schemas with bad bytes among them, is decoded in a thread: it is looked at record by record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Final

from schemas.codec import (
    DecodedBatch,
    RegistryUnavailableError,
    WriterSchema,
    decode_clean,
    decode_columns,
    foreign_positions,
    merge_decoded,
    schema_ids,
)
from schemas.encoding import FRAME
from schemas.records import AvroSchema
from schemas.writer_safety import BodyBounds, SchemaFaultError, UnreadableSchema, bounds_of
from streams.engine.ports import UnavailableError
from streams.kafka.registry import CachedRegistry, SchemaNotCachedError
from streams.processing.decode_process import DecodeProcess, parts_of, values_bound

ASKED_AT_ONCE: Final = 200
"""Ids in one go, which takes about a second (`registry.ASK_INTERVAL_S`): a worker that stops may leave in between."""

UNFINISHED_BATCHES_MAX: Final = 16
"""Batches whose finished parts are kept: partitions try again each with the same one, after half a second."""

BOUNDS_KEPT_MAX: Final = 10_000
"""Bounds of schemas kept, about 100 bytes each."""

_Part = tuple[range, DecodedBatch]

Values = tuple[str, Sequence[bytes | None]]
"""The name of a record, and values that should be such records."""


class Decoder:
    """Decodes for all partitions of a worker."""

    def __init__(self, registry: CachedRegistry) -> None:
        self._registry = registry
        self._asking = ThreadPoolExecutor(max_workers=1, thread_name_prefix="registry")
        self._looking = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decoding")
        self._foreign = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decoding-foreign")
        self._process = DecodeProcess()
        self._bounds: dict[int, BodyBounds | None] = {}
        """Of foreign schemas, by id, which stands for one schema always; None: it is not read."""
        self._finished: dict[bytes, list[_Part]] = {}
        """Of batches that could not be decoded to their end: the parts that were, by the digest of the batch."""

    async def decoded(self, batches: Sequence[Values]) -> list[DecodedBatch]:
        """Columns of each batch. Raises `UnavailableError` when the registry must be asked and cannot be."""
        return [self._at_once(*values) or await self._with_care(*values) for values in batches]

    def _at_once(self, record: str, values: Sequence[bytes | None]) -> DecodedBatch | None:
        try:
            return decode_clean(record, values, self._registry.cached_schemas)
        except SchemaNotCachedError:
            return None

    async def _with_care(self, record: str, values: Sequence[bytes | None]) -> DecodedBatch:
        schemas = await self._answers(sorted(schema_ids(values)))
        foreign = foreign_positions(values, schemas)
        if not foreign:
            return await self._looked_at(record, values, schemas)
        sent = [value for position in foreign if (value := values[position]) is not None]
        parts: list[tuple[Sequence[int], DecodedBatch]] = [
            (foreign[part.start : part.stop], decoded) for part, decoded in await self._apart(record, sent, schemas)
        ]
        apart = set(foreign)
        others = [position for position in range(len(values)) if position not in apart]
        if others:
            parts.append((others, await self._looked_at(record, [values[position] for position in others], schemas)))
        return merge_decoded(record, parts)

    async def _apart(self, record: str, sent: Sequence[bytes], schemas: _Answers) -> list[_Part]:
        """Values of foreign schemas, decoded in the process, part by part. Raises `UnavailableError`."""
        loop = asyncio.get_running_loop()
        parts = await loop.run_in_executor(self._looking, self._parts, sent, schemas)
        finished = self._finished.pop(_digest(record, sent), []) if self._finished else []
        for part in parts[len(finished) :]:
            some = sent[part.start : part.stop]
            try:
                decoded = await loop.run_in_executor(
                    self._foreign, self._process.decode, record, some, schemas.of(some)
                )
            except UnavailableError:
                if finished:
                    self._finished[_digest(record, sent)] = finished
                    if len(self._finished) > UNFINISHED_BATCHES_MAX:
                        del self._finished[next(iter(self._finished))]
                raise
            finished.append((part, decoded))
        return finished

    def _parts(self, sent: Sequence[bytes], schemas: _Answers) -> list[range]:
        """The parts that the process is given; in a thread, for it measures each schema once."""
        if len(self._bounds) > BOUNDS_KEPT_MAX:
            self._bounds.clear()
        named = schemas.of(sent)
        for schema_id in named.keys() - self._bounds.keys():
            try:
                self._bounds[schema_id] = bounds_of(named[schema_id])
            except SchemaFaultError:
                self._bounds[schema_id] = None
        return list(parts_of(sent, [values_bound(value, self._bounds[FRAME.unpack_from(value)[1]]) for value in sent]))

    async def _looked_at(self, record: str, values: Sequence[bytes | None], schemas: _Answers) -> DecodedBatch:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._looking, decode_columns, record, values, schemas)

    async def _answers(self, ids: Sequence[int]) -> _Answers:
        """The schemas with these ids, from memory where they are all in it."""
        try:
            return _Answers({schema_id: self._registry.cached_writer(schema_id) for schema_id in ids})
        except SchemaNotCachedError:
            pass
        loop = asyncio.get_running_loop()
        answers: dict[int, WriterSchema | None] = {}
        try:
            for start in range(0, len(ids), ASKED_AT_ONCE):
                some = ids[start : start + ASKED_AT_ONCE]
                answers |= await loop.run_in_executor(self._asking, self._registry.writers, some)
        except RegistryUnavailableError as error:
            raise UnavailableError(f"the schema registry cannot be asked: {error}") from error
        return _Answers(answers)

    def close(self) -> None:
        """Ask and decode no more."""
        for executor in (self._asking, self._looking, self._foreign):
            executor.shutdown(wait=False, cancel_futures=True)
        self._process.close()


def _digest(record: str, values: Sequence[bytes]) -> bytes:
    """16 bytes that tell one batch from another."""
    hashed = blake2b(record.encode(), digest_size=16)
    for value in values:
        hashed.update(len(value).to_bytes(8, "big"))
        hashed.update(value)
    return hashed.digest()


class _Answers:
    """The registry's answers about the ids of one batch, as writer schemas: they hold until it is decoded."""

    def __init__(self, by_id: Mapping[int, WriterSchema | None]) -> None:
        self._by_id = by_id

    def writer(self, schema_id: int) -> WriterSchema | None:
        return self._by_id[schema_id]

    def of(self, values: Sequence[bytes]) -> dict[int, AvroSchema]:
        """The schemas that these values name."""
        found = {schema_id: self._by_id[schema_id] for schema_id in schema_ids(values)}
        return {
            schema_id: schema
            for schema_id, schema in found.items()
            if schema is not None and not isinstance(schema, UnreadableSchema)
        }
