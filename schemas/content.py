"""What a record says, as bytes: the same bytes exactly when two records say the same.

A second record with a known id is an exact duplicate when its content is equal, and a dead letter
(`duplicate_with_different_content`) when it is not. Rules of this file: how a producer wrote a record does not count
(its schema version, the order of map keys); content never changes for a record already seen, so that a remembered
hash stays true after an upgrade. Hence content is the body in version 1 of the record with map keys sorted, followed
by the fields of later versions that are not at their default. For the usual record it is the body that came.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Sequence
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from schemas.records import AvroSchema, avro_schema, plain_schema


class Content:
    """Content of one record's rows, from the plain forms of its first and its newest version."""

    def __init__(self, first: AvroSchema, newest: AvroSchema) -> None:
        self._first_text = json.dumps(first)
        self._first_arrow = pyruhvro.avro_to_arrow_schema(self._first_text)
        first_names = {field["name"] for field in first["fields"]}
        self._later = [(f["name"], f["default"]) for f in newest["fields"] if f["name"] not in first_names]
        self._maps = [field.name for field in self._first_arrow if pa.types.is_map(field.type)]
        names = [field["name"] for field in newest["fields"]]
        self._appended = set(names[: len(first_names)]) == first_names
        self._defaults_bytes = _encoded_defaults(newest["fields"][len(first_names) :]) if self._appended else b""
        """What the later fields are in the body of a record that has none of them, where they stand at its end."""

    def of(self, batch: pa.RecordBatch, bodies: list[bytes] | None) -> list[bytes]:
        """Content of each row. `bodies`, when given, are the rows as this codec writes them in the newest version."""
        sorted_maps = {name: _sort_keys(batch.column(name)) for name in self._maps}
        in_order = all(column is None for column in sorted_maps.values())
        if bodies is not None and in_order and (not self._later or self._appended):
            if not self._later:
                return bodies
            if all(_is_default(batch.column(name), default) for name, default in self._later):
                end = -len(self._defaults_bytes)
                return [body[:end] for body in bodies]
        columns = []
        for field in self._first_arrow:
            column = sorted_maps.get(field.name)
            columns.append(batch.column(field.name) if column is None else column)
        first = pa.RecordBatch.from_arrays(columns, schema=self._first_arrow)
        if not first.num_rows:
            return []
        contents: list[bytes] = pyruhvro.serialize_record_batch(first, self._first_text, 1)[0].to_pylist()
        return [body + more for body, more in zip(contents, self._later_fields(batch), strict=True)]

    def _later_fields(self, batch: pa.RecordBatch) -> Sequence[bytes]:
        """For each row the later fields that are not at their default, as JSON; nothing when all are."""
        pieces = []
        for name, default in sorted(self._later):
            column = batch.column(name)
            if not _is_default(column, default):
                pieces.append(_pieces(name, default, column))
        if not pieces:
            return [b""] * batch.num_rows
        joined = pc.binary_join_element_wise(*pieces, "")
        return [b"{%b}" % each[2:] if each else b"" for each in joined.cast(pa.binary()).to_pylist()]


def _is_default(column: pa.Array, default: Any) -> bool:
    """Whether a column is certainly at its default in every row."""
    if default is None:
        return bool(column.null_count == len(column))
    if default in ({}, []) and len(column):
        offsets = column.offsets
        return bool(offsets[0] == offsets[-1])
    return not len(column)


def _pieces(name: str, default: Any, column: pa.Array) -> pa.StringArray:
    """The field of each row as it stands in a JSON object behind another one; empty where it is at its default."""
    head = f", {json.dumps(name)}: "
    if default is None and pa.types.is_integer(column.type):
        return pc.fill_null(pc.binary_join_element_wise(head, column.cast(pa.string()), ""), "")
    is_map = pa.types.is_map(column.type)
    plain = [dict(value) if is_map else value for value in column.to_pylist()]
    return pa.array(
        ["" if value == default else head + json.dumps(value, sort_keys=True) for value in plain], pa.string()
    )


def _encoded_defaults(fields: Sequence[AvroSchema]) -> bytes:
    """Fields at their defaults as Avro has them."""
    stream = io.BytesIO()
    schema = {"type": "record", "name": "later", "fields": list(fields)}
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), {})
    return stream.getvalue()


def _sort_keys(column: pa.MapArray) -> pa.MapArray | None:
    """The column with each map's keys in order; None when they are already."""
    offsets = column.offsets.to_numpy()
    lengths = np.diff(offsets)
    if not len(lengths) or lengths.max() <= 1:
        return None
    start, count = int(offsets[0]), int(offsets[-1] - offsets[0])
    keys, items = column.keys.slice(start, count), column.items.slice(start, count)
    rows = pa.array(np.repeat(np.arange(len(lengths)), lengths))
    order = pc.sort_indices(
        pa.table({"row": rows, "key": keys, "place": pa.array(np.arange(count))}),
        sort_keys=[("row", "ascending"), ("key", "ascending"), ("place", "ascending")],
    ).to_numpy()
    if (order == np.arange(count)).all():
        return None
    taken = pa.array(order)
    return pa.MapArray.from_arrays(pa.array(offsets - start, pa.int32()), keys.take(taken), items.take(taken))


@functools.cache
def content(record: str) -> Content:
    """Content of a released record."""
    return Content(plain_schema(avro_schema(record, 1)), plain_schema(avro_schema(record)))
