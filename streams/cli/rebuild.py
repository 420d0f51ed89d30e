"""`credits rebuild`: drop what is in ClickHouse and fold it again from the topics; or make the accounts again."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.console import JsonFlag, confirm, load_settings, note, print_json, print_table, progress, say
from streams.data_folder import prepare
from streams.errors import OperatorError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from streams.processing.rebuild import Rebuilt
    from streams.settings import Settings

app = typer.Typer()


@app.command()
def rebuild(
    accounts: Annotated[
        bool,
        typer.Option(
            "--accounts",
            help="Make the workers' accounts, positions and remembered ids again from the ledger and the inputs, when "
            "their changelog or ids are lost or refused. Stop the workers first.",
        ),
    ] = False,
    partition: Annotated[
        list[int] | None, typer.Option("--partition", help="With --accounts: only this partition; may be repeated.")
    ] = None,
    accept_gaps: Annotated[
        bool,
        typer.Option(
            "--accept-gaps",
            help="With --accounts: go on where an input begins now, although retention removed records of which "
            "nothing says that they were booked.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before dropping.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Drop the tables in ClickHouse and make them again from the ledger; stop `serve` first. With --accounts: the
    workers' state, not ClickHouse."""
    settings = load_settings()
    if accounts:
        _rebuild_accounts(settings, partition or [], accept_gaps=accept_gaps, yes=yes, as_json=as_json)
    elif partition or accept_gaps:
        raise OperatorError("--partition and --accept-gaps are about accounts", "add --accounts")
    else:
        _rebuild_tables(settings, yes=yes, as_json=as_json)


def _rebuild_accounts(
    settings: Settings, partitions: list[int], *, accept_gaps: bool, yes: bool, as_json: bool
) -> None:
    from streams.agents.processor import make_processor
    from streams.engine.rebuild import refuse_while_working
    from streams.kafka import topics_admin
    from streams.processing.rebuild import rebuild_accounts

    numbers = sorted(set(partitions)) or list(range(settings.partitions))
    if not set(numbers) <= set(range(settings.partitions)):
        raise OperatorError(f"there is no partition {numbers[-1]}", f"they are 0 to {settings.partitions - 1}")
    topics_admin.connect(settings)
    refuse_while_working(settings, lambda seconds: note(f"waiting up to {seconds:.0f} s for workers to leave"))
    if not yes:
        confirm("Replace the workers' accounts, positions and remembered ids?")
    with contextlib.ExitStack() as shown:
        found = rebuild_accounts(
            settings,
            make_processor(settings),
            numbers,
            accept_gaps=accept_gaps,
            progress=lambda total: shown.enter_context(progress("offsets", total)).advance,
        )
    refused = [each for each in found if each.refused is not None]
    if as_json:
        print_json({"ok": not refused, "partitions": [asdict(each) for each in found]})
    else:
        _print(found)
    if refused:
        first = f"partition {refused[0].partition}: {refused[0].refused}"
        raise OperatorError(f"{len(refused)} of {len(found)} partitions were not rebuilt", first)


def _print(found: Sequence[Rebuilt]) -> None:
    columns = ("partition", "entries", "accounts", "ids", "seconds", "state")
    rows = [
        (
            each.partition,
            f"{each.entries:,}",
            f"{each.accounts:,}",
            f"{each.ids:,}",
            f"{each.seconds:.1f}",
            "rebuilt" if each.refused is None else "refused",
        )
        for each in found
    ]
    print_table(columns, rows, right=columns[:-1])
    for each in found:
        for text in each.notes:
            say(f"note: {text}")


def _rebuild_tables(settings: Settings, *, yes: bool, as_json: bool) -> None:
    from projections.clickhouse import ClickHouseUnavailableError, shown_place
    from projections.rebuild import ProjectionAtWorkError, refuse_while_projecting
    from projections.rebuild import rebuild as rebuild_projection
    from streams.kafka import topics_admin

    if settings.data_dir.is_dir():
        prepare(settings.data_dir)
    topics_admin.connect(settings)
    try:
        refuse_while_projecting(settings)
        if not yes:
            confirm(f"Drop everything in {shown_place(settings)} and fold it again?")
        client = _connect(settings)
    except ProjectionAtWorkError as error:
        raise OperatorError(
            "the projection is at work",
            "stop `credits serve` or `credits up`, and wait ten seconds; `credits broker` starts a local Kafka alone",
        ) from error
    except ClickHouseUnavailableError as error:
        raise OperatorError(
            f"ClickHouse cannot be had ({error})", "stop `credits serve`, and check CREDITS_CLICKHOUSE_URL"
        ) from error
    try:
        with progress("records") as steps:
            records = rebuild_projection(settings, client, steps.advance)
    finally:
        client.close()
    if as_json:
        print_json({"records": records})
    else:
        say(f"{records:,} records projected again")


def _connect(settings: Settings) -> Client:
    """ClickHouse; a damaged folder of ClickHouse in process is set aside, and a new one is made.

    Opened in a process of its own first: what is damaged may end the process that opens it.
    """
    from projections.clickhouse import chdb_folder, connect, set_aside
    from projections.opening import is_damaged

    folder = chdb_folder(settings)
    if folder is not None and is_damaged(folder):
        note(f"ClickHouse's folder is damaged: it is set aside as {set_aside(folder)}, delete it when all is well")
    return connect(settings)
