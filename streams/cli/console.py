"""What every command shares: settings with readable errors, results, notes and progress.

Results go to standard output. Notes and progress go to standard error: a bar on a terminal, else a plain line now and
then, so that a log file stays readable.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from streams.errors import OperatorError

if TYPE_CHECKING:
    from streams.settings import Settings

PLAIN_INTERVAL_S = 5.0

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def load_settings(**overrides: Any) -> Settings:
    """The settings of the environment and `.env`; raises `OperatorError` that names the variable that is wrong.

    `overrides` are values from the command line; None leaves the variable's value.
    """
    from pydantic import ValidationError

    from streams.settings import Settings, without_password

    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        variable = "CREDITS_" + "_".join(str(part) for part in first["loc"]).upper()
        message = str(first["msg"]).removeprefix("Value error, ")
        found = without_password(repr(first.get("input")))
        raise OperatorError(f"{variable} is {found}", message[:1].lower() + message[1:]) from error


def print_json(document: Any) -> None:
    """Print one JSON document on standard output."""
    import orjson

    options = orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0
    sys.stdout.write(orjson.dumps(document, default=str, option=options | orjson.OPT_NON_STR_KEYS).decode() + "\n")


def note(text: str) -> None:
    """Tell who watches; not a result."""
    print(text, file=sys.stderr, flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[str] = ()) -> None:
    """Print rows under their column names; the columns named in `right` are aligned right, for numbers."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)]
    for row in [list(columns), *cells]:
        padded = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(row, widths, columns, strict=True)
        ]
        print("  ".join(padded).rstrip())


class Steps(Protocol):
    """Something that counts what has been done."""

    def advance(self, count: int = 1) -> None:
        """Count `count` more as done."""


class _Plain:
    def __init__(self, label: str, total: int | None) -> None:
        self.label, self.total, self.done, self.said_at = label, total, 0, time.monotonic()

    def advance(self, count: int = 1) -> None:
        self.done += count
        if time.monotonic() - self.said_at >= PLAIN_INTERVAL_S:
            self.say()

    def say(self) -> None:
        self.said_at = time.monotonic()
        of = f" of {self.total:,} ({100 * self.done // max(self.total, 1)} %)" if self.total is not None else ""
        note(f"{self.label}: {self.done:,}{of}")


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Steps]:
    """Show how far something is; `total` None when nobody knows."""
    if not sys.stderr.isatty():
        plain = _Plain(label, total)
        yield plain
        plain.say()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)

        class Bar:
            def advance(self, count: int = 1) -> None:
                bar.advance(task, count)

        yield Bar()


def describe(values: Mapping[str, Any]) -> None:
    """Print names and values, one a line, values aligned."""
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        print(f"{name.ljust(width)}  {value}")
