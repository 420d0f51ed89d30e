"""Bytes ↔ columns ↔ single records, in Confluent wire format (byte 0, 4-byte schema id, Avro body).

Rules of this file:
- Data never raises: what cannot be read is an `Undecodable` with its position and a dead-letter code. Only a registry
  that cannot be asked raises (`RegistryUnavailableError`): that is a broken world, not a bad record.
- Columns are the fast way (pyruhvro, Arrow), fastavro is the reference: it takes single records, writer schemas whose
  columns do not fit, and whatever the fast way does not vouch for.
- The fast way vouches for a batch only when all strings are UTF-8 (pyruhvro does not look) and every body, encoded
  again, gives its own bytes. So bytes left over after a record, cut numbers and other encodings of the same value
  are never taken on trust: a batch that fails is halved until the records at fault stand alone before fastavro.
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
from typing import Any, Protocol

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from schemas.content import content
from schemas.enums import DeadLetterCode
from schemas.foreign import read_by_columns
from schemas.records import AvroSchema, arrow_schema, avro_schema, plain_schema, plain_text
from schemas.resolution import read_differences
from schemas.walk import numbers_fit

__all__ = [
    "FRAME_BYTES",
    "DecodedBatch",
    "RegistryUnavailableError",
    "Undecodable",
    "UndecodableError",
    "WriterSchemas",
    "arrow_schema",
    "avro_schema",
    "batch_of",
    "decode_columns",
    "decode_one",
    "encode_columns",
    "encode_one",
    "frame",
    "rows_of",
    "schema_ids",
]

FRAME_BYTES = 5
"""Byte 0 and the schema id in front of every body."""

ALONE_RECORDS_MAX = 8
"""A part of a failing batch of at most so many records goes to fastavro one by one: a call for columns costs about
0.15 ms however few they are, as much as fastavro for 8."""

_FRAME = struct.Struct(">bI")

_BAD_BODY = (ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error)
"""What fastavro raises for bytes that are not a record of the writer's schema (seen by fuzzing)."""


class RegistryUnavailableError(Exception):
    """The schema registry cannot be asked now: wait and try again, nothing is known about the record."""


