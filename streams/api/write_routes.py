"""What is written over HTTP: events, purchases, refunds, transfers, settings, prices.

The rules of this file:
1. Every call ends as a record of an input topic, made by the same models and the same producer as everywhere. 202 means
   that Kafka has it; what it comes to is for the ledger to say, in its entries.
2. Nothing is half done: where one record of several is wrong, the others of a batch of events are taken and each is
   told its result; of prices all are published or none.
3. A record has the id that the caller gave, or the `Idempotency-Key`: sent again, it has no second effect.
4. A call that Kafka has not acknowledged is 503 with `Retry-After`, and may be sent again as it is.
"""

from __future__ import annotations

import asyncio
import functools
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse

from schemas.enums import ActorRole, InputKind, SettingKind
from schemas.events import ID_FIELDS, Price
from schemas.fields import FieldError, Record
from schemas.jsonl import parse_fields
from schemas.times import format_time
from streams.api.callers import WRITES, Caller, NotAuthorizedError, allowed
from streams.api.cloud_events import (
    BATCH,
    EVENTS_MAX,
    KINDS,
    ONE,
    PLAIN,
    Given,
    Refused,
    code_of,
    events_of,
    json_of,
    media_type_of,
    parse_event,
)
from streams.api.idempotency import KeyLog, UsedKeys, idempotency_key
from streams.api.intake import Intake
from streams.api.openapi import record_schema
from streams.api.paths import ORG, OrgId
from streams.api.problems import AsciiJson, ProblemError, problem
from streams.api.refused_calls import add_refused
from streams.api.setting_versions import SettingVersions, check_version, name_of, tag_of
from streams.api.usage_columns import UsageBatch, usage_batch
from streams.processing.price_ties import PriceTieError

PRICES_MAX: Final = 1_000
COLUMNS_LEAST: Final = 8
"""Fewer events are faster one by one: columns have a cost of their own, some 300 µs."""
ANY_WRITER: Final = frozenset().union(*WRITES.values())

Answer = dict[str, Any]
CheckPrices = Callable[[Sequence[Record]], None]
"""Raises `PriceTieError` when a price could tie with another one. Blocks."""

Kind = Annotated[str, Path(description=f"which kind of setting: {', '.join(SettingKind)}")]
Subject = Annotated[str, Query(max_length=128, description="which one of its kind: the unit, budget, member or price")]


def write_router(intake: Intake, versions: SettingVersions, check_prices: CheckPrices, key_log: KeyLog) -> APIRouter:
    """The routes, over an intake, versions and a log of used keys that have been started."""
    router = APIRouter(prefix="/v1", tags=["writing"])
    used = UsedKeys(key_log)
    _add_events(router, intake)
    _add_records(router, intake, used)
    _add_settings(router, intake, used, versions)
    _add_prices(router, intake, used, check_prices)
    return router


def _add_events(router: APIRouter, intake: Intake) -> None:
    @router.post(
        "/events", status_code=202, responses=EVENTS_TAKEN, openapi_extra=EVENTS_BODY, response_class=AsciiJson
    )
    async def events(request: Request, caller: Annotated[Caller, Depends(allowed(ANY_WRITER))]) -> JSONResponse:
        """Usage and other records, as CloudEvents or as a JSON list; a result for each."""
        return await take_events(intake, caller, request)


def _add_records(router: APIRouter, intake: Intake, used: UsedKeys) -> None:
    for kind, name in (
        (InputKind.PURCHASE, "purchases"),
        (InputKind.REFUND, "refunds"),
        (InputKind.TRANSFER, "transfers"),
    ):
        router.add_api_route(
            f"/orgs/{ORG}/{name}",
            _record_call(intake, used, kind),
            methods=["POST"],
            status_code=202,
            responses=TAKEN,
            openapi_extra=body_of(kind),
            response_class=AsciiJson,
            name=f"add_{kind.value}",
            summary=SUMMARIES[kind],
        )


