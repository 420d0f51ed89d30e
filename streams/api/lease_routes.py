"""Leases over HTTP: a hold that a client spends by itself, and whose usage it sends in batches.

The rules of this file:
1. A lease is one hold, under the lease's id, and nothing else: no money rule is added, and nothing is kept here. A
   renewal is the next lease, placed before the earlier one is ended.
2. The client may spend for `duration_s`, counted from before it asked. The hold lasts `REPORT_GRACE_S` longer, so that
   what was spent last is booked while its credits are still held.
3. A lease's usage is booked as any usage. The last record of a lease names the hold, which captures it: what is held
   beyond that record comes free. All others go to Kafka before it, so that never less is held than is spent and not
   booked. Until the last record is booked, what was spent counts twice in the available balance.
4. What comes after the hold's end is booked all the same: it has happened (product rule 16).
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from schemas.enums import HoldAction, InputKind, OnShortage
from schemas.events import Usage
from schemas.fields import Record
from streams.api.cloud_events import EVENTS_MAX
from streams.api.hold_routes import (
    COMMON,
    PENDING_DESCRIPTION,
    PLACED,
    Answer,
    Gateway,
    HoldAnswer,
    HoldId,
    PendingAnswer,
    answers_of,
    body_of,
    fields_of,
    settle,
)
from streams.api.holds import Holds
from streams.api.idempotency import idempotency_key
from streams.api.intake import Intake
from streams.api.openapi import record_schema
from streams.api.paths import ORG, OrgId
from streams.api.problems import AsciiJson, ProblemError
from streams.api.write_routes import checked
from streams.kafka.decisions import DecisionKey

DURATION_DEFAULT_S: Final = 30
DURATION_MAX_S: Final = 3_600
REPORT_GRACE_S: Final = 30
"""For the last report of a lease to arrive and be booked; also what the clocks of this process and of the ledger may
differ by."""

LEASE = "{lease:segment}"
NOT_TAKEN: Final = frozenset({"hold_id", "action", "expires_at", "occurred_at"})
"""Fields of a hold that a lease decides by itself."""


class LeaseAnswer(HoldAnswer):
    """A lease: what may be spent, and for how long."""

    lease_id: str
    spend_for_s: int = Field(description="seconds to spend it in, counted from before the request was sent")


class PendingLeaseAnswer(PendingAnswer):
    """Kafka has the record, and the ledger has not decided it yet: there is no lease so far."""

    lease_id: str
    spend_for_s: int


class ReportAnswer(BaseModel):
    """Kafka has the usage."""

    lease_id: str
    accepted: int = Field(description="records of usage")
    final: bool = Field(description="the lease has ended")


def leases_router(holds: Holds, intake: Intake) -> APIRouter:
    """The routes, over an intake and holds that have been started."""
    router = APIRouter(prefix="/v1", tags=["leases"])
    _add_lease(router, holds)
    _add_usage(router, holds, intake)
    return router


def _add_lease(router: APIRouter, holds: Holds) -> None:
    @router.post(f"/orgs/{ORG}/leases", responses=LEASED, openapi_extra=LEASE_BODY, response_model=None)
    async def place_lease(request: Request, org: OrgId, _: Gateway) -> JSONResponse:
        """Hold an amount that the client spends by itself. What there is, is granted, where it is less than asked for.

        The lease's id is `lease_id`, or the `Idempotency-Key`. To renew a lease, place the next one before it ends.
        """
        body = await request.body()
        key = idempotency_key(request.headers.get("idempotency-key"))
        fields, duration_s = lease_fields(holds, fields_of(request, org, body), body, key)
        own = {"lease_id": fields["hold_id"], "spend_for_s": duration_s}
        return await settle(holds, HoldAction.PLACE, fields, body, **own)


def _add_usage(router: APIRouter, holds: Holds, intake: Intake) -> None:
    @router.post(
        f"/orgs/{ORG}/leases/{LEASE}/usage",
        status_code=202,
        responses=REPORTED,
        openapi_extra=USAGE_BODY,
        response_model=None,
    )
    async def report_usage(request: Request, org: OrgId, lease: HoldId, _: Gateway) -> JSONResponse:
        """Book what was spent under a lease, all of it or, where a record is wrong, none. `final` ends the lease.

        Send the same again when in doubt: each record counts once. Keep a record for the final report: a lease that
        ends without one is released, and a release may overtake usage that was sent just before.
        """
        body = await request.body()
        fields = fields_of(request, org, body)
        final = fields.pop("final", False)
        if not isinstance(final, bool):
            raise ProblemError(422, "invalid_field", "final: must be true or false", field="final")
        records = usage_of(fields, org, lease, final=final)
        await intake.send([(InputKind.USAGE, record) for record in (records[:-1] if final else records)])
        if final and records:
            await intake.send([(InputKind.USAGE, records[-1])])
        elif final:
            await settle(holds, HoldAction.RELEASE, {"org_id": org, "hold_id": lease}, b"")
        return AsciiJson({"lease_id": lease, "accepted": len(records), "final": final}, status_code=202)


def lease_fields(holds: Holds, given: Answer, body: bytes, key: str | None) -> tuple[Answer, int]:
    """The fields of a lease's hold, and its seconds; raises `ProblemError`. `key`: the id where `given` has none."""
    fields = dict(given)
    lease_id = fields.pop("lease_id", None) or key
    if not isinstance(lease_id, str):
        raise ProblemError(422, "invalid_field", "lease_id: is required, or an Idempotency-Key", field="lease_id")
    for name in sorted(NOT_TAKEN & fields.keys()):
        raise ProblemError(422, "invalid_field", f"{name}: a lease has no such field", field=name)
    duration_s = duration_of(fields.pop("duration_s", None))
    first_us = holds.first_us(DecisionKey(fields["org_id"], lease_id, HoldAction.PLACE), body)
    fields |= {
        "hold_id": lease_id,
        "on_shortage": fields.get("on_shortage") or OnShortage.CAP.value,
        "expires_at": first_us + (duration_s + REPORT_GRACE_S) * 1_000_000,
    }
    return fields, duration_s


