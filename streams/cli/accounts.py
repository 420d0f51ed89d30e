"""`credits accounts merge`: move a second account, in a partition that is not the organisation's, into its own."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.console import JsonFlag, load_settings, note, print_json, print_table, say

if TYPE_CHECKING:
    from streams.processing.merging import AccountMerge

app = typer.Typer(help="Repair accounts.", no_args_is_help=True)


@app.callback()
def _accounts() -> None:
    pass


@app.command()
def merge(
    org: Annotated[str, typer.Argument(metavar="ORG", help="The organisation.")],
    yes: Annotated[bool, typer.Option("--yes", help="Book it; without, only what would be booked is shown.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Merge second accounts of an organisation into its own. Stop the workers first.

    A version that did not look at partitions opened a second account where a producer used another partitioner than
    murmur2; `credits verify` names them (`wrong_partition`). What both accounts booked counts once. The rest moves:
    credits as adjustments with the expiry they had, what is owed as usage `account.merge`. The second account is
    closed, and its entries stay in the ledger.
    """
    import time

    from streams.agents.processor import make_processor
    from streams.engine.rebuild import refuse_while_working
    from streams.kafka import topics_admin
    from streams.processing.merging import find_second_accounts
    from streams.processing.merging import merge as merge_account

    settings = load_settings()
    topics_admin.connect(settings)
    if yes:
        refuse_while_working(settings, lambda seconds: note(f"waiting up to {seconds:.0f} s for workers to leave"))
    found = find_second_accounts(settings, org)
    if yes:
        for second in found:
            merge_account(settings, make_processor(settings), second, time.time_ns() // 1_000)
    if as_json:
        print_json({"org_id": org, "merged": yes, "accounts": [_document(second) for second in found]})
        return
    _show(org, found, merged=yes)


def _show(org: str, found: list[AccountMerge], *, merged: bool) -> None:
    from schemas.amounts import format_amount

    if not found:
        say(f"{org} has no second account that is not merged")
        return
    rows = [
        [
            second.partition,
            second.home,
            second.entries,
            wallet.unit,
            *(format_amount(nanos) for nanos in (wallet.left, wallet.counted_twice, wallet.moves)),
        ]
        for second in found
        for wallet in second.wallets
    ]
    headings = ["partition", "belongs to", "entries", "wallet", "left", "counted twice", "moves"]
    print_table(headings, rows, headings[4:])
    for second in found:
        if second.in_transit:
            note(
                f"{second.in_transit} transfers left partition {second.partition} without an answer: look each up at "
                "its target, and give back by an adjustment what did not arrive"
            )
    if merged:
        say("merged; start the workers, which book what moves, and check with `credits verify`")
    else:
        note("nothing is changed; stop the workers, and run it again with --yes")


def _document(second: AccountMerge) -> dict[str, Any]:
    from schemas.amounts import format_amount

    amounts = ("left", "counted_twice", "moves")
    wallets = [
        {"unit": wallet.unit, **{name: format_amount(getattr(wallet, name)) for name in amounts}}
        for wallet in second.wallets
    ]
    return {**asdict(second), "wallets": wallets}
