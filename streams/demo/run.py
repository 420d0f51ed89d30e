"""The demonstration itself: start everything, send the script, watch, audit, judge, stop.

Rules of this file:
1. It never runs in a real installation: it has a data folder, ports and topics of its own. With a Kafka that is
   given, the topics have a namespace of their own; what a former run left in the folder is removed first.
2. The first records are sent while the workers are still starting: that is what a log is for.
3. A payment service runs next to it and answers top-up requests; a phase may have to wait for its answers.
4. Steady usage is sent open loop, and its latency measured; the burst is timed until the ledger has committed all.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.enums import EntryKind
from streams.demo.payments import Payments
from streams.demo.script import script
from streams.demo.verdict import Measured, Verdict, judge
from streams.errors import OperatorError
from streams.kafka.registry import connect_registry
from streams.loadgen.sandbox import sandbox
from streams.loadgen.screen import Screen, Steps
from streams.loadgen.sender import Messages, Sender
from streams.loadgen.watcher import ReadOfPhase, StalledError, Watcher, quantile
from streams.loadgen.waves import Expected, Phase
from streams.local.system import LocalSystem
from streams.verify.audit import audit
from streams.verify.clickhouse import ask_serve

if TYPE_CHECKING:
    from streams.settings import Settings

FOLDER = "demo"
LIVE_PER_SECOND = 4_000
PURCHASE = EntryKind.PURCHASE.value


@dataclass(frozen=True, slots=True)
class Options:
    """What may be chosen. `usage_events`: how many usage records; some thousand others come with them."""

    seed: int
    usage_events: int
    workers: int = 1
    live_per_second: int = LIVE_PER_SECOND


@dataclass(slots=True)
class Finished:
    """The verdict, and the settings of the system that the run left behind."""

    verdict: Verdict
    settings: Settings


@contextmanager
def demonstration(settings: Settings, options: Options, screen: Screen, base_at: int) -> Iterator[Finished]:
    """Run it; inside the context the system is still up. `base_at`: the time of the run, in microseconds.

    Raises `OperatorError` when a part does not start, or when the ledger stops making progress.
    """
    begun = time.monotonic()
    mark = f"{base_at // 1_000_000:x}"
    with ThreadPoolExecutor(1, "script") as pool:
        written = pool.submit(script, options.seed, options.usage_events, base_at)
        with sandbox(settings, FOLDER, mark, screen.say) as own:
            yield from _run(own, options, screen, begun, written)


def _run(
    own: Settings, options: Options, screen: Screen, begun: float, written: Future[list[Phase]]
) -> Iterator[Finished]:
    system = LocalSystem(own, workers=options.workers, say=screen.log, step=screen.log)
    with system, _Starting(system) as starting:
        run = _Run(own, options, screen, begun)
        try:
            verdict = run.play(written.result(), starting)
        except StalledError as error:
            system.watch()
            why = "; ".join(f"{name} is down: {problem}" for name, problem in system.down.items())
            raise OperatorError(why or f"the ledger made no progress: {error}", f"see {own.data_dir}") from error
        yield Finished(verdict, own)


class _Starting:
    """Starts the system in a thread, while the first records are sent; failures surface in `wait`."""

    def __init__(self, system: LocalSystem) -> None:
        self._system = system
        self._pool = ThreadPoolExecutor(1, "starting")

    def __enter__(self) -> _Starting:
        self._started = self._pool.submit(self._system.start, all_parts=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # do not wait for parts that are not needed any more
            self._system.stop()
        self._pool.shutdown()

    def wait(self) -> None:
        """Return when all parts are ready; raises what kept one from it."""
        self._started.result()


class _Run:
    """One run of the script."""

    def __init__(self, settings: Settings, options: Options, screen: Screen, begun: float) -> None:
        self.settings = settings
        self.options = options
        self.screen = screen
        self.begun = begun
        self.registry = connect_registry(settings)
        self.sender = Sender(settings, self.registry)
        self.expected = Expected()
        self.latencies = array("d")
        self.burst = (0, 1.0)
        self.first_number_s = 0.0

    def play(self, phases: Sequence[Phase], starting: _Starting) -> Verdict:
        """1. phases, with their transfers' arrivals; 2. what time brings; 3. the audit; 4. the verdict."""
        watcher = Watcher(self.settings, self.registry)
        with watcher, Payments(self.settings, self.registry, watcher.tally) as payments:
            for phase in phases:
                self.expected.add(phase.expected)
                encoded = [self.sender.encode(wave) for wave in phase.waves]
                with self.screen.progress(phase.title, sum(map(len, encoded))) as steps:
                    if phase.name == "prices":  # usage needs them, and nothing before it: send while the parts start
                        self._send(encoded, steps.advance)
                        self.first_number_s = time.monotonic() - self.begun
                        continue
                    starting.wait()
                    self._play(phase, encoded, watcher, steps)
                if phase.settled:
                    # Here and not inside `_play`: answers are not in the burst's time.
                    watcher.wait_for_kinds(self._answered, "answers to top-up requests")
            watcher.wait_for_kinds(lambda kinds: kinds >= self.expected.entries, "expiries, or ends of holds")
            watcher.wait_until_read(payments.next_offsets())
        self.screen.say("auditing: every record is read again, by code that shares nothing with the ledger's")
        with self.screen.progress("records read", None) as steps:
            report = audit(
                self.settings,
                advance=lambda _what, count: steps.advance(count),
                clickhouse=ask_serve(f"http://127.0.0.1:{self.settings.http_port}", self.settings.data_dir),
            )
        return judge(self.expected, report, watcher.tally.with_alerts(report.alerts), self._measured())

    def _answered(self, kinds: Counter[str]) -> bool:
        return kinds[PURCHASE] >= self.expected.entries[PURCHASE]

    def _send(self, encoded: Sequence[Messages], advance: Callable[[int], None] = lambda _: None) -> None:
        for batch in encoded:
            self.sender.send(batch, advance)

    def _play(self, phase: Phase, encoded: Sequence[Messages], watcher: Watcher, steps: Steps) -> None:
        """Send a phase and wait until the ledger has committed all of it; the bar shows what is committed."""
        topics = {self.sender.topic(batch) for batch in encoded}
        read = ReadOfPhase(watcher.read_of(topics), sum(map(len, encoded)))

        def show() -> None:
            steps.advance(read.further(watcher.read_of(topics)))

        begun = time.monotonic()
        meant: list[float] = []
        watcher.keep_arrivals = phase.paced
        if phase.paced:
            meant = self.sender.send_paced(encoded[0], self.options.live_per_second, lambda _: show())
        else:
            self._send(encoded)
        watcher.wait_until_read(self.sender.next_offsets, show)
        if phase.paced:
            self.latencies = watcher.latencies_ms(encoded[0].ids, meant)
        if phase.name == "burst":
            self.burst = (read.records, time.monotonic() - begun)
        watcher.wait_for_kinds(
            # An arrival is acknowledged by a second entry of the source.
            lambda kinds: kinds["transfer_out"] == 2 * kinds["transfer_in"] + kinds["transfer_return"],
            f"arrivals of transfers ({phase.name})",
        )

    def _measured(self) -> Measured:
        return Measured(
            seed=self.options.seed,
            burst_records=self.burst[0],
            burst_s=self.burst[1],
            live_per_second=self.options.live_per_second,
            latency_p50_ms=quantile(self.latencies, 0.5),
            latency_p99_ms=quantile(self.latencies, 0.99),
            elapsed_s=time.monotonic() - self.begun,
            first_number_s=self.first_number_s,
            workers=self.options.workers,
        )
