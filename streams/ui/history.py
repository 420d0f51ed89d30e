"""The ledger of an organisation: its entries, one of them with how it came to be, the items of a day, and payments.

The rules of this file:
1. A list goes on behind an entry's number (`?before=`), so that an address shows the same entries for everyone.
2. How a cost came to be is shown from what the entry itself says: quantities, unit prices, amounts. Where these do not
   multiply to the entry's amount (a minimum, a captured hold), that is said and not hidden.
3. Payments have their invoices and credit notes at the purchase that they belong to (product rule 24).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field

from projections.queries import Query as Sql
from projections.reads import Reads, page_of
from projections.spans import local_midnight
from projections.transactions import EntryFilter, Transactions, transactions
from schemas.enums import EntryKind
from schemas.meters import TOKENS_PER_UNIT
from streams.api.callers import READS_STATEMENTS, Caller, allowed
from streams.api.finance import pdf_answer
from streams.api.invoices import Number, credit_note_answer, invoice_answer
from streams.api.paths import ORG, OrgId
from streams.api.problems import ProblemError
from streams.ui.parts import Parts, address
from streams.ui.shown import segment
from streams.ui.tables import Csv, csv_answer

ROWS: Final = 100
CSV_ROWS_MAX: Final = 10_000
PAYMENTS_MAX: Final = 500
EVERY_KIND: Final = "all"

PER: Final = {
    "token": "token",
    "1000_tokens": "1,000 tokens",
    "1000000_tokens": "1,000,000 tokens",
    "gpu_hour": "GPU-hour",
}
DIMENSIONS: Final = (
    "operation", "category", "model", "provider", "tool", "endpoint", "deployment", "project_id", "user_id", "team",
    "department", "source",
)  # fmt: skip


class LedgerParameters(BaseModel):
    """Which entries an address asks for."""

    before: int | None = Field(None, ge=1, le=2**63 - 1)
    kind: str = Field("", max_length=32)
    wallet: str = Field("", max_length=128)


Allowed = Annotated[Caller, Depends(allowed(READS_STATEMENTS))]
Before = Annotated[int | None, Query(ge=1, le=2**63 - 1)]
Format = Annotated[str, Query(max_length=8)]


def history_router(router: APIRouter, parts: Parts) -> None:
    """Add the pages to `router`."""
    _add_entries(router, parts)
    _add_entry(router, parts)
    _add_day(router, parts)
    _add_payments(router, parts)


def _add_entries(router: APIRouter, parts: Parts) -> None:
    @router.get(f"/orgs/{ORG}/ledger")
    async def ledger(
        request: Request, org: OrgId, _: Allowed, asked: Annotated[LedgerParameters, Query()], format: Format = ""
    ) -> Response:
        """The entries, newest first: what moved a balance, or those of a kind, or all."""
        before, kind, wallet = asked.before, asked.kind, asked.wallet
        kinds = list(EntryKind) if kind == EVERY_KIND else [kind] if kind in set(EntryKind) else []
        wanted = EntryFilter(kinds=[str(each) for each in kinds], wallet=wallet or None)
        rows_max = CSV_ROWS_MAX if format == "csv" else ROWS

        def question(reads: Reads) -> dict[str, Any] | None:
            found = reads.rows(transactions(org, wanted, before, rows_max + 1))
            rows, more = page_of(found, rows_max)
            if not rows and reads.freshness(org) is None:
                return None
            return {"rows": rows, "more": more, "zone": reads.zone(org)}

        found = await parts.desk.about(org, question)
        if format == "csv":
            return csv_answer(LEDGER_CSV, found["rows"], f"{org}-ledger")
        given = {"kind": kind, "wallet": wallet}
        path = f"/ui/orgs/{segment(org)}/ledger"
        return parts.shell.page(
            request,
            "ledger.html",
            org=org,
            zone=found["zone"],
            rows=found["rows"],
            kinds=[each.value for each in EntryKind],
            given=given,
            next=address(path, given, before=found["rows"][-1]["seq"]) if found["more"] else "",
            first=address(path, given) if before is not None else "",
            csv=address(path, given, before=before, format="csv"),
        )


def _add_entry(router: APIRouter, parts: Parts) -> None:
    @router.get(f"/orgs/{ORG}/ledger/{{seq:int}}")
    async def one_entry(request: Request, org: OrgId, seq: int, _: Allowed) -> HTMLResponse:
        """One entry, and how it came to be."""
        if not 0 < seq < 2**63:
            raise ProblemError(404, "unknown_entry", f"{org!r} has no entry {seq}")

        def question(reads: Reads) -> dict[str, Any] | None:
            rows = reads.rows(entry(org, seq))
            return {"row": rows[0], "zone": reads.zone(org), "grants": _grants(reads, org, rows[0])} if rows else None

        found = await parts.desk.ask(question)
        if found is None:
            raise ProblemError(404, "unknown_entry", f"{org!r} has no entry {seq}, or it is not projected yet")
        row = found["row"]
        steps = steps_of(row)
        return parts.shell.page(
            request,
            "entry.html",
            org=org,
            zone=found["zone"],
            row=row,
            grants=found["grants"],
            steps=steps,
            steps_sum=sum((step["amount"] for step in steps), Decimal(0)),
            dimensions=[(name, row[name]) for name in DIMENSIONS if row[name]],
            details=pretty(row["details"]),
        )


def _add_day(router: APIRouter, parts: Parts) -> None:
    @router.get(f"/orgs/{ORG}/days/{{day}}")
    async def items(
        request: Request,
        org: OrgId,
        day: str,
        _: Allowed,
        cursor: Annotated[str, Query(max_length=256)] = "",
        format: Format = "",
    ) -> Response:
        """The usage of one local day, item by item (product rule 30)."""
        rows_max = CSV_ROWS_MAX if format == "csv" else ROWS

        def question(reads: Reads) -> dict[str, Any] | None:
            zone = reads.zone(org)
            return Transactions(reads).day(org, midnight_of(day, zone), zone, cursor or None, rows_max)

        found = await parts.desk.about(org, question)
        if format == "csv":
            return csv_answer(DAY_CSV, found["items"], f"{org}-{found['day']}")
        path = f"/ui/orgs/{segment(org)}/days/{found['day']}"
        return parts.shell.page(
            request,
            "day.html",
            org=org,
            zone=found["time_zone"],
            found=found,
            per=PER,
            next=address(path, {}, cursor=found["next_cursor"]) if found["next_cursor"] else "",
            first=path if cursor else "",
            csv=address(path, {}, format="csv"),
        )


def _add_payments(router: APIRouter, parts: Parts) -> None:
    @router.get(f"/orgs/{ORG}/payments")
    async def payments(
        request: Request, org: OrgId, _: Allowed, before: Before = None, format: Format = ""
    ) -> Response:
        """Every charge, newest first, with its invoice and credit notes."""

        def question(reads: Reads) -> dict[str, Any] | None:
            rows, more = page_of(reads.rows(purchases(org, before, ROWS + 1)), ROWS)
            if not rows and reads.freshness(org) is None:
                return None
            notes = reads.rows(credit_notes(org, [row["number"] for row in rows if row["number"]]))
            return {"rows": rows, "more": more, "zone": reads.zone(org), "notes": notes}

        found = await parts.desk.about(org, question)
        if format == "csv":
            return csv_answer(PAYMENTS_CSV, found["rows"], f"{org}-payments")
        path = f"/ui/orgs/{segment(org)}/payments"
        by_invoice: dict[int, list[Mapping[str, Any]]] = {}
        for note in found["notes"]:
            by_invoice.setdefault(note["invoice_number"], []).append(note)
        return parts.shell.page(
            request,
            "payments.html",
            org=org,
            zone=found["zone"],
            rows=found["rows"],
            notes=by_invoice,
            next=address(path, {}, before=found["rows"][-1]["seq"]) if found["more"] else "",
            first=path if before is not None else "",
            csv=address(path, {}, before=before, format="csv"),
        )

    @router.get(f"/orgs/{ORG}/invoices/{{number}}.pdf")
    def invoice(org: OrgId, number: Number, _: Allowed) -> Response:
        """An invoice, for browsers: they have a session and no header."""
        return invoice_answer(parts.finance, org, number)

    @router.get(f"/orgs/{ORG}/credit-notes/{{number}}.pdf")
    def credit_note(org: OrgId, number: Number, _: Allowed) -> Response:
        """A credit note, likewise."""
        return credit_note_answer(parts.finance, org, number)

    @router.get(f"/orgs/{ORG}/statement.pdf")
    def statement(org: OrgId, _: Allowed) -> Response:
        """The statement of this month, so far."""
        from projections.pdf import statement_pdf

        now = time.time_ns() // 1_000
        document = parts.finance.ask(org, lambda finance: finance.statement(org, now=now))
        return pdf_answer(statement_pdf(document, parts.finance.issuer), f"statement-{org}-{document['month']}")


def entry(org: str, seq: int) -> Sql:
    """Every column of one entry."""
    return Sql(
        "SELECT * FROM ledger WHERE org_id = {org:String} AND seq = {seq:UInt64} LIMIT 1",
        {"org": org, "seq": seq},
    )


def grants_of(org: str, grant_ids: Sequence[str]) -> Sql:
    """Where each of these grants came from: grant_id, seq, kind."""
    return Sql(
        "SELECT grant_id, min(entry) AS seq, argMin(booked_as, entry) AS kind FROM ("
        "SELECT seq AS entry, kind AS booked_as, arrayJoin(grants.grant_id) AS grant_id FROM ledger"
        " WHERE org_id = {org:String}) WHERE grant_id IN {ids:Array(String)} GROUP BY grant_id",
        {"org": org, "ids": list(grant_ids)},
    )


def purchases(org: str, before: int | None, rows_max: int) -> Sql:
    """A page of charges, newest first; `number` and `invoice_id` of its invoice, 0 and "" where it has none."""
    condition = " AND seq < {before:UInt64}" if before is not None else ""
    return Sql(
        "SELECT purchase.*, invoice.number AS number, invoice.invoice_id AS invoice_id, invoice.total AS total,"
        " invoice.currency AS invoice_currency FROM (SELECT * FROM v_purchases WHERE org_id = {org:String}"
        f"{condition} ORDER BY seq DESC LIMIT {{rows:UInt64}}) AS purchase"
        " LEFT JOIN (SELECT * FROM v_invoices WHERE org_id = {org:String}) AS invoice ON invoice.seq = purchase.seq"
        " ORDER BY purchase.seq DESC",
        {"org": org, "rows": rows_max, **({} if before is None else {"before": before})},
    )


def credit_notes(org: str, invoices: Sequence[int]) -> Sql:
    """The credit notes of these invoices."""
    return Sql(
        "SELECT number, credit_note_id, invoice_number, credits, total, currency, issued_at FROM v_credit_notes"
        " WHERE org_id = {org:String} AND invoice_number IN {numbers:Array(UInt64)} ORDER BY number",
        {"org": org, "numbers": list(invoices)},
    )


def _grants(reads: Reads, org: str, row: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    ids = [each["grant_id"] for each in row["slices"]]
    return {each["grant_id"]: each for each in reads.rows(grants_of(org, ids))} if ids else {}


def steps_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How the cost of an entry came to be: quantity, unit price and amount of each part; empty where it says none."""
    components = row.get("components") or []
    if components:
        return [
            {
                "what": each["meter"],
                "quantity": each["quantity"],
                "per": PER.get(each["billing_unit"], each["billing_unit"]),
                "price": each["unit_price"],
                "price_id": each["price_id"],
                "amount": each["amount"],
            }
            for each in components
        ]
    unit, price = row["billing_unit"], row["unit_price"]
    if row["kind"] not in (EntryKind.USAGE, EntryKind.CORRECTION) or price is None:
        return []
    if unit in TOKENS_PER_UNIT:
        output_price = price if row["output_unit_price"] is None else row["output_unit_price"]
        counted = [("input tokens", row["input_tokens"], price), ("output tokens", row["output_tokens"], output_price)]
        return [_step(what, Decimal(many), TOKENS_PER_UNIT[unit], unit, each) for what, many, each in counted if many]
    many = Decimal(1) if row["quantity"] is None else row["quantity"]
    steps = [_step(unit.replace("_", " "), many * (row["replicas"] or 1), 1, unit, price)]
    if row["replicas"]:
        steps[0]["what"] += f", {row['replicas']} replicas"
    return steps


