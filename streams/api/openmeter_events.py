"""OpenMeter's events as usage: what `POST /api/v1/events` takes from clients of OpenMeter. Pure.

The rules of this file, in order:
1. `id` is the usage's id, `subject` the organisation, `type` the operation, `source` the source, `time` when it
   happened; without `time`, when the event came.
2. Members of `data` that have the name of a field of usage are that field (`model`, `user_id`, `input_tokens`, `cost`,
   `quantities`, …). Counts may be written as text, as OpenMeter allows.
3. `prompt_tokens` and `completion_tokens` are `input_tokens` and `output_tokens`; `tokens` is one of them where `type`
   in `data` is `input` or `output`.
4. Everything else in `data` becomes an attribute, as text.
5. An event of one of the ledger's own types (`credits.usage.v1`) is read as `POST /v1/events` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from schemas.enums import InputKind
from schemas.events import Usage
from schemas.fields import FieldError
from schemas.jsonl import parse_fields
from schemas.times import format_time
from streams.api.cloud_events import KINDS, PLAIN, SPEC_VERSION, Given, Refused, code_of, parse_event

OF_THE_EVENT: Final = frozenset({"event_id", "org_id", "occurred_at", "operation", "source", "attributes"})
CORRECTIONS: Final = frozenset({"revision", "voided"})
"""OpenMeter has no such thing: members of these names are the client's own."""
FIELDS: Final = frozenset(
    name
    for field in set(Usage.model_fields) - OF_THE_EVENT - CORRECTIONS
    for name in (field, field.removesuffix("_nanos"))
)
SYNONYMS: Final = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}
COUNTS: Final = frozenset(name for name in FIELDS if name.endswith("_tokens"))
DIRECTIONS: Final = {"input": "input_tokens", "output": "output_tokens"}


def parse_openmeter_event(event: Any, received_at: int) -> Given | Refused:
    """One event as a record of usage, or what is wrong with it. `received_at`: microseconds since 1970."""
    if isinstance(event, dict) and isinstance(event.get("type"), str) and event["type"] in KINDS:
        return parse_event(event, must_be_cloud_event=True)
    record_id = None
    try:
        if not isinstance(event, dict):
            raise FieldError("", "an event is a JSON object")
        record_id = event["id"] if isinstance(event.get("id"), str) else None
        return Given(InputKind.USAGE, parse_fields(InputKind.USAGE, _fields(event, received_at)))
    except FieldError as error:
        return Refused(record_id, code_of(error), error.field, str(error))


def _fields(event: Mapping[str, Any], received_at: int) -> dict[str, Any]:
    """The fields of a usage; raises `FieldError`."""
    for name in ("id", "source", "type", "subject"):
        if not isinstance(event.get(name), str) or not event[name]:
            raise FieldError(name, "is required, as a string")
    if event.get("specversion", SPEC_VERSION) != SPEC_VERSION:
        raise FieldError("specversion", f"must be {SPEC_VERSION}")
    if event.get("datacontenttype") not in (None, PLAIN):
        raise FieldError("datacontenttype", f"must be {PLAIN}")
    data = event.get("data")
    if data is not None and not isinstance(data, dict):
        raise FieldError("data", "must be a JSON object")
    time = event.get("time")
    return {
        **_of_data(data or {}),
        "event_id": event["id"],
        "org_id": event["subject"],
        "operation": event["type"],
        "source": event["source"],
        "occurred_at": format_time(received_at) if time is None else time,
    }


def _of_data(data: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    attributes: dict[str, str] = {}
    direction = DIRECTIONS.get(str(data.get("type")))
    for name, value in data.items():
        named = SYNONYMS.get(name, direction if name == "tokens" and direction else name)
        if value is None:
            continue
        if named in FIELDS and named not in fields:
            fields[named] = _count(value) if named in COUNTS else value
        else:
            attributes[name] = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return {**fields, "attributes": attributes}


def _count(value: Any) -> Any:
    """A count that stands as text or as 100.0; anything else as it is, for the model to judge."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19:
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