def _add_settings(router: APIRouter, intake: Intake, used: UsedKeys, versions: SettingVersions) -> None:
    @router.put(
        f"/orgs/{ORG}/settings/{{kind}}",
        status_code=202,
        responses=TAKEN | CHANGED,
        openapi_extra=SETTING_BODY,
        response_class=AsciiJson,
    )
    async def put_setting(
        request: Request, org: OrgId, kind: Kind, caller: Annotated[Caller, Depends(allowed(WRITES[InputKind.SETTING]))]
    ) -> JSONResponse:
        """Set a setting: the body is the setting's own, and replaces the one before.

        `Credits-Actor` and `Credits-Actor-Role` say for whom; without them it is the key, as `system`. With `If-Match`
        it is set only if it is at that version.
        """
        body = await request.body()
        record = setting_of(request, org, kind, body, caller)
        name = name_of(record.to_record())
        assert name is not None, "the body's shape was checked"
        match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")

        async def send() -> None:
            if match is None and none_match is None:
                await intake.send([(InputKind.SETTING, record)])
                return
            async with versions.writing:
                found = await versions.current(name)
                check_version(found, match, none_match)
                await intake.send([(InputKind.SETTING, record)])

        answer = taken(InputKind.SETTING, record) | {"kind": name[1], "subject": name[2]}
        tagged = answer | {"etag": f'"{tag_of(record.to_record())}"'}
        answer = await once(used, request, caller, body, tagged, send)
        return AsciiJson(answer, status_code=202, headers={"ETag": answer["etag"]})

    @router.get(f"/orgs/{ORG}/settings/{{kind}}", response_class=AsciiJson, responses=SETTING_ANSWERS)
    async def setting(
        org: OrgId,
        kind: Kind,
        _: Annotated[Caller, Depends(allowed(WRITES[InputKind.SETTING]))],
        subject: Subject = "",
    ) -> JSONResponse:
        """The setting that was sent last, with its `ETag`. Whether the ledger has taken it is in the activity log."""
        setting_kind(kind)
        found = await versions.current((org, kind, subject))
        if found is None:
            raise ProblemError(404, "unknown_setting", f"nobody has sent a setting {kind} of that subject")
        fields = await asyncio.to_thread(versions.record, found)
        document = {name: fields[name] for name in ("setting_id", "org_id", "kind", "actor", "actor_role")}
        document |= {"subject": subject, "occurred_at": format_time(fields["occurred_at"])}
        document |= {"body": json_of(fields["body"].encode()), "etag": f'"{found.tag}"'}
        return AsciiJson(document, headers={"ETag": document["etag"]})


def _add_prices(router: APIRouter, intake: Intake, used: UsedKeys, check_prices: CheckPrices) -> None:
    @router.post("/prices", status_code=202, responses=TAKEN, openapi_extra=PRICES_BODY, response_class=AsciiJson)
    async def prices(
        request: Request, caller: Annotated[Caller, Depends(allowed(WRITES[InputKind.PRICE]))]
    ) -> JSONResponse:
        """Publish prices: all of them, or none where one is wrong or ties with another one."""
        body = await request.body()
        records = prices_of(request.headers.get("content-type"), body, caller)

        async def send() -> None:
            try:
                await asyncio.to_thread(check_prices, records)
            except PriceTieError as error:
                raise ProblemError(409, error.code, error.problem) from error
            await intake.send([(InputKind.PRICE, record) for record in records])

        answer = {"accepted": len(records), "results": [taken(InputKind.PRICE, record) for record in records]}
        return AsciiJson(await once(used, request, caller, body, answer, send), status_code=202)


def _record_call(intake: Intake, used: UsedKeys, kind: InputKind) -> Callable[..., Any]:
    """The handler of a call that makes one record of an organisation."""

    async def add(
        request: Request, org: OrgId, caller: Annotated[Caller, Depends(allowed(WRITES[kind]))]
    ) -> JSONResponse:
        body = await request.body()
        key = idempotency_key(request.headers.get("idempotency-key"))
        record = record_of(kind, org, request.headers.get("content-type"), body, key)
        send = functools.partial(intake.send, [(kind, record)])
        return AsciiJson(await once(used, request, caller, body, taken(kind, record), send), status_code=202)

    # FastAPI reads annotations as text, and would look for `kind` in this module.
    add.__annotations__ = {
        "request": Request,
        "org": OrgId,
        "caller": Annotated[Caller, Depends(allowed(WRITES[kind]))],
        "return": JSONResponse,
    }
    add.__doc__ = SUMMARIES[kind]
    return add


