"""What is released stays readable: the check behind `credits schemas check`.

Rules of this file: `golden/<record>.v<N>.jsonl` holds records of a version with the bytes that were released for them,
one a line: `{"name", "fields", "body"}` (body in hex, without the frame). They are never edited. Each must still encode
to its bytes in its own version, and read in the newest version as the same fields.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

import fastavro

from schemas.codec import FRAME_BYTES, UndecodableError, decode_columns, decode_one, encode_one, frame, rows_of
from schemas.records import (
    BUNDLED_ID_MAX,
    BundledSchemas,
    avro_schema,
    bundled_ids,
    plain_schema,
    record_names,
    versions,
)
from schemas.resolution import full_differences, read_differences
from schemas.topics import CATALOGUE

__all__ = ["GoldenRecord", "check_released", "full_differences", "golden_records", "read_differences"]

_GOLDEN = resources.files("schemas").joinpath("golden")


@dataclass(frozen=True, slots=True)
class GoldenRecord:
    """One released record and its bytes."""

    record: str
    version: int
    name: str
    fields: dict[str, Any]
    body: bytes


def golden_records() -> Iterator[GoldenRecord]:
    """Every golden record of every released version; FileNotFoundError when a version has none."""
    for record in record_names():
        for version in versions(record):
            text = _GOLDEN.joinpath(f"{record}.v{version}.jsonl").read_text(encoding="utf-8")
            for line in text.splitlines():
                case = json.loads(line)
                yield GoldenRecord(record, version, case["name"], case["fields"], bytes.fromhex(case["body"]))


def check_released() -> list[str]:
    """Everything wrong with the released schemas, one sentence each; empty when all is well."""
    return [*_incompatible(), *_golden_differences(), *_id_differences(), *_catalogue_differences()]


def _incompatible() -> Iterator[str]:
    for record in record_names():
        released = [avro_schema(record, version) for version in versions(record)]
        for index, schema in enumerate(released):
            for difference in full_differences(schema, released[:index]):
                yield f"{record}.v{index + 1} {difference}"


def _golden_differences() -> Iterator[str]:
    writers = BundledSchemas()
    for golden in golden_records():
        name = f"{golden.record}.v{golden.version} golden record {golden.name!r}"
        if _body(golden) != golden.body:
            yield f"{name} is no longer written with its bytes"
        value = frame(bundled_ids()[golden.record, golden.version]) + golden.body
        try:
            row = decode_one(golden.record, value, writers)
        except UndecodableError as error:
            yield f"{name} can no longer be read: {error}"
            continue
        if not _holds(row, golden.fields):
            yield f"{name} is no longer read as its fields"
        if rows_of(decode_columns(golden.record, [value], writers).batch) != [row]:
            yield f"{name} reads differently in columns"
        newest = golden.version == versions(golden.record)[-1]
        if newest and encode_one(golden.record, row, 0)[FRAME_BYTES:] != golden.body:
            yield f"{name} does not come back as its bytes"


def _holds(read: Any, released: Any) -> bool:
    """Whether what was read has everything that was released; fields may have been added since."""
    if isinstance(released, dict):
        return isinstance(read, dict) and all(_holds(read.get(name), value) for name, value in released.items())
    if isinstance(released, list):
        return len(read) == len(released) and all(map(_holds, read, released))
    return bool(read == released)


def _body(golden: GoldenRecord) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, plain_schema(avro_schema(golden.record, golden.version)), golden.fields)
    return stream.getvalue()


def _id_differences() -> Iterator[str]:
    released = {(record, version) for record in record_names() for version in versions(record)}
    for record, version in sorted(released ^ bundled_ids().keys()):
        yield f"{record}.v{version} is either released or in ids.json, not both"
    ids = sorted(bundled_ids().values())
    if ids != list(range(1, len(ids) + 1)) or ids[-1] >= BUNDLED_ID_MAX:
        yield f"ids.json must count from 1 without gaps, below {BUNDLED_ID_MAX}"


def _catalogue_differences() -> Iterator[str]:
    known = set(record_names())
    for topic in CATALOGUE:
        if topic.record is not None and topic.record not in known:
            yield f"{topic.name} names the record {topic.record}, which is not released"
