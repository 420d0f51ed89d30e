"""Tables as CSV (RFC 4180): the same rows as on the page, amounts with all their decimals, times in UTC.

Rules of this file: a cell that a spreadsheet would take for a formula has an apostrophe in front, because names and
ids come from outside.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from fastapi.responses import Response

from projections.invoices import decimal_text
from schemas.times import format_time
from streams.ui.shell import HEADERS

Csv = Sequence[tuple[str, str]]
"""The head of each column, and the name of the field in a row."""

FORMULA = ("=", "+", "@", "\t", "\r")


def cell(value: Any) -> str:
    """A value as a cell."""
    match value:
        case None:
            return ""
        case Decimal():
            return decimal_text(value)
        case datetime():
            return format_time(round(value.timestamp() * 1_000_000))
        case bool():
            return "true" if value else "false"
        case list() | tuple():
            return " ".join(cell(each) for each in value)
    text = str(value)
    is_formula = text.startswith(FORMULA) or (text.startswith("-") and not text[1:].replace(".", "", 1).isdigit())
    return f"'{text}" if is_formula else text


def csv_text(columns: Csv, rows: Iterable[Mapping[str, Any]]) -> str:
    """The table; a field `x` that a row has as `x_us` is a time in microseconds."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([head for head, _ in columns])
    for row in rows:
        writer.writerow([cell(_field(row, name)) for _, name in columns])
    return out.getvalue()


def csv_answer(columns: Csv, rows: Iterable[Mapping[str, Any]], name: str) -> Response:
    """The table as a file to save."""
    safe = "".join(each if each.isascii() and (each.isalnum() or each in "._-") else "_" for each in name)
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{safe}.csv"'}
    return Response(csv_text(columns, rows), media_type="text/csv; charset=utf-8", headers=headers)


def _field(row: Mapping[str, Any], name: str) -> Any:
    if name in row:
        return row[name]
    micros = row.get(f"{name}_us")
    return None if micros is None else format_time(micros)
