"""Columns and single records to bytes, and rows to columns and back: the half of the codec that writes.

Rules of this file: what no record can hold is a ValueError that names the field; nothing is rounded, cut or guessed.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from schemas.records import AvroSchema, arrow_schema, avro_schema, plain_schema, plain_text

FRAME_BYTES = 5
"""Byte 0 and the schema id in front of every body."""

FRAME = struct.Struct(">bI")


def frame(schema_id: int) -> bytes:
    """The five bytes in front of a body."""
    return FRAME.pack(0, schema_id)


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
        batch = conformed(record, batch)
    encoded = pyruhvro.serialize_record_batch(batch, plain_text(record), 1)[0]
    framed: list[bytes] = pc.binary_join_element_wise(pa.scalar(frame(schema_id)), encoded, _NOTHING).to_pylist()
    return framed


_NOTHING = pa.scalar(b"")


def conformed(record: str, batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch with exactly the columns of the record. Raises as `encode_columns`."""
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
            columns.append(constant_column(fields[field.name], field.type, batch.num_rows))
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


def constant_column(field: Mapping[str, Any], arrow_type: pa.DataType, rows: int) -> pa.Array:
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
    writer, exact = writer_of(record)
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


_NO_FIELDS: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Exact:
    """Checks what fastavro lets pass: numbers beyond 32 and 64 bits, whole floats, anything for a boolean."""

    numbers: tuple[tuple[str, int], ...]
    """Integer fields, with the first number that is too large."""
    flags: tuple[str, ...]
    maps: tuple[str, ...]
    """Maps of 64-bit numbers."""
    lists: tuple[tuple[str, Exact], ...]

    @classmethod
    def of(cls, plain_fields: Sequence[AvroSchema]) -> Exact:
        numbers: list[tuple[str, int]] = []
        flags: list[str] = []
        maps: list[str] = []
        lists: list[tuple[str, Exact]] = []
        for field in plain_fields:
            for branch in field["type"] if isinstance(field["type"], list) else [field["type"]]:
                if branch in ("int", "long"):
                    numbers.append((field["name"], 2**31 if branch == "int" else 2**63))
                elif branch == "boolean":
                    flags.append(field["name"])
                elif isinstance(branch, dict) and branch.get("values") == "long":
                    maps.append(field["name"])
                elif isinstance(branch, dict) and isinstance(branch.get("items"), dict):
                    lists.append((field["name"], cls.of(branch["items"]["fields"])))
        return cls(tuple(numbers), tuple(flags), tuple(maps), tuple(lists))

    def fault(self, fields: Mapping[str, Any]) -> str | None:
        """The first field whose value is not exactly of its type, as a sentence; None when all are. Nulls pass."""
        for name, limit in self.numbers:
            number = fields.get(name)
            if number is not None and (type(number) is not int or not -limit <= number < limit):
                return f"{name} must be a whole number of {limit.bit_length()} bits, not {number!r}"
        for name in self.flags:
            if not isinstance(fields.get(name, False), bool):
                return f"{name} must be true or false, not {fields[name]!r}"
        for name in self.maps:
            for key, number in fields.get(name, _NO_FIELDS).items():
                if type(number) is not int or not -(2**63) <= number < 2**63:
                    return f"{name}.{key} must be a whole number of 64 bits, not {number!r}"
        for name, items in self.lists:
            for item in fields.get(name, ()):
                fault = items.fault(item)
                if fault is not None:
                    return f"{name}: {fault}"
        return None


@functools.cache
def writer_of(record: str) -> tuple[AvroSchema, Exact]:
    """The newest version for fastavro, and the check that goes before it."""
    plain = plain_schema(avro_schema(record))
    return fastavro.parse_schema(plain), Exact.of(plain["fields"])


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
