"""The measurements themselves.

Rules of this file:
1. Throughput: the topic is filled first, then the worker starts; the rate is that of committed entries from the first
   commit that is seen to the last, watched from outside by asking for the end of the ledger topic.
2. Latency: open loop at a fixed rate; from when each record was meant to leave to when a reader of committed records
   has its entry. The first seconds, in which everything is still cold, are sent and not counted.
3. Memory and restart: after the chosen number of ids and organisations; then a stop, and a start until `ready`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.enums import InputKind
from schemas.topics import INPUT_TOPICS, Topics
from streams.bench import authorize_rate, http_rate, load
from streams.bench.arrivals import Arrivals
from streams.bench.deciding import cost_in_updates
from streams.bench.figures import Figures
from streams.bench.holds import WorkersAndApi, calls, latencies, spending_us
from streams.bench.workers import Workers, resident_mib, start_timed, yardstick
from streams.errors import OperatorError
from streams.kafka.reader import committed_ends
from streams.kafka.registry import Registry, connect_registry
from streams.loadgen.price_list import price_list
from streams.loadgen.sandbox import sandbox
from streams.loadgen.screen import Screen
from streams.loadgen.sender import Messages, Sender
from streams.loadgen.watcher import StalledError, Watcher, quantile
from streams.loadgen.waves import wave_of

if TYPE_CHECKING:
    from streams.settings import Settings

SEED = 7
POLL_S = 0.1
STALL_S = 60.0
IDIOMATIC_S = 12.0
WARM_S = 60.0
"""Before latency is measured, at the same load: a broker that has just started compiles what it runs, which takes most
of a core for about a minute."""

FOLDER = "bench"


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured, and how much of it."""

    throughput: bool = True
    latency: bool = True
    memory: bool = True
    decision: bool = True
    holds: bool = True
    events: int = 1_000_000
    orgs: int = 1_000
    latency_per_second: int = 8_000
    latency_s: int = 30
    latency_workers: int = 2
    holds_per_second: int = 500
    holds_s: int = 30
    memory_orgs: int = 100_000
    memory_ids: int = 5_000_000
    http: bool = True
    authorize: bool = True
    authorize_orgs: int = 1_000_000
    """Of the view's memory."""
    http_s: float = 20.0
    memory_rules: bool = False
    """Every org has the rules of the other parts; else credits alone."""


def bench(settings: Settings, options: Options, screen: Screen) -> Figures:
    """Measure. `screen` shows how far it is. Raises `OperatorError` when a part fails or makes no progress."""
    figures = Figures(events=options.events, processors=len(os.sched_getaffinity(0)))
    mark = f"{time.time_ns() // 1_000_000_000:x}"
    if options.throughput:
        with sandbox(settings, FOLDER, f"{mark}t", screen.say) as own:
            _throughput(_Bench(own, screen), options, figures)
    if options.latency:
        with sandbox(settings, FOLDER, f"{mark}l", screen.say, jit="full") as own:
            _latency(_Bench(own, screen), options, figures)
    if options.authorize:
        screen.say(f"the view of {options.authorize_orgs:,} accounts, in process")
        figures.view = dict(authorize_rate.view_alone(options.authorize_orgs))
    if options.http:
        with sandbox(settings, FOLDER, f"{mark}h", screen.say, jit="full") as own:
            _http(own, options, figures, screen)
    if options.holds:
        with sandbox(settings, FOLDER, f"{mark}d", screen.say, jit="full") as own:
            _holds(_Bench(own, screen), options, figures)
    if options.memory:
        with sandbox(settings, FOLDER, f"{mark}m", screen.say) as own:
            _memory(_Bench(own, screen), options, figures)
    if options.decision:
        figures.decision_updates = cost_in_updates()
    return figures


