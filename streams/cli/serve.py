"""`credits serve`: HTTP, registry and projection, until Ctrl-C."""

from __future__ import annotations

import asyncio
import logging

import typer

from streams.cli.console import load_settings, note
from streams.data_folder import prepare
from streams.local.parent import stop_with_parent

app = typer.Typer()


@app.command()
def serve() -> None:
    """Serve HTTP and the registry, and fold the ledger into ClickHouse, until Ctrl-C."""
    settings = load_settings()

    from streams.api.server import serve as run
    from streams.logging import configure_logging
    from streams.stopping import Stopping

    configure_logging(settings.log_level, as_json=settings.log_format == "json")
    prepare(settings.data_dir)
    stopping = Stopping(settings.stop_grace_s)
    stop_with_parent()
    asyncio.run(run(settings, _announce, stopping))


def _announce(address: str) -> None:
    from streams.logging import logs_json

    if logs_json():
        logging.getLogger(__name__).info("ready", extra={"address": address})
    else:
        note(f"ready: {address} (OpenAPI at /docs)")
