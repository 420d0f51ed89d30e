"""`credits api`: HTTP alone, until Ctrl-C. As many as wanted."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from streams.cli.console import load_settings
from streams.cli.serve import announce, make_first_key
from streams.local.parent import stop_with_parent

app = typer.Typer()


@app.command()
def api(
    first_key: Annotated[bool, typer.Option("--first-key", help="Make an admin key if there is none.")] = False,
) -> None:
    """Serve HTTP and the registry until Ctrl-C; start it as often as needed, on as many machines.

    It keeps nothing: what it answers from, it reads from Kafka at its start and follows. Questions about the past go to
    the ClickHouse server of CREDITS_CLICKHOUSE_URL, which `credits projector` fills; without one they are answered 503.
    """
    settings = load_settings()

    from streams.api.server import serve_api
    from streams.logging import configure_logging
    from streams.stopping import Stopping

    configure_logging(settings.log_level, as_json=settings.log_format == "json")
    stopping = Stopping(settings.stop_grace_s)
    stop_with_parent()
    if first_key:
        make_first_key(settings)
    asyncio.run(serve_api(settings, announce, stopping))
