"""What two schemas disagree about, in sentences: which field, what is expected, what was found.

Rules of this file:
1. Whether a reader can read a writer is for Apache Avro to say (`schemas.resolution`); this file says it in words that
   name the field. Where it finds no words, Avro's own stand.
2. Avro passes over logical types: milliseconds where microseconds are expected are the same `long` to it. Here a
   logical type is part of the type (`logical_differences`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from schemas.writer_safety import COMPLEX, PRIMITIVES, named_types, short_name

SENTENCES_MAX = 5
"""Of one comparison; a record of another kind differs in every field."""

STEPS_MAX = 20_000
"""Pairs of types looked at in one comparison. Unions in unions could make it any number; ours take up to 300."""

_PROMOTED = {
    "int": {"int", "long", "float", "double"},
    "long": {"long", "float", "double"},
    "float": {"float", "double"},
    "string": {"string", "bytes"},
    "bytes": {"string", "bytes"},
}
"""What may read each primitive type."""

LOGICAL_PARTS = ("logicalType", "precision", "scale")


def shape_differences(reader: Any, writer: Any) -> list[str]:
    """The fields that keep `reader` from reading what `writer` wrote, one sentence each."""
    return _first_of(_Comparison(reader, writer).shapes(reader, writer, ""), "")


def logical_differences(reader: Any, writer: Any, *, exact: bool) -> list[str]:
    """The fields whose logical types differ. Not `exact`: a writer that states none at all is let pass."""
    return _first_of(_Comparison(reader, writer).logical(reader, writer, "", exact=exact), "too large to be compared")


def describe(schema: Any) -> str:
    """A type in a few words: `string`, `null or long`, `long (timestamp-micros)`, `record usage`, `list of string`."""
    if isinstance(schema, list):
        return " or ".join(map(describe, schema))
    if isinstance(schema, str):
        return schema
    kind = schema["type"]
    if not isinstance(kind, str):
        return describe(kind)
    match kind:
        case "record" | "enum" | "fixed":
            return f"{kind} {short_name(schema['name'])}"
        case "array":
            return f"list of {describe(schema['items'])}"
        case "map":
            return f"map of {describe(schema['values'])}"
        case _:
            logical = schema.get("logicalType")
            return f"{kind} ({logical})" if isinstance(logical, str) else kind


class _TooLargeError(Exception):
    """Ends a comparison after `STEPS_MAX`."""


def _first_of(sentences: Iterator[str], unfinished: str) -> list[str]:
    """The first sentences; `unfinished` is one more where the comparison had to end early."""
    found: dict[str, None] = {}
    try:
        for sentence in sentences:
            found[sentence] = None
    except _TooLargeError:
        if unfinished:
            found[unfinished] = None
    more = len(found) - SENTENCES_MAX
    return [*list(found)[:SENTENCES_MAX], f"and {more} more"] if more > 0 else list(found)


class _Comparison:
    """Of two schemas that `writer_safety` lets pass; the depth of both is bounded."""

    def __init__(self, reader: Any, writer: Any) -> None:
        self._reader_types, self._writer_types = named_types(reader), named_types(writer)
        self._steps_left = STEPS_MAX

    def _step(self) -> None:
        self._steps_left -= 1
        if self._steps_left < 0:
            raise _TooLargeError

    def shapes(self, reader: Any, writer: Any, path: str) -> Iterator[str]:
        self._step()
        reader, writer = _resolved(reader, self._reader_types), _resolved(writer, self._writer_types)
        at = f"{path}: " if path else ""
        expected = f"{at}{describe(reader)} is expected, {describe(writer)} was found"
        if isinstance(writer, list):
            if any(not self._fits(reader, branch) for branch in writer):
                yield expected
        elif isinstance(reader, list):
            if not any(self._fits(branch, writer) for branch in reader):
                yield expected
        elif _kind(reader) != _kind(writer):
            if _kind(reader) not in _PROMOTED.get(_kind(writer), ()):
                yield expected
        elif _kind(reader) == "record":
            if short_name(reader["name"]) != short_name(writer["name"]):
                yield expected
            yield from self._fields(reader, writer, path)
        elif _kind(reader) in {"array", "map"}:
            inner = "items" if _kind(reader) == "array" else "values"
            yield from self.shapes(reader[inner], writer[inner], f"{path}[]")
        elif _kind(reader) in {"enum", "fixed"} and not _same_words(reader, writer):
            yield expected

    def _fields(self, reader: Any, writer: Any, path: str) -> Iterator[str]:
        written = {field["name"]: field["type"] for field in writer["fields"]}
        for field in reader["fields"]:
            name = f"{path}.{field['name']}" if path else field["name"]
            if field["name"] in written:
                yield from self.shapes(field["type"], written[field["name"]], name)
            elif "default" not in field:
                yield f"{name}: {describe(field['type'])} is expected, the other has no such field"

    def _fits(self, reader: Any, writer: Any) -> bool:
        return next(self.shapes(reader, writer, ""), None) is None

    def logical(self, reader: Any, writer: Any, path: str, *, exact: bool) -> Iterator[str]:
        self._step()
        reader, writer = _resolved(reader, self._reader_types), _resolved(writer, self._writer_types)
        if isinstance(reader, list) or isinstance(writer, list):
            yield from self._logical_branches(_branches(reader), _branches(writer), path, exact=exact)
            return
        if _kind(reader) != _kind(writer) and not {_kind(reader), _kind(writer)} <= PRIMITIVES:
            return
        expected, found = _logical(reader), _logical(writer)
        if expected != found and (exact or any(part is not None for part in found)):
            yield f"{path}: {describe(reader)} is expected, {describe(writer)} was found"
        if _kind(reader) == "record" and _kind(writer) == "record":
            written = {field["name"]: field["type"] for field in writer["fields"]}
            for field in reader["fields"]:
                if field["name"] in written:
                    name = f"{path}.{field['name']}" if path else field["name"]
                    yield from self.logical(field["type"], written[field["name"]], name, exact=exact)
        for inner in ("items", "values"):
            if inner in _document(reader) and inner in _document(writer):
                yield from self.logical(reader[inner], writer[inner], f"{path}[]", exact=exact)

    def _logical_branches(self, reader: list[Any], writer: list[Any], path: str, *, exact: bool) -> Iterator[str]:
        """Each branch of the writer against the reader's branch of its kind."""
        for branch in writer:
            kind = _kind(_resolved(branch, self._writer_types))
            same = [each for each in reader if _kind(_resolved(each, self._reader_types)) == kind]
            promoted = [
                each for each in reader if _kind(_resolved(each, self._reader_types)) in _PROMOTED.get(kind, ())
            ]
            for each in (same or promoted)[:1]:
                yield from self.logical(each, branch, path, exact=exact)


