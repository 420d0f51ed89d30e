"""`credits rebuild`: drop what is projected into ClickHouse, and fold it again from the topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.console import JsonFlag, confirm, load_settings, note, print_json, progress, say
from streams.data_folder import prepare
from streams.errors import OperatorError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from streams.settings import Settings

app = typer.Typer()


@app.command()
def rebuild(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before dropping.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Drop the tables in ClickHouse and make them again from the ledger. Stop `serve` first."""
    from projections.clickhouse import ClickHouseUnavailableError, shown_place
    from projections.rebuild import ProjectionAtWorkError, refuse_while_projecting
    from projections.rebuild import rebuild as rebuild_projection
    from streams import topics_admin

    settings = load_settings()
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
        say(f"{records:,} records projected anew")


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
