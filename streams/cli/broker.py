"""`credits broker`: the local Kafka in the foreground, until Ctrl-C."""

from __future__ import annotations

import signal
import threading

import typer

from streams.cli.console import load_settings, note

app = typer.Typer()

WATCH_S = 1.0


@app.command()
def broker() -> None:
    """Run the local Kafka broker until Ctrl-C. Its data stays in the data folder."""
    from streams.local.broker import BrokerError, LocalBroker

    settings = load_settings()
    local = LocalBroker(settings, progress=note)
    stop = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    if not local.start():
        raise BrokerError(
            f"a broker already runs on {local.home} (process {local.pid}, {local.bootstrap_servers})",
            "use it, or end that process first",
        )
    note(f"ready: Kafka at {local.bootstrap_servers}, data in {local.home}")
    while not stop.wait(WATCH_S):
        if local.pid is None:
            raise BrokerError("the broker ended by itself", f"see {local.log_path}")
    note("stopping")
    local.stop()
