"""Invoices, credit notes and statements of an org, asked from ClickHouse (product rule 24).

Rules of this file: it reads and writes nothing; an answer is bounded, the rest is asked for by page. Every answer says
as of when it is true (product rule 34): the projection may lag behind the ledger by seconds. None: no entry of the org
is projected. A statement holds exactly what is before one position of the ledger, however fast the projection goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from clickhouse_connect.driver.client import Client

from projections import queries
from projections.invoices import Document, Row, credit_note_document, invoice_document
from projections.statements import Month, Movement, month, month_at, statement_document, wallet_statement, zone_at
from schemas.times import format_time, parse_time

PAGE_MAX = 1_000
"""Invoices or credit notes in one page: about 500 kB of JSON."""


class UnknownWalletError(Exception):
    """The org has no wallet of that unit."""


class UnknownNumberError(Exception):
    """The org has no invoice, or credit note, of that number."""


class MonthToComeError(Exception):
    """The month has not begun in the org's time zone."""


class Finance:
    """The questions, over a ClickHouse client of their own meanwhile. `ledger_topic`: its physical name."""

    def __init__(self, client: Client, ledger_topic: str) -> None:
        self._client = client
        self._ledger_topic = ledger_topic

    def invoices(self, org_id: str, after: int = 0, invoices_max: int = PAGE_MAX) -> Document | None:
        """A page of invoices: `org_id`, `as_of`, `invoices`, `next_after` (null: none follow)."""
        projected = self._projected(org_id)
        if projected is None:
            return None
        rows = self._rows(queries.invoices(org_id, after, min(invoices_max, PAGE_MAX)), queries.INVOICE_COLUMNS)
        documents = self._with_notes(org_id, rows)
        return _page(org_id, projected[1], "invoices", documents, invoices_max)

    def invoice(self, org_id: str, number: int) -> Document | None:
        """One invoice. Raises `UnknownNumberError`."""
        if self._projected(org_id) is None:
            return None
        rows = self._rows(queries.invoices(org_id, max(number - 1, 0), 1), queries.INVOICE_COLUMNS)
        if not rows or rows[0]["number"] != number:
            raise UnknownNumberError(f"{org_id} has no invoice {number}")
        return self._with_notes(org_id, rows)[0]

    def credit_notes(self, org_id: str, after: int = 0, notes_max: int = PAGE_MAX) -> Document | None:
        """A page of credit notes: `org_id`, `as_of`, `credit_notes`, `next_after`."""
        projected = self._projected(org_id)
        if projected is None:
            return None
        query = queries.credit_notes(org_id, after, min(notes_max, PAGE_MAX))
        documents = [credit_note_document(row) for row in self._rows(query, queries.CREDIT_NOTE_COLUMNS)]
        return _page(org_id, projected[1], "credit_notes", documents, notes_max)

    def credit_note(self, org_id: str, number: int) -> Document | None:
        """One credit note. Raises `UnknownNumberError`."""
        if self._projected(org_id) is None:
            return None
        rows = self._rows(queries.credit_notes(org_id, max(number - 1, 0), 1), queries.CREDIT_NOTE_COLUMNS)
        if not rows or rows[0]["number"] != number:
            raise UnknownNumberError(f"{org_id} has no credit note {number}")
        return credit_note_document(rows[0])

    def time_zone(self, org_id: str, time: str) -> str:
        """The org's time zone at the time (ISO 8601) of a document, for its dates on paper."""
        return zone_at(parse_time(time), self._zones(org_id))

    def statement(
        self, org_id: str, *, now: int, number: int | None = None, wallet: str | None = None
    ) -> Document | None:
        """The statement of a month (None: the one that `now` is in), of one wallet or of all that had one by then.

        Raises `UnknownWalletError`, `MonthToComeError`, and `StatementBrokenError` where it does not add up.
        """
        projected = self._projected(org_id)
        if projected is None:
            return None
        position, as_of = projected
        zones = self._zones(org_id)
        of = month_at(now, zones) if number is None else month(number, zones)
        if of.starts_at > now:
            raise MonthToComeError(f"{of.name} begins at {format_time(of.starts_at)}")
        moved: dict[str, list[Movement]] = {}
        for unit, kind, entries, amount in self._ask(queries.movements(org_id, of.starts_at, of.ends_at, position)):
            moved.setdefault(unit, []).append(Movement(kind, entries, amount))
        known = [row[0] for row in self._ask(queries.wallets(org_id))]
        if wallet is not None and wallet not in known:
            raise UnknownWalletError(f"{org_id} has no wallet {wallet}")
        parts = [
            self._wallet(org_id, unit, of, position, moved.get(unit, []), asked=unit == wallet)
            for unit in known
            if wallet in (None, unit)
        ]
        return statement_document(org_id, of, as_of, [part for part in parts if part is not None])

    def _wallet(
        self, org_id: str, unit: str, of: Month, position: int, moved: Sequence[Movement], *, asked: bool
    ) -> dict[str, Any] | None:
        closing = self._ask(queries.balance_before(org_id, unit, of.ends_at, position))
        if not closing and not asked:
            return None
        opening = self._ask(queries.balance_before(org_id, unit, of.starts_at, position))
        return wallet_statement(unit, _first(opening), _first(closing), moved)

    def _with_notes(self, org_id: str, rows: Sequence[Row]) -> list[Document]:
        if not rows:
            return []
        query = queries.credit_notes_of(org_id, rows[0]["number"], rows[-1]["number"])
        notes: dict[int, list[Row]] = {}
        for note in self._rows(query, queries.CREDIT_NOTE_COLUMNS):
            notes.setdefault(note["invoice_number"], []).append(note)
        return [invoice_document(row, notes.get(row["number"], [])) for row in rows]

    def _projected(self, org_id: str) -> tuple[int, int] | None:
        rows = self._ask(queries.org_position(org_id, self._ledger_topic))
        return (rows[0][0], rows[0][1]) if rows else None

    def _zones(self, org_id: str) -> list[tuple[int, str]]:
        return [(since, zone) for since, zone in self._ask(queries.time_zones(org_id))]

    def _rows(self, query: queries.Query, columns: Sequence[str]) -> list[Row]:
        return [dict(zip(columns, row, strict=True)) for row in self._ask(query)]

    def _ask(self, query: queries.Query) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._client.query(query.sql, parameters=query.parameters).result_rows]


def _first(rows: Sequence[tuple[Any, ...]]) -> Decimal:
    return rows[0][0] if rows else Decimal(0)


def _page(org_id: str, as_of: int, name: str, documents: list[Document], rows_max: int) -> Document:
    full = bool(documents) and len(documents) == min(rows_max, PAGE_MAX)
    return {
        "org_id": org_id,
        "as_of": format_time(as_of),
        name: documents,
        "next_after": documents[-1]["number"] if full else None,
    }
