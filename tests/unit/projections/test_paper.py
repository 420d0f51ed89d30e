"""PDFs of invoices, credit notes and statements (product rule 24), read back as text."""

from __future__ import annotations

import io
from typing import Any

import pytest
from pypdf import PdfReader

from projections.pdf import MISSING_NOTE, credit_note_pdf, invoice_pdf, statement_pdf
from projections.statements import MOVEMENT_NAMES

ISSUER = ["Example Credits, Inc.", "1 Long Street", "VAT DE123456789"]
INVOICE: dict[str, Any] = {
    "org_id": "acme",
    "number": 12,
    "invoice_id": "acme-000012",
    "issued_at": "2026-05-31T22:30:00.000003Z",
    "purchased_at": "2026-05-29T12:00:00Z",
    "purchase_id": "pay-4f1c",
    "wallet": "USD",
    "credits": "1250.5",
    "expires_at": None,
    "total": "1200",
    "currency": "USD",
    "actor": "ann",
    "topup_request_id": None,
    "seq": 3,
    "refunded": "0",
    "credit_notes": [],
}
NOTE: dict[str, Any] = {
    "org_id": "acme",
    "number": 1,
    "credit_note_id": "acme-C000001",
    "issued_at": "2026-05-29T12:00:00Z",
    "refunded_at": "2026-05-29T12:00:00Z",
    "refund_id": "r1",
    "invoice_number": 12,
    "invoice_id": "acme-000012",
    "purchase_id": "pay-4f1c",
    "wallet": "USD",
    "credits": "20",
    "total": "19.6",
    "currency": "USD",
    "actor": None,
    "seq": 10,
}


def statement(wallets: int, amount: str = "-1234.5") -> dict[str, Any]:
    movements = [{"kind": kind, "entries": 12_345, "amount": amount} for kind in MOVEMENT_NAMES]
    parts = [
        {"wallet": f"unit_{number}", "opening": "0", "movements": movements, "closing": "0.000000001"}
        for number in range(wallets)
    ]
    return {
        "org_id": "acme",
        "month": "2026-05",
        "time_zone": "Europe/Madrid",
        "from": "2026-04-30T22:00:00Z",
        "to": "2026-05-31T22:00:00Z",
        "as_of": "2026-05-29T12:00:00Z",
        "wallets": parts,
    }


def pages(pdf: bytes) -> list[str]:
    return [page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages]


def squeezed(pdf: bytes) -> str:
    """All text without spaces and line ends, as broken words come in parts."""
    return "".join("".join(pages(pdf)).split())


def test_an_invoice_says_what_an_invoice_must() -> None:
    (text,) = pages(invoice_pdf(INVOICE, ISSUER, "Europe/Madrid"))
    for shown in (*ISSUER, "Invoice", "acme-000012", "Billed to", "acme", "pay-4f1c", "1,250.5", "1,200.00 USD", "ann"):
        assert shown in text, shown
    assert "1 June 2026" in text, "the date of issue in the customer's time zone"
    assert "29 May 2026" in text
    assert "page 1 of 1" in text
    assert MISSING_NOTE not in text


def test_the_same_document_is_the_same_bytes() -> None:
    assert invoice_pdf(INVOICE, ISSUER, "UTC") == invoice_pdf(dict(INVOICE), list(ISSUER), "UTC")
    assert statement_pdf(statement(3), ISSUER) == statement_pdf(statement(3), ISSUER)


def test_a_refund_later_changes_no_invoice() -> None:
    refunded = INVOICE | {"refunded": "20", "credit_notes": [1]}
    assert invoice_pdf(refunded, ISSUER, "UTC") == invoice_pdf(INVOICE, ISSUER, "UTC")


def test_a_price_that_nobody_reported_is_not_made_up() -> None:
    (text,) = pages(invoice_pdf(INVOICE | {"total": None, "currency": None, "wallet": "tool_runs"}, ISSUER, "UTC"))
    assert "not reported" in text
    assert "0.00" not in text


@pytest.mark.parametrize(
    ("total", "shown"),
    [
        ("0", "0.00 USD"),
        ("0.000000001", "0.000000001 USD"),
        ("9000000000", "9,000,000,000.00 USD"),
        ("1.5", "1.50 USD"),
    ],
)
def test_money_is_printed_as_it_is(total: str, shown: str) -> None:
    assert shown in pages(invoice_pdf(INVOICE | {"total": total}, ISSUER, "UTC"))[0]


def test_a_credit_note_names_its_invoice() -> None:
    (text,) = pages(credit_note_pdf(NOTE, ISSUER, "UTC"))
    for shown in ("Credit note", "acme-C000001", "For invoice", "acme-000012", "-19.60 USD", "19.60 USD", "-20"):
        assert shown in text, shown


def test_letters_of_many_languages() -> None:
    name = "Ünïcode Ελλάδα Москва Łódź Հայաստան საქართველო"
    (text,) = pages(invoice_pdf(INVOICE | {"org_id": name}, ISSUER, "UTC"))
    assert "".join(name.split()) in "".join(text.split())
    assert MISSING_NOTE not in text


def test_letters_that_are_not_there_are_told() -> None:
    text = squeezed(invoice_pdf(INVOICE | {"org_id": "株式会社"}, ISSUER, "UTC"))
    assert "[U+682A][U+5F0F][U+4F1A][U+793E]" in text
    assert "".join(MISSING_NOTE.split()) in text


def test_long_names_are_broken_and_never_cut() -> None:
    long = {name: f"{name}-".ljust(128, "x") for name in ("org_id", "purchase_id", "actor", "topup_request_id")}
    long["invoice_id"] = f"{long['org_id']}-000012"
    pdf = invoice_pdf(INVOICE | long, ["An issuer".ljust(200, "y"), *(f"line {n}" for n in range(12))], "UTC")
    text = squeezed(pdf)
    for value in (*long.values(), "An issuer".replace(" ", "").ljust(199, "y"), "line11"):
        assert value in text, value
    assert right_edge(pdf) < 595 - 50


def test_a_statement_of_many_wallets_goes_over_pages() -> None:
    pdf = statement_pdf(statement(6), ISSUER)
    texts = pages(pdf)
    assert len(texts) > 3
    assert all(f"page {number} of {len(texts)}" in text for number, text in enumerate(texts, start=1))
    assert sum(text.count("Closing balance") for text in texts) == 6
    assert sum(text.count("-1,234.500000000") for text in texts) == 6 * len(MOVEMENT_NAMES)
    assert all("Movement" in text for text in texts), "the head of the table stands on every page"
    assert "1 May 2026, 00:00 Europe/Madrid" in texts[0]
    assert "There was no wallet yet." in pages(statement_pdf(statement(0), ISSUER))[0]


def right_edge(pdf: bytes) -> float:
    """Where the last text of a line begins, the furthest to the right, in points."""
    edges: list[float] = []
    for page in PdfReader(io.BytesIO(pdf)).pages:
        page.extract_text(
            visitor_text=lambda text, _cm, tm, _font, _size: edges.append(tm[4]) if text.strip() else None
        )
    return max(edges)