async def once(
    used: UsedKeys,
    request: Request,
    caller: Caller,
    body: bytes,
    answer: Answer,
    send: Callable[[], Any],
) -> Answer:
    """Send, unless the same request was sent before under its `Idempotency-Key`; the answer to give."""
    key = idempotency_key(request.headers.get("idempotency-key"))
    if key is None:
        await send()
        return answer
    call = (caller.name, f"{request.method} {request.url.path}", key)
    before = await used.begin(call, body)
    if before is not None:
        return before
    try:
        await send()
    except BaseException:
        used.failed(call)
        raise
    await used.accepted(call, answer)
    return answer


async def take_events(intake: Intake, caller: Caller, request: Request) -> JSONResponse:
    """Send the events of a request that are good, and answer what became of each."""
    body, content_type = await request.body(), request.headers.get("content-type")
    found = await asyncio.to_thread(read_usage, content_type, body, caller)
    if isinstance(found, UsageBatch):
        await intake.send_usage(found)
        return AsciiJson(all_taken(found.ids), status_code=202)
    results = [judged(caller, each) for each in found]
    good = [(each.kind, each.record) for each in results if isinstance(each, Given)]
    for org_id, detail in without_right(found, results).items():
        add_refused(request, caller.name, org_id, detail)
    await intake.send(good)
    documents = [
        {"index": index, **(taken(each.kind, each.record) if isinstance(each, Given) else refused(each))}
        for index, each in enumerate(results)
    ]
    answer = {"accepted": len(good), "refused": len(results) - len(good), "results": documents}
    if good:
        return AsciiJson(answer, status_code=202)
    first = next(each for each in results if isinstance(each, Refused))
    status = 403 if first.code == "not_authorized" else 422
    detail = f"{first.field}: {first.detail}" if first.field else first.detail
    return problem(status, first.code, detail, **answer)


def read_usage(content_type: str | None, body: bytes, caller: Caller) -> UsageBatch | list[Given | Refused]:
    """The events of a body: usage that the caller may send as columns, where there are several and all are without
    fault; else each as a record or as what is wrong with it. Raises `ProblemError`."""
    events = events_of(content_type, body)
    must = media_type_of(content_type) != PLAIN
    if len(events) >= COLUMNS_LEAST and caller.may(WRITES[InputKind.USAGE]):
        batch = usage_batch(events, must_be_cloud_events=must)
        if batch is not None and (caller.is_for_all or all(map(caller.is_for, set(batch.orgs)))):
            return batch
    return [parse_event(event, must_be_cloud_event=must) for event in events]


def all_taken(ids: Sequence[str]) -> Answer:
    """What is told of usage that Kafka has, all of it."""
    head = {"status": "accepted", "record": InputKind.USAGE.value}
    results = [{"index": index, **head, "id": event_id} for index, event_id in enumerate(ids)]
    return {"accepted": len(ids), "refused": 0, "results": results}


def judged(caller: Caller, event: Given | Refused) -> Given | Refused:
    """The event itself where the caller may send it."""
    if isinstance(event, Refused):
        return event
    if not caller.may(WRITES[event.kind]):
        names = " or ".join(sorted(WRITES[event.kind]))
        detail = f"a {event.kind.value} needs a key with the role {names}"
        return Refused(event.record_id, "not_authorized", "", detail)
    if not caller.is_for(getattr(event.record, "org_id", "")):
        return Refused(event.record_id, "not_authorized", "org_id", "this key is not for that organisation")
    return event


def without_right(found: Sequence[Given | Refused], results: Sequence[Given | Refused]) -> dict[str, str]:
    """Of each organisation whose events the caller may not send, why not."""
    return {
        getattr(event.record, "org_id", ""): result.detail
        for event, result in zip(found, results, strict=True)
        if isinstance(event, Given) and isinstance(result, Refused)
    }


def record_of(kind: InputKind, org: str, content_type: str | None, body: bytes, key: str | None) -> Record:
    """The record that a call of an organisation makes; raises `ProblemError`."""
    fields = dict(object_of(content_type, body))
    if fields.setdefault("org_id", org) != org:
        raise ProblemError(422, "invalid_field", "org_id: differs from the organisation in the address")
    id_field = ID_FIELDS[kind]
    if fields.get(id_field) is None:
        if key is None:
            raise ProblemError(422, "invalid_field", f"{id_field}: is required, or an Idempotency-Key in its place")
        fields[id_field] = key
    return checked(kind, fields)


