"""Bytes ↔ columns ↔ single records, in Confluent wire format (byte 0, 4-byte schema id, Avro body).

Rules of this file:
- Data never raises: what cannot be read is an `Undecodable` with its position and a dead-letter code. Only a registry
  that cannot be asked raises (`RegistryUnavailableError`): that is a broken world, not a bad record.
- Columns are the fast way (pyruhvro, Arrow), fastavro is the reference: it takes single records, writer schemas whose
  columns do not fit, and whatever the fast way does not vouch for.
- The fast way vouches for a batch only when all strings are UTF-8 (pyruhvro does not look) and every body, encoded
  again, gives its own bytes. So bytes left over after a record, cut numbers and other encodings of the same value
  are never taken on trust: a batch that fails is halved until the records at fault stand alone before fastavro.
- What a body can hold is bounded before it is read (`schemas.writer_safety`): a longer one is counted first. So one
  record costs at most about 20 ms and 4 MB, whatever its schema.
- Times are int microseconds in both ways; rows come out in the newest version of the record.

Decoding 5,000 usage records of 186 bytes takes 0.5 µs each, encoding entries of 302 bytes 0.3 µs
(tests/contract/measure_codec.py).
"""

from __future__ import annotations

import functools
import io
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, TypeVar

import fastavro
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyruhvro
from fastavro.schema import SchemaParseException, UnknownType

from schemas.content import content
from schemas.encoding import (
    FRAME,
    FRAME_BYTES,
    batch_of,
    constant_column,
    encode_columns,
    encode_one,
    frame,
    rows_of,
    writer_of,
)
from schemas.enums import DeadLetterCode
from schemas.records import (
    AvroSchema,
    arrow_schema,
    avro_schema,
    plain_schema,
    plain_text,
    record_names,
    versions,
)
from schemas.resolution import NO_SCHEMA, read_differences
from schemas.varint_check import body_fault
from schemas.wire import BARE_AVRO, hint
from schemas.writer_safety import (
    VALUES_MAX,
    BodyBounds,
    UnreadableSchema,
    bounds_of,
    fault_of,
    named_types,
    read_by_columns,
)

__all__ = [
    "FRAME_BYTES",
    "DecodedBatch",
    "RegistryUnavailableError",
    "Undecodable",
    "UndecodableError",
    "WriterSchema",
    "WriterSchemas",
    "arrow_schema",
    "avro_schema",
    "batch_of",
    "decode_clean",
    "decode_columns",
    "decode_one",
    "encode_columns",
    "encode_one",
    "foreign_positions",
    "frame",
    "merge_decoded",
    "rows_of",
    "schema_ids",
]

ALONE_RECORDS_MAX = 8
"""A part of a failing batch with at most this many records goes to fastavro one by one: a call for columns costs about
0.15 ms however few they are, as much as fastavro for 8."""

_Int64s = npt.NDArray[np.int64]
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_BAD_BODY = (
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
)
"""What fastavro raises for bytes that are not a record of the writer's schema (seen by fuzzing)."""

READERS_MAX = 1_000
"""Writer schemas whose readers are kept; the oldest is made again when it is needed."""

COLUMN_CELLS_MAX = 4_000_000
"""Cells in one call for columns of a foreign schema: at most some 50 MB, most of it for fields that are not read."""


class RegistryUnavailableError(Exception):
    """The schema registry cannot be asked now: wait and try again, nothing is known about the record."""


