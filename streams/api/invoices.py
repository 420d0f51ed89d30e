"""`GET /v1/orgs/{org}/invoices` and `/credit-notes`: numbered, as JSON and PDF (product rule 24)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from projections.finance import PAGE_MAX
from streams.api.finance import PDF_TOO, Desk, pdf_answer, wants_pdf
from streams.api.paths import ORG, OrgId

NUMBER_MAX = 2**63 - 1
PAGE = 100

Number = Annotated[int, Path(ge=1, le=NUMBER_MAX, description="the number, from 1, without gaps")]
ONE_NUMBER: dict[int | str, dict[str, Any]] = PDF_TOO | {404: {"description": "unknown_org, unknown_number"}}
After = Annotated[int, Query(ge=0, le=NUMBER_MAX, description="only numbers above this one")]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="how many at most")]


def invoices_router(desk: Desk) -> APIRouter:
    """The routes, over a desk that asks ClickHouse."""
    router = APIRouter(prefix=f"/v1/orgs/{ORG}", tags=["invoices"])

    @router.get("/invoices")
    def invoices(org: OrgId, after: After = 0, limit: Limit = PAGE) -> dict[str, Any]:
        """The invoices of an organisation by number, a page at a time: go on with `next_after` until it is null."""
        return desk.ask(org, lambda finance: finance.invoices(org, after, limit))

    @router.get("/invoices/{number}.pdf", response_class=Response, responses=ONE_NUMBER)
    def invoice_paper(org: OrgId, number: Number) -> Response:
        """An invoice as PDF."""
        return invoice_answer(desk, org, number)

    @router.get("/invoices/{number}", response_model=None, responses=ONE_NUMBER)
    def invoice(request: Request, org: OrgId, number: Number) -> dict[str, Any] | Response:
        """One invoice; PDF with `Accept: application/pdf`."""
        if wants_pdf(request):
            return invoice_answer(desk, org, number)
        return desk.ask(org, lambda finance: finance.invoice(org, number))

    @router.get("/credit-notes")
    def credit_notes(org: OrgId, after: After = 0, limit: Limit = PAGE) -> dict[str, Any]:
        """The credit notes of an organisation: each refund of a purchase, with the invoice it is for."""
        return desk.ask(org, lambda finance: finance.credit_notes(org, after, limit))

    @router.get("/credit-notes/{number}.pdf", response_class=Response, responses=ONE_NUMBER)
    def credit_note_paper(org: OrgId, number: Number) -> Response:
        """A credit note as PDF."""
        return credit_note_answer(desk, org, number)

    @router.get("/credit-notes/{number}", response_model=None, responses=ONE_NUMBER)
    def credit_note(request: Request, org: OrgId, number: Number) -> dict[str, Any] | Response:
        """One credit note; PDF with `Accept: application/pdf`."""
        if wants_pdf(request):
            return credit_note_answer(desk, org, number)
        return desk.ask(org, lambda finance: finance.credit_note(org, number))

    return router


def invoice_answer(desk: Desk, org: str, number: int) -> Response:
    """An invoice as PDF; raises `ProblemError`."""
    from projections.pdf import invoice_pdf

    document = desk.ask(org, lambda finance: finance.invoice(org, number))
    zone = desk.ask(org, lambda finance: finance.time_zone(org, document["issued_at"]))
    return pdf_answer(invoice_pdf(document, desk.issuer, zone), f"invoice-{document['invoice_id']}")


def credit_note_answer(desk: Desk, org: str, number: int) -> Response:
    """A credit note as PDF; raises `ProblemError`."""
    from projections.pdf import credit_note_pdf

    document = desk.ask(org, lambda finance: finance.credit_note(org, number))
    zone = desk.ask(org, lambda finance: finance.time_zone(org, document["issued_at"]))
    return pdf_answer(credit_note_pdf(document, desk.issuer, zone), f"credit-note-{document['credit_note_id']}")