class _Bench:
    """An empty installation to measure on."""

    def __init__(self, settings: Settings, screen: Screen) -> None:
        self.settings = settings
        self.screen = screen
        self.registry: Registry = connect_registry(settings)
        self.sender = Sender(settings, self.registry)
        self.ledger = Topics(settings.namespace).name("ledger")

    def prepare(self, orgs: int, *, rules: bool = True) -> None:
        """Prices, credits for everybody, and what they set."""
        at = _now()
        waves = [wave_of(InputKind.PRICE, list(price_list())), load.purchases(orgs, at)]
        if rules:
            waves.append(load.rules(orgs, at))
        for wave in waves:
            self.sender.send(self.sender.encode(wave), lambda _: None)

    def book_prepared(self) -> None:
        """Let a worker book what was prepared, so that what is measured afterwards is usage alone."""
        with self.workers(1) as workers:
            workers.start()
            self.wait_until_read(workers)

    def fill(self, prefix: str, events: int, orgs: int) -> None:
        """Put usage records into the topic."""
        schema_id = self.registry.schema_id(INPUT_TOPICS[InputKind.USAGE])
        with self.screen.progress(f"writing {events:,} usage records", events) as steps:
            for chunk in load.usage(SEED, prefix, events, orgs, _now(), schema_id):
                messages = Messages(InputKind.USAGE, chunk.keys, list(chunk.values), chunk.ids)
                self.sender.send(messages, steps.advance)

    def workers(self, count: int) -> Workers:
        """Ledger workers that are not started."""
        return Workers(self.settings, workers=count, say=self.screen.log)

    def committed(self) -> int:
        """The sum of the ends of the ledger's partitions: entries, and a marker for each transaction."""
        return sum(committed_ends(self.settings, [self.ledger]).values())

    def wait_until_read(self, workers: Workers) -> None:
        """Until the ledger has committed what everything sent has caused."""
        with Watcher(self.settings, self.registry, from_beginning=True) as watcher:
            try:
                watcher.wait_until_read(self.sender.next_offsets)
            except StalledError as error:
                workers.watch()
                raise OperatorError(f"the ledger made no progress: {error}", "see the log") from error

    def rate(self, label: str, events: int, base: int) -> float:
        """Entries committed per second, from the first growth beyond `base` that is seen to the last.

        The end of the log counts a marker for each transaction, too; as they come evenly, the growth is scaled to the
        `events` that all of it holds in the end.
        """
        samples = [(time.monotonic(), base)]
        with self.screen.progress(label, events) as steps:
            while True:
                time.sleep(POLL_S)
                at, end = time.monotonic(), self.committed()
                if end > samples[-1][1]:
                    steps.advance(end - samples[-1][1])
                    samples.append((at, end))
                elif samples[-1][1] - samples[0][1] >= events and at - samples[-1][0] > 2.0:
                    break
                elif at - samples[-1][0] > STALL_S:
                    raise OperatorError(f"the ledger made no progress after {samples[-1][1]:,} entries", "see the log")
        grown = samples[-1][1] - samples[0][1]
        first = samples[1]
        return (samples[-1][1] - first[1]) / grown * events / (samples[-1][0] - first[0])


def _now() -> int:
    return time.time_ns() // 1_000


def _throughput(bench: _Bench, options: Options, figures: Figures) -> None:
    """The three readers of the same topic, one after the other."""
    bench.prepare(options.orgs)
    bench.book_prepared()
    bench.fill("t", options.events, options.orgs)
    bench.screen.say("an idiomatic Faust agent reads them")
    figures.idiomatic_rate = yardstick(
        bench.settings, "streams.bench.idiomatic", options.events, IDIOMATIC_S, bench.screen.log
    )
    bench.screen.say(f"  {figures.idiomatic_rate:,.0f} events/s")
    base = bench.committed()
    with bench.workers(1) as workers:
        workers.start()
        figures.ledger_rate = bench.rate("this ledger reads them", options.events, base)
    bench.screen.say(f"  {figures.ledger_rate:,.0f} events/s")
    bench.screen.say("a bare loop fetches and decodes them")
    figures.plain_rate = yardstick(bench.settings, "streams.bench.plain", options.events, IDIOMATIC_S, bench.screen.log)
    bench.screen.say(f"  {figures.plain_rate:,.0f} events/s")


