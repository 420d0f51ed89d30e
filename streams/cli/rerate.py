"""`credits rerate`: what a price correction changes for booked usage, and the corrections of it."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.amounts import format_amount
from streams.cli.console import JsonFlag, confirm, load_settings, print_json, print_table, print_verdict, progress, say
from streams.errors import OperatorError

if TYPE_CHECKING:
    from streams.rerating.booked import Skipped
    from streams.rerating.corrections import OrgDifference
    from streams.rerating.run import Found

app = typer.Typer()

ROWS_SHOWN_MAX = 30


@app.command()
def rerate(
    since: Annotated[str, typer.Option("--from", help="First time of usage, ISO 8601 with a zone.")],
    until: Annotated[str, typer.Option("--to", help="First time that is no longer meant.")],
    org: Annotated[list[str] | None, typer.Option(help="Only this organisation; may be repeated.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only this model; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the differences, book nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before booking.")] = False,
    actor: Annotated[str | None, typer.Option(help="Who corrects; stands in the entries.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Rate booked usage of any age again by the prices of today, show what differs, and correct it."""
    from streams.kafka import topics_admin
    from streams.kafka.registry import connect_registry
    from streams.rerating.booked import Filter
    from streams.rerating.corrections import by_org, corrections
    from streams.rerating.run import find, send, wait_until_booked

    meant = Filter(_time("--from", since), _time("--to", until), _set(org), _set(model))
    if meant.until <= meant.since:
        raise OperatorError("--to is not after --from", "name the end of the time that is meant")
    settings = load_settings()
    topics_admin.connect(settings)
    registry = connect_registry(settings)
    with progress("reading the ledger") as steps:
        found = find(settings, registry, meant, time.time_ns() // 1_000, steps.advance)
    rows = by_org(found.usages, found.balances)
    records = list(corrections(found.usages, found.price_set, found.occurred_at, actor))
    if not as_json:
        _show_rows(rows)
    refused = 0
    if records and not dry_run:
        if not yes:
            confirm(f"Book {len(records):,} corrections in {len({row.org_id for row in rows}):,} organisations?")
        with progress("sending corrections", len(records)) as steps:
            send(settings, registry, records, steps.advance)
        ids = [(record.org_id, record.refund_id) for record in records]
        with progress("booked", len(records)) as steps:
            refused = wait_until_booked(settings, registry, found, ids, steps.advance)
    if as_json:
        print_json(_document(found, rows, len(records), dry_run=dry_run, refused=refused))
    else:
        _show_verdict(found, rows, len(records), dry_run=dry_run, refused=refused)
    raise typer.Exit(1 if refused else 0)


def _time(option: str, text: str) -> int:
    from schemas.times import parse_time

    try:
        return parse_time(text)
    except ValueError as error:
        raise OperatorError(f"{option} is {text!r}", str(error)) from error


def _set(names: list[str] | None) -> frozenset[str] | None:
    return frozenset(names) if names else None


def _skipped(found: Found) -> Counter[Skipped]:
    return Counter(usage.skipped for usage in found.usages if usage.skipped is not None)


def _document(
    found: Found, rows: list[OrgDifference], corrections: int, *, dry_run: bool, refused: int
) -> dict[str, Any]:
    return {
        "price_set": found.price_set,
        "usages": len(found.usages),
        "corrections": corrections,
        "booked": 0 if dry_run else corrections - refused,
        "refused": refused,
        "skipped": {reason.name.lower(): number for reason, number in _skipped(found).items()},
        "orgs": [
            {
                "org_id": row.org_id,
                "wallet": row.wallet,
                "usages": row.rated_count,
                "changed": row.changed,
                "before": format_amount(row.before),
                "after": format_amount(row.after),
                "difference": format_amount(row.difference),
                "crosses": row.crosses,
            }
            for row in rows
        ],
    }


def _show_rows(rows: list[OrgDifference]) -> None:
    if not rows:
        return
    columns = ("organisation", "wallet", "usages", "changed", "before", "after", "difference", "would cross")
    cells = [
        (
            row.org_id,
            row.wallet,
            f"{row.rated_count:,}",
            f"{row.changed:,}",
            format_amount(row.before),
            format_amount(row.after),
            format_amount(row.difference),
            ", ".join(row.crosses),
        )
        for row in rows[:ROWS_SHOWN_MAX]
    ]
    print_table(columns, cells, right=columns[2:7])
    if len(rows) > ROWS_SHOWN_MAX:
        say(f"and {len(rows) - ROWS_SHOWN_MAX:,} more wallets; --json lists them all")
    say()


def _show_verdict(found: Found, rows: list[OrgDifference], corrections: int, *, dry_run: bool, refused: int) -> None:
    judged: list[tuple[bool | None, str, str, str]] = [
        (None, "usages", f"{len(found.usages):,}", "of that time"),
        *((None, "not rated again", f"{number:,}", reason.value) for reason, number in _skipped(found).most_common()),
        (
            None,
            "cost something else now",
            f"{corrections:,}",
            f"in {len({row.org_id for row in rows}):,} organisations",
        ),
    ]
    if not dry_run:
        judged.append((not refused, "booked", f"{corrections - refused:,}", f"{refused:,} refused" if refused else ""))
    if not corrections:
        last = "All of it is booked at the prices of today: there is nothing to correct."
    elif dry_run:
        last = "Nothing was booked. Run it without --dry-run to correct it."
    elif refused:
        last = "Some were refused: credits tail ledger shows the entries and their reasons."
    else:
        last = "Corrected. A second run finds nothing to do; credits verify recounts the ledger."
    print_verdict(f"Prices {found.price_set}", judged, last, ok=not refused)
