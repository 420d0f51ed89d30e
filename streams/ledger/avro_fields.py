"""The fields of an Avro record, as far as no rule reads them.

Rules of this file:
- A struct declares the fields that rules read. Fields of the record beyond those are added by `completed`: a new
  version of a record adds fields at its end, each with a default.
- A usage's fields that its entry has too stand there unchanged (`SHARED`). A field that is added to both records is
  carried from one into the other without a line of code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from schemas.records import AvroSchema, avro_schema

DERIVED: Final = frozenset({"entry_id"})
"""Made from other fields when a record is written."""

_Struct = TypeVar("_Struct", bound=msgspec.Struct)


def completed(record: str) -> Callable[[type[_Struct]], type[_Struct]]:
    """A decorator: the struct with the fields of the newest Avro record that it does not declare."""

    def complete(struct: type[_Struct]) -> type[_Struct]:
        known = {*struct.__struct_fields__, *DERIVED}
        missing = [field for field in avro_schema(record)["fields"] if field["name"] not in known]
        if not missing:
            return struct
        fields = [(field["name"], Any, _default(field)) for field in missing]
        return msgspec.defstruct(struct.__name__, fields, bases=(struct,), module=struct.__module__)  # type: ignore[return-value]

    return complete


def _default(field: AvroSchema) -> Any:
    """The field's default; KeyError for one without, which must be declared."""
    default = field["default"]
    return msgspec.field(default_factory=type(default)) if isinstance(default, dict | list) else default


def _names(record: str) -> list[str]:
    return [field["name"] for field in avro_schema(record)["fields"]]


def _is_scalar(field: AvroSchema) -> bool:
    branches = field["type"] if isinstance(field["type"], list) else [field["type"]]
    return all(isinstance(branch, str) for branch in branches)


def _is_text(field: AvroSchema) -> bool:
    return "string" in field["type"]


SHARED: Final = tuple(name for name in _names("usage") if name in _names("entry") and name not in {"org_id", "wallet"})
"""Fields of a usage that stand unchanged in its entry."""

_USAGE_FIELDS: Final = {field["name"]: field for field in avro_schema("usage")["fields"]}
_IDENTITY: Final = frozenset({"event_id", "occurred_at", "revision", "hold_id"})

CARRIED: Final = tuple(name for name in SHARED if name not in _IDENTITY and _is_scalar(_USAGE_FIELDS[name]))
"""Dimensions and quantities of a usage: its entry carries them, and so does the `correction` that takes it back."""

DIMENSIONS: Final = tuple(name for name in CARRIED if _is_text(_USAGE_FIELDS[name]) and name != "unit_of_measure")
"""The dimensions of usage: also carried by the entry that refunds some of it."""
