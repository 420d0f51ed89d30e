"""What `POST /v1/events` takes: CloudEvents as JSON, one or a batch, and plain records in a JSON list.

The rules of this file:
1. The media type says what the body is: `application/cloudevents+json` one event, `application/cloudevents-batch+json`
   a list of them, `application/json` either; an object without `specversion` is a usage record with its own fields.
2. An event's `type` says the kind (`credits.usage.v1`), its `data` holds the record's fields. What `data` leaves out
   comes from the event: the id from `id`, the organisation from `subject`, the time from `time`, of usage `source`.
   What stands in both must be the same, but for the time.
3. Extension attributes are allowed, as the specification asks, and not kept: everything that counts is in `data`.
4. JSON as everywhere: no NaN, no infinity, no name twice in an object; amounts as decimal strings (`schemas.jsonl`).
5. The body as a whole is refused with a problem; a single event that is wrong is told in its place. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from schemas.amounts import AmountOutOfRangeError
from schemas.enums import DeadLetterCode, InputKind
from schemas.events import ID_FIELDS
from schemas.fields import FieldError, Record, first_fault
from schemas.jsonl import parse_fields
from schemas.settings_bodies import load_json
from streams.api.problems import ProblemError

ONE: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
PLAIN: Final = "application/json"
EVENTS_MAX: Final = 1_000
SPEC_VERSION: Final = "1.0"

KINDS: Final[Mapping[str, InputKind]] = {
    f"credits.{kind.value}.v1": kind for kind in InputKind if kind is not InputKind.PRICE
}
"""The kind of each type. Prices have a call of their own, which looks for ties."""


@dataclass(frozen=True, slots=True)
class Given:
    """An event that is a good record."""

    kind: InputKind
    record: Record

    @property
    def record_id(self) -> str:
        """What identifies the record."""
        return str(getattr(self.record, ID_FIELDS[self.kind]))


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that is not: a stable code, the field (empty: the whole event), and a sentence why."""

    record_id: str | None
    code: str
    field: str
    detail: str


def media_type_of(content_type: str | None) -> str:
    """The media type without its parameters; JSON where none is given. Raises `ProblemError` for another charset."""
    name, _, parameters = (content_type or PLAIN).partition(";")
    for parameter in parameters.lower().split(";"):
        key, _, value = parameter.strip().partition("=")
        if key == "charset" and value.strip('"') not in ("utf-8", "us-ascii"):
            raise ProblemError(415, "unsupported_media_type", "JSON is sent as UTF-8")
    return name.strip().lower()


def json_of(body: bytes) -> Any:
    """The JSON of a body; raises `ProblemError` (400)."""
    try:
        return load_json(body.decode("utf-8"))
    except ValueError as error:
        raise ProblemError(400, "not_json", f"the body is not JSON as it is taken here: {error}") from error


def events_of(content_type: str | None, body: bytes) -> list[Any]:
    """The events of a body, not looked at yet; raises `ProblemError` where the body as a whole is refused."""
    media_type = media_type_of(content_type)
    if media_type not in (ONE, BATCH, PLAIN):
        raise ProblemError(415, "unsupported_media_type", f"send {ONE}, {BATCH} or {PLAIN}, not {media_type[:100]!r}")
    content = json_of(body)
    if media_type == ONE and not isinstance(content, dict):
        raise ProblemError(400, "not_an_event", f"{ONE} is one JSON object; a list is {BATCH}")
    if media_type == BATCH and not isinstance(content, list):
        raise ProblemError(400, "not_an_event", f"{BATCH} is a JSON list; one event is {ONE}")
    events = content if isinstance(content, list) else [content]
    if not events:
        raise ProblemError(422, "empty_batch", "the list holds no event")
    if len(events) > EVENTS_MAX:
        raise ProblemError(413, "batch_too_large", f"a batch has at most {EVENTS_MAX:,} events, not {len(events):,}")
    return events


def parse_event(event: Any, *, must_be_cloud_event: bool) -> Given | Refused:
    """One event as a record, or what is wrong with it."""
    record_id = None
    try:
        if not isinstance(event, dict):
            raise FieldError("", "an event is a JSON object")
        is_plain = "specversion" not in event and not must_be_cloud_event
        kind, fields = (InputKind.USAGE, event) if is_plain else unwrapped(event)
        named = fields.get(ID_FIELDS[kind])
        record_id = named if isinstance(named, str) else None
        return Given(kind, parse_fields(kind, fields))
    except FieldError as error:
        return Refused(record_id, code_of(error), error.field, str(error))


def code_of(error: FieldError) -> str:
    """The stable code of a field that is wrong."""
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        return first_fault(cause).code.value
    if isinstance(cause, AmountOutOfRangeError):
        return DeadLetterCode.AMOUNT_OUT_OF_RANGE.value
    return DeadLetterCode.INVALID_FIELD.value


def unwrapped(event: Mapping[str, Any]) -> tuple[InputKind, dict[str, Any]]:
    """Kind and fields of a CloudEvent; raises `FieldError`."""
    for name in ("specversion", "id", "source", "type"):
        if not isinstance(event.get(name), str) or not event[name]:
            raise FieldError(name, "is required, as a string")
    if event["specversion"] != SPEC_VERSION:
        raise FieldError("specversion", f"must be {SPEC_VERSION}")
    kind = KINDS.get(event["type"])
    if kind is None:
        raise FieldError("type", f"must be one of {', '.join(KINDS)}")
    content_type = event.get("datacontenttype")
    if content_type not in (None, PLAIN):
        raise FieldError("datacontenttype", f"must be {PLAIN}")
    data = event.get("data")
    if not isinstance(data, dict):
        raise FieldError("data", "is required, as a JSON object")
    fields = dict(data)
    _fill(fields, ID_FIELDS[kind], event, "id")
    _fill(fields, "org_id", event, "subject")
    _fill_time(fields, event)
    if kind is InputKind.USAGE and fields.get("source") is None:
        fields["source"] = event["source"]
    return kind, fields


def _fill(fields: dict[str, Any], name: str, event: Mapping[str, Any], attribute: str) -> None:
    value = event.get(attribute)
    if value is None:
        return
    if fields.get(name) is None:
        fields[name] = value
    elif fields[name] != value:
        raise FieldError(f"data.{name}", f"differs from the event's {attribute}")


def _fill_time(fields: dict[str, Any], event: Mapping[str, Any]) -> None:
    """`time` may be when the event was made, and `occurred_at` when the usage happened: both may stand."""
    if fields.get("occurred_at") is None and event.get("time") is not None:
        fields["occurred_at"] = event["time"]
