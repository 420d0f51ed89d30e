"""Invoices and credit notes (product rule 24): numbered without gaps, by the ledger alone, whatever is there twice."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections.finance import PAGE_MAX, Finance, UnknownNumberError
from projections.rows import activity_rows, ledger_rows, purchase_rows
from projections.sink import Sink
from schemas.amounts import NANOS, format_amount, parse_amount
from schemas.codec import batch_of
from schemas.records import BundledSchemas
from tests.laws import examples
from tests.unit.projections.entries import LEDGER, NOON, TOPICS, Row, entry, inbound

PURCHASES, REFUNDS = TOPICS.name("purchases"), TOPICS.name("refunds")
CENT = NANOS // 100
EXAMPLES = itertools.count()
LAW = settings(
    max_examples=examples(10), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def purchase(org: str, seq: int, purchase_id: str, credits: int, **more: Any) -> Row:
    """A completed purchase, or what `kind`, `status`, `paid`, `currency`, `wallet` make of it."""
    kind, status = more.pop("kind", "purchased"), more.pop("status", "completed")
    paid, currency = more.pop("paid", None), more.pop("currency", None)
    details = f'{{"kind":"{kind}","status":"{status}","amount_nanos":{credits}}}'
    words: Row = {"event_id": purchase_id, "source_topic": PURCHASES, "details": details, "actor": "ann", **more}
    if status == "failed":
        return entry(org, seq, 0, kind="purchase", reason="purchase_failed", **words)
    if status == "refused":
        return entry(org, seq, 0, kind="rejected", reason="not_authorized", **words)
    lot = {"grant_id": f"purchase/{purchase_id}", "kind": kind, "amount_nanos": credits, "priority": 50}
    grants = [lot | {"price_paid_nanos": paid, "currency": currency, "expires_at": None}]
    booked = "adjustment" if kind == "adjustment" else "purchase"
    return entry(org, seq, credits, kind=booked, grants=grants, **words)


def refund(org: str, seq: int, purchase_id: str, credits: int, **more: Any) -> Row:
    """What was left of a purchase, taken back."""
    return entry(org, seq, -credits, kind="refund", reason="purchase_refunded", source_topic=REFUNDS,
                 correlation_id=purchase_id, **more)  # fmt: skip


def project(client: Client, rows: list[Row], times: int = 1) -> Finance:
    """The rows in ClickHouse, `times` over as replays with lost positions do it."""
    for _ in range(times):
        client.command("TRUNCATE TABLE positions")
        Sink(client, TOPICS, BundledSchemas()).apply([inbound(rows, 0)])
        for table in ("ledger", "activity", "purchases"):
            client.command(f"INSERT INTO {table} SELECT * FROM {table}")
    return Finance(client, LEDGER)


def put(client: Client, rows: list[Row]) -> Finance:
    """The same rows straight into the tables, twice: many small ledgers in a short time."""
    batch, offsets = batch_of("entry", rows), np.arange(len(rows))
    made = {
        "ledger": ledger_rows(batch, 0, offsets),
        "activity": activity_rows(batch, {}),
        "purchases": purchase_rows(batch, PURCHASES),
    }
    for table, each in made.items():
        for _ in range(2):
            if each is not None:
                client.insert_arrow(table, each)
    if not client.command("SELECT count() FROM positions"):
        client.command(f"INSERT INTO positions VALUES ('{LEDGER}', 0, 1000000, now64(6))")
    return Finance(client, LEDGER)


def billed(finance: Finance, org: str = "acme") -> list[dict[str, Any]]:
    page = finance.invoices(org)
    assert page is not None
    return list(page["invoices"])


def credited(finance: Finance, org: str = "acme") -> list[dict[str, Any]]:
    page = finance.credit_notes(org)
    assert page is not None
    return list(page["credit_notes"])


def test_what_has_an_invoice(client: Client) -> None:
    rows = [
        purchase("acme", 1, "p1", 100 * NANOS, paid=95 * NANOS, currency="EUR"),
        purchase("acme", 2, "gift", 5 * NANOS, kind="promotional"),
        purchase("acme", 3, "declined", 9 * NANOS, status="failed"),
        purchase("acme", 4, "eve", 9 * NANOS, status="refused"),
        purchase("acme", 5, "fixed", 9 * NANOS, kind="adjustment"),
        entry("acme", 6, -NANOS, operation="chat"),
        purchase("acme", 7, "p2", 10 * NANOS),
        purchase("acme", 8, "p3", 10 * NANOS, wallet="model_credits"),
        purchase("acme", 9, "p4", 10 * NANOS, wallet="model_credits", paid=3 * NANOS, currency="USD"),
        purchase("acme", 10, "p5", 10 * NANOS, currency="EUR"),
        purchase("bolt", 1, "p1", 10 * NANOS, correlation_id="topup-1"),
    ]
    finance = project(client, rows, times=2)
    shown = [(bill["number"], bill["purchase_id"], bill["total"], bill["currency"]) for bill in billed(finance)]
    assert shown == [
        (1, "p1", "95", "EUR"),
        (2, "p2", "10", "USD"),
        (3, "p3", None, None),  # nobody said what it cost
        (4, "p4", "3", "USD"),
        (5, "p5", None, None),  # paid in another currency than the wallet counts, and not how much
    ]
    assert [bill["invoice_id"] for bill in billed(finance)][:2] == ["acme-000001", "acme-000002"]
    (other,) = billed(finance, "bolt")
    assert (other["invoice_id"], other["topup_request_id"]) == ("bolt-000001", "topup-1")
    assert finance.invoices("nosuch") is None


def test_a_credit_note_names_its_invoice(client: Client) -> None:
    rows = [
        purchase("acme", 1, "p1", 30 * NANOS, paid=10 * NANOS, currency="EUR"),
        purchase("acme", 2, "gift", 5 * NANOS, kind="promotional"),
        purchase("acme", 3, "p2", 30 * NANOS),
        refund("acme", 4, "p2", 7 * NANOS, event_id="r1", actor="bob"),
        refund("acme", 5, "gift", 5 * NANOS, event_id="r2"),
        *(refund("acme", seq, "p1", 10 * NANOS, event_id=f"r{seq}") for seq in (6, 7, 8)),
    ]
    finance = project(client, rows, times=2)
    notes = credited(finance)
    assert [(note["number"], note["refund_id"], note["invoice_number"], note["total"]) for note in notes] == [
        (1, "r1", 2, "7"),
        (2, "r6", 1, "3.33"),
        (3, "r7", 1, "3.34"),
        (4, "r8", 1, "3.33"),
    ]
    assert (notes[0]["credit_note_id"], notes[0]["invoice_id"]) == ("acme-C000001", "acme-000002")
    assert [(bill["refunded"], bill["credit_notes"]) for bill in billed(finance)] == [("30", [2, 3, 4]), ("7", [1])]


def test_an_id_that_comes_again_is_another_purchase(client: Client) -> None:
    """After 35 days an id is forgotten; a refund is of the purchase that had it last."""
    rows = [
        purchase("acme", 1, "p", 10 * NANOS),
        refund("acme", 2, "p", NANOS),
        purchase("acme", 3, "p", 20 * NANOS),
        refund("acme", 4, "p", 2 * NANOS),
        purchase("acme", 5, "p", 5 * NANOS, kind="promotional"),
        refund("acme", 6, "p", 5 * NANOS),
    ]
    notes = credited(project(client, rows))
    assert [(note["number"], note["invoice_number"], note["credits"]) for note in notes] == [(1, 1, "1"), (2, 2, "2")]


def test_pages(client: Client) -> None:
    finance = project(client, [purchase("acme", seq, f"p{seq}", NANOS) for seq in range(1, 6)])
    pages, after = [], 0
    while after is not None:
        page = finance.invoices("acme", after, 2)
        assert page is not None
        pages.append([bill["number"] for bill in page["invoices"]])
        after = page["next_after"]
    assert pages == [[1, 2], [3, 4], [5]]
    assert finance.invoices("acme", 0, PAGE_MAX + 1) is not None
    for number in (0, 6):
        with pytest.raises(UnknownNumberError):
            finance.invoice("acme", number)
        with pytest.raises(UnknownNumberError):
            finance.credit_note("acme", number)


@st.composite
def ledgers(draw: st.DrawFn) -> list[Row]:
    """Purchases and refunds of two orgs, as a ledger would book them: no more is refunded than was bought."""
    seqs: dict[str, int] = defaultdict(int)
    left: dict[tuple[str, str], int] = {}
    rows: list[Row] = []
    for number in range(draw(st.integers(1, 14))):
        org = draw(st.sampled_from(["acme", "bolt"]))
        seqs[org] += 1
        refundable = sorted(name for (owner, name), rest in left.items() if owner == org and rest)
        if draw(st.booleans()) and refundable:
            name = draw(st.sampled_from(refundable))
            credits = draw(st.integers(1, left[org, name]))
            left[org, name] -= credits
            rows.append(refund(org, seqs[org], name, credits))
            continue
        name = f"p{number % 9}"
        credits = draw(st.sampled_from([3, 7 * CENT, NANOS, 10**9 * NANOS, 9 * 10**18]))
        paid = draw(st.sampled_from([None, 0, 1, 10 * NANOS, 1_999 * CENT, 10 * NANOS + 1, 9 * 10**18]))
        kind = draw(st.sampled_from(["purchased", "purchased", "purchased", "promotional", "adjustment"]))
        status = draw(st.sampled_from(["completed", "completed", "completed", "failed", "refused"]))
        if status == "completed":
            left[org, name] = credits
        rows.append(purchase(org, seqs[org], name, credits, paid=paid, kind=kind, status=status,
                             wallet=draw(st.sampled_from(["USD", "tool_runs"]))))  # fmt: skip
    return rows


def plain(rows: Iterable[Row], org: str) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Invoices and credit notes of an org, counted one entry at a time."""
    bills: list[tuple[Any, ...]] = []
    notes: list[tuple[Any, ...]] = []
    last: dict[str, dict[str, Any] | None] = {}
    for row in rows:
        if row["org_id"] != org:
            continue
        if row["kind"] in ("purchase", "adjustment") and row.get("grants"):
            (lot,) = row["grants"]
            if lot["kind"] != "purchased":
                last[row["event_id"]] = None
                continue
            total = lot["price_paid_nanos"]
            if total is None and row["wallet"] == "USD":
                total = row["amount_nanos"]
            number = len(bills) + 1
            bills.append((number, row["event_id"], None if total is None else format_amount(total)))
            last[row["event_id"]] = {"number": number, "whole": row["amount_nanos"], "total": total, "back": 0}
        elif row["kind"] == "refund":
            known = last[row["correlation_id"]]
            if known is None:
                continue
            before = share(known)
            known["back"] -= row["amount_nanos"]
            after = share(known)
            shown = None if after is None or before is None else format_amount(after - before)
            notes.append((len(notes) + 1, known["number"], shown))
    return bills, notes


