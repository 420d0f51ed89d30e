"""`credits serve`: HTTP, registry and projection, until Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.console import load_settings, note
from streams.data_folder import prepare
from streams.local.parent import stop_with_parent

if TYPE_CHECKING:
    from streams.settings import Settings

app = typer.Typer()


@app.command()
def serve(
    first_key: Annotated[bool, typer.Option("--first-key", help="Make an admin key if there is none.")] = False,
) -> None:
    """Serve HTTP and the registry, and fold the ledger into ClickHouse, until Ctrl-C."""
    settings = load_settings()

    from streams.api.server import serve as run
    from streams.logging import configure_logging
    from streams.stopping import Stopping

    configure_logging(settings.log_level, as_json=settings.log_format == "json")
    prepare(settings.data_dir)
    stopping = Stopping(settings.stop_grace_s)
    stop_with_parent()
    if first_key:
        make_first_key(settings)
    asyncio.run(run(settings, announce, stopping))


def make_first_key(settings: Settings) -> None:
    """Make an admin key where there is none, and show it, this once."""
    from streams.kafka import topics_admin
    from streams.kafka.key_topic import first_admin_key

    topics_admin.apply(settings)
    token = first_admin_key(settings)
    if token is not None:
        note(f"the first admin key, shown this once: {token}")


def announce(address: str) -> None:
    """Say that HTTP answers there."""
    announce_ready(f"{address} (OpenAPI at /docs)", address=address)


def announce_ready(text: str, **fields: str) -> None:
    """Say that this process does its work: a line for people, or one of the log with these fields."""
    from streams.logging import logs_json

    if logs_json():
        logging.getLogger(__name__).info("ready", extra=fields)
    else:
        note(f"ready: {text}")
