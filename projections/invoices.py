"""Invoices and credit notes as documents (product rule 24). Pure: rows of the views in, plain data out.

Rules of this file:
1. A number is a function of the ledger: the n-th completed purchase of an org, in the order of `seq`, is its invoice n,
   and the n-th refund of such a purchase its credit note n. The ledger never changes, so no number is ever missing,
   used twice, or given to something else. Gifts, adjustments, failed and refused purchases have no invoice.
2. A document is dated by the time of booking, which grows with the number; the time of the purchase is another field.
3. What was paid is what the payment service says; else, where the wallet counts a currency, a credit costs one of it;
   else `total` is null: it is unknown.
4. An invoice never changes. What was refunded of it stands in credit notes that name it; `refunded` and `credit_notes`
   of its JSON say what there is of them now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from schemas.times import format_time

Row = Mapping[str, Any]
Document = dict[str, Any]


def invoice_document(row: Row, notes: Sequence[Row] = ()) -> Document:
    """The JSON of an invoice. `row`: of `v_invoices`, times in microseconds; `notes`: its rows of `v_credit_notes`."""
    refunded = sum((note["credits"] for note in notes), Decimal(0))
    return {
        "org_id": row["org_id"],
        "number": row["number"],
        "invoice_id": row["invoice_id"],
        "issued_at": format_time(row["issued_at"]),
        "purchased_at": format_time(row["purchased_at"]),
        "purchase_id": row["purchase_id"],
        "wallet": row["wallet"],
        "credits": decimal_text(row["credits"]),
        "expires_at": None if row["expires_at"] is None else format_time(row["expires_at"]),
        "total": _total(row),
        "currency": row["currency"] or None,
        "actor": row["actor"] or None,
        "topup_request_id": row["topup_request_id"] or None,
        "seq": row["seq"],
        "refunded": decimal_text(refunded),
        "credit_notes": [note["number"] for note in notes],
    }


def credit_note_document(row: Row) -> Document:
    """The JSON of a credit note, from a row of `v_credit_notes`."""
    return {
        "org_id": row["org_id"],
        "number": row["number"],
        "credit_note_id": row["credit_note_id"],
        "issued_at": format_time(row["issued_at"]),
        "refunded_at": format_time(row["refunded_at"]),
        "refund_id": row["refund_id"],
        "invoice_number": row["invoice_number"],
        "invoice_id": row["invoice_id"],
        "purchase_id": row["purchase_id"],
        "wallet": row["wallet"],
        "credits": decimal_text(row["credits"]),
        "total": _total(row),
        "currency": row["currency"] or None,
        "actor": row["actor"] or None,
        "seq": row["seq"],
    }


def decimal_text(amount: Decimal) -> str:
    """The shortest decimal text of an exact amount: Decimal("12.500000000") → "12.5"."""
    text = f"{amount:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _total(row: Row) -> str | None:
    return None if row["total"] is None else decimal_text(row["total"])
