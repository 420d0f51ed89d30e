"""`credits bench`: how fast and how big, on this machine, against an idiomatic Faust agent and a bare loop."""

from __future__ import annotations

import signal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.console import JsonFlag, load_settings, print_json, say
from streams.cli.run_screen import RunScreen
from streams.data_folder import prepare

if TYPE_CHECKING:
    from streams.bench.figures import Figures

app = typer.Typer()


class Mode(StrEnum):
    """What to measure."""

    ALL = "all"
    THROUGHPUT = "throughput"
    LATENCY = "latency"
    MEMORY = "memory"
    DECISION = "decision"
    HTTP = "http"
    HOLDS = "holds"
    AUTHORIZE = "authorize"


@app.command()
def bench(
    mode: Annotated[Mode, typer.Argument(help="What to measure; memory includes the restart.")] = Mode.ALL,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of everything: a look, no verdict.")] = False,
    events: Annotated[int | None, typer.Option("--events", min=1_000, help="Usage events for throughput.")] = None,
    seconds: Annotated[int | None, typer.Option("--seconds", min=1, help="How long latency is measured.")] = None,
    rate: Annotated[int | None, typer.Option("--rate", min=1, help="Events or holds per second for latency.")] = None,
    with_rules: Annotated[bool, typer.Option("--with-rules", help="Memory: every org has ten rules and more.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure throughput, latency, memory and restart, and hold them against the goals.

    Takes about six minutes and 6 GB of disk in all; --quick takes three.
    """
    from streams.bench.run import Options
    from streams.bench.run import bench as measure

    settings = load_settings()
    prepare(settings.data_dir)
    log = settings.data_dir / "bench.log"
    log.unlink(missing_ok=True)
    part = 10 if quick else 1
    options = Options(
        throughput=mode in (Mode.ALL, Mode.THROUGHPUT),
        latency=mode in (Mode.ALL, Mode.LATENCY),
        memory=mode in (Mode.ALL, Mode.MEMORY),
        decision=mode in (Mode.ALL, Mode.DECISION),
        http=mode in (Mode.ALL, Mode.HTTP),
        authorize=mode in (Mode.ALL, Mode.AUTHORIZE),
        authorize_orgs=1_000_000 // part,
        http_s=seconds or (20 if not quick else 5),
        holds=mode in (Mode.ALL, Mode.HOLDS),
        events=events or 1_000_000 // part,
        latency_per_second=rate or 8_000,
        holds_per_second=rate if rate and mode is Mode.HOLDS else 500,
        holds_s=seconds or (30 if not quick else 10),
        latency_s=seconds or (30 if not quick else 10),
        memory_orgs=100_000 // part,
        memory_ids=5_000_000 // part,
        memory_rules=with_rules,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    figures = measure(settings, options, RunScreen(log))
    figures.quick = quick
    if as_json:
        print_json(figures.document())
    else:
        show(figures)
    raise typer.Exit(0 if figures.ok else 1)


def show(figures: Figures) -> None:
    """Print the figures side by side, then the verdict."""
    from streams.cli.console import print_table

    rates = [
        ("idiomatic Faust agent, one sum per org", figures.idiomatic_rate),
        ("this ledger, all rules, exactly once", figures.ledger_rate),
        ("bare loop, fetch and decode only", figures.plain_rate),
    ]
    say(f"{figures.processors} processors, shared with the broker")
    if figures.ledger_rate is not None:
        rows = [
            [name, f"{rate:,.0f}", f"{rate / figures.idiomatic_rate:.1f}" if figures.idiomatic_rate else ""]
            for name, rate in rates
            if rate is not None
        ]
        say()
        print_table([f"{figures.events:,} events, one worker", "events/s", "ratio"], rows, ["events/s", "ratio"])
    if figures.latency_p50_ms is not None:
        say()
        say(
            f"latency at {figures.latency_events_per_second:,} events/s, {figures.latency_workers} workers, from the "
            f"intended send time: p50 {figures.latency_p50_ms:.0f} ms, p99 {figures.latency_p99_ms:.0f} ms, "
            f"worst {figures.latency_max_ms:.0f} ms"
        )
    if figures.hold_p50_ms is not None:
        say()
        say(
            f"holds over HTTP, {figures.holds_per_second:,} calls/s, from the intended send time to the decision: "
            f"p50 {figures.hold_p50_ms:.0f} ms, p99 {figures.hold_p99_ms:.0f} ms, worst {figures.hold_max_ms:.0f} ms"
        )
        say(f"a lease is spent in: p50 {figures.spend_p50_us:.1f} µs, p99 {figures.spend_p99_us:.1f} µs")
    if figures.view is not None:
        say()
        say(
            f"answers before work, in process: {figures.view['answers_per_second']:,.0f} a second; 10,000 checks of "
            f"accounts that were not asked for before {figures.view['checks_cold_ms']:.0f} ms; "
            f"{figures.view['account_bytes']:.0f} bytes an account"
        )
    for note in figures.notes:
        say(note)
    marks = {True: "met", False: "MISSED", None: "too small a run to tell"}
    say()
    goals = [[goal.name, goal.value, goal.wanted, marks[goal.met]] for goal in figures.goals()]
    print_table(["figure", "measured", "goal", "verdict"], goals, ["measured"])
