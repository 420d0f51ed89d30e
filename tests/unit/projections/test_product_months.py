"""The five products' months as their people get them: statements, invoices and credit notes (product rule 24).

The ledger of each month goes through the projection, and what `projections.finance` says of it must be what is written
down by hand in the product's `expected.json`: of a document the fields named there, and no document more. An
organisation that is not named has none; its statements must add up all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from clickhouse_connect.driver.client import Client

from projections.finance import Finance
from projections.sink import Sink
from projections.statements import parse_month
from schemas.amounts import format_amount, parse_amount
from schemas.records import BundledSchemas
from schemas.times import parse_time
from tests.products import expectation
from tests.products.expectation import movement_name
from tests.products.scenario import PRODUCTS, MonthRun
from tests.products.test_products import month
from tests.unit.projections.entries import LEDGER, TOPICS, Row, inbound

NOW = parse_time("2026-07-15T00:00:00Z")
MONTHS = ("2026-04", "2026-05", "2026-06", "2026-07")
"""The products live in May and the first days of June; nothing moves before or after."""


@dataclass(frozen=True)
class Books:
    """What is expected of a product, its ledger, and the projection of it."""

    expected: Row
    run: MonthRun
    finance: Finance

    def statement(self, org: str, name: str) -> Row:
        """The statement of a month."""
        found = self.finance.statement(org, now=NOW, number=parse_month(name))
        assert found is not None, f"nothing of {org} is projected"
        return found

    def orgs(self) -> list[str]:
        return sorted({row["org_id"] for row in self.run.results.ledger})


@pytest.fixture(params=PRODUCTS)
def books(client: Client, request: pytest.FixtureRequest) -> Books:
    """A product's month, projected."""
    run = month(request.param, "one by one")
    Sink(client, TOPICS, BundledSchemas()).apply([inbound(run.results.ledger, 0)])
    return Books(expectation.load(request.param).rest, run, Finance(client, LEDGER))


def test_statements_are_as_expected(books: Books) -> None:
    """Opening, movements by kind and closing of each month that is written down, in the organisation's time zone."""
    for org, wallets in books.expected["statements"].items():
        zone = books.expected.get("time_zones", {}).get(org, "UTC")
        for unit, months in wallets.items():
            for name, want in months.items():
                statement = books.statement(org, name)
                (part,) = (part for part in statement["wallets"] if part["wallet"] == unit)
                movements = _movements(part["movements"], want["movements"])
                got = {"opening": part["opening"], "movements": movements, "closing": part["closing"]}
                assert (got, statement["time_zone"]) == (want, zone), (org, unit, name)


def test_each_month_opens_with_what_the_last_one_left(books: Books) -> None:
    """Of every wallet, from nothing to the balance that is published."""
    for org in books.orgs():
        closing: dict[str, str] = {}
        for name in MONTHS:
            for part in books.statement(org, name)["wallets"]:
                assert part["opening"] == closing.get(part["wallet"], "0"), (org, name)
                closing[part["wallet"]] = part["closing"]
        wallets = books.run.results.balances[org]["wallets"]
        assert closing == {wallet["unit"]: format_amount(wallet["settled_nanos"]) for wallet in wallets}, org


def test_invoices_and_credit_notes_are_as_expected(books: Books) -> None:
    """What was bought, in the order of booking, and what of it was paid back: refused, failed and given is neither."""
    for org in books.orgs():
        invoices, notes = books.finance.invoices(org), books.finance.credit_notes(org)
        assert invoices is not None
        assert notes is not None
        wanted = books.expected["invoices"].get(org, [])
        assert [bill["invoice_id"] for bill in invoices["invoices"]] == _numbered(f"{org}-", wanted)
        assert _named(invoices["invoices"], wanted) == wanted
        wanted = books.expected["credit_notes"].get(org, [])
        assert [note["credit_note_id"] for note in notes["credit_notes"]] == _numbered(f"{org}-C", wanted)
        assert _named(notes["credit_notes"], wanted) == wanted


def _movements(movements: Sequence[Row], expected: Row) -> dict[str, str]:
    """The movements by the names that the expectation gives them."""
    sums: dict[str, int] = {}
    for each in movements:
        name = movement_name(each["kind"], expected)
        sums[name] = sums.get(name, 0) + parse_amount(each["amount"])
    return {name: format_amount(nanos) for name, nanos in sums.items()}


def _numbered(prefix: str, expected: Sequence[Row]) -> list[str]:
    """The ids of that many documents."""
    return [f"{prefix}{number:06}" for number in range(1, len(expected) + 1)]


def _named(documents: Sequence[Row], expected: Sequence[Row]) -> list[Row]:
    """Of each document the fields that its expectation names."""
    return [{name: document[name] for name in want} for document, want in zip(documents, expected, strict=True)]