def setting_of(request: Request, org: str, kind: str, body: bytes, caller: Caller) -> Record:
    """The record that sets a setting; raises `ProblemError`."""
    setting_kind(kind)
    content = object_of(request.headers.get("content-type"), body)
    actor = request.headers.get("credits-actor")
    role = request.headers.get("credits-actor-role")
    if (actor is None) != (role is None):
        raise ProblemError(422, "invalid_field", "give Credits-Actor and Credits-Actor-Role together, or neither")
    key = idempotency_key(request.headers.get("idempotency-key"))
    fields = {
        "setting_id": key or str(uuid.uuid4()),
        "org_id": org,
        "occurred_at": time.time_ns() // 1_000,
        "actor": caller.name if actor is None else unquote(actor),
        "actor_role": ActorRole.SYSTEM.value if role is None else role,
        "kind": kind,
        "body": content,
    }
    return checked(InputKind.SETTING, fields)


def prices_of(content_type: str | None, body: bytes, caller: Caller) -> list[Record]:
    """The prices of a body; raises `ProblemError` that names the first one which is wrong."""
    require_json(content_type)
    content = json_of(body)
    listed = content if isinstance(content, list) else [content]
    if not listed:
        raise ProblemError(422, "empty_batch", "the list holds no price")
    if len(listed) > PRICES_MAX:
        raise ProblemError(413, "batch_too_large", f"at most {PRICES_MAX:,} prices at once")
    records: list[Record] = []
    for index, fields in enumerate(listed):
        if not isinstance(fields, dict):
            raise ProblemError(422, "invalid_field", f"price {index}: a price is a JSON object", index=index)
        record = checked(InputKind.PRICE, fields, index=index)
        assert isinstance(record, Price)
        if not (caller.is_for_all if record.org_id is None else caller.is_for(record.org_id)):
            raise NotAuthorizedError(caller, "this key is not for the organisations that the price is for")
        records.append(record)
    return records


def checked(kind: InputKind, fields: Mapping[str, Any], **members: object) -> Record:
    """The record of these fields; raises `ProblemError` (422) that names the field."""
    try:
        return parse_fields(kind, fields)
    except FieldError as error:
        detail = f"{error.field}: {error}" if error.field else str(error)
        raise ProblemError(422, code_of(error), detail, field=error.field, **members) from error


def object_of(content_type: str | None, body: bytes) -> dict[str, Any]:
    """The JSON object of a body; raises `ProblemError`."""
    require_json(content_type)
    content = json_of(body)
    if not isinstance(content, dict):
        raise ProblemError(422, "invalid_field", "the body is a JSON object")
    return content


def require_json(content_type: str | None) -> None:
    """Raise `ProblemError` (415) for a body of another media type."""
    if media_type_of(content_type) != PLAIN:
        raise ProblemError(415, "unsupported_media_type", f"send {PLAIN}")


def setting_kind(kind: str) -> SettingKind:
    """The kind in an address; raises `ProblemError` (404)."""
    try:
        return SettingKind(kind)
    except ValueError:
        raise ProblemError(404, "unknown_setting_kind", f"kinds are {', '.join(SettingKind)}") from None


def taken(kind: InputKind, record: Record) -> Answer:
    """What is told of a record that Kafka has."""
    return {"status": "accepted", "record": kind.value, "id": getattr(record, ID_FIELDS[kind])}


def refused(event: Refused) -> Answer:
    """What is told of an event that was not sent."""
    return {
        "status": "refused",
        "id": event.record_id,
        "code": event.code,
        "field": event.field,
        "detail": event.detail,
    }


SUMMARIES: Final = {
    InputKind.PURCHASE: "Credits bought, given or adjusted; also the answer to a top-up request.",
    InputKind.REFUND: "A purchase taken back, or a usage given back.",
    InputKind.TRANSFER: "Credits moved to another organisation.",
}

