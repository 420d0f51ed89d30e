"""How questions of people are put to ClickHouse: bounded in time, memory and rows, and as of when the answer is true.

Rules of this file: it reads and writes nothing; a question that would take longer than `SECONDS_MAX`, or more memory
than `MEMORY_BYTES_MAX`, is given up by ClickHouse itself and is a `TooWideError`; times are microseconds UTC; an empty
string in a column means "not given", and is None in a document.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from projections import queries
from projections.invoices import decimal_text
from projections.queries import Query
from projections.statements import zone_at
from schemas.times import TIME_MAX, format_time

SECONDS_MAX: Final = 10
MEMORY_BYTES_MAX: Final = 1024 * 1024 * 1024
QUERY_BYTES_MAX: Final = 4 * 1024 * 1024
"""A statement may list 2,000 cuts and 10,000 organisations; ClickHouse's default is 256 kB."""
SETTINGS: Final = {
    "max_execution_time": SECONDS_MAX,
    "max_memory_usage": MEMORY_BYTES_MAX,
    "max_query_size": QUERY_BYTES_MAX,
    "do_not_merge_across_partitions_select_final": 1,  # a row's identity names its partition
}
GIVEN_UP: Final = frozenset({158, 159, 160, 241, 396})
"""ClickHouse's codes for too many rows, time, a slow query, memory, and too many rows in the answer."""

PAGE: Final = 50
PAGE_MAX: Final = 1_000

Row = dict[str, Any]
Document = dict[str, Any]


class TooWideError(Exception):
    """The question takes more than one answer may: ask for less."""


class CursorError(ValueError):
    """What was given as a cursor is none of this list."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """How far an org's entries are projected: all before `position`, the newest of them booked at `as_of`."""

    position: int
    as_of: int


class Reads:
    """Questions over a ClickHouse client that nothing else uses meanwhile. `ledger_topic`: its physical name."""

    def __init__(self, client: Client, ledger_topic: str) -> None:
        self._client = client
        self._ledger_topic = ledger_topic

    def rows(self, query: Query) -> list[Row]:
        """The rows of a query by column. Raises `TooWideError`, and `ClickHouseError` where it cannot be asked."""
        try:
            found = self._client.query(query.sql, parameters=query.parameters, settings=dict(SETTINGS))
        except ClickHouseError as error:
            if getattr(error, "code", None) in GIVEN_UP:
                raise TooWideError(
                    f"the answer takes more than {SECONDS_MAX} s or {MEMORY_BYTES_MAX >> 20} MiB:"
                    " take a shorter range of time, or a filter"
                ) from error
            raise
        return [dict(zip(found.column_names, row, strict=True)) for row in found.result_rows]

    def freshness(self, org_id: str) -> Freshness | None:
        """As of when answers about an org are true; None: no entry of it is projected."""
        found = self.rows(queries.org_position(org_id, self._ledger_topic))
        return Freshness(*found[0].values()) if found else None

    def freshness_of_all(self) -> Freshness | None:
        """As of when answers about all orgs are true: as the partition that is furthest behind."""
        found = self.rows(queries.positions())
        of_ledger = [row for row in found if row["topic"] == self._ledger_topic]
        if not of_ledger:
            return None
        return Freshness(sum(row["position"] for row in of_ledger), min(row["as_of"] for row in of_ledger))

    def zones(self, org_id: str) -> list[tuple[int, str]]:
        """Each change of an org's time zone: from when, and which."""
        return [(row["since"], row["zone"]) for row in self.rows(queries.time_zones(org_id))]

    def zone(self, org_id: str) -> str:
        """The org's time zone as it is set now."""
        return zone_at(TIME_MAX, self.zones(org_id))


def write_cursor(kind: str, *position: int | str) -> str:
    """Where a list goes on, as a text for addresses. `kind` names the list and its order."""
    text = json.dumps([kind, *position], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(kind: str, cursor: str, *types: type[int] | type[str]) -> list[Any]:
    """The position in a cursor; raises `CursorError` for one of another list, or of none."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        given = json.loads(base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        given = None
    if (
        isinstance(given, list)
        and len(given) == 1 + len(types)
        and given[0] == kind
        and all(type(each) is wanted for each, wanted in zip(given[1:], types, strict=True))
        and all(-(2**63) <= each < 2**63 for each in given[1:] if isinstance(each, int))
    ):
        return given[1:]
    raise CursorError("cursor: take it from `next_cursor` of the page before, with the same order")


def page_of(rows: Sequence[Row], rows_max: int) -> tuple[Sequence[Row], bool]:
    """The rows of a page, of which one more than it may hold was asked for; and whether others follow."""
    return rows[:rows_max], len(rows) > rows_max


def document_of(row: Mapping[str, Any], *, texts: Iterable[str] = ()) -> Document:
    """A row as JSON has it: amounts as decimal strings, times as ISO 8601, "" as null. `texts` may be empty."""
    kept = set(texts)
    return {name.removesuffix("_us"): _value(name, value, name in kept) for name, value in row.items()}


def _value(name: str, value: Any, may_be_empty: bool) -> Any:
    if isinstance(value, Decimal):
        return decimal_text(value)
    if name.endswith("_us"):
        return None if value is None else format_time(value)
    if value == "" and not may_be_empty:
        return None
    return value
