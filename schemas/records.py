"""The released Avro records: every `avro/<record>.v<N>.avsc`, their versions, and their fixed ids.

Rules of this file: a released file is never edited; a change is a new version (schemas/README.md). The
*plain* form of a schema is the one the codec works with: documentation and logical types taken off, so that times are
whole microseconds and never datetime objects. Writers and readers agree on the bytes of both forms.
"""

from __future__ import annotations

import functools
import json
import re
from importlib import resources
from typing import Any

import pyarrow as pa
import pyruhvro

AvroSchema = dict[str, Any]

_FILE_NAME = re.compile(r"(?P<record>[a-z_]+)\.v(?P<version>[1-9][0-9]*)\.avsc")

_PACKAGE = resources.files("schemas")


@functools.cache
def _files() -> dict[tuple[str, int], str]:
    """Text of every released file, by record and version."""
    texts: dict[tuple[str, int], str] = {}
    for file in _PACKAGE.joinpath("avro").iterdir():
        match = _FILE_NAME.fullmatch(file.name)
        if match is not None:
            texts[match["record"], int(match["version"])] = file.read_text(encoding="utf-8")
    return dict(sorted(texts.items()))


@functools.cache
def record_names() -> tuple[str, ...]:
    """Every record, by name."""
    return tuple(sorted({record for record, _ in _files()}))


@functools.cache
def versions(record: str) -> tuple[int, ...]:
    """Released versions of a record, oldest first; KeyError for a record that there is not."""
    found = tuple(sorted(version for name, version in _files() if name == record))
    if not found:
        raise KeyError(f"no record {record!r}; there are {', '.join(record_names())}")
    return found


def avro_text(record: str, version: int | None = None) -> str:
    """The released file of a version (the newest unless given), as it is registered."""
    return _files()[record, versions(record)[-1] if version is None else version]


def avro_schema(record: str, version: int | None = None) -> AvroSchema:
    """The released schema of a version (the newest unless given), documentation and logical types included."""
    schema: AvroSchema = json.loads(avro_text(record, version))
    return schema


def plain_schema(schema: Any) -> Any:
    """A schema reduced to what decides the bytes, the names and the defaults.

    Documentation, aliases, logical types and foreign properties (such as Java's `avro.java.string`) are taken off.
    """
    if isinstance(schema, list):
        return [plain_schema(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")
    if not isinstance(kind, str):  # {"type": {...}} says no more than the inner type
        return plain_schema(kind)
    plain: AvroSchema = {"type": kind}
    plain |= {key: schema[key] for key in _KEPT.get(kind, ()) if key in schema}
    if kind == "record":
        plain["fields"] = [_plain_field(field) for field in schema["fields"]]
    elif kind in _INNER:
        plain[_INNER[kind]] = plain_schema(schema[_INNER[kind]])
    return kind if set(plain) == {"type"} else plain


_KEPT = {
    "record": ("name", "namespace"),
    "enum": ("name", "namespace", "symbols"),
    "fixed": ("name", "namespace", "size"),
}
_INNER = {"array": "items", "map": "values"}


def _plain_field(field: AvroSchema) -> AvroSchema:
    plain = {"name": field["name"], "type": plain_schema(field["type"])}
    return {**plain, "default": field["default"]} if "default" in field else plain


@functools.cache
def plain_text(record: str, version: int | None = None) -> str:
    """The plain form of a version as JSON: what pyruhvro compiles, and keeps by this text."""
    return json.dumps(plain_schema(avro_schema(record, version)))


@functools.cache
def arrow_schema(record: str) -> pa.Schema:
    """Arrow types of a record's columns in its newest version; times are int64 microseconds."""
    return pyruhvro.avro_to_arrow_schema(plain_text(record))


@functools.cache
def bundled_ids() -> dict[tuple[str, int], int]:
    """Ids of the released schemas in the built-in registry (ids.json): fixed permanently, below `BUNDLED_ID_MAX`."""
    ids: dict[str, int] = json.loads(_PACKAGE.joinpath("ids.json").read_text(encoding="utf-8"))
    bundled: dict[tuple[str, int], int] = {}
    for name, schema_id in ids.items():
        record, _, version = name.rpartition(".v")
        bundled[record, int(version)] = schema_id
    return bundled


BUNDLED_ID_MAX = 1_000
"""Ids of released schemas are below this; the built-in registry gives others from 10,001 on."""


def bundled_id(record: str, version: int | None = None) -> int:
    """The fixed id of a released schema (the newest version unless given)."""
    return bundled_ids()[record, versions(record)[-1] if version is None else version]


class BundledSchemas:
    """The released schemas by their fixed ids: a `WriterSchemas` that needs no registry."""

    def __init__(self) -> None:
        self._by_id = {schema_id: avro_schema(*released) for released, schema_id in bundled_ids().items()}

    def writer(self, schema_id: int) -> AvroSchema | None:
        """The released schema of that id, or None."""
        return self._by_id.get(schema_id)
