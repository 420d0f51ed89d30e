"""`credits demo`: the whole system on this machine, a realistic stream through it, and a verdict."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.console import JsonFlag, load_settings, note, print_json, print_verdict, say
from streams.cli.run_screen import RunScreen
from streams.data_folder import prepare

if TYPE_CHECKING:
    from streams.demo.verdict import Line, Verdict
    from streams.settings import Settings

app = typer.Typer()

SEED = 42
EVENTS = 200_000
EVENTS_MIN = 1_000

HINTS = {
    "credits balance org-009": "an org that ran out of credits and bought again",
    "credits tail ledger --org org-471 -n 30": "an agent's holds: placed, refused, captured, released",
    "credits tail decisions --org org-471 -n 30": "the answers that the agent's gateway got",
    "credits tail ledger --org org-481 -n 30": "auto top-up: a charge that failed and was retried",
    "credits tail ledger --org org-500": "an org below zero, and stopped",
    "credits dead-letters list": "what could not be booked, and why",
}
"""Commands to look around with, and what each shows; each asks for enough lines to show all of it."""


@app.command()
def demo(
    events: Annotated[int, typer.Option("--events", min=EVENTS_MIN, help="How many usage events.")] = EVENTS,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same counts and sums.")] = SEED,
    workers: Annotated[int, typer.Option("--workers", min=1, max=8, help="How many ledger workers.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running until Ctrl-C.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Show everything that was compared.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Start Kafka, a worker and the API, send 200,000 events of 500 organisations, and judge what came out."""
    from streams.demo.run import Options, demonstration

    settings = load_settings()
    prepare(settings.data_dir)
    log = settings.data_dir / "demo.log"
    log.unlink(missing_ok=True)
    base_at = time.time_ns() // 1_000
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _stop)
    options = Options(seed=seed, usage_events=events, workers=workers)
    with demonstration(settings, options, RunScreen(log), base_at) as finished:
        verdict = finished.verdict
        if as_json:
            print_json(verdict.document)
        else:
            show(verdict, full)
            show_next(settings, finished.settings, log, keep)
        if keep:
            _until_told()
    raise typer.Exit(0 if verdict.ok else 1)


def _stop(*_: object) -> None:
    """Say so at once: the parts end in order, which takes some seconds."""
    note("stopping")
    raise KeyboardInterrupt


def show(verdict: Verdict, full: bool = False) -> None:
    """Print the verdict: the summary, or with `full` every line. A line that is wrong is always shown in full."""
    if full:
        rows = [row for line in verdict.lines for row in _full(line)]
    else:
        rows = [(each.right, each.name, each.number, each.meaning) for each in verdict.summary]
        rows += [row for line in verdict.lines if line.right is False for row in _full(line)]
    good = "Everything is as it must be." + ("" if full else " Each count and sum: --full")
    print_verdict("Verdict", rows, good if verdict.ok else "Something is wrong: see ✗ above.", ok=verdict.ok)


def _full(line: Line) -> Iterator[tuple[bool | None, str, str, str]]:
    """A line's own row, and one for each count that it is made of."""
    from streams.demo.verdict import by_count

    yield line.right, line.name, line.value, line.note
    for name, count in by_count(line.counts):
        yield None, "", f"{count:,}", name


def show_next(given: Settings, ran: Settings, log: Path, keep: bool) -> None:
    """Where to look next."""
    variables = {"CREDITS_DATA_DIR": _short(ran.data_dir)}
    if given.kafka_bootstrap_servers is not None:
        variables["CREDITS_NAMESPACE"] = ran.namespace
    if keep:
        variables |= {"CREDITS_KAFKA_BOOTSTRAP_SERVERS": ran.bootstrap_servers, "CREDITS_HTTP_PORT": str(ran.http_port)}
    say()
    say("Where to look next. In each terminal, first:")
    if shutil.which("credits") is None:
        say(f"  . {_short(Path(sys.executable).parent)}/activate")
    say("  export " + " ".join(f"{name}={value}" for name, value in variables.items()))
    say("Then:")
    if keep:
        say(f"  curl http://127.0.0.1:{ran.http_port}/v1/orgs/org-009/balance   (still running; Ctrl-C ends it)")
    else:
        say(f"  {'credits up':<{max(map(len, HINTS))}}  what the demo left, running again; in another terminal:")
    for command, shows in HINTS.items():
        say(f"  {command:<{max(map(len, HINTS))}}  {shows}")
    say(f"Log of all parts: {_short(log)}", flush=True)


def _short(path: Path) -> str:
    """A path as one would type it here."""
    full = path.absolute()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(full)


def _until_told() -> None:
    stop = threading.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: stop.set())
    stop.wait()
