"""`credits statement ORG`: a month of its wallets, opening, movements by kind, closing (product rule 24)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from streams.cli.console import JsonFlag, load_settings, note, print_json, print_table, say

app = typer.Typer()


@app.command()
def statement(
    org: Annotated[str, typer.Argument(help="The organisation's id.")],
    month: Annotated[
        str | None, typer.Option("--month", help="Such as 2026-05, in the organisation's time zone; else this month.")
    ] = None,
    wallet: Annotated[str | None, typer.Option("--wallet", help="One wallet's unit; else all.")] = None,
    pdf: Annotated[Path | None, typer.Option("--pdf", help="Write it as PDF to this file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the statement of an organisation for a month, as `serve` has it."""
    from streams.cli.http_client import get, get_json, org_path

    settings = load_settings()
    if pdf is not None:
        pdf.write_bytes(get(settings, org_path(org, "statement.pdf"), month=month, wallet=wallet))
        note(f"written: {pdf}")
        if not as_json:
            return
    document = get_json(settings, org_path(org, "statement"), month=month, wallet=wallet)
    if as_json:
        print_json(document)
    else:
        show(document)


def show(document: dict[str, Any]) -> None:
    """Print a statement for people."""
    say(f"{document['org_id']}, {document['month']} ({document['time_zone']}), as of {document['as_of']}")
    for wallet in document["wallets"]:
        say()
        rows = [["opening", "", wallet["opening"]]]
        rows += [[each["kind"], f"{each['entries']:,}", each["amount"]] for each in wallet["movements"]]
        rows.append(["closing", "", wallet["closing"]])
        print_table([wallet["wallet"], "entries", "credits"], rows, ["entries", "credits"])
    if not document["wallets"]:
        say("no wallet yet: nothing was bought, given or used")