def _resolved(schema: Any, types: Mapping[str, Any]) -> Any:
    """The definition behind a name or behind `{"type": …}` that says no more than the inner type."""
    while isinstance(schema, dict) and not isinstance(schema["type"], str):
        schema = schema["type"]
    kind = schema if isinstance(schema, str) else None if isinstance(schema, list) else schema["type"]
    if kind is not None and kind not in PRIMITIVES | COMPLEX and short_name(kind) in types:
        return types[short_name(kind)]
    return schema


def _kind(schema: Any) -> str:
    if isinstance(schema, list):
        return "union"
    return str(schema if isinstance(schema, str) else schema["type"])


def _document(schema: Any) -> Mapping[str, Any]:
    return schema if isinstance(schema, dict) else {}


def _branches(schema: Any) -> list[Any]:
    return schema if isinstance(schema, list) else [schema]


def _logical(schema: Any) -> tuple[Any, ...]:
    document = _document(schema)
    return tuple(document.get(part) for part in LOGICAL_PARTS) if "logicalType" in document else (None, None, None)


def _same_words(reader: Any, writer: Any) -> bool:
    if short_name(reader["name"]) != short_name(writer["name"]):
        return False
    if _kind(reader) == "fixed":
        return bool(reader["size"] == writer["size"])
    return "default" in reader or set(writer["symbols"]) <= set(reader["symbols"])
