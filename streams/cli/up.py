"""`credits up`: everything on this machine, in the foreground."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Annotated

import typer

from streams.cli.console import load_settings, note

app = typer.Typer()

WATCH_S = 0.5
STATUS_OF_SIGNAL = 128


@app.command()
def up(
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="How many ledger workers.")] = 1,
    keys: Annotated[bool, typer.Option("--keys", help="Ask for API keys on loopback too.")] = False,
) -> None:
    """Run Kafka (unless one is given), the registry, workers, HTTP and the projection, until Ctrl-C.

    Where HTTP listens beyond this machine, API keys are asked for: the first admin key is made and shown, once.
    Everything is kept in the data folder: the next start goes on where this one stopped.
    """
    settings = load_settings()

    from streams.local.system import LocalSystem

    stop = threading.Event()
    stop_requested = False

    def stop_process(number: int, _: object) -> None:
        nonlocal stop_requested
        if stop_requested:  # asked twice: the commits are safe, the rest may go
            system.kill()
            sys.exit(STATUS_OF_SIGNAL + number)
        stop_requested = True
        note("stopping (again to stop at once)")
        stop.set()
        if not started:
            raise KeyboardInterrupt

    started = False
    with LocalSystem(settings, workers=workers, say=note, keys=keys) as system:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, stop_process)
        system.start()
        started = True
        http = system.http_address or "no HTTP: serve is down"
        note(f"ready: events are taken at Kafka {system.settings.bootstrap_servers}; {http}; Ctrl-C stops")
        while not stop.wait(WATCH_S):
            system.watch()
    note("stopped; all state is kept")
