"""Records from a file of JSON lines: every line is checked, and all that are wrong are listed by line and field."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from schemas.enums import InputKind
from streams.cli.console import note
from streams.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from schemas.fields import Record

BAD_LINES_SHOWN_MAX = 10
STANDARD_INPUT = "-"


class BadLinesError(OperatorError):
    """Lines of the file that are no records of the kind; nothing was sent."""

    code = "bad_lines"


def read_records(kind: InputKind, file: Path) -> list[Record]:
    """Every line as a record; raises `BadLinesError` naming the lines and fields that are wrong."""
    if str(file) == STANDARD_INPUT:
        import sys

        return check_lines(kind, sys.stdin.buffer, "standard input")
    if not file.is_file():
        raise OperatorError(f"there is no file {file}", "name one with --file")
    with file.open("rb") as lines:
        return check_lines(kind, lines, str(file))


def check_lines(kind: InputKind, lines: Iterable[bytes], name: str) -> list[Record]:
    """The lines as records; `name` is what errors call them."""
    from schemas.jsonl import BadLine, read_json_lines

    records: list[Record] = []
    bad: list[BadLine] = []
    for line in read_json_lines(kind, lines):
        if isinstance(line, BadLine):
            bad.append(line)
        elif not bad:
            records.append(line.record)
    if bad:
        for each in bad[1:BAD_LINES_SHOWN_MAX]:
            note(f"{name}: {each}")
        more = f" ({len(bad):,} lines are wrong)" if len(bad) > 1 else ""
        raise BadLinesError(f"{name}, {bad[0]}{more}", "nothing was sent; fix the lines and send again")
    if not records:
        raise OperatorError(f"{name} holds no records", f"write one {kind.value} a line, as JSON")
    return records
