"""What every command shares: settings with readable errors, results, notes and progress.

Results go to standard output. Notes and progress go to standard error: a bar on a terminal, else a plain line now and
then, so that a log file stays readable. Nothing else in this package writes to either (`tests/tidy`): what comes from
outside is shown here, with control characters as their codes, so that no command can forget it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from streams.errors import OperatorError
from streams.text_safety import HIDDEN, conceal, printable, printable_json, redacted, redacted_address

if TYPE_CHECKING:
    from streams.settings import Settings

PLAIN_INTERVAL_S = 5.0

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def load_settings(**overrides: Any) -> Settings:
    """The settings of the environment and `.env`; raises `OperatorError` that names the variable that is wrong.

    `overrides` are values from the command line; None leaves the variable's value.
    """
    from pydantic import ValidationError

    from streams.settings import Settings, secrets_of

    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        variable = "CREDITS_" + "_".join(str(part) for part in first["loc"]).upper()
        message = str(first["msg"]).removeprefix("Value error, ")
        raise OperatorError(
            f"{variable} is {_shown_input(variable, first.get('input'))}", message[:1].lower() + message[1:]
        ) from None
    conceal(secrets_of(settings))
    return settings


def _shown_input(variable: str, value: object) -> str:
    """What was given for a variable, without what may be secret in it."""
    if not isinstance(value, str | int | float | bool):  # all variables together, where a check is about several
        return "refused"
    if any(part in variable for part in ("PASSWORD", "SECRET", "TOKEN", "KEY")):
        return HIDDEN
    return repr(redacted_address(value)) if isinstance(value, str) else repr(value)


def print_json(document: Any) -> None:
    """Print one JSON document on standard output."""
    import orjson

    options = orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0
    text = orjson.dumps(document, default=str, option=options | orjson.OPT_NON_STR_KEYS).decode()
    sys.stdout.write(printable_json(text) + "\n")


def say(text: str = "", *, flush: bool = False) -> None:
    """Print one line of a result; what does not print in it is shown as its code."""
    print(printable(text), flush=flush)


def say_json(line: str) -> None:
    """Print a JSON document that is one line."""
    print(printable_json(line))


def say_marked(mark: str, colour: str, text: str) -> None:
    """Print one line behind a mark, coloured on a terminal (`colour`: the number of an ANSI style)."""
    mark = f"\x1b[{colour}m{mark}\x1b[0m" if sys.stdout.isatty() else mark
    print(f"{mark} {printable(text)}", flush=True)


def confirm(question: str) -> None:
    """Ask before going on; ends the command when the answer is no."""
    typer.confirm(printable(question), abort=True, err=True)


def note(text: str) -> None:
    """Tell who watches; not a result."""
    print(printable(redacted(text)), file=sys.stderr, flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[str] = ()) -> None:
    """Print rows under their column names; the columns named in `right` are aligned right, for numbers."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)]
    for row in [list(columns), *cells]:
        padded = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(row, widths, columns, strict=True)
        ]
        print("  ".join(padded).rstrip())


def print_verdict(title: str, rows: Sequence[tuple[bool | None, str, str, str]], last: str, *, ok: bool) -> None:
    """Print what was judged, one a line: whether it is right (None: not judged), its name, its value, a note."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    marks = {True: "[green]✓[/]", False: "[bold red]✗[/]", None: ""}
    table = Table(title=title, title_justify="left", show_header=False, pad_edge=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(no_wrap=True, justify="right")
    table.add_column(style="dim")
    for right, *texts in rows:
        table.add_row(marks[right], *(escape(printable(text)) for text in texts))
    console = Console(highlight=False, width=None if Console().is_terminal else 120)
    console.print(table)
    console.print(f"[bold {'green' if ok else 'red'}]{escape(last)}[/]")


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
    """Show how far something is; `total` None when it is unknown."""
    if not sys.stderr.isatty():
        plain = _Plain(label, total)
        yield plain
        plain.say()
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(escape(printable(label)), total=total)

        class Bar:
            def advance(self, count: int = 1) -> None:
                bar.advance(task, count)

        yield Bar()


def describe(values: Mapping[str, Any]) -> None:
    """Print names and values, one a line, values aligned."""
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        say(f"{name.ljust(width)}  {value}")