def _step(what: str, many: Decimal, size: int, unit: str, price: Decimal) -> dict[str, Any]:
    return {
        "what": what,
        "quantity": many,
        "per": PER.get(unit, unit.replace("_", " ")),
        "price": price,
        "price_id": "",
        "amount": many * price / size,
    }


def pretty(text: str) -> str:
    """JSON to read; the text itself where it is none."""
    if not text:
        return ""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text


def midnight_of(day: str, zone: str) -> int:
    """The instant at which a day of an address begins; raises `ProblemError` for what is no day."""
    parts = day.split("-")
    try:
        if len(day) != 10 or len(parts) != 3:
            raise ValueError
        year, month, number = map(int, parts)
        return local_midnight(year, month, number, zone)
    except (ValueError, OverflowError):
        raise ProblemError(404, "not_found", f"{day[:20]!r} is no day: write it as 2026-05-01") from None


LEDGER_CSV: Final[Csv] = [
    (name, name)
    for name in (
        "seq", "recorded_at", "occurred_at", "kind", "reason", "wallet", "amount", "balance", "available", "held",
        "operation", "category", "model", "provider", "tool", "project_id", "user_id", "team", "department",
        "input_tokens", "output_tokens", "quantity", "billing_unit", "unit_price", "output_unit_price", "event_id",
        "correlation_id", "hold_id", "counterparty_org_id", "actor",
    )
]  # fmt: skip
DAY_CSV: Final[Csv] = [
    (name, name)
    for name in (
        "seq", "occurred_at", "kind", "wallet", "category", "operation", "model", "tool", "user_id", "project_id",
        "input_tokens", "output_tokens", "quantity", "billing_unit", "unit_price", "output_unit_price", "cost",
        "event_id",
    )
]  # fmt: skip
PAYMENTS_CSV: Final[Csv] = [
    (name, name)
    for name in (
        "seq", "occurred_at", "purchase_id", "status", "grant_kind", "wallet", "amount", "refunded", "price_paid",
        "currency", "invoice_id", "expires_at", "actor", "reason", "failure_reason", "topup_request_id",
    )
]  # fmt: skip
