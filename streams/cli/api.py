"""`credits api`: HTTP alone, until Ctrl-C. As many as wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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

    from streams.engine.memory import set_up_memory

    set_up_memory()  # before Arrow is imported

    from streams.api.server import serve_api
    from streams.logging import configure_logging
    from streams.stopping import Stopping

    configure_logging(settings.log_level, as_json=settings.log_format == "json")
    stopping = Stopping(settings.stop_grace_s)
    stop_with_parent()
    if first_key:
        make_first_key(settings)
    with asyncio.Runner(loop_factory=_fast_loop()) as runner:
        runner.run(serve_api(settings, announce, stopping))


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop of libuv; None where there is none (Windows), and asyncio's own is used."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
