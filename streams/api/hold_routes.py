"""Holds over HTTP: place, capture, release, with the ledger's decision in the answer (product rules 17, 18).

The rules of this file:
1. A call makes one hold record. What the ledger decides is the answer: 200, or a refusal with the decision's own status
   (402, 403, 404, 409), code and limit. 202 when no decision came in time (`streams.api.holds`).
2. The hold's id is the call's identity. The same call again gets the same answer and has no second effect.
3. A client that goes away leaves at most a hold, and a hold ends: `EXPIRES_DEFAULT_S` after it was asked for, unless
   the call says otherwise, and after 24 hours at the latest.
4. A capture names no wallet: it is booked in the hold's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from schemas.enums import DecisionCode, HoldAction, InputKind
from schemas.events import Hold
from streams.api.callers import READS_BALANCES, WRITES, Caller, allowed
from streams.api.holds import Holds, decision_answer, decision_document, pending_answer
from streams.api.idempotency import idempotency_key
from streams.api.openapi import record_schema
from streams.api.paths import ORG, OrgId
from streams.api.problems import AsciiJson, ProblemError
from streams.api.write_routes import checked, object_of
from streams.kafka.decisions import Decision, DecisionKey

EXPIRES_DEFAULT_S: Final = 900
PAST_MAX_US: Final = 24 * 3_600 * 1_000_000
FUTURE_MAX_US: Final = 3_600 * 1_000_000
"""How far a call's own time may be off. The ledger takes more; what it does not take, it does not answer."""
DEFAULT_UNIT: Final = "USD"
"""The wallet of a hold that names none, as of usage in an organisation that has no wallet yet."""

HOLD = "{hold:segment}"
HoldId = Annotated[str, Path(min_length=1, max_length=128, description="the hold, percent-encoded")]
Gateway = Annotated[Caller, Depends(allowed(WRITES[InputKind.HOLD]))]
Answer = dict[str, Any]


class HoldAnswer(BaseModel):
    """What the ledger decided: it did what was asked for."""

    org_id: str
    hold_id: str
    action: HoldAction
    allowed: bool
    code: DecisionCode
    granted: str = Field(description="held, captured or released; a decimal string", examples=["2.5"])
    available: str = Field(description="available balance after it; a decimal string", examples=["97.5"])
    expires_at: str | None = Field(description="when a placed hold ends by itself", examples=["2026-05-01T12:15:00Z"])
    entry_seq: int = Field(description="the entry that says it: `GET …/balance?min_seq=` includes it", examples=[42])


class PendingAnswer(BaseModel):
    """Kafka has the record, and the ledger has not decided it yet."""

    status: str = Field(examples=["pending"])
    org_id: str
    hold_id: str
    action: HoldAction
    ask: str = Field(description="where to ask", examples=["/v1/orgs/acme/holds/req-1"])


class HoldStateAnswer(BaseModel):
    """What is remembered of a hold."""

    org_id: str
    hold_id: str
    state: str = Field(description="active, captured, released, ended or refused", examples=["active"])
    decisions: dict[HoldAction, HoldAnswer]


def holds_router(holds: Holds) -> APIRouter:
    """The routes, over an intake and a reader of decisions that have been started."""
    router = APIRouter(prefix="/v1", tags=["holds"])
    _add_place(router, holds)
    _add_capture(router, holds)
    _add_release(router, holds)
    _add_look(router, holds)
    return router


def _add_place(router: APIRouter, holds: Holds) -> None:
    @router.post(f"/orgs/{ORG}/holds", responses=PLACED, openapi_extra=PLACE_BODY, response_model=None)
    async def place_hold(request: Request, org: OrgId, _: Gateway) -> JSONResponse:
        """Set credits aside for work that is about to begin.

        The hold's id is `hold_id`, or the `Idempotency-Key`. A refused hold has used up its id: ask again with another.
        """
        body = await request.body()
        fields = fields_of(request, org, body)
        if fields.get("hold_id") is None:
            fields["hold_id"] = idempotency_key(request.headers.get("idempotency-key"))
        return await settle(holds, HoldAction.PLACE, fields, body)


def _add_capture(router: APIRouter, holds: Holds) -> None:
    @router.post(
        f"/orgs/{ORG}/holds/{HOLD}/capture", responses=RESOLVED, openapi_extra=CAPTURE_BODY, response_model=None
    )
    async def capture_hold(request: Request, org: OrgId, hold: HoldId, _: Gateway) -> JSONResponse:
        """Book what the work cost: less than held, as much, or more. What is left of the hold comes free.

        To book it with tokens and prices, send the usage in place of this, with its `hold_id`.
        """
        body = await request.body()
        return await settle(holds, HoldAction.CAPTURE, named(fields_of(request, org, body), hold), body)


