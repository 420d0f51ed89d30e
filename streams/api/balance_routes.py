"""`GET /v1/orgs/{org}/balance`.

Rules of this file: the models say in OpenAPI what `balance_document` answers, field by field (a test holds them
together); they decide nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from schemas.enums import Health, WalletStatus
from streams.api.paths import ORG, OrgId
from streams.api.problems import ProblemError
from streams.kafka.balances import BalanceReader, balance_document

MinSeq = Annotated[int, Query(ge=0, le=2**63 - 1, description="wait, a second at most, until this entry is included")]


def _credits(description: str) -> Any:
    return Field(description=f"{description}; a decimal string", examples=["12.5"])


class WalletAnswer(BaseModel):
    """The balances of one wallet, in credits of its unit."""

    unit: str
    settled: str = _credits("what is left of the grants, less an overdraft")
    held: str = _credits("set aside by active holds, part of settled")
    available: str = _credits("settled less held")
    on_the_way: str = _credits("left for other organisations and not answered yet, not part of settled")
    allocation: str = _credits("settled at the start of the month, and what was added in it")
    month_spent: str = _credits("usage of the calendar month in the organisation's time zone")
    lifetime_added: str = _credits("all that was ever added, allowances not counted")
    lifetime_spent: str = _credits("all that was ever drawn from anything but the allowance, net of refunds")
    status: WalletStatus
    health: Health


class BalanceAnswer(BaseModel):
    """The wallets of an organisation."""

    org_id: str
    seq: int = Field(description="number of the last ledger entry that is contained")
    as_of: datetime = Field(description="the ledger's time of that entry")
    wallets: list[WalletAnswer]


def balance_router(balances: BalanceReader) -> APIRouter:
    """The route, over a reader that has been started."""
    router = APIRouter(prefix="/v1", tags=["balances"])

    # The answer itself is the document, as `credits balance --json` prints it: the model only describes it.
    @router.get(
        f"/orgs/{ORG}/balance",
        responses={
            200: {"model": BalanceAnswer},
            304: {"description": "nothing was booked since If-None-Match"},
            404: {"description": "unknown_org"},
            503: {"description": "kafka_unavailable, not_yet"},
        },
        response_model=None,
    )
    async def balance(request: Request, org: OrgId, min_seq: MinSeq = 0) -> Response:
        """The wallets of an organisation, from memory; `seq` and `as_of` say which entry they include last."""
        found = await balances.latest(org, min_seq)
        if found is None:
            raise ProblemError(404, "unknown_org", f"the ledger has no entry of {org!r}")
        headers = {"ETag": f'"{found["seq"]}"'}
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(balance_bytes(found), headers=headers, media_type="application/json")

    return router


def balance_bytes(record: Mapping[str, Any]) -> bytes:
    """The answer's body, from a decoded balance record. In ASCII, as every answer that has a caller's words in it."""
    return json.dumps(balance_document(record), separators=(",", ":")).encode("ascii")
