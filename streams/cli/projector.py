"""`credits projector`: the projection alone, until Ctrl-C. Several share the partitions."""

from __future__ import annotations

import asyncio

import typer

from streams.cli.console import load_settings
from streams.cli.serve import announce_ready
from streams.data_folder import prepare
from streams.local.parent import stop_with_parent

app = typer.Typer()


@app.command()
def projector() -> None:
    """Fold the ledger into a ClickHouse server until Ctrl-C; start it several times to share the partitions."""
    settings = load_settings()

    from projections.clickhouse import shown_place
    from streams.api.projector import check_server, project
    from streams.logging import configure_logging
    from streams.stopping import Stopping

    check_server(settings)
    configure_logging(settings.log_level, as_json=settings.log_format == "json")
    prepare(settings.data_dir)
    stopping = Stopping(settings.stop_grace_s)
    stop_with_parent()
    place = shown_place(settings)
    asyncio.run(project(settings, lambda: announce_ready(f"the projection, into {place}", place=place), stopping))
