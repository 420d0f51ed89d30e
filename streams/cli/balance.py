"""`credits balance ORG`: the wallets of an organisation, as the ledger last published them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from streams.cli.console import JsonFlag, load_settings, print_json, print_table, say
from streams.errors import OperatorError

app = typer.Typer()

AMOUNTS = ("settled", "held", "available", "on_the_way", "month_spent", "lifetime_added", "lifetime_spent")


class UnknownOrgError(OperatorError):
    """The ledger has no entry of that organisation."""

    code = "unknown_org"


@app.command()
def balance(
    org: Annotated[str, typer.Argument(help="The organisation's id.")],
    as_json: JsonFlag = False,
) -> None:
    """Show the balance of an organisation; everything committed before the call is in it."""
    from streams.kafka import topics_admin
    from streams.kafka.balances import BalanceReader, balance_document
    from streams.kafka.registry import connect_registry

    settings = load_settings()
    topics_admin.connect(settings)
    reader = BalanceReader(settings, connect_registry(settings))
    reader.start()
    try:
        found = reader.balance(org, settings.read_timeout_s)
        known = reader.orgs
    finally:
        reader.close()
    if found is None:
        raise UnknownOrgError(
            f"the ledger has no entry of {org!r} ({known:,} organisations have one)",
            "check the id, or `credits dead-letters list` for records that could not be booked",
        )
    document = balance_document(found)
    if as_json:
        print_json(document)
    else:
        show(document)


def show(document: dict[str, Any]) -> None:
    """Print a balance for people; credits in transit only when there are some."""
    say(f"{document['org_id']}, entry {document['seq']:,}, as of {document['as_of']}")
    wallets = document["wallets"]
    moving = any(wallet["on_the_way"] != "0" for wallet in wallets)
    amounts = [name for name in AMOUNTS if moving or name != "on_the_way"]
    columns = ["wallet", *amounts, "status", "health"]
    rows = [
        [wallet["unit"], *(wallet[name] for name in amounts), wallet["status"], wallet["health"]] for wallet in wallets
    ]
    if rows:
        print_table([_heading(name) for name in columns], rows, [_heading(name) for name in amounts])
    else:
        say("no wallet yet: nothing was bought, given or used")


def _heading(name: str) -> str:
    return "in transit" if name == "on_the_way" else name.replace("_", " ")
