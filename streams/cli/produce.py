"""`credits produce KIND --file F.jsonl`: check every line, then send them all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schemas.enums import InputKind
from streams.cli.console import JsonFlag, load_settings, print_json, progress, say
from streams.cli.records import read_records

app = typer.Typer()

STEP_RECORDS = 1_000

FILE_HELP = (
    "JSON lines, one record each; - reads standard input. In place of the field that ends in _nanos a line may give "
    "amount, cost, factor, free_quantity, minimum, package_size, price_paid, quantity or unit_price: whole units, as a "
    "decimal string."
)
"""The names are those of `schemas.jsonl.short_names`, which is too much to load for a help text; a test compares."""


@app.command()
def produce(
    kind: Annotated[InputKind, typer.Argument(help="What the lines are.")],
    file: Annotated[Path, typer.Option("--file", "-f", help=FILE_HELP)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the lines, send nothing.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Send records of one kind. All lines are checked first: if one is wrong, none is sent.

    Amounts may be written in whole units, as decimal strings: "amount": "12.5" in place of "amount_nanos".
    """
    settings = load_settings()
    records = read_records(kind, file)
    if not dry_run:
        from streams.client import CreditsProducer
        from streams.kafka import topics_admin

        topics_admin.apply(settings)
        if kind is InputKind.PRICE:
            from streams.kafka.registry import connect_registry
            from streams.processing.price_ties import refuse_ties

            refuse_ties(settings, connect_registry(settings), records)
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
        say(f"{len(records):,} {kind.value} records are right; nothing was sent")
    else:
        say(f"sent {sent:,} {kind.value} records")
