"""Calls as other products have them, for clients that exist: OpenMeter's ingest, OpenRouter's credits and key.

The rules of this file:
1. `POST /api/v1/events` is OpenMeter's: 204 once Kafka has every event. Where one of a batch is wrong, none is sent and
   the problem names it. How an event becomes usage: `streams.api.openmeter_events`.
2. `GET /api/v1/credits`, `/api/v1/key` and `/api/v1/auth/key` are OpenRouter's, for the organisation of the key; where
   it has several, `?org=` names one. Amounts are JSON numbers there, which are not exact beyond 15 digits:
   `GET /v1/orgs/…/balance` is.
3. `total_credits - total_usage` is the settled balance, as clients compute it; `total_usage` is what was spent of
   anything but allowances.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from projections.months import Months
from projections.reads import Document
from schemas.enums import InputKind
from schemas.times import format_time
from streams.api.callers import READS_BALANCES, WRITES, Caller, NotAuthorizedError, allowed, require_org
from streams.api.cloud_events import EVENTS_MAX, Given, events_of
from streams.api.intake import Intake
from streams.api.openmeter_events import parse_openmeter_event
from streams.api.problems import AsciiJson, ProblemError
from streams.api.reading import ReadingDesk, answers
from streams.api.reading_models import CompatibleCredits, CompatibleKey
from streams.api.statements import wall_clock
from streams.kafka.api_keys import ApiKey
from streams.kafka.balances import BalanceReader, balance_document

Clock = Callable[[], int]
FindKey = Callable[[str], ApiKey | None]
"""The API key of an id."""

Producer = Annotated[Caller, Depends(allowed(WRITES[InputKind.USAGE]))]
Asker = Annotated[Caller, Depends(allowed(READS_BALANCES))]
Org = Annotated[
    str | None, Query(min_length=1, max_length=128, description="which organisation, if the key has several")
]
Wallet = Annotated[str | None, Query(min_length=1, max_length=128, description="else USD, or the only wallet")]

_EVENT: Final = {
    "specversion": "1.0",
    "id": "req-1",
    "source": "my-app",
    "type": "prompt",
    "subject": "acme",
    "time": "2026-05-01T12:00:00Z",
    "data": {"tokens": 100, "model": "gpt-4o", "type": "input"},
}
_LIST: Final[dict[str, Any]] = {"type": "array", "maxItems": EVENTS_MAX, "items": {"type": "object"}}
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/cloudevents+json": {"schema": {"type": "object"}, "example": _EVENT},
            "application/cloudevents-batch+json": {"schema": _LIST, "example": [_EVENT]},
            "application/json": {"schema": {"anyOf": [{"type": "object"}, _LIST]}, "example": [_EVENT]},
        },
    }
}
_PROBLEM: Final[dict[str, Any]] = {"content": {"application/problem+json": {}}}
_TAKEN: Final[dict[int | str, dict[str, Any]]] = {
    204: {"description": "Kafka has every event"},
    400: {"description": "not_json, not_an_event", **_PROBLEM},
    403: {"description": "not_authorized", **_PROBLEM},
    413: {"description": "batch_too_large", **_PROBLEM},
    415: {"description": "unsupported_media_type", **_PROBLEM},
    422: {"description": "invalid_field, amount_out_of_range, empty_batch; nothing was sent", **_PROBLEM},
    503: {"description": "kafka_unavailable, busy; send the same again", **_PROBLEM},
}


def compatible_router(
    intake: Intake, desk: ReadingDesk, balances: BalanceReader, find_key: FindKey, clock: Clock = wall_clock
) -> APIRouter:
    """The routes, over parts that have been started."""
    router = APIRouter(prefix="/api/v1", tags=["compatible"])
    _add_ingest(router, intake, clock)
    _add_credits(router, balances)
    _add_key(router, desk, balances, find_key, clock)
    return router


def _add_ingest(router: APIRouter, intake: Intake, clock: Clock) -> None:
    @router.post("/events", status_code=204, response_class=Response, responses=_TAKEN, openapi_extra=_BODY)
    async def ingest(request: Request, caller: Producer) -> Response:
        """OpenMeter's ingest: CloudEvents, one or a batch, each of them the usage of its subject."""
        body = await request.body()
        content_type = request.headers.get("content-type")
        records = await asyncio.to_thread(_records, content_type, body, caller, clock())
        await intake.send([(each.kind, each.record) for each in records])
        return Response(status_code=204)