_USAGE_EXAMPLE: Final = {
    "event_id": "req-1",
    "org_id": "acme",
    "occurred_at": "2026-05-01T12:00:00Z",
    "operation": "chat.completion",
    "model": "gpt-4o",
    "input_tokens": 1200,
    "output_tokens": 300,
}
_EVENT_EXAMPLE: Final = {
    "specversion": "1.0",
    "type": "credits.usage.v1",
    "id": "req-1",
    "source": "gateway-eu",
    "subject": "acme",
    "time": "2026-05-01T12:00:00Z",
    "data": {"operation": "chat.completion", "model": "gpt-4o", "input_tokens": 1200, "output_tokens": 300},
}
_RECORD_EXAMPLES: Final[Mapping[InputKind, Answer]] = {
    InputKind.PURCHASE: {"purchase_id": "inv-1", "wallet": "USD", "amount": "50", "price_paid": "50"},
    InputKind.REFUND: {"refund_id": "r-1", "target": "purchase", "target_id": "inv-1", "amount": "12.5"},
    InputKind.TRANSFER: {
        "transfer_id": "t-1",
        "target_org_id": "globex",
        "wallet": "USD",
        "amount": "5",
        "actor": "alice",
    },
}


def body_of(kind: InputKind) -> dict[str, Any]:
    """What OpenAPI says of the body of a call that makes one record."""
    example = {**_RECORD_EXAMPLES[kind], "occurred_at": "2026-05-01T12:00:00Z"}
    schema = record_schema(kind, optional=(ID_FIELDS[kind], "org_id"))
    return {"requestBody": {"required": True, "content": {PLAIN: {"schema": schema, "example": example}}}}


_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "description": "A CloudEvent 1.0 in JSON; `data` has the record's fields.",
    "required": ["specversion", "id", "source", "type", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1, "maxLength": 128},
        "source": {"type": "string", "minLength": 1},
        "type": {"enum": list(KINDS)},
        "subject": {"type": "string", "description": "the organisation"},
        "time": {"type": "string", "format": "date-time"},
        "datacontenttype": {"const": PLAIN},
        "data": {"type": "object"},
    },
}
EVENTS_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            ONE: {"schema": _EVENT, "example": _EVENT_EXAMPLE},
            BATCH: {
                "schema": {"type": "array", "minItems": 1, "maxItems": EVENTS_MAX, "items": _EVENT},
                "example": [_EVENT_EXAMPLE],
            },
            PLAIN: {
                "schema": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": EVENTS_MAX,
                    "items": record_schema(InputKind.USAGE),
                },
                "example": [_USAGE_EXAMPLE],
            },
        },
    }
}
SETTING_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            PLAIN: {
                "schema": {"type": "object", "description": "as schemas/json/<kind>.schema.json says"},
                "example": {"unit": "USD", "allowance": "100", "low_balance_threshold": "10"},
            }
        },
    }
}
PRICES_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            PLAIN: {
                "schema": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": PRICES_MAX,
                    "items": record_schema(InputKind.PRICE),
                },
                "example": [
                    {
                        "price_id": "gpt-4o-in",
                        "operation": "chat.completion",
                        "model": "gpt-4o",
                        "direction": "input",
                        "unit_price": "2.5",
                        "billing_unit": "1000000_tokens",
                        "wallet": "USD",
                        "valid_from": "2026-05-01T00:00:00Z",
                    }
                ],
            }
        },
    }
}

TAKEN: Final[dict[int | str, dict[str, Any]]] = {
    400: {"description": "not_json, not_an_event"},
    401: {"description": "unauthorized, key_expired, key_revoked"},
    403: {"description": "not_authorized"},
    409: {"description": "idempotency_key_in_use, price_tie, zero_price"},
    413: {"description": "body_too_large, batch_too_large"},
    415: {"description": "unsupported_media_type"},
    422: {
        "description": "invalid_field, amount_out_of_range, empty_batch, idempotency_key_reused, "
        "invalid_idempotency_key",
    },
    429: {"description": "rate_limited; `Retry-After` says when"},
    503: {
        "description": "kafka_unavailable, busy, no_progress, registry_unavailable; `Retry-After` says when: send the "
        "same again"
    },
}
CHANGED: Final[dict[int | str, dict[str, Any]]] = {
    404: {"description": "unknown_setting_kind"},
    412: {"description": "version_mismatch: the setting is at another version than If-Match says"},
}
SETTING_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    404: {"description": "unknown_setting, unknown_setting_kind"},
    503: {"description": "kafka_unavailable, no_progress, registry_unavailable"},
}
EVENTS_TAKEN: Final[dict[int | str, dict[str, Any]]] = {
    **{status: answer for status, answer in TAKEN.items() if status != 409},
    422: {"description": "invalid_field, amount_out_of_range, empty_batch"},
}
"""Events have ids of their own, and no `Idempotency-Key`."""
