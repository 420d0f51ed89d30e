"""`credits prices import FILE`: the price list from JSON lines or CSV, checked whole before anything is published."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.enums import InputKind
from streams.cli.console import JsonFlag, load_settings, print_json, say
from streams.cli.records import check_lines, read_records
from streams.errors import OperatorError

if TYPE_CHECKING:
    from schemas.fields import Record
    from streams.ledger.price_log import PriceLog
    from streams.settings import Settings

app = typer.Typer(help="Import the price list.", no_args_is_help=True)

TRUE_WORDS = {"true", "yes", "1"}
FALSE_WORDS = {"false", "no", "0"}
LAST_MS = 2**62
"""Later than what was published at any time."""


class PriceTieError(OperatorError):
    """Two prices that could match the same usage equally well; nothing was published."""

    code = "price_tie"


@app.callback()
def _prices() -> None:
    pass


@app.command("import")
def import_prices(
    file: Annotated[Path, typer.Argument(help="JSON lines, or CSV whose columns are named like the fields.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the prices, publish nothing.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Publish prices. A tie with another price is refused: every usage has one price."""
    from streams.client import CreditsProducer
    from streams.kafka import topics_admin

    records = read_prices(file)
    settings = load_settings()
    topics_admin.apply(settings)
    refuse_ties(settings, records)
    if not dry_run:
        with CreditsProducer(settings) as producer:
            for record in records:
                producer.produce(InputKind.PRICE, record)
    published = 0 if dry_run else len(records)
    if as_json:
        print_json({"checked": len(records), "published": published})
    else:
        say(f"{len(records):,} prices are right; " + ("nothing was published" if dry_run else "all are published"))


def read_prices(file: Path) -> list[Record]:
    """The prices of a file; raises `OperatorError` naming the line and the field that is wrong."""
    if file.suffix.lower() != ".csv":
        return read_records(InputKind.PRICE, file)
    if not file.is_file():
        raise OperatorError(f"there is no file {file}", "name a CSV or JSON lines")
    import orjson

    with file.open(encoding="utf-8-sig", newline="") as text:
        rows = list(csv.DictReader(text))
    # The header is line 1: an empty line in its place keeps the numbers right.
    lines = [b"", *(orjson.dumps(_fields(row)) for row in rows)]
    return check_lines(InputKind.PRICE, io.BytesIO(b"\n".join(lines)), str(file))


def _fields(row: dict[str, str | None]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, text in row.items():
        if name is None or text is None or not text.strip():
            continue
        value: object = text.strip()
        if name == "free":
            word = text.strip().lower()
            value = True if word in TRUE_WORDS else False if word in FALSE_WORDS else value
        elif name.endswith("_nanos") and text.strip().lstrip("-").isdigit():
            value = int(text)
        fields[name] = value
    return fields


def refuse_ties(settings: Settings, records: Sequence[Record]) -> None:
    """Raise `PriceTieError` when a price could tie with a published one, or with another of these."""
    from streams.ledger.price_log import Published
    from streams.ledger.rating import Price

    prices = [Price.from_record(record.to_record()) for record in records]
    new = [(Published(LAST_MS, 0, number), price.price_id, price) for number, price in enumerate(prices)]
    log = published_prices(settings).with_changes(new)
    for place, price_id, _ in new:
        other = log.refused.get(place)
        if other is not None:
            raise PriceTieError(
                f"price {price_id} and price {other.price_id} could match the same usage equally well",
                "nothing was published; narrow one of them, or end its validity with valid_to",
            )


def published_prices(settings: Settings) -> PriceLog:
    """The published prices, as the workers judge them."""
    from schemas.topics import Topics
    from streams.client import committed_ends, read_range
    from streams.kafka.registry import connect_registry
    from streams.processing.prices import PriceRecords
    from streams.seals import Seals

    topics = Topics(settings.namespace)
    kept = topics.name("kept_prices")
    records = PriceRecords(settings.partitions, connect_registry(settings), topics, Seals.of(settings))
    # What the ledger keeps is read last: what was judged meanwhile is then known as judged.
    for topic in (topics.name("prices"), kept):
        for batch in read_range(settings, {}, committed_ends(settings, [topic])):
            records.take(*((), batch) if topic == kept else (batch, ()))
    return records.log
