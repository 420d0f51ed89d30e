"""`GET /v1/orgs/{org}/statement?month=2026-05&wallet=USD`: opening, movements by kind, closing (product rule 24)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from projections.statements import parse_month
from streams.api.finance import PDF_TOO, Desk, pdf_answer, wants_pdf
from streams.api.paths import ORG, OrgId
from streams.api.problems import ProblemError

Month = Annotated[str | None, Query(description="such as 2026-05, in the organisation's time zone; else this month")]
Wallet = Annotated[str | None, Query(min_length=1, max_length=128, description="one wallet's unit; else all")]


ANSWERED: dict[int | str, dict[str, Any]] = PDF_TOO | {
    404: {"description": "unknown_org, unknown_wallet, month_to_come"},
    500: {"description": "statement_broken"},
}


def wall_clock() -> int:
    """Now, in microseconds."""
    return time.time_ns() // 1_000


def statements_router(desk: Desk, clock: Callable[[], int] = wall_clock) -> APIRouter:
    """The routes, over a desk that asks ClickHouse. `clock` says which month is this month."""
    router = APIRouter(prefix=f"/v1/orgs/{ORG}", tags=["statements"])

    def asked(org: str, month: str | None, wallet: str | None) -> dict[str, Any]:
        try:
            number = None if month is None else parse_month(month)
        except ValueError as error:
            raise ProblemError(422, "invalid_field", f"query.month: {error}") from error
        return desk.ask(org, lambda finance: finance.statement(org, now=clock(), number=number, wallet=wallet))

    def paper(org: str, month: str | None, wallet: str | None) -> Response:
        from projections.pdf import statement_pdf

        document = asked(org, month, wallet)
        return pdf_answer(statement_pdf(document, desk.issuer), f"statement-{org}-{document['month']}")

    @router.get("/statement", response_model=None, responses=ANSWERED)
    def statement(
        request: Request, org: OrgId, month: Month = None, wallet: Wallet = None
    ) -> dict[str, Any] | Response:
        """The month of each wallet; `as_of` says how far the ledger is in it. PDF with `Accept: application/pdf`."""
        return paper(org, month, wallet) if wants_pdf(request) else asked(org, month, wallet)

    @router.get("/statement.pdf", response_class=Response, responses=ANSWERED)
    def statement_paper(org: OrgId, month: Month = None, wallet: Wallet = None) -> Response:
        """The same as PDF."""
        return paper(org, month, wallet)

    return router