class UndecodableError(ValueError):
    """A single value that cannot be read; `code` says under which dead-letter code it goes."""

    def __init__(self, code: DeadLetterCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


WriterSchema = AvroSchema | UnreadableSchema
"""What a registry has under an id."""


class WriterSchemas(Protocol):
    """The port to the schema registry: writer schemas by id."""

    def writer(self, schema_id: int) -> WriterSchema | None:
        """The schema with that id; None when the registry knows none. Raises `RegistryUnavailableError`."""
        ...


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A value that cannot be read: where it stood in the batch, under which code it goes, and a sentence why."""

    position: int
    code: DeadLetterCode
    message: str


@dataclass(slots=True)
class DecodedBatch:
    """What a batch of values said."""

    record: str
    batch: pa.RecordBatch
    """One row per readable value, in the order of the values, in the newest version's columns."""
    positions: list[int] | None
    """Position of each row among the values; None: row i is value i, nothing failed."""
    failures: list[Undecodable]
    """The unreadable values, by position."""
    bodies: list[bytes] | None
    """Body of each row's value, when all were written in the newest version as this codec would write them."""

    def contents(self) -> list[bytes]:
        """For each row the bytes that are equal exactly when two records say the same (schemas/content.py)."""
        return content(self.record).of(self.batch, self.bodies)


# --- decoding -------------------------------------------------------------------------------------------------------


def decode_columns(record: str, values: Sequence[bytes | None], writers: WriterSchemas) -> DecodedBatch:
    """Columns of all readable values, in the newest version of `record`; the others as failures.

    The common case, all values written with one schema and well, is one call into Rust. Raises
    `RegistryUnavailableError` when a writer schema is not known here and the registry cannot be asked.
    """
    return decode_clean(record, values, writers) or _decode_mixed(record, values, writers)


def decode_clean(record: str, values: Sequence[bytes | None], writers: WriterSchemas) -> DecodedBatch | None:
    """The same for values that are all well, all written with one of our own schemas, and bounded by their length.

    None for any others, soon: foreign values are not looked at more closely, and no record is looked at alone.
    """
    common = _common_frame(values)
    if common is None:
        return None
    schema_id, lengths = common
    writer = writers.writer(schema_id)
    if writer is None or isinstance(writer, UnreadableSchema) or not _is_released(schema_id, writer):
        return None
    reader = _reader(record, schema_id, writer)
    if isinstance(reader, UndecodableError) or reader.projection is None or lengths.max() > reader.safe_bytes:
        return None
    bodies: list[bytes] = [value[FRAME_BYTES:] for value in values]  # type: ignore[index]  # none is None
    batch = reader.columns(bodies, lengths)
    return None if batch is None else DecodedBatch(record, batch, None, [], bodies if reader.newest else None)


def _common_frame(values: Sequence[bytes | None]) -> tuple[int, _Int64s] | None:
    """The schema id of all values, and the lengths of their bodies, when each has a frame, a body and the same id."""
    try:
        frames = {value[:FRAME_BYTES] for value in values}  # type: ignore[index]  # None raises TypeError
    except TypeError:
        return None
    if len(frames) != 1:
        return None
    lengths = np.fromiter(map(len, values), np.int64, len(values)) - FRAME_BYTES  # type: ignore[arg-type]
    if lengths.min() <= 0:
        return None
    magic, schema_id = FRAME.unpack(frames.pop())
    return None if magic != 0 else (int(schema_id), lengths)


def foreign_positions(values: Sequence[bytes | None], writers: WriterSchemas) -> list[int]:
    """The values to decode in a process of their own: not written with one of our own schemas, or long.

    `writers` answers from memory.
    """
    found = []
    safe: dict[int, int] = {}
    for position, value in enumerate(values):
        if value is None or not _is_framed(value):
            continue
        schema_id = FRAME.unpack_from(value)[1]
        if schema_id not in safe:
            safe[schema_id] = _safe_bytes(schema_id, writers.writer(schema_id))
        if len(value) - FRAME_BYTES > safe[schema_id]:
            found.append(position)
    return found


def _safe_bytes(schema_id: int, writer: WriterSchema | None) -> int:
    """Up to how many bytes a body may be decoded anywhere; one without a schema always, since it is not looked at."""
    if writer is None or isinstance(writer, UnreadableSchema):
        return 2**62
    return bounds_of(writer).safe_bytes if _is_released(schema_id, writer) else 0


def merge_decoded(record: str, parts: Sequence[tuple[Sequence[int], DecodedBatch]]) -> DecodedBatch:
    """What the parts of one batch said, each with the positions of its values."""
    failures: list[Undecodable] = []
    merged: list[tuple[list[int], pa.RecordBatch]] = []
    for positions, part in parts:
        failures += [Undecodable(positions[each.position], each.code, each.message) for each in part.failures]
        rows = positions if part.positions is None else [positions[row] for row in part.positions]
        if rows:
            merged.append((list(rows), part.batch))
    return _decoded(record, merged, failures, sum(len(positions) for positions, _ in parts))


def schema_ids(values: Sequence[bytes | None]) -> set[int]:
    """The schema ids that decoding these values asks for."""
    return {FRAME.unpack_from(value)[1] for value in values if _is_framed(value)}


def _decode_mixed(record: str, values: Sequence[bytes | None], writers: WriterSchemas) -> DecodedBatch:
    """The way for several writers and bad values: by writer schema, and each part as far as it can be read."""
    failures: list[Undecodable] = []
    by_schema: dict[int, list[int]] = {}
    for position, value in enumerate(values):
        fault = _frame_fault(record, value)
        if fault is not None:
            failures.append(Undecodable(position, fault.code, fault.message))
        elif value is not None:
            by_schema.setdefault(FRAME.unpack_from(value)[1], []).append(position)
    parts: list[tuple[list[int], pa.RecordBatch]] = []
    for schema_id, positions in by_schema.items():
        reader = _reader(record, schema_id, writers.writer(schema_id))
        if isinstance(reader, UndecodableError):
            failures.extend(Undecodable(position, reader.code, reader.message) for position in positions)
            continue
        bodies = [value[FRAME_BYTES:] for value in (values[position] for position in positions) if value is not None]
        for part in reader.parts(positions, bodies):
            if isinstance(part, Undecodable):
                failures.append(part)
            else:
                parts.append(part)
    return _decoded(record, parts, failures, len(values))


def _decoded(
    record: str, parts: list[tuple[list[int], pa.RecordBatch]], failures: list[Undecodable], values: int
) -> DecodedBatch:
    failures.sort(key=lambda failure: failure.position)
    batch, rows = _merge(record, parts)
    all_read = not failures and rows == list(range(values))
    return DecodedBatch(record, batch, None if all_read else rows, failures, None)


def _is_framed(value: bytes | None) -> TypeGuard[bytes]:
    """Whether there is a schema id and a body."""
    return value is not None and len(value) > FRAME_BYTES and value[0] == 0


def _frame_fault(record: str, value: bytes | None) -> UndecodableError | None:
    """Why there is no schema id and no body, and what to do where that shows."""
    if _is_framed(value):
        return None
    if value is None:
        return UndecodableError(DeadLetterCode.NULL_VALUE, "the record has no value")
    message = hint(record, value)
    if message is None and len(value) <= FRAME_BYTES:
        message = f"{len(value)} bytes are too short for a record"
    if message is None:
        bare = _is_bare(record, value)
        message = BARE_AVRO if bare else f"first byte is {value[0]}, not 0 (Confluent wire format)"
    return UndecodableError(DeadLetterCode.UNDECODABLE, message)


def _is_bare(record: str, value: bytes) -> bool:
    """Whether a value is a record of our newest schema as it stands."""
    reader = _reader(record, _NEWEST_ID, _newest(record))
    if isinstance(reader, UndecodableError) or len(value) > reader.safe_bytes:
        return False
    try:
        reader.row(value)
    except UndecodableError:
        return False
    return True


_NEWEST_ID = -1
"""Stands for the id of our newest schema, which is the registry's affair."""


@functools.cache
def _newest(record: str) -> AvroSchema:
    return avro_schema(record)


def _merge(record: str, parts: list[tuple[list[int], pa.RecordBatch]]) -> tuple[pa.RecordBatch, list[int]]:
    """One batch of all parts in the order of the positions, and the positions."""
    if not parts:
        return batch_of(record, []), []
    positions = np.concatenate([np.asarray(part_positions, np.int64) for part_positions, _ in parts])
    batch = pa.concat_batches([part for _, part in parts]) if len(parts) > 1 else parts[0][1]
    order = np.argsort(positions)
    if (order[:-1] > order[1:]).any():
        batch = batch.take(pa.array(order))
    return batch, positions[order].tolist()


def decode_one(record: str, value: bytes | None, writers: WriterSchemas) -> dict[str, Any]:
    """One record as a dict of the newest version's fields, read by fastavro; times are int microseconds.

    Raises `UndecodableError` with a dead-letter code, and `RegistryUnavailableError`.
    """
    fault = _frame_fault(record, value)
    if fault is not None or value is None:
        raise fault or AssertionError("a null value is a fault")
    schema_id = FRAME.unpack_from(value)[1]
    reader = _reader(record, schema_id, writers.writer(schema_id))
    if isinstance(reader, UndecodableError):
        raise reader
    return reader.row(value[FRAME_BYTES:])


@dataclass(frozen=True, slots=True)
class _Reader:
    """How values of one writer schema become rows of the newest version of a record."""

    record: str
    newest: bool
    """The writer schema is the newest version."""
    released: bool
    """The writer schema is one of ours."""
    bounds: BodyBounds
    writer: AvroSchema
    """Parsed by fastavro."""
    reader: AvroSchema
    plain_writer: AvroSchema
    named: Mapping[str, Any]
    """The named types of the plain writer."""
    writer_text: str
    """The plain form as JSON, for pyruhvro."""
    projection: tuple[int | Mapping[str, Any], ...] | None
    """For each field of the newest version the writer's column, or the field whose default stands in; None: the
    columns do not fit, and fastavro reads record by record."""

    @property
    def safe_bytes(self) -> int:
        """Up to this size a body need not be counted."""
        return self.bounds.safe_bytes

    def columns(self, bodies: list[bytes], lengths: _Int64s) -> pa.RecordBatch | None:
        """The columns of the bodies; None when at least one of them needs a look by fastavro."""
        try:
            batch = pyruhvro.deserialize_array(bodies, self.writer_text)
            batch.validate(full=True)  # UTF-8
        except (ValueError, MemoryError):
            return None
        if not _same_bytes(pyruhvro.serialize_record_batch(batch, self.writer_text, 1)[0], bodies, lengths):
            return None
        return batch if self.newest else self._project(batch)

    def _project(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        schema = arrow_schema(self.record)
        columns = [
            batch.column(source) if isinstance(source, int) else constant_column(source, field.type, batch.num_rows)
            for source, field in zip(self.projection or (), schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def row(self, body: bytes) -> dict[str, Any]:
        """One body by fastavro; raises `UndecodableError`, also for bytes left over and numbers out of range."""
        if not self.released or len(body) > self.safe_bytes:
            self._check(body)
        stream = io.BytesIO(body)
        try:
            row: dict[str, Any] = fastavro.schemaless_reader(stream, self.writer)
            if stream.tell() != len(body):
                raise self._undecodable(f"{len(body) - stream.tell()} bytes left over after the {self.record}")
            if self.released:
                written = io.BytesIO()
                fastavro.schemaless_writer(written, self.writer, row)
                if written.getvalue() != body:
                    self._check(body)
            if not self.newest:
                row = fastavro.schemaless_reader(io.BytesIO(body), self.writer, self.reader)
        except UndecodableError:
            raise
        except _BAD_BODY as error:
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            raise self._undecodable(f"not a {self.record} ({reason})") from error
        fault = writer_of(self.record)[1].fault(row)
        if fault is not None:
            raise self._undecodable(f"not a {self.record} ({fault})")
        return row

    def _check(self, body: bytes) -> None:
        """Count a body before anything is made of it. A foreign one is never encoded again to see whether it is right:
        for unions of records in one another that takes time without bound."""
        fault = body_fault(self.plain_writer, body, self.named)
        if fault is not None:
            raise self._undecodable(f"not a {self.record} ({fault})")

    def _undecodable(self, message: str) -> UndecodableError:
        return UndecodableError(DeadLetterCode.UNDECODABLE, message)

    def parts(
        self, positions: list[int], bodies: list[bytes]
    ) -> Iterator[tuple[list[int], pa.RecordBatch] | Undecodable]:
        """The bodies as batches with their positions, and the failures: halves what fails as columns."""
        lengths = np.fromiter(map(len, bodies), np.int64, len(bodies))
        spans = self._spans(lengths)
        alone: list[int] = []
        while spans:
            start, end = spans.pop()
            few = end - start <= ALONE_RECORDS_MAX and end - start < len(bodies)
            if self.projection is None or few or lengths[start:end].max() > self.safe_bytes:
                if end - start == 1 or self.projection is None or few:
                    alone.extend(range(start, end))
                else:
                    middle = (start + end) // 2
                    spans += [(middle, end), (start, middle)]
                continue
            batch = self.columns(bodies[start:end], lengths[start:end])
            if batch is not None:
                yield positions[start:end], batch
            elif end - start <= ALONE_RECORDS_MAX:
                alone.extend(range(start, end))
            else:
                middle = (start + end) // 2
                spans += [(middle, end), (start, middle)]
        yield from self._one_by_one([positions[index] for index in alone], [bodies[index] for index in alone])

    def _spans(self, lengths: _Int64s) -> list[tuple[int, int]]:
        """The bodies in as few calls for columns as there may be: as one where the schema is ours."""
        if self.released or not len(lengths):
            return [(0, len(lengths))]
        cells = np.minimum(self.bounds.spread + lengths * self.bounds.values_per_byte, VALUES_MAX + self.bounds.spread)
        starts = np.flatnonzero(np.diff(np.cumsum(cells) // COLUMN_CELLS_MAX, prepend=-1)).tolist()
        return list(zip(starts, [*starts[1:], len(lengths)], strict=True))[::-1]

    def _one_by_one(
        self, positions: list[int], bodies: list[bytes]
    ) -> Iterator[tuple[list[int], pa.RecordBatch] | Undecodable]:
        kept: list[int] = []
        rows: list[dict[str, Any]] = []
        for position, body in zip(positions, bodies, strict=True):
            try:
                rows.append(self.row(body))
                kept.append(position)
            except UndecodableError as error:
                yield Undecodable(position, error.code, error.message)
        if rows:
            yield kept, batch_of(self.record, rows)


def _same_bytes(encoded: pa.BinaryArray, bodies: list[bytes], lengths: _Int64s) -> bool:
    """Whether the encoded records are, one by one, the bodies."""
    _, offsets_buffer, data = encoded.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32, len(bodies) + 1, encoded.offset * 4)
    if not np.array_equal(np.diff(offsets), lengths):
        return False
    joined = pa.py_buffer(b"".join(bodies))
    return bool(data.slice(int(offsets[0]), int(offsets[-1] - offsets[0])).equals(joined))


_readers: dict[tuple[str, int], tuple[AvroSchema, _Reader | UndecodableError]] = {}


def _reader(record: str, schema_id: int, writer: WriterSchema | None) -> _Reader | UndecodableError:
    """The reader of a writer schema, or why there is none; kept while the registry answers the same."""
    if writer is None:
        return UndecodableError(DeadLetterCode.UNKNOWN_SCHEMA, f"the registry has no schema with id {schema_id}")
    if isinstance(writer, UnreadableSchema):
        return _unreadable(record, schema_id, writer.reason)
    known = _readers.get((record, schema_id))
    if known is not None and (known[0] is writer or known[0] == writer):
        return known[1]
    reader = _new_reader(record, schema_id, writer)
    _keep(_readers, (record, schema_id), (writer, reader))
    return reader


def _unreadable(record: str, schema_id: int, reason: str) -> UndecodableError:
    return UndecodableError(DeadLetterCode.UNDECODABLE, f"schema {schema_id} cannot be read as {record}: {reason}")


def _keep(cache: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    """The oldest makes room. Prices are decoded in a thread of their own: each step is one that no other can split."""
    cache.pop(key, None)
    cache[key] = value
    for oldest in list(cache)[: max(0, len(cache) - READERS_MAX)]:
        cache.pop(oldest, None)


def _new_reader(record: str, schema_id: int, writer: AvroSchema) -> _Reader | UndecodableError:
    newest = avro_schema(record)
    differences = read_differences(reader=newest, writer=writer)
    if differences:
        return _unreadable(record, schema_id, "; ".join(differences))
    plain_writer, plain_newest = plain_schema(writer), plain_schema(newest)
    try:
        parsed = fastavro.parse_schema(plain_writer)
    except (SchemaParseException, UnknownType, *NO_SCHEMA) as error:
        return _unreadable(record, schema_id, f"not an Avro schema: {error}")
    return _Reader(
        record=record,
        newest=plain_writer == plain_newest,
        released=json.dumps(plain_writer) in _released_texts(),
        bounds=bounds_of(writer),
        writer=parsed,
        reader=fastavro.parse_schema(plain_newest),
        plain_writer=plain_writer,
        named=named_types(plain_writer),
        writer_text=plain_text(record) if plain_writer == plain_newest else json.dumps(plain_writer),
        projection=_projection(plain_writer, plain_newest),
    )


@functools.cache
def _released_texts() -> frozenset[str]:
    """The plain forms of all our schemas."""
    return frozenset(plain_text(record, version) for record in record_names() for version in versions(record))


_trusted: dict[int, tuple[AvroSchema, bool]] = {}


def _is_released(schema_id: int, writer: AvroSchema) -> bool:
    """Whether a schema is one of ours, documentation and logical types aside; kept by the id it has."""
    known = _trusted.get(schema_id)
    if known is not None and (known[0] is writer or known[0] == writer):
        return known[1]
    released = fault_of(writer) is None and json.dumps(plain_schema(writer)) in _released_texts()
    _keep(_trusted, schema_id, (writer, released))
    return released


def _projection(writer: AvroSchema, newest: AvroSchema) -> tuple[int | Mapping[str, Any], ...] | None:
    if not read_by_columns(writer):
        return None
    columns: list[int | Mapping[str, Any]] = []
    written = {field["name"]: (index, field["type"]) for index, field in enumerate(writer["fields"])}
    for field in newest["fields"]:
        if field["name"] not in written:
            columns.append(field)
            continue
        index, written_type = written[field["name"]]
        if field["type"] not in (written_type, ["null", written_type]):
            return None
        columns.append(index)
    return tuple(columns)