def _records(content_type: str | None, body: bytes, caller: Caller, received_at: int) -> list[Given]:
    """The records of all events of a body; raises `ProblemError` for the first that is wrong."""
    found = []
    for index, event in enumerate(events_of(content_type, body)):
        parsed = parse_openmeter_event(event, received_at)
        if not isinstance(parsed, Given):
            detail = (
                f"event {index}: {parsed.field}: {parsed.detail}" if parsed.field else f"event {index}: {parsed.detail}"
            )
            raise ProblemError(422, parsed.code, detail, index=index, field=parsed.field)
        if not caller.may(WRITES[parsed.kind]):
            raise NotAuthorizedError(caller, f"event {index}: this key may not send a {parsed.kind.value}")
        require_org(caller, str(getattr(parsed.record, "org_id", "")))
        found.append(parsed)
    return found


def _add_credits(router: APIRouter, balances: BalanceReader) -> None:
    @router.get(
        "/credits", response_model=None, responses=answers(CompatibleCredits, unknown="unknown_org, unknown_wallet")
    )
    async def credits(caller: Asker, org: Org = None, wallet: Wallet = None) -> Response:
        """OpenRouter's credits: all that was added, and all that was used; the difference is the balance."""
        found = await _wallet(balances, _org_of(caller, org), wallet)
        spent = Decimal(found["lifetime_spent"])
        data = {"total_credits": float(Decimal(found["settled"]) + spent), "total_usage": float(spent)}
        return AsciiJson({"data": data})


def _add_key(router: APIRouter, desk: ReadingDesk, balances: BalanceReader, find_key: FindKey, clock: Clock) -> None:
    async def key(caller: Asker, org: Org = None, wallet: Wallet = None) -> Response:
        """OpenRouter's key: its label, what its organisation has used, and the month's limit."""
        named = _org_of(caller, org)
        found = await _wallet(balances, named, wallet)
        spending = await desk.ask(lambda reads: Months(reads).spending(named, found["unit"], clock()))
        limit = spending["allowed_limit"]
        remaining = None if limit is None else float(limit - Decimal(found["month_spent"]))
        data = {
            **_of_key(find_key(caller.name.removeprefix("key:")), caller),
            "usage": float(Decimal(found["lifetime_spent"])),
            **{f"usage_{name}": float(spending[name]) for name in ("daily", "weekly", "monthly")},
            "limit": None if limit is None else float(limit),
            "limit_remaining": remaining,
            "limit_reset": None if limit is None else "monthly",
            "is_free_tier": not spending["has_paid"],
        }
        return AsciiJson({"data": data})

    for path in ("/key", "/auth/key"):
        router.add_api_route(
            path,
            key,
            methods=["GET"],
            response_model=None,
            responses=answers(CompatibleKey, unknown="unknown_org, unknown_wallet"),
        )


def _of_key(key: ApiKey | None, caller: Caller) -> Document:
    """What the key itself says; OpenRouter's other kinds of key and bring-your-own-key usage do not exist here."""
    expires_at = None if key is None or key.expires_at is None else format_time(key.expires_at)
    per_s = None if key is None else key.requests_per_s
    return {
        "label": caller.name if key is None else key.name,
        "is_provisioning_key": False,
        "is_management_key": False,
        "include_byok_in_limit": False,
        **dict.fromkeys(("byok_usage", "byok_usage_daily", "byok_usage_weekly", "byok_usage_monthly"), 0),
        "rate_limit": {"requests": -1 if per_s is None else per_s, "interval": "1s", "note": "-1: no limit of its own"},
        "expires_at": expires_at,
    }


def _org_of(caller: Caller, named: str | None) -> str:
    """The organisation that is meant; raises `ProblemError`."""
    if named is not None:
        require_org(caller, named)
        return named
    if caller.is_for_all or len(caller.organisations) != 1:
        raise ProblemError(422, "invalid_field", "org: this key is for several organisations, name one", field="org")
    return next(iter(caller.organisations))


async def _wallet(balances: BalanceReader, org: str, named: str | None) -> Document:
    """The wallet that is meant, as the balance shows it; raises `ProblemError`."""
    found = await balances.latest(org)
    if found is None:
        raise ProblemError(404, "unknown_org", f"the ledger has no entry of {org!r}")
    wallets = {each["unit"]: each for each in balance_document(found)["wallets"]}
    unit = next(iter(wallets)) if named is None and len(wallets) == 1 else named or "USD"
    if unit not in wallets:
        raise ProblemError(404, "unknown_wallet", f"{org!r} has no wallet {unit!r}")
    chosen: Document = wallets[unit]
    return chosen
