"""A usual batch of usage as columns: checked and encoded as a whole, which costs a sixth of record by record.

The rules of this file:
1. The columns vouch only for what is certainly right: every event a usage, every value of exactly its type, nothing
   unknown, no fault that `schemas.checks` finds. A batch with anything else is None, and is read event by event
   (`streams.api.cloud_events`), which says what is wrong. So the two ways give the same records (a test compares).
2. Records made here have no headers; a record is complete without them. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from schemas.checks import invalid_rows
from schemas.encoding import conformed, encode_columns
from schemas.enums import InputKind
from schemas.fields import FieldError, parse_decimal_amount
from schemas.jsonl import short_names
from schemas.records import arrow_schema
from schemas.times import parse_time
from streams.api.cloud_events import unwrapped

RECORD: Final = InputKind.USAGE.value
_SHORT: Final = {short: name for name, short in short_names(InputKind.USAGE).items()}
_TYPES: Final = {field.name: field.type for field in arrow_schema(RECORD)}
_NAMES: Final = frozenset(_TYPES) | frozenset(_SHORT)
_ONLY_ONE_BY_ONE: Final = frozenset({"quantities"})
_NOTHING: Final = type(None)
_USUAL_TIME: Final = (
    r"^(19[7-9]|2[0-2][0-9])[0-9]-[0-1][0-9]-[0-3][0-9]"
    r"T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{3}|\.[0-9]{6})?Z$"
)
_USUAL_LENGTHS: Final = frozenset({20, 24, 27})
_DEFAULTS: Final[Mapping[str, Any]] = {"revision": 0, "voided": False}


@dataclass(frozen=True, slots=True)
class UsageBatch:
    """Records of usage, in order."""

    ids: list[str]
    orgs: list[str]
    columns: pa.RecordBatch

    def __len__(self) -> int:
        return len(self.ids)

    def encode(self, schema_id: int) -> list[bytes]:
        """Framed values."""
        return encode_columns(RECORD, self.columns, schema_id)


def usage_batch(events: Sequence[Any], *, must_be_cloud_events: bool) -> UsageBatch | None:
    """The records of these events; None where one of them is anything but a usage without fault."""
    rows = _rows(events, must_be_cloud_events)
    if rows is None:
        return None
    try:
        named = set().union(*rows)
        given_twice = any(_SHORT[short] in named for short in named & _SHORT.keys())
        if given_twice or not named <= _NAMES - _ONLY_ONE_BY_ONE:
            return None
        columns = {}
        for name in named:
            full = _SHORT.get(name, name)
            column = _column(full, [row.get(name) for row in rows], decimal=full != name)
            if column is None:
                return None
            columns[full] = column
        batch = conformed(RECORD, pa.RecordBatch.from_pydict(columns))
        if invalid_rows(RECORD, batch):
            return None
    except (ValueError, OverflowError, pa.ArrowException):  # a value that its type cannot hold, a field that is missing
        return None
    return UsageBatch([row["event_id"] for row in rows], [row["org_id"] for row in rows], batch)


def _rows(events: Sequence[Any], must_be_cloud_events: bool) -> list[Mapping[str, Any]] | None:
    """The fields of each event; None where one is no usage."""
    rows: list[Mapping[str, Any]] = []
    for event in events:
        if type(event) is not dict:
            return None
        if "specversion" not in event and not must_be_cloud_events:
            rows.append(event)
            continue
        try:
            kind, fields = unwrapped(event)
        except FieldError:
            return None
        if kind is not InputKind.USAGE:
            return None
        rows.append(fields)
    return rows


def _column(name: str, values: list[Any], *, decimal: bool) -> pa.Array | None:
    """The values as a column; None where one is not of its type. Raises ValueError for what it cannot hold."""
    kind = _TYPES[name]
    if name == "occurred_at":
        return _times(values, kind)
    if decimal:
        return pa.array([None if value is None else parse_decimal_amount(value) for value in values], kind)
    types = set(map(type, values))
    if name in _DEFAULTS and _NOTHING in types:
        values = [_DEFAULTS[name] if value is None else value for value in values]
    if pa.types.is_map(kind):
        return _attributes(values, kind)
    if not types <= _ALLOWED[name]:
        return None
    return pa.array(values, kind)


def _times(values: list[Any], kind: pa.DataType) -> pa.Array:
    """A column of times. Texts of the usual form are read by Arrow, in a tenth of the time."""
    if all(type(value) is str and len(value) in _USUAL_LENGTHS and value[-1] == "Z" for value in values):
        times = pa.array(values, pa.string())
        if pc.all(pc.match_substring_regex(times, _USUAL_TIME)).as_py():
            return times.cast(pa.timestamp("us", "UTC")).cast(kind)
    return pa.array([parse_time(value) for value in values], kind)


def _attributes(values: list[Any], kind: pa.DataType) -> pa.Array | None:
    """A column of maps of texts."""
    for value in values:
        if value is not None and (type(value) is not dict or not set(map(type, value.values())) <= {str}):
            return None
    return pa.array([[] if value is None else list(value.items()) for value in values], kind)


def _allowed(kind: pa.DataType) -> frozenset[type]:
    """The exact types of Python that a column takes: no float for a whole number, no number for a flag."""
    is_kind: Callable[[pa.DataType], bool]
    for is_kind, python in ((pa.types.is_string, str), (pa.types.is_integer, int), (pa.types.is_boolean, bool)):
        if is_kind(kind):
            return frozenset({python, _NOTHING})
    return frozenset()


_ALLOWED: Final = {name: _allowed(kind) for name, kind in _TYPES.items()}