def _latency(bench: _Bench, options: Options, figures: Figures) -> None:
    rate, seconds = options.latency_per_second, options.latency_s
    bench.prepare(options.orgs)
    schema_id = bench.registry.schema_id(INPUT_TOPICS[InputKind.USAGE])
    chunks = list(load.usage(SEED, "l", int(rate * (seconds + WARM_S)), options.orgs, _now(), schema_id))
    messages = Messages(
        InputKind.USAGE,
        [key for chunk in chunks for key in chunk.keys],
        [value for chunk in chunks for value in chunk.values],
        [name for chunk in chunks for name in chunk.ids],
    )
    with bench.workers(options.latency_workers) as workers:
        workers.start()
        bench.wait_until_read(workers)
        with Arrivals(bench.settings, bench.registry) as arrivals, _no_collections():
            label = f"{rate:,} events/s for {WARM_S:.0f} + {seconds} s to {options.latency_workers} workers"
            with bench.screen.progress(label, len(messages)) as steps:
                meant = bench.sender.send_paced(messages, rate, steps.advance)
            arrived = arrivals.of(messages.ids)
    warm = int(rate * WARM_S)
    found = array(
        "d", [(arrived[name] - at) * 1_000 for name, at in zip(messages.ids[warm:], meant[warm:], strict=True)]
    )
    _note_latency(figures, options, found)


def _holds(bench: _Bench, options: Options, figures: Figures) -> None:
    """Holds over HTTP, and then what a lease costs its client."""
    rate = options.holds_per_second
    bench.prepare(options.orgs)
    with WorkersAndApi(bench.settings, workers=1, say=bench.screen.log) as parts:
        parts.start()
        bench.wait_until_read(parts)
        bench.screen.say(f"{rate:,} holds a second over HTTP for {WARM_S:.0f} + {options.holds_s} s")
        with _no_collections():
            made = calls(rate, int(WARM_S) + options.holds_s, options.orgs)
            found = asyncio.run(latencies(bench.settings, made, WARM_S))
    figures.holds_per_second = rate
    figures.hold_p50_ms, figures.hold_p99_ms = quantile(found, 0.5), quantile(found, 0.99)
    figures.hold_max_ms = max(found)
    spent = spending_us()
    figures.spend_p50_us, figures.spend_p99_us = quantile(spent, 0.5), quantile(spent, 0.99)


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """The cyclic collector rests: a pass over all that was prepared and has arrived takes sender and reader 200 ms."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _note_latency(figures: Figures, options: Options, found: array[float]) -> None:
    figures.latency_events_per_second = options.latency_per_second
    figures.latency_workers = options.latency_workers
    figures.latency_p50_ms = quantile(found, 0.5)
    figures.latency_p99_ms = quantile(found, 0.99)
    figures.latency_max_ms = max(found, default=0.0)


def _http(settings: Settings, options: Options, figures: Figures, screen: Screen) -> None:
    screen.say(f"usage over HTTP in batches of {http_rate.BATCH} for {options.http_s:.0f} s, one process on one core")
    found = http_rate.measure(settings, options.http_s, screen.log)
    figures.http_rate = found.per_second
    figures.notes.append(
        f"HTTP: {http_rate.BATCH} events answered in p50 {found.batch_p50_ms:.0f} ms, p99 {found.batch_p99_ms:.0f} ms; "
        f"{found.per_cpu_second:,.0f} events for each second of the process's time"
    )


def _memory(bench: _Bench, options: Options, figures: Figures) -> None:
    """Fill, measure, restart, measure again; the larger of the two memories is reported."""
    bench.prepare(options.memory_orgs, rules=options.memory_rules)
    bench.book_prepared()
    bench.fill("m", options.memory_ids, options.memory_orgs)
    base = bench.committed()
    with bench.workers(1) as workers:
        workers.start()
        bench.rate(f"booking {options.memory_ids:,} events", options.memory_ids, base)
        filled = _largest(workers.pids())
    with bench.workers(1) as workers:
        figures.ready_s = start_timed(workers)
        restored = _largest(workers.pids())
    figures.memory_mib = max(filled, restored)
    figures.memory_orgs, figures.memory_ids = options.memory_orgs, options.memory_ids
    figures.notes.append(f"memory after booking {filled:.0f} MiB, after a restart {restored:.0f} MiB")


def _largest(pids: Sequence[int]) -> float:
    return max((resident_mib(pid) for pid in pids), default=0.0)
