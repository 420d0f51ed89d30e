"""`POST …/authorize` of an organisation and `POST /v1/authorize`: may this work begin? (product rule 17)

Rules of this file: the models say in OpenAPI what `streams.api.authorize` takes and answers, field by field (a test
holds them together); they decide nothing. `streams.api.fast_routes` answers most of these calls before they get here,
with the same bytes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from schemas.enums import InputKind
from schemas.events import INPUTS
from streams.api.authorize import CHECKS_MAX, USAGE_FIELDS, Answer, Authorizer
from streams.api.balance_routes import MinSeq
from streams.api.callers import AUTHORIZES, Caller, allowed
from streams.api.paths import ORG, OrgId
from streams.api.problems import MEDIA_TYPE, retry_after
from streams.kafka.balances import iso_time

JSON_TYPE = "application/json"


class AuthorizeAnswer(BaseModel):
    """The work may begin."""

    allowed: Literal[True]
    code: Literal["ok"]
    status: Literal[200]
    org_id: str
    wallet: str = Field(description="unit of the amounts")
    available: str = Field(description="settled less held; a decimal string", examples=["12.5"])
    grantable: str = Field(description="the most that may be asked for now, by credits and limits; a decimal string")
    seq: int = Field(description="number of the last ledger entry that the answer contains")
    amount: str = Field(description="what was asked for, or what the price list says; a decimal string")
    as_of: datetime = Field(description="the ledger's time of the answer; what is due by then is counted")


class RefusedAnswer(BaseModel):
    """The work may not begin: a problem document (RFC 9457) that names the first limit in the way."""

    allowed: Literal[False]
    code: Literal[
        "credits_not_available", "credits_held", "limit_reached", "model_not_allowed", "not_authorized", "blocked"
    ]
    type: str
    title: str
    detail: str
    limit_id: str | None = Field(None, description="which limit is in the way")
    window: Literal["day", "week", "month"] | None = Field(None, description="of the limit")
    ends_at: datetime | None = Field(None, description="when the limit's window ends; `Retry-After` says it in seconds")
    status: int
    org_id: str
    wallet: str
    available: str
    grantable: str = Field(description="what would be allowed in place of it")
    seq: int
    amount: str
    as_of: datetime


class ManyAnswers(BaseModel):
    """An answer to each check, in the order of the checks."""

    as_of: datetime
    results: list[dict[str, Any]] = Field(
        description="each as the answer to a single check, without `as_of`; a check that is not right has `allowed` "
        "false, `status` 422 and a `code`, one that cannot be answered now `status` 503"
    )


def _check_schema() -> dict[str, Any]:
    model = INPUTS[InputKind.USAGE].model_json_schema()["properties"]
    text = {"type": "string"}
    properties = {
        "wallet": {**text, "description": "unit of `amount`; else the organisation's default wallet"},
        "amount": {**text, "description": "about what it costs; else it is priced by the fields of usage"},
    }
    for name in sorted(USAGE_FIELDS):
        properties[name] = model.get(name, {**text, "description": "a decimal string"})
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _body(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {JSON_TYPE: {"schema": schema, "example": example}}}}


_EXAMPLE = {"amount": "0.05", "user_id": "u1", "project_id": "p1", "model": "opus-5"}
ONE_BODY = _body(_check_schema(), _EXAMPLE)
MANY_BODY = _body(
    {
        "type": "object",
        "required": ["checks"],
        "additionalProperties": False,
        "properties": {"checks": {"type": "array", "minItems": 1, "maxItems": CHECKS_MAX, "items": {"type": "object"}}},
    },
    {"checks": [{"org_id": "acme", **_EXAMPLE}, {"org_id": "globex", "operation": "chat", "input_tokens": 2_000}]},
)
_PROBLEM: dict[str, Any] = {"content": {MEDIA_TYPE: {"schema": RefusedAnswer.model_json_schema()}}}
REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"description": "not_json, not_a_check"},
    402: {**_PROBLEM, "description": "credits_not_available, credits_held, limit_reached; `Retry-After` when it ends"},
    403: {**_PROBLEM, "description": "model_not_allowed, not_authorized, blocked"},
    422: {"description": "invalid_field, unknown_price, amount_out_of_range"},
    503: {"description": "not_yet, kafka_unavailable, account_unreadable, rebuilding"},
}
REFUSED_MANY: dict[int | str, dict[str, Any]] = {
    400: REFUSED[400],
    413: {"description": "batch_too_large"},
    422: {"description": "empty_batch"},
    503: {"description": "kafka_unavailable"},
}


Gateway = Annotated[Caller, Depends(allowed(AUTHORIZES))]


def authorize_router(authorizer: Authorizer) -> APIRouter:
    """The routes, over a view that has been started."""
    router = APIRouter(prefix="/v1", tags=["authorization"])

    @router.post(
        f"/orgs/{ORG}/authorize",
        responses={200: {"model": AuthorizeAnswer}, **REFUSED},
        openapi_extra=ONE_BODY,
        response_model=None,
    )
    async def authorize(request: Request, org: OrgId, _: Gateway, min_seq: MinSeq = 0) -> Response:
        """May this work begin? Asked before it is done, from memory; nothing is booked or set aside.

        Say an `amount`, or the fields of usage that the price list prices. To set credits aside, place a hold.
        """
        answer, at = await authorizer.one(org, await request.body(), min_seq)
        status, headers, body = as_http(answer, at)
        return Response(body, status, headers)

    @router.post(
        "/authorize",
        responses={200: {"model": ManyAnswers}, **REFUSED_MANY},
        openapi_extra=MANY_BODY,
        response_model=None,
    )
    async def authorize_many(request: Request, caller: Gateway) -> Response:
        """Up to 10,000 checks in one call, each for an organisation of its own. 200, whatever the answers are."""
        return Response(await authorizer.many(await request.body(), caller), media_type=JSON_TYPE)

    return router


def as_http(answer: Answer, at: int) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer that was given at `at`."""
    headers = {"Content-Type": JSON_TYPE if answer.status == 200 else MEDIA_TYPE, "ETag": f'"{answer.seq}"'}
    if answer.ends_at is not None:
        headers["Retry-After"] = retry_after(answer.ends_at, at)
    return answer.status, headers, b'%b,"as_of":"%b"}' % (answer.document, iso_time(at).encode())
