"""`credits produce KIND --file F.jsonl`: check every line, then send them all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.enums import InputKind
from streams.cli.console import JsonFlag, load_settings, note, print_json, progress
from streams.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from schemas.fields import Record

app = typer.Typer()

BAD_LINES_SHOWN_MAX = 10
STEP_RECORDS = 1_000
STANDARD_INPUT = "-"


class BadLinesError(OperatorError):
    """Lines of the file that are no records of the kind; nothing was sent."""

    code = "bad_lines"


@app.command()
def produce(
    kind: Annotated[InputKind, typer.Argument(help="What the lines are.")],
    file: Annotated[Path, typer.Option("--file", "-f", help="JSON lines, one record each; - reads standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the lines, send nothing.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Send records of one kind. All lines are checked first: if one is wrong, none is sent.

    Amounts may be written in whole units: "amount": "12.5" in place of "amount_nanos".
    """
    settings = load_settings()
    records = read_records(kind, file)
    if not dry_run:
        from streams import topics_admin
        from streams.client import CreditsProducer

        topics_admin.apply(settings)
        if kind is InputKind.PRICE:
            from streams.cli.prices import refuse_ties

            refuse_ties(settings, records)
        with CreditsProducer(settings) as producer, progress(f"sending {kind.value}", len(records)) as steps:
            for number, record in enumerate(records, start=1):
                producer.produce(kind, record)
                if number % STEP_RECORDS == 0:
                    producer.poll()
                    steps.advance(STEP_RECORDS)
            producer.flush()
            steps.advance(len(records) % STEP_RECORDS)
    sent = 0 if dry_run else len(records)
    if as_json:
        print_json({"kind": kind.value, "checked": len(records), "sent": sent})
    elif dry_run:
        print(f"{len(records):,} {kind.value} records are right; nothing was sent")
    else:
        print(f"sent {sent:,} {kind.value} records")


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
        raise BadLinesError(f"{name}, {bad[0]}{more}", "nothing was sent; mend the lines and send again")
    if not records:
        raise OperatorError(f"{name} holds no records", f"write one {kind.value} a line, as JSON")
    return records
