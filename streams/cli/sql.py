"""`credits sql`: SELECT over the published tables and views, asked of a running `serve` (product rule 31).

ClickHouse in process has one owner, so the command does not open it: `POST /v1/query` answers, with its limits.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.console import JsonFlag, load_settings, note, print_json, print_table, say
from streams.errors import OperatorError

if TYPE_CHECKING:
    from streams.settings import Settings

app = typer.Typer()

PROMPT = "credits> "
MORE = "    ...> "
CELL_MAX = 60
NUMBERS = ("Int", "Decimal", "Float")


class Format(StrEnum):
    """How the rows are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


ACCEPT = {Format.CSV: "text/csv", Format.PARQUET: "application/vnd.apache.parquet"}


@app.command()
def sql(
    query: Annotated[str | None, typer.Argument(help="One SELECT; `-`: from standard input; none: a prompt.")] = None,
    output: Annotated[Format, typer.Option("--format", "-f", help="How the rows are written.")] = Format.TABLE,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write to this file, by its ending.")] = None,
    rows_max: Annotated[int, typer.Option("--rows", min=1, max=10_000, help="Rows at most.")] = 10_000,
    as_json: JsonFlag = False,
) -> None:
    """Run one SELECT over the tables and views of the data dictionary (projections/README.md)."""
    settings = load_settings()
    given = Format.JSON if as_json else output
    if out is not None and out.suffix[1:] in set(Format):
        given = Format(out.suffix[1:])
    if given is Format.PARQUET and out is None:
        raise typer.BadParameter("Parquet is written to a file: --out rows.parquet")
    if query is None and sys.stdin.isatty():
        _prompt(settings, rows_max)
        return
    text = sys.stdin.read() if query in (None, "-") else str(query)
    _write(settings, text, given, out, rows_max)


def _write(settings: Settings, text: str, given: Format, out: Path | None, rows_max: int) -> None:
    from streams.cli.http_client import post

    body = {"query": text, "rows_max": rows_max}
    if given in ACCEPT:
        content = post(settings, "/v1/query", body, accept=ACCEPT[given])
        if out is None:
            for line in content.decode().splitlines():
                say(line)
        else:
            out.write_bytes(content)
            note(f"written: {out}")
        return
    document = _ask(settings, text, rows_max)
    if out is not None:
        import json

        out.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        note(f"written: {out}")
    elif given is Format.JSON:
        print_json(document)
    else:
        show(document)


def _ask(settings: Settings, text: str, rows_max: int) -> dict[str, Any]:
    import json

    from streams.cli.http_client import post

    document: dict[str, Any] = json.loads(post(settings, "/v1/query", {"query": text, "rows_max": rows_max}))
    return document


def show(document: dict[str, Any]) -> None:
    """Print an answer for people."""
    names = [each["name"] for each in document["columns"]]
    right = [each["name"] for each in document["columns"] if any(kind in each["type"] for kind in NUMBERS)]
    print_table(names, [[_cell(each) for each in row] for row in document["rows"]], right)
    more = ", and there are more: LIMIT and WHERE choose" if document["truncated"] else ""
    note(f"{document['row_count']:,} rows in {document['elapsed_ms']:,} ms{more}")


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= CELL_MAX else f"{text[: CELL_MAX - 1]}…"


def _prompt(settings: Settings, rows_max: int) -> None:
    """Ask until the end of input. A query ends with `;` or an empty line."""
    import contextlib

    with contextlib.suppress(ImportError):  # the arrow keys and the history of a session
        import readline  # noqa: F401
    note("A query ends with ; or an empty line. Tables and views: projections/README.md. Ctrl-D ends.")
    lines: list[str] = []
    while True:
        try:
            line = input(MORE if lines else PROMPT)
        except EOFError:
            return
        except KeyboardInterrupt:
            lines = []
            continue
        lines.append(line)
        if not line.strip().endswith(";") and line.strip():
            continue
        text = "\n".join(lines).strip()
        lines = []
        if not text:
            continue
        try:
            show(_ask(settings, text, rows_max))
        except OperatorError as error:
            note(f"error: {error.problem}")