def share(known: dict[str, Any]) -> int | None:
    """What was paid back of an invoice so far, half up, in whole cents where the total is in whole cents."""
    if known["total"] is None:
        return None
    step = CENT if known["total"] % CENT == 0 else 1
    exact = Fraction(known["total"] * known["back"], known["whole"] * step)
    return step * int(exact + Fraction(1, 2))


@given(kinds=ledgers(), data=st.data())
@LAW
def test_numbers_are_a_function_of_the_ledger(client: Client, kinds: list[Row], data: st.DataObject) -> None:
    """Any ledger, twice over: the plain count; what comes later changes nothing before; all paid back is the total."""
    example = next(EXAMPLES)
    rows = [{**row, "org_id": f"{row['org_id']}-{example}"} for row in kinds]
    cut = data.draw(st.integers(1, len(rows)), label="cut")
    for first, last in ((0, cut), (cut, len(rows))):
        finance = put(client, rows[first:last]) if first < last else Finance(client, LEDGER)
        for org in {row["org_id"] for row in rows[:last]}:
            bills, notes = plain(rows[:last], org)
            shown, back = billed(finance, org), credited(finance, org)
            assert [(bill["number"], bill["purchase_id"], bill["total"]) for bill in shown] == bills
            assert [(note["number"], note["invoice_number"], note["total"]) for note in back] == notes
            for bill in shown:
                if bill["refunded"] == bill["credits"] and bill["total"] is not None:
                    totals = [note["total"] for note in back if note["invoice_number"] == bill["number"]]
                    assert sum(map(parse_amount, totals)) == parse_amount(bill["total"])


def test_dates_grow_with_the_numbers(client: Client) -> None:
    """Late reports are booked when they come: the date of issue is the booking's, the date of purchase the charge's."""
    rows = [
        purchase("acme", 1, "p1", NANOS, occurred_at=NOON + 5, recorded_at=NOON + 10),
        purchase("acme", 2, "p2", NANOS, occurred_at=NOON, recorded_at=NOON + 20),
    ]
    issued = [(bill["issued_at"][-8:], bill["purchased_at"][-8:]) for bill in billed(project(client, rows))]
    assert issued == [(".000010Z", ".000005Z"), (".000020Z", "2:00:00Z")]