def _add_release(router: APIRouter, holds: Holds) -> None:
    @router.post(
        f"/orgs/{ORG}/holds/{HOLD}/release", responses=RESOLVED, openapi_extra=RELEASE_BODY, response_model=None
    )
    async def release_hold(request: Request, org: OrgId, hold: HoldId, _: Gateway) -> JSONResponse:
        """Give back what is held. The body may be left out."""
        body = await request.body()
        fields = fields_of(request, org, body) if body else {"org_id": org}
        return await settle(holds, HoldAction.RELEASE, named(fields, hold), body)


def _add_look(router: APIRouter, holds: Holds) -> None:
    @router.get(f"/orgs/{ORG}/holds/{HOLD}", responses=STATES, response_model=None)
    async def hold(
        org: OrgId, hold: HoldId, _: Annotated[Caller, Depends(allowed(READS_BALANCES | WRITES[InputKind.HOLD]))]
    ) -> JSONResponse:
        """What the ledger decided of a hold: of the last 100,000 decisions of all organisations.

        What is older is in the ledger, and not remembered here.
        """
        known = await holds.look_up(org, hold)
        state = state_of(known, holds.now_us())
        if state is None:
            detail = "no decision on this hold is remembered: it was not placed, is not decided yet, or long ago"
            raise ProblemError(404, DecisionCode.UNKNOWN_HOLD.value, detail)
        documents = {action.value: decision_document(decision) for action, decision in known.items()}
        return AsciiJson({"org_id": org, "hold_id": hold, "state": state, "decisions": documents})


async def settle(holds: Holds, action: HoldAction, fields: Answer, body: bytes, **members: Any) -> JSONResponse:
    """Send the hold of these fields, and answer with what the ledger decided; `members` are added to the answer."""
    hold = hold_of(holds, action, fields, body)
    decision = await holds.decide(hold)
    if decision is None:
        return pending_answer(hold, hold_path(hold.org_id, hold.hold_id), **members)
    return decision_answer(decision, holds.now_us(), **members)


def hold_of(holds: Holds, action: HoldAction, fields: Answer, body: bytes) -> Hold:
    """The record of a call; raises `ProblemError`. Sent again, the call makes the same record, to the byte."""
    if fields.setdefault("action", action.value) != action.value:
        raise ProblemError(422, "invalid_field", f"action: this call is {action.value}", field="action")
    if fields.get("hold_id") is None:
        raise ProblemError(422, "invalid_field", "hold_id: is required, or an Idempotency-Key", field="hold_id")
    filled = {"occurred_at": 0, "wallet": DEFAULT_UNIT, **_given(fields)}
    if action is HoldAction.RELEASE:
        filled = {"amount_nanos": 0, **filled} if "amount" not in filled else filled
    checked(InputKind.HOLD, filled)  # before it takes room among the requests that are remembered
    first_us = holds.first_us(DecisionKey(fields["org_id"], fields["hold_id"], action), body)
    filled["occurred_at"] = _given(fields).get("occurred_at", first_us)
    if action is HoldAction.PLACE:
        filled.setdefault("expires_at", first_us + EXPIRES_DEFAULT_S * 1_000_000)
    hold = checked(InputKind.HOLD, filled)
    assert isinstance(hold, Hold)
    if not -PAST_MAX_US <= hold.occurred_at - first_us <= FUTURE_MAX_US:
        detail = "occurred_at: at most 24 hours ago, and an hour ahead"
        raise ProblemError(422, "invalid_field", detail, field="occurred_at")
    if hold.expires_at is not None and hold.expires_at <= first_us:
        raise ProblemError(422, "invalid_field", "expires_at: is over already", field="expires_at")
    return hold


def _given(fields: Mapping[str, Any]) -> Answer:
    return {name: value for name, value in fields.items() if value is not None}


def fields_of(request: Request, org: str, body: bytes) -> Answer:
    """The fields of a call's body, for its organisation; raises `ProblemError`."""
    fields = dict(object_of(request.headers.get("content-type"), body))
    if fields.setdefault("org_id", org) != org:
        raise ProblemError(422, "invalid_field", "org_id: differs from the organisation in the address", field="org_id")
    return fields


def named(fields: Answer, hold_id: str) -> Answer:
    """The fields with the id of the address; raises `ProblemError`."""
    if fields.setdefault("hold_id", hold_id) != hold_id:
        raise ProblemError(422, "invalid_field", "hold_id: differs from the hold in the address", field="hold_id")
    return fields


