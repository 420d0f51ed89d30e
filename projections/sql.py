"""SQL of people, run within limits (`projections.sql_gate`), and its answer as text, CSV or Parquet."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from projections.clickhouse import first_line, is_passing
from projections.invoices import decimal_text
from projections.reads import GIVEN_UP, TooWideError
from projections.sql_gate import (
    LIMITS,
    MEMORY_BYTES_MAX,
    ROWS_MAX,
    SECONDS_MAX,
    SqlRefusedError,
    check,
    names_in_with,
    nodes_of,
    parse_question,
    single_select,
)

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


_SAID = re.compile(r"Code: \d+\. |DB::Exception: |:? In scope .*| \(version [\d.]+\).*")
"""What the engine says around its sentence: codes, and the statement with the limits that we added."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of a query. `truncated`: there were more than were asked for."""

    columns: list[str]
    types: list[str]
    rows: list[Sequence[Any]]
    truncated: bool
    elapsed_ms: int


def run(client: Client, text: str, rows_max: int = ROWS_MAX) -> Answer:
    """Run one SELECT. Raises `SqlRefusedError`, `TooWideError`, and `ClickHouseError` where it cannot be asked."""
    select = single_select(text)
    began_s = time.monotonic()
    try:
        parsed = client.query(parse_question(select))
        check(nodes_of(row[0] for row in parsed.result_rows), str(client.database), names_in_with(select))
        limits = {**LIMITS, "max_result_rows": min(rows_max, ROWS_MAX) + 1}
        found = client.query(f"{select}\n", settings=limits)
    except ClickHouseError as error:
        raise _refusal(error) from error
    rows = list(found.result_rows)
    cut = min(rows_max, ROWS_MAX)
    return Answer(
        columns=list(found.column_names),
        types=[each.name for each in found.column_types],
        rows=rows[:cut],
        truncated=len(rows) > cut,
        elapsed_ms=round((time.monotonic() - began_s) * 1_000),
    )


def _refusal(error: ClickHouseError) -> Exception:
    """What is wrong with the text, in the engine's words; the error itself where the text is not at fault."""
    if getattr(error, "code", None) in GIVEN_UP:
        return TooWideError(
            f"the query takes more than {SECONDS_MAX} s or {MEMORY_BYTES_MAX >> 20} MiB: ask for a shorter range"
        )
    if is_passing(error):
        return error
    return SqlRefusedError(_SAID.sub("", first_line(error))[:1_000])


def plain(value: Any) -> Any:
    """A value as JSON has it: amounts as decimal strings, times as ISO 8601."""
    match value:
        case Decimal():
            return decimal_text(value)
        case datetime():
            return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).isoformat()
        case date():
            return value.isoformat()
        case bytes():
            return value.decode(errors="backslashreplace")
        case float() if value != value or value in (float("inf"), float("-inf")):
            return str(value)
        case list() | tuple():
            return [plain(each) for each in value]
        case dict():
            return {str(name): plain(each) for name, each in value.items()}
        case None | bool() | int() | float() | str():
            return value
    return str(value)


def document(answer: Answer) -> dict[str, Any]:
    """The answer of `POST /v1/query`."""
    return {
        "columns": [{"name": name, "type": kind} for name, kind in zip(answer.columns, answer.types, strict=True)],
        "rows": [[plain(each) for each in row] for row in answer.rows],
        "row_count": len(answer.rows),
        "truncated": answer.truncated,
        "elapsed_ms": answer.elapsed_ms,
    }


def csv_of(answer: Answer) -> str:
    """The rows as CSV (RFC 4180) under their names."""
    import csv

    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(answer.columns)
    for row in answer.rows:
        writer.writerow(["" if each is None else plain(each) for each in row])
    return out.getvalue()


def parquet_of(answer: Answer) -> bytes:
    """The rows as Parquet; what has no plain type there is text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: _column([row[i] for row in answer.rows]) for i, name in enumerate(answer.columns)}
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def _column(values: list[Any]) -> Any:
    import pyarrow as pa

    if all(isinstance(each, Decimal) or each is None for each in values) and any(each is not None for each in values):
        return pa.array(values, pa.decimal128(38, 9))
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return pa.array([None if each is None else str(plain(each)) for each in values], pa.string())
