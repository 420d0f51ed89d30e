"""`credits prices import FILE`: the price list from JSON lines or CSV, checked whole before anything is published.

With `--format`, the price file of others (`streams.cli.prices_import`).
"""

from __future__ import annotations

import csv
import io
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.enums import InputKind
from streams.cli.console import JsonFlag, load_settings, print_json, say
from streams.cli.records import check_lines, read_records
from streams.errors import OperatorError

if TYPE_CHECKING:
    from schemas.fields import Record

app = typer.Typer(help="Import the price list.", no_args_is_help=True)

TRUE_WORDS = {"true", "yes", "1"}
FALSE_WORDS = {"false", "no", "0"}


@app.callback()
def _prices() -> None:
    pass


class PriceFormat(StrEnum):
    """What a file of prices is."""

    OWN = "own"
    LITELLM = "litellm"
    GENAI_PRICES = "genai-prices"


OF_OTHERS = "Files of others"

ProviderOption = Annotated[
    list[str] | None,
    typer.Option(help="Only this provider, as the file names it; may be repeated.", rich_help_panel=OF_OTHERS),
]
ModelOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Only this model; * at the end for all that begin so; may be repeated.", rich_help_panel=OF_OTHERS
    ),
]
ValidFromOption = Annotated[
    str | None,
    typer.Option(help="Since when the prices hold, ISO 8601 with a zone. Default: now.", rich_help_panel=OF_OTHERS),
]


@app.command("import")
def import_prices(
    file: Annotated[
        Path | None,
        typer.Argument(help="JSON lines, or CSV whose columns are named like the fields.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the prices, publish nothing.")] = False,
    as_json: JsonFlag = False,
    file_format: Annotated[
        PriceFormat,
        typer.Option(
            "--format",
            help="own: prices of this system. litellm: model_prices_and_context_window.json, as it is. genai-prices: "
            "the open data set of that package, where it is installed; without FILE.",
        ),
    ] = PriceFormat.OWN,
    provider: ProviderOption = None,
    model: ModelOption = None,
    factor: Annotated[
        str, typer.Option(help="Times every price: 1.25 is a mark-up of a quarter.", rich_help_panel=OF_OTHERS)
    ] = "1",
    wallet: Annotated[str, typer.Option(help="Unit of the wallet that pays.", rich_help_panel=OF_OTHERS)] = "USD",
    valid_from: ValidFromOption = None,
    end_gone: Annotated[
        bool,
        typer.Option("--end-gone", help="End published prices that the file no longer has.", rich_help_panel=OF_OTHERS),
    ] = False,
) -> None:
    """Publish prices. A tie with another price is refused: every usage has one price."""
    if file_format is not PriceFormat.OWN:
        from streams.cli.prices_import import Choice, import_file

        choice = Choice(
            source=file_format.value,
            file=file,
            providers=provider or [],
            models=model or [],
            factor=factor,
            wallet=wallet,
            valid_from=valid_from,
            end_gone=end_gone,
        )
        import_file(choice, dry_run=dry_run, as_json=as_json)
        return
    if file is None:
        raise OperatorError("there is no file to import", "name JSON lines or CSV, or a --format")
    if provider or model or valid_from or end_gone or (factor, wallet) != ("1", "USD"):
        raise OperatorError("these options are about files of others", "add --format, or leave them out")
    _import_own(file, dry_run=dry_run, as_json=as_json)


def _import_own(file: Path, *, dry_run: bool, as_json: bool) -> None:
    from streams.client import CreditsProducer
    from streams.kafka import topics_admin
    from streams.kafka.registry import connect_registry
    from streams.processing.price_ties import refuse_ties

    records = read_prices(file)
    settings = load_settings()
    topics_admin.apply(settings)
    refuse_ties(settings, connect_registry(settings), records)
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
        elif name == "aliases":
            value = text.split()
        elif name.endswith(("_nanos", "_above")) and text.strip().lstrip("-").isdigit():
            value = int(text)
        fields[name] = value
    return fields