def state_of(known: Mapping[HoldAction, Decision], now_us: int) -> str | None:
    """What became of a hold, of its decisions; None: nothing is known of one."""
    for action, state in ((HoldAction.CAPTURE, "captured"), (HoldAction.RELEASE, "released")):
        if action in known and known[action]["allowed"]:
            return state
    placed = known.get(HoldAction.PLACE)
    if placed is None:
        return None
    if not placed["allowed"]:
        return "refused"
    return "active" if placed["expires_at"] is None or now_us < placed["expires_at"] else "ended"


def hold_path(org: str, hold_id: str) -> str:
    """The address of a hold."""
    return "/v1/orgs/" + "/holds/".join(_segment(part) for part in (org, hold_id))


def _segment(part: str) -> str:
    return quote(part, safe="") if part.strip(".") else part.replace(".", "%2E")


PLACE_EXAMPLE: Final = {
    "hold_id": "req-1",
    "wallet": "USD",
    "amount": "2.5",
    "model": "gpt-4o",
    "operation": "chat.completion",
    "on_shortage": "reject",
}
_DECIDED_EXAMPLE: Final = {
    "org_id": "acme",
    "hold_id": "req-1",
    "action": "place",
    "allowed": True,
    "code": "ok",
    "granted": "2.5",
    "available": "97.5",
    "expires_at": "2026-05-01T12:15:00Z",
    "entry_seq": 42,
}
_PENDING_EXAMPLE: Final = {
    "status": "pending",
    "org_id": "acme",
    "hold_id": "req-1",
    "action": "place",
    "ask": "/v1/orgs/acme/holds/req-1",
}


def answers_of(model: type[BaseModel], description: str, example: Mapping[str, Any]) -> Answer:
    """What OpenAPI says of an answer."""
    return {
        "model": model,
        "description": description,
        "content": {"application/json": {"example": dict(example)}},
    }


def body_of(example: Mapping[str, Any], schema: Mapping[str, Any], *, required: bool = True) -> Answer:
    """What OpenAPI says of a body that is a JSON object."""
    content = {"application/json": {"schema": dict(schema), "example": dict(example)}}
    return {"requestBody": {"required": required, "content": content}}


def _hold_schema(*required: str) -> Answer:
    """The fields of a hold as calls take them: what the address gives or has a default is not required."""
    return {**record_schema(InputKind.HOLD), "required": list(required)}


COMMON: Final[dict[int | str, Answer]] = {
    400: {"description": "not_json"},
    415: {"description": "unsupported_media_type"},
    422: {"description": "invalid_field, amount_out_of_range, invalid_idempotency_key"},
    503: {
        "description": "kafka_unavailable, busy, registry_unavailable; `Retry-After` says when: send the same again",
    },
}
PENDING_DESCRIPTION: Final = (
    "Kafka has it, and the ledger has not decided it yet: ask at `Location`, or send the same again"
)
PLACED: Final[dict[int | str, Answer]] = {
    **COMMON,
    200: answers_of(HoldAnswer, "the credits are set aside; the `ETag` is the entry's number", _DECIDED_EXAMPLE),
    202: answers_of(PendingAnswer, PENDING_DESCRIPTION, _PENDING_EXAMPLE),
    402: {"description": "credits_not_available, credits_held, limit_reached; `Retry-After` where a limit ends"},
    403: {"description": "not_authorized, model_not_allowed, blocked"},
    409: {"description": "hold_id_reused, already_resolved"},
}
RESOLVED: Final[dict[int | str, Answer]] = {
    **COMMON,
    200: answers_of(
        HoldAnswer, "it was captured or released", {**_DECIDED_EXAMPLE, "action": "capture", "expires_at": None}
    ),
    202: answers_of(PendingAnswer, PENDING_DESCRIPTION, {**_PENDING_EXAMPLE, "action": "capture"}),
    404: {"description": "unknown_hold"},
    409: {"description": "already_resolved"},
}
STATES: Final[dict[int | str, Answer]] = {
    200: answers_of(
        HoldStateAnswer,
        "what is remembered",
        {
            "org_id": "acme",
            "hold_id": "req-0",
            "state": "active",
            "decisions": {"place": {**_DECIDED_EXAMPLE, "hold_id": "req-0"}},
        },
    ),
    404: {"description": "unknown_hold"},
    503: {"description": "kafka_unavailable"},
}
PLACE_BODY: Final = body_of(PLACE_EXAMPLE, _hold_schema("amount"))
CAPTURE_BODY: Final = body_of({"amount": "1.75"}, _hold_schema("amount"))
RELEASE_BODY: Final = body_of({}, _hold_schema(), required=False)