class UndecodableError(ValueError):
    """A single value that cannot be read; `code` says under which dead-letter code it goes."""

    def __init__(self, code: DeadLetterCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class WriterSchemas(Protocol):
    """The port to the schema registry: writer schemas by id."""

    def writer(self, schema_id: int) -> AvroSchema | None:
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


def frame(schema_id: int) -> bytes:
    """The five bytes in front of a body."""
    return _FRAME.pack(0, schema_id)


# --- decoding -------------------------------------------------------------------------------------------------------


def decode_columns(record: str, values: Sequence[bytes | None], writers: WriterSchemas) -> DecodedBatch:
    """Columns of all readable values, in the newest version of `record`; the others as failures.

    The common case, all values written with one schema and well, is one call into Rust. Raises
    `RegistryUnavailableError` when a writer schema is not known here and the registry cannot be asked.
    """
    schema_id = _common_schema_id(values)
    if schema_id is not None:
        reader = _reader(record, schema_id, writers)
        if isinstance(reader, _Reader) and reader.projection is not None:
            bodies: list[bytes] = [value[FRAME_BYTES:] for value in values]  # type: ignore[index]  # none is None
            batch = reader.columns(bodies)
            if batch is not None:
                return DecodedBatch(record, batch, None, [], bodies if reader.newest else None)
    return _decode_mixed(record, values, writers)


def _common_schema_id(values: Sequence[bytes | None]) -> int | None:
    """The schema id of all values, when each has a frame, a body and the same id; else None."""
    try:
        frames = {value[:FRAME_BYTES] for value in values}  # type: ignore[index]  # None raises TypeError
    except TypeError:
        return None
    if len(frames) != 1 or min(map(len, values)) <= FRAME_BYTES:  # type: ignore[arg-type]
        return None
    magic, schema_id = _FRAME.unpack(frames.pop())
    return None if magic != 0 else int(schema_id)


def schema_ids(values: Sequence[bytes | None]) -> set[int]:
    """The schema ids that decoding these values asks for."""
    return {_FRAME.unpack_from(value)[1] for value in values if value is not None and _frame_fault(value) is None}


def _decode_mixed(record: str, values: Sequence[bytes | None], writers: WriterSchemas) -> DecodedBatch:
    """The way for several writers and bad values: by writer schema, and each part as far as it can be read."""
    failures: list[Undecodable] = []
    by_schema: dict[int, list[int]] = {}
    for position, value in enumerate(values):
        fault = _frame_fault(value)
        if fault is not None:
            failures.append(Undecodable(position, fault.code, fault.message))
        elif value is not None:
            by_schema.setdefault(_FRAME.unpack_from(value)[1], []).append(position)
    parts: list[tuple[list[int], pa.RecordBatch]] = []
    for schema_id, positions in by_schema.items():
        reader = _reader(record, schema_id, writers)
        if isinstance(reader, UndecodableError):
            failures.extend(Undecodable(position, reader.code, reader.message) for position in positions)
            continue
        bodies = [value[FRAME_BYTES:] for value in (values[position] for position in positions) if value is not None]
        for part in reader.parts(positions, bodies):
            if isinstance(part, Undecodable):
                failures.append(part)
            else:
                parts.append(part)
    failures.sort(key=lambda failure: failure.position)
    batch, rows = _merge(record, parts)
    all_read = not failures and rows == list(range(len(values)))
    return DecodedBatch(record, batch, None if all_read else rows, failures, None)


def _frame_fault(value: bytes | None) -> UndecodableError | None:
    if value is None:
        return UndecodableError(DeadLetterCode.NULL_VALUE, "the record has no value")
    if len(value) <= FRAME_BYTES:
        return UndecodableError(DeadLetterCode.UNDECODABLE, f"{len(value)} bytes are too short for a record")
    if value[0] != 0:
        return UndecodableError(DeadLetterCode.UNDECODABLE, f"first byte is {value[0]}, not 0 (Confluent wire format)")
    return None


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
    fault = _frame_fault(value)
    if fault is not None or value is None:
        raise fault or AssertionError("a null value is a fault")
    reader = _reader(record, _FRAME.unpack_from(value)[1], writers)
    if isinstance(reader, UndecodableError):
        raise reader
    return reader.row(value[FRAME_BYTES:])


@dataclass(frozen=True, slots=True)
class _Reader:
    """How values of one writer schema become rows of the newest version of a record."""

    record: str
    newest: bool
    """The writer schema is the newest version."""
    writer: AvroSchema
    """Parsed by fastavro."""
    reader: AvroSchema
    plain_writer: AvroSchema
    writer_text: str
    """The plain form as JSON, for pyruhvro."""
    projection: tuple[int | Mapping[str, Any], ...] | None
    """For each field of the newest version the writer's column, or the field whose default stands in; None: the
    columns do not fit, and fastavro reads record by record."""

    def columns(self, bodies: list[bytes]) -> pa.RecordBatch | None:
        """The columns of the bodies; None when at least one of them needs a look by fastavro."""
        try:
            batch = pyruhvro.deserialize_array(bodies, self.writer_text)
            batch.validate(full=True)  # UTF-8
        except ValueError:
            return None
        if not _same_bytes(pyruhvro.serialize_record_batch(batch, self.writer_text, 1)[0], bodies):
            return None
        return batch if self.newest else self._project(batch)

    def _project(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        schema = arrow_schema(self.record)
        columns = [
            batch.column(source) if isinstance(source, int) else _constant(source, field.type, batch.num_rows)
            for source, field in zip(self.projection or (), schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def row(self, body: bytes) -> dict[str, Any]:
        """One body by fastavro; raises `UndecodableError`, also for bytes left over and numbers out of range."""
        stream = io.BytesIO(body)
        try:
            row: dict[str, Any] = fastavro.schemaless_reader(stream, self.writer)
            written = io.BytesIO()
            fastavro.schemaless_writer(written, self.writer, row)
        except _BAD_BODY as error:
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            raise self._undecodable(f"not a {self.record} ({reason})") from error
        if stream.tell() != len(body):
            raise self._undecodable(f"{len(body) - stream.tell()} bytes left over after the {self.record}")
        if written.getvalue() != body and not numbers_fit(self.plain_writer, body):
            raise self._undecodable(f"not a {self.record} (a number is longer than 64 bits)")
        if not self.newest:
            row = fastavro.schemaless_reader(io.BytesIO(body), self.writer, self.reader)
        fault = _writer(self.record)[1].fault(row)
        if fault is not None:
            raise self._undecodable(f"not a {self.record} ({fault})")
        return row

    def _undecodable(self, message: str) -> UndecodableError:
        return UndecodableError(DeadLetterCode.UNDECODABLE, message)

    def parts(
        self, positions: list[int], bodies: list[bytes]
    ) -> Iterator[tuple[list[int], pa.RecordBatch] | Undecodable]:
        """The bodies as batches with their positions, and the failures: halves what fails as columns."""
        spans = [(0, len(bodies))]
        alone: list[int] = []
        while spans:
            start, end = spans.pop()
            if self.projection is None or (end - start <= ALONE_RECORDS_MAX and end - start < len(bodies)):
                alone.extend(range(start, end))
                continue
            batch = self.columns(bodies[start:end])
            if batch is not None:
                yield positions[start:end], batch
            elif end - start <= ALONE_RECORDS_MAX:
                alone.extend(range(start, end))
            else:
                middle = (start + end) // 2
                spans += [(middle, end), (start, middle)]
        yield from self._one_by_one([positions[index] for index in alone], [bodies[index] for index in alone])

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


def _same_bytes(encoded: pa.BinaryArray, bodies: list[bytes]) -> bool:
    """Whether the encoded records are, one by one, the bodies."""
    _, offsets_buffer, data = encoded.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32, len(bodies) + 1, encoded.offset * 4)
    lengths = np.fromiter(map(len, bodies), np.int64, len(bodies))
    if not np.array_equal(np.diff(offsets), lengths):
        return False
    joined = pa.py_buffer(b"".join(bodies))
    return bool(data.slice(int(offsets[0]), int(offsets[-1] - offsets[0])).equals(joined))


_readers: dict[tuple[str, int], tuple[AvroSchema, _Reader | UndecodableError]] = {}


def _reader(record: str, schema_id: int, writers: WriterSchemas) -> _Reader | UndecodableError:
    """The reader of a writer schema, or why there is none; kept while the registry answers the same."""
    writer = writers.writer(schema_id)
    if writer is None:
        return UndecodableError(DeadLetterCode.UNKNOWN_SCHEMA, f"the registry has no schema with id {schema_id}")
    known = _readers.get((record, schema_id))
    if known is not None and (known[0] is writer or known[0] == writer):
        return known[1]
    reader = _new_reader(record, schema_id, writer)
    _readers[record, schema_id] = writer, reader
    return reader


def _new_reader(record: str, schema_id: int, writer: AvroSchema) -> _Reader | UndecodableError:
    newest = avro_schema(record)
    differences = read_differences(reader=newest, writer=writer)
    if differences:
        reason = "; ".join(differences)
        message = f"schema {schema_id} cannot be read as {record}: {reason}"
        return UndecodableError(DeadLetterCode.UNDECODABLE, message)
    plain_writer, plain_newest = plain_schema(writer), plain_schema(newest)
    return _Reader(
        record=record,
        newest=plain_writer == plain_newest,
        writer=fastavro.parse_schema(plain_writer),
        reader=fastavro.parse_schema(plain_newest),
        plain_writer=plain_writer,
        writer_text=plain_text(record) if plain_writer == plain_newest else json.dumps(plain_writer),
        projection=_projection(plain_writer, plain_newest),
    )


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


# --- encoding -------------------------------------------------------------------------------------------------------


def encode_columns(record: str, batch: pa.RecordBatch, schema_id: int) -> list[bytes]:
    """Framed values of the rows, in the newest version of `record`, whose id in the registry is `schema_id`.

    Columns go by name; one that is missing takes the field's default, other integer or null types are cast. The fast
    case is a batch whose schema is `arrow_schema(record)` itself. Raises ValueError for a missing column without a
    default, an unknown column, a value that its type cannot hold, and a null where none is allowed.
    """
    if batch.num_rows == 0:
        return []
    schema = arrow_schema(record)
    if batch.schema is not schema and not batch.schema.equals(schema):
        batch = _conform(record, batch)
    encoded = pyruhvro.serialize_record_batch(batch, plain_text(record), 1)[0]
    framed: list[bytes] = pc.binary_join_element_wise(pa.scalar(frame(schema_id)), encoded, _NOTHING).to_pylist()
    return framed


_NOTHING = pa.scalar(b"")


def _conform(record: str, batch: pa.RecordBatch) -> pa.RecordBatch:
    schema = arrow_schema(record)
    unknown = set(batch.schema.names) - set(schema.names)
    if unknown:
        raise ValueError(f"{record} has no field {', '.join(sorted(unknown))}")
    fields = _plain_fields(record)
    columns = []
    for field in schema:
        index = batch.schema.get_field_index(field.name)
        if index < 0:
            if "default" not in fields[field.name]:
                raise ValueError(f"{record} needs the field {field.name}")
            columns.append(_constant(fields[field.name], field.type, batch.num_rows))
            continue
        column = batch.column(index)
        try:
            columns.append(column if column.type == field.type else column.cast(field.type))
        except pa.ArrowException as error:
            raise ValueError(f"{record}.{field.name}: {error}") from error
        if not field.nullable and column.null_count:
            raise ValueError(f"{record}.{field.name} has no value in {column.null_count} rows")
    return pa.RecordBatch.from_arrays(columns, schema=schema)


@functools.cache
def _plain_fields(record: str) -> dict[str, Mapping[str, Any]]:
    return {field["name"]: field for field in plain_schema(avro_schema(record))["fields"]}


def _constant(field: Mapping[str, Any], arrow_type: pa.DataType, rows: int) -> pa.Array:
    """A column of a field's default."""
    default = field["default"]
    if default is None:
        return pa.nulls(rows, arrow_type)
    value = list(default.items()) if isinstance(default, dict) else default
    one = pa.array([value], arrow_type)
    if pa.types.is_nested(arrow_type):  # which `repeat` does row by row
        return one.take(pa.array(np.zeros(rows, np.int8)))
    return pa.repeat(one[0], rows)


def encode_one(record: str, fields: Mapping[str, Any], schema_id: int) -> bytes:
    """One framed value in the newest version of `record`, by fastavro; times are int microseconds.

    Absent fields take their default. Raises ValueError for an unknown field, a missing one without a default, and a
    value that its type cannot hold.
    """
    writer, exact = _writer(record)
    fault = exact.fault(fields)
    if fault is not None:
        raise ValueError(f"not a {record}: {fault}")
    stream = io.BytesIO()
    stream.write(frame(schema_id))
    try:
        fastavro.schemaless_writer(stream, writer, fields, strict_allow_default=True)
    except (ValueError, TypeError, AttributeError, OverflowError, LookupError) as error:
        raise ValueError(f"not a {record}: {error}") from error
    return stream.getvalue()


@dataclass(frozen=True, slots=True)
class _Exact:
    """Checks what fastavro lets pass: numbers beyond 32 and 64 bits, whole floats, anything for a boolean."""

    numbers: tuple[tuple[str, int], ...]
    """Integer fields, with the first number that is too large."""
    flags: tuple[str, ...]
    lists: tuple[tuple[str, _Exact], ...]

    @classmethod
    def of(cls, plain_fields: Sequence[AvroSchema]) -> _Exact:
        numbers: list[tuple[str, int]] = []
        flags: list[str] = []
        lists: list[tuple[str, _Exact]] = []
        for field in plain_fields:
            for branch in field["type"] if isinstance(field["type"], list) else [field["type"]]:
                if branch in ("int", "long"):
                    numbers.append((field["name"], 2**31 if branch == "int" else 2**63))
                elif branch == "boolean":
                    flags.append(field["name"])
                elif isinstance(branch, dict) and isinstance(branch.get("items"), dict):
                    lists.append((field["name"], cls.of(branch["items"]["fields"])))
        return cls(tuple(numbers), tuple(flags), tuple(lists))

    def fault(self, fields: Mapping[str, Any]) -> str | None:
        """The first field whose value is not exactly of its type, as a sentence; None when all are. Nulls pass."""
        for name, limit in self.numbers:
            number = fields.get(name)
            if number is not None and (type(number) is not int or not -limit <= number < limit):
                return f"{name} must be a whole number of {limit.bit_length()} bits, not {number!r}"
        for name in self.flags:
            if not isinstance(fields.get(name, False), bool):
                return f"{name} must be true or false, not {fields[name]!r}"
        for name, items in self.lists:
            for item in fields.get(name, ()):
                fault = items.fault(item)
                if fault is not None:
                    return f"{name}: {fault}"
        return None


@functools.cache
def _writer(record: str) -> tuple[AvroSchema, _Exact]:
    """The newest version for fastavro, and the check that goes before it."""
    plain = plain_schema(avro_schema(record))
    return fastavro.parse_schema(plain), _Exact.of(plain["fields"])


# --- rows ↔ columns -------------------------------------------------------------------------------------------------


def batch_of(record: str, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """A batch of rows given as dicts, in the newest version's columns; absent fields take their default.

    Raises ValueError, naming the field, for an unknown field, a missing one without a default, and a value that its
    type cannot hold.
    """
    schema = arrow_schema(record)
    defaults = _defaults(record)
    for row in rows:
        if not row.keys() <= defaults.keys():
            raise ValueError(f"{record} has no field {', '.join(sorted(row.keys() - defaults.keys()))}")
    columns = []
    for field in schema:
        name, default = field.name, defaults[field.name]
        values = [row.get(name, default) for row in rows]
        if any(value is _REQUIRED for value in values):
            raise ValueError(f"{record} needs the field {name}")
        if not field.nullable and any(value is None for value in values):
            raise ValueError(f"{record}.{name} must not be null")
        if pa.types.is_map(field.type):
            values = [list(value.items()) if isinstance(value, Mapping) else value for value in values]
        try:
            columns.append(pa.array(values, field.type))
        except (pa.ArrowException, OverflowError, TypeError) as error:
            raise ValueError(f"{record}.{name}: {error}") from error
    return pa.RecordBatch.from_arrays(columns, schema=schema)


_REQUIRED: Any = object()
"""Stands for the default of a field that has none."""


@functools.cache
def _defaults(record: str) -> dict[str, Any]:
    return {field["name"]: field.get("default", _REQUIRED) for field in avro_schema(record)["fields"]}


def rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a batch as dicts, as `decode_one` gives them: times as int microseconds, maps as dicts."""
    columns = [
        [dict(pairs) for pairs in column.to_pylist()] if pa.types.is_map(column.type) else column.to_pylist()
        for column in batch.columns
    ]
    names = batch.schema.names
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
