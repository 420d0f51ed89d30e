"""`credits rebuild`: drop what is projected into ClickHouse, and fold it again from the topics."""

from __future__ import annotations

from typing import Annotated

import typer

from streams.cli.console import JsonFlag, confirm, load_settings, print_json, progress, say
from streams.errors import OperatorError

app = typer.Typer()


@app.command()
def rebuild(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before dropping.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Drop the tables in ClickHouse and make them again from the ledger. Stop `serve` first."""
    from projections.clickhouse import ClickHouseUnavailableError, connect, shown_place
    from projections.rebuild import ProjectionAtWorkError, refuse_while_projecting
    from projections.rebuild import rebuild as rebuild_projection
    from streams import topics_admin

    settings = load_settings()
    topics_admin.connect(settings)
    try:
        refuse_while_projecting(settings)
        if not yes:
            confirm(f"Drop everything in {shown_place(settings)} and fold it again?")
        client = connect(settings)
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