def duration_of(value: object) -> int:
    """Seconds that a lease may be spent in; raises `ProblemError`."""
    if value is None:
        return DURATION_DEFAULT_S
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= DURATION_MAX_S:
        detail = f"duration_s: whole seconds, from 1 to {DURATION_MAX_S:,}"
        raise ProblemError(422, "invalid_field", detail, field="duration_s")
    return value


def usage_of(fields: Answer, org: str, lease: str, *, final: bool) -> list[Record]:
    """The records of a report; raises `ProblemError` that names the first one which is wrong."""
    wallet, usage = fields.pop("wallet", None), fields.pop("usage", None)
    fields.pop("org_id", None)
    for name in sorted(fields):
        raise ProblemError(422, "invalid_field", f"{name}: a report has no such field", field=name)
    if not isinstance(usage, list) or not all(isinstance(each, dict) for each in usage):
        raise ProblemError(422, "invalid_field", "usage: must be a list of objects", field="usage")
    if not usage and not final:
        raise ProblemError(422, "empty_batch", "the list holds no usage")
    if len(usage) > EVENTS_MAX:
        raise ProblemError(413, "batch_too_large", f"at most {EVENTS_MAX:,} records of usage at once")
    last = len(usage) - 1 if final else None
    return [_usage(each, org, wallet, lease if index == last else None, index) for index, each in enumerate(usage)]


def _usage(given: dict[str, Any], org: str, wallet: object, hold_id: str | None, index: int) -> Usage:
    """One record; the wallet of the report where the record has a cost and names none."""
    fields = {name: value for name, value in given.items() if value is not None}
    for name, own in (("org_id", org), ("hold_id", hold_id)):
        if fields.setdefault(name, own) != own:
            raise ProblemError(422, "invalid_field", f"{name}: the report decides it", field=name, index=index)
    if "cost" in fields or "cost_nanos" in fields:
        fields.setdefault("wallet", wallet)
        if fields["wallet"] is None:
            detail = "wallet: name it in the report or in the record"
            raise ProblemError(422, "invalid_field", detail, field="wallet", index=index)
    record = checked(InputKind.USAGE, fields, index=index)
    assert isinstance(record, Usage)
    return record


_LEASE_EXAMPLE: Final = {
    "org_id": "acme",
    "hold_id": "lease-1",
    "action": "place",
    "allowed": True,
    "code": "ok",
    "granted": "5",
    "available": "95",
    "expires_at": "2026-05-01T12:01:00Z",
    "entry_seq": 42,
    "lease_id": "lease-1",
    "spend_for_s": 30,
}
_PENDING_EXAMPLE: Final = {
    "status": "pending",
    "org_id": "acme",
    "hold_id": "lease-1",
    "action": "place",
    "ask": "/v1/orgs/acme/holds/lease-1",
    "lease_id": "lease-1",
    "spend_for_s": 30,
}
LEASED: Final[dict[int | str, Answer]] = {
    **PLACED,
    200: answers_of(LeaseAnswer, "spend up to `granted`, within `spend_for_s`", _LEASE_EXAMPLE),
    202: answers_of(PendingLeaseAnswer, PENDING_DESCRIPTION, _PENDING_EXAMPLE),
}
REPORTED: Final[dict[int | str, Answer]] = {
    **COMMON,
    202: answers_of(ReportAnswer, "Kafka has the usage", {"lease_id": "lease-1", "accepted": 2, "final": True}),
    413: {"description": "batch_too_large"},
    422: {"description": "invalid_field, amount_out_of_range, empty_batch"},
}


def _lease_schema() -> Answer:
    hold = record_schema(InputKind.HOLD)["properties"]
    fields = {name: field for name, field in hold.items() if name not in NOT_TAKEN}
    lease_id = {"type": "string", "minLength": 1, "maxLength": 128}
    duration = {"type": "integer", "minimum": 1, "maximum": DURATION_MAX_S, "default": DURATION_DEFAULT_S}
    properties = {"lease_id": lease_id, "duration_s": duration, **fields}
    return {"type": "object", "additionalProperties": False, "required": ["amount"], "properties": properties}


def _report_schema() -> Answer:
    usage = record_schema(InputKind.USAGE, optional=("org_id",))
    del usage["properties"]["hold_id"]
    properties = {
        "wallet": {"type": "string", "minLength": 1, "maxLength": 128},
        "usage": {"type": "array", "maxItems": EVENTS_MAX, "items": usage},
        "final": {"type": "boolean", "default": False},
    }
    return {"type": "object", "required": ["usage"], "properties": properties}


LEASE_BODY: Final = body_of({"lease_id": "lease-1", "wallet": "USD", "amount": "5", "duration_s": 30}, _lease_schema())
USAGE_BODY: Final = body_of(
    {
        "wallet": "USD",
        "final": True,
        "usage": [
            {
                "event_id": f"lease-1/{number}",
                "occurred_at": "2026-05-01T12:00:05Z",
                "operation": "chat.completion",
                "model": "gpt-4o",
                "cost": "0.25",
            }
            for number in (1, 2)
        ],
    },
    _report_schema(),
)
