"""`GET /v1/orgs/{org}/balance`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path

from streams.api.problems import ProblemError
from streams.balances import BalanceReader, balance_document

OrgId = Annotated[str, Path(min_length=1, max_length=128, description="the organisation")]


def balance_router(balances: BalanceReader) -> APIRouter:
    """The route, over a reader that has been started."""
    router = APIRouter(prefix="/v1", tags=["balances"])

    @router.get("/orgs/{org}/balance")
    def balance(org: OrgId) -> dict[str, Any]:
        """The wallets of an organisation; everything committed before the call is in it."""
        found = balances.balance(org)
        if found is None:
            raise ProblemError(404, "unknown_org", f"the ledger has no entry of {org!r}")
        return balance_document(found)

    return router
