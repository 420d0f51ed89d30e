"""The pump with a small processor and a producer that the test lets succeed, wait or fail: no broker, no clock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from streams.engine import limits
from streams.engine import pump as pump_module
from streams.engine.accounts import Accounts
from streams.engine.engine import Engine
from streams.engine.failures import ContractError, PartitionLostError, TooManyDeadLettersError
from streams.engine.limits import DeadLetterLimit
from streams.engine.ports import (
    EngineMetrics,
    EntrySource,
    Keyed,
    OutcomeName,
    Output,
    Partition,
    SeenWindow,
    UnavailableError,
)
from streams.engine.positions import POSITION_KEY, OutputEnd, PositionRecord, decode_position, record_digest
from streams.engine.pump import Pump, PumpSetup
from streams.engine.restore import Restored
from streams.engine.transaction import Writes
from streams.kafka.inbound import Inbound
from tests.brokers import test_settings

DEAD_LETTERS_MAX = 10
TOPIC = "in"
OUT = "out"


@dataclass
class Log:
    """What is durable: the fake broker's side."""

    values: list[bytes] = field(default_factory=list)
    position: PositionRecord = field(default_factory=PositionRecord)
    gate: threading.Event = field(default_factory=threading.Event)
    failures: list[Exception] = field(default_factory=list)
    went_through_anyway: bool = False
    commits: int = 0
    written: Writes | None = None
    writes: int = 0

    def write(self, writes: Writes) -> None:
        """What the next commit makes durable."""
        assert self.written is None, "one transaction at a time"
        self.writes += 1
        self.written = writes

    def commit(self) -> None:
        """One transaction: all or nothing."""
        assert self.gate.wait(10)
        writes, self.written = self.written, None
        assert writes is not None
        if self.failures and not self.went_through_anyway:
            raise self.failures.pop()
        for topic, messages in writes.batches:
            for message in messages:
                if topic == OUT:
                    self.values.append(message["value"])
                elif message.get("key") == POSITION_KEY:
                    self.position = decode_position(message["value"])
        self.commits += 1
        if self.failures:
            raise self.failures.pop()

    def close(self) -> None:
        """Nothing to close."""


@dataclass
class Echo:
    """Writes each value out; knows how many it has decided since it was loaded."""

    inputs: Mapping[str, str] = field(default_factory=lambda: {TOPIC: "echo"})
    outputs: Sequence[str] = (OUT,)
    ledger_topic: str = OUT
    seen_windows: Sequence[SeenWindow] = ()
    unavailable: int = 0
    loads: int = 0
    drops_outcomes: bool = False
    outcome: OutcomeName = "entries"

    async def start(self, entries: EntrySource) -> None:
        """Nothing."""

    async def stop(self) -> None:
        """Nothing."""

    def load(self, partition: Partition) -> Partition:
        """Counts the restores."""
        self.loads += 1
        return partition

    async def gather(self, state: Partition, inbound: Sequence[Inbound]) -> None:
        """Unavailable as often as it is told."""
        if self.unavailable:
            self.unavailable -= 1
            raise UnavailableError("not now")

    def step(self, state: Partition, gathered: None, inbound: Sequence[Inbound]) -> Output:
        """Writes out what comes in."""
        messages = [{"key": b"k", "value": value} for batch in inbound for value in batch.values]
        outcomes: Mapping[str, Any] = {batch.topic: {self.outcome: len(batch)} for batch in inbound}
        return Output(state.clock_at, [(OUT, messages)], outcomes={} if self.drops_outcomes else dict(outcomes))

    def tick(self, state: Partition, at: int, orgs: Sequence[str]) -> Output | None:
        """Nothing is due."""
        return None

    def committed(self, state: Partition, output: Output) -> None:
        """Nothing."""


@dataclass
class Fetching:
    """Records what the pump asks of the consumer."""

    held: bool = False
    paused: set[str] = field(default_factory=set)
    seeks: list[dict[str, int]] = field(default_factory=list)
    behind: set[str] = field(default_factory=set)
    caught_up_ago_us: int = 0
    looks: int = 0

    def pause(self, partition: int) -> None:
        """Remember."""
        self.held = True

    def resume(self, partition: int) -> None:
        """Remember."""
        self.held = False

    def pause_topic(self, partition: int, topic: str) -> None:
        """Remember."""
        self.paused.add(topic)

    def resume_topic(self, partition: int, topic: str) -> None:
        """Remember."""
        self.paused.discard(topic)

    async def seek(self, partition: int, next_offsets: Mapping[str, int]) -> None:
        """Remember."""
        self.seeks.append(dict(next_offsets))

    def caught_up_us(self, partition: int, next_offsets: Mapping[str, int]) -> int | None:
        """Unless a topic is behind."""
        self.looks += 1
        return None if self.behind.intersection(next_offsets) else self.caught_up_ago_us


@dataclass
class Bench:
    """A pump and everything around it."""

    log: Log
    echo: Echo
    fetching: Fetching
    pump: Pump
    stopped: list[BaseException]


def restored(log: Log) -> Restored:
    """The partition as the log has it."""
    partition = Partition(0, Accounts(), {}, clock_at=log.position.clock_at)
    return Restored(partition, Accounts(), {}, log.position, log, 0, 0.0)  # type: ignore[arg-type]


def inbound(first: int, count: int) -> Inbound:
    """Records `first` to `first + count - 1`, each with its number as value."""
    offsets = list(range(first, first + count))
    values: list[bytes | None] = [b"%d" % offset for offset in offsets]
    return Inbound(TOPIC, 0, first, first + count, offsets, [0] * count, [b"k"] * count, values)


def numbers(count: int) -> list[bytes]:
    """What must be in the log after `count` records."""
    return [b"%d" % number for number in range(count)]


def with_pump(
    test: Callable[[Bench], Coroutine[Any, Any, None]],
    tmp_path: Path,
    echo: Echo | None = None,
    now: Callable[[], int] = lambda: 0,
    **values: int,
) -> None:
    """Run a test's coroutine with a started pump, at the broker's time `now`."""
    echo = echo or Echo()

    async def main() -> None:
        log, fetching = Log(), Fetching()
        stopped: list[BaseException] = []
        settings = test_settings(tmp_path, session_timeout_ms=6_000, **values)
        with ThreadPoolExecutor(1) as executor:
            setup = PumpSetup(
                settings=settings,
                processor=echo,
                metrics=EngineMetrics(),
                executor=executor,
                trimming=executor,
                large_batches=asyncio.Semaphore(1),
                fetching=fetching,
                dead_letters=DeadLetterLimit(DEAD_LETTERS_MAX),
                restore=lambda number, wanted: restored(log),
                now=now,
                stop_worker=stopped.append,
            )
            pump = Pump(setup, restored(log), dict.fromkeys(echo.inputs, 0))
            pump.start()
            log.gate.set()
            try:
                async with asyncio.timeout(20):
                    await test(Bench(log, echo, fetching, pump, stopped))
            finally:
                log.gate.set()
                await pump.close(5.0)

    asyncio.run(main())


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition; the test's time limit ends it."""
    while not condition():
        await asyncio.sleep(0.002)


def test_what_gathers_during_a_commit_becomes_one_transaction(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.log.gate.clear()
        bench.pump.offer(inbound(0, 2))
        await until(lambda: not bench.pump.intake)
        for first in range(2, 10):
            bench.pump.offer(inbound(first, 1))
        bench.log.gate.set()
        await until(lambda: len(bench.log.values) == 10)
        assert bench.log.values == numbers(10)
        assert bench.log.commits == 2
        assert bench.log.position.next_offsets == {TOPIC: 10}

    with_pump(test, tmp_path)


def test_a_rebalance_during_a_long_transaction_decides_nothing_twice(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.log.gate.clear()
        bench.pump.offer(inbound(0, 5))
        await until(lambda: not bench.pump.intake)
        await bench.pump.drain(0.01)
        # Faust seeks back to what is committed, which is nothing yet, and the records come again.
        bench.pump.offer(inbound(0, 8))
        bench.log.gate.set()
        await until(lambda: bench.log.position.next_offsets.get(TOPIC) == 8)
        assert bench.log.values == numbers(8)
        assert not bench.stopped

    with_pump(test, tmp_path)


@pytest.mark.parametrize("went_through", [False, True])
def test_a_transaction_whose_outcome_is_unknown_is_looked_up(tmp_path: Path, went_through: bool) -> None:
    async def test(bench: Bench) -> None:
        bench.log.went_through_anyway = went_through
        bench.log.failures.append(PartitionLostError("timed out"))
        bench.pump.offer(inbound(0, 4))
        await until(lambda: bench.fetching.seeks)
        assert bench.echo.loads == 2
        expected = 4 if went_through else 0
        assert bench.fetching.seeks == [{TOPIC: expected}]
        # Whatever was on its way before the seek is refused or cut, what comes after it is decided.
        bench.pump.offer(inbound(3, 3))
        bench.pump.offer(inbound(expected, 6 - expected))
        await until(lambda: bench.log.position.next_offsets.get(TOPIC) == 6)
        assert bench.log.values == numbers(6)

    with_pump(test, tmp_path)


def test_a_flood_pauses_its_topic_and_is_read_again_from_the_committed_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MINUTE_S", 0.05)

    async def test(bench: Bench) -> None:
        flooding = DeadLetterLimit(1, pauses=True)
        bench.pump._setup = replace(bench.pump._setup, dead_letters=flooding)
        bench.echo.outcome = "dead_letters"
        bench.pump.offer(inbound(0, 4))
        await until(lambda: bench.pump.paused)
        assert bench.fetching.paused == {TOPIC}
        assert bench.log.position.next_offsets == {TOPIC: 4}
        bench.fetching.paused.clear()  # as a rebalance does
        bench.pump.offer(inbound(4, 2))
        assert bench.fetching.paused == {TOPIC}
        assert not bench.pump.intake
        bench.echo.outcome = "entries"
        await until(lambda: bench.fetching.seeks == [{TOPIC: 4}])
        assert not bench.fetching.paused
        bench.pump.offer(inbound(4, 2))
        await until(lambda: bench.log.position.next_offsets == {TOPIC: 6})
        assert not bench.stopped

    with_pump(test, tmp_path)


def test_what_is_missing_is_sought(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.pump.offer(inbound(3, 1))
        await until(lambda: bench.fetching.seeks == [{TOPIC: 0}])
        assert bench.log.values == []

    with_pump(test, tmp_path)


@pytest.mark.parametrize("bound", [{"queue_records_max": 10}, {"queue_bytes_max": 10}])
def test_a_full_queue_holds_the_fetching_and_releases_it(tmp_path: Path, bound: dict[str, Any]) -> None:
    async def test(bench: Bench) -> None:
        bench.log.gate.clear()
        for first in range(12):
            bench.pump.offer(inbound(first, 1))
            if first == 0:
                await until(lambda: not bench.pump.intake)
        assert bench.fetching.held
        bench.log.gate.set()
        await until(lambda: len(bench.log.values) == 12)
        await until(lambda: not bench.fetching.held)

    with_pump(test, tmp_path, batch_records_max=3, **bound)


def test_it_asks_again_with_the_same_batch(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.echo.unavailable = 2
        bench.pump.offer(inbound(0, 3))
        await until(lambda: len(bench.log.values) == 3)
        assert bench.log.values == numbers(3)

    with_pump(test, tmp_path)


def test_records_without_an_end_stop_the_worker_before_the_commit(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.echo.drops_outcomes = True
        bench.pump.offer(inbound(0, 3))
        await until(lambda: bench.stopped)
        assert isinstance(bench.stopped[0], ContractError)
        assert bench.log.commits == 0

    with_pump(test, tmp_path)


def test_more_dead_letters_than_the_limit_stop_before_anything_is_written(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.echo.outcome = "dead_letters"
        bench.pump.offer(inbound(0, DEAD_LETTERS_MAX))
        await until(lambda: bench.log.commits == 1)
        bench.pump.offer(inbound(DEAD_LETTERS_MAX, 1))
        await until(lambda: bench.stopped)
        assert isinstance(bench.stopped[0], TooManyDeadLettersError)
        assert (bench.log.writes, bench.log.commits) == (1, 1)

    with_pump(test, tmp_path)


async def sought(bench: Bench) -> Mapping[TP, int]:
    """Where the engine has Faust fetch on."""

    class Unchecked(Engine):
        async def _check_positions(self, sought: Mapping[TP, int]) -> None:
            """The logs hold all that is sought."""

    engine = object.__new__(Unchecked)
    engine._pumps = {0: bench.pump}
    engine._stopping = False
    engine.ready = asyncio.Event()
    return await engine.seeks([TP(TOPIC, 0)])


def test_positions_in_memory_never_lead_the_commit(tmp_path: Path) -> None:
    """A rebalance during an open transaction must fetch on from what is committed, not from what is being written."""

    async def test(bench: Bench) -> None:
        bench.pump.offer(inbound(0, 3))
        await until(lambda: bench.log.commits == 1)
        bench.log.gate.clear()
        bench.pump.offer(inbound(3, 2))
        await until(lambda: bench.log.written is not None)
        assert bench.pump.next_offsets == {TOPIC: 3}
        await bench.pump.drain(0.01)
        assert (await sought(bench), bench.pump.intake.next_offsets[TOPIC]) == ({TP(TOPIC, 0): 3}, 3)
        bench.log.gate.set()
        await until(lambda: bench.log.commits == 2)
        await until(lambda: bench.pump.next_offsets == {TOPIC: 5})
        assert await sought(bench) == {TP(TOPIC, 0): 5}

    with_pump(test, tmp_path)


def test_markers_alone_cost_no_transaction(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.pump.offer(Inbound(TOPIC, 0, 0, 3, [], [], [], []))
        bench.pump.offer(inbound(3, 1))
        await until(lambda: bench.log.position.next_offsets.get(TOPIC) == 4)
        assert bench.log.commits == 1

    with_pump(test, tmp_path)


@dataclass
class Timed(Echo):
    """Each batch leaves an org that is due at `DUE_AT`."""

    ticks: list[int] = field(default_factory=list)

    def step(self, state: Partition, gathered: None, inbound: Sequence[Inbound]) -> Output:
        """As ever; the clock is the records'."""
        output = super().step(state, gathered, inbound)
        output.clock_at = max(state.clock_at, *(batch.timestamps_ms[-1] * 1_000 for batch in inbound))
        output.accounts["org"] = (DUE_AT, b"state")
        return output

    def tick(self, state: Partition, at: int, orgs: Sequence[str]) -> Output | None:
        """Remember when."""
        self.ticks.append(at)
        return Output(state.clock_at, accounts={"org": (0, b"state")})


DUE_AT = 5_000_000


def test_a_timer_waits_until_every_input_was_read_up_to_its_time(tmp_path: Path) -> None:
    """The clock is past the timer, and an input has records that cannot be read yet."""
    other = "other"
    echo = Timed(inputs={TOPIC: "timed", other: "timed"})

    async def test(bench: Bench) -> None:
        bench.fetching.behind = {other}
        late = inbound(0, 1)
        late.timestamps_ms = [9_000]
        bench.pump.offer(late)
        await until(lambda: bench.log.commits == 1)
        unread = Inbound(other, 0, 0, 1, [0], [4_999], [b"k"], [b"read before the timer"])
        bench.pump.offer(unread)
        await until(lambda: bench.log.commits == 2)
        assert echo.ticks == []
        bench.pump.offer(Inbound(other, 0, 1, 2, [1], [5_001], [b"k"], [b"after the timer"]))
        await until(lambda: echo.ticks)
        assert echo.ticks == [5_001_000], "up to where everything was read, and no further"

    with_pump(test, tmp_path, echo=echo)


def test_a_timer_waits_for_an_answer_of_the_broker_that_was_asked_after_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the broker took since it was asked is not known, and may be of before the timer's time."""
    monkeypatch.setattr(pump_module, "TICK_IDLE_S", 0.01)
    echo = Timed(inputs={TOPIC: "timed"})
    now = DUE_AT + 4_000_000

    async def test(bench: Bench) -> None:
        bench.fetching.caught_up_ago_us = 4_000_001
        bench.pump.offer(inbound(0, 1))
        await until(lambda: bench.log.commits == 1)
        looks = bench.fetching.looks
        await until(lambda: bench.fetching.looks >= looks + 3)
        assert echo.ticks == []
        bench.fetching.caught_up_ago_us = 1_000_000
        await until(lambda: echo.ticks)
        assert echo.ticks == [now - 1_000_000], "as far as was known, and no further"

    with_pump(test, tmp_path, echo=echo, now=lambda: now)


def test_a_timer_behind_the_clock_waits_for_an_answer_that_was_asked_after_its_time(tmp_path: Path) -> None:
    """Another topic has moved the clock; of this one an answer is known that is older than the timer's time."""
    other = "other"
    echo = Timed(inputs={TOPIC: "timed", other: "timed"})
    now = 9_000_000

    async def test(bench: Bench) -> None:
        bench.fetching.caught_up_ago_us = now - DUE_AT + 1
        late = inbound(0, 1)
        late.timestamps_ms = [now // 1_000]
        bench.pump.offer(late)
        await until(lambda: bench.log.commits == 1)
        looks = bench.fetching.looks
        await until(lambda: bench.fetching.looks >= looks + 3)
        assert echo.ticks == []
        bench.fetching.caught_up_ago_us = now - DUE_AT
        await until(lambda: echo.ticks)
        assert echo.ticks == [DUE_AT]

    with_pump(test, tmp_path, echo=echo, now=lambda: now)


def test_a_position_that_is_sealed_with_an_older_key_is_written_again_where_there_are_no_accounts(
    tmp_path: Path,
) -> None:
    async def test(bench: Bench) -> None:
        bench.pump._install(replace(restored(bench.log), stale_position=True), {TOPIC: 0})
        bench.pump._wake.set()
        await until(lambda: bench.log.position.commit == 1)
        bench.pump.offer(inbound(0, 1))
        await until(lambda: bench.log.values == numbers(1))
        assert bench.log.commits == 2, "once, and the record"

    with_pump(test, tmp_path)


def test_the_ends_of_the_outputs_include_single_records_of_the_own_partition(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        keyed = [
            Keyed("letters", b"a", b"1", (), 0),
            Keyed("letters", b"b", b"2", (), 0),
            Keyed("kept", b"p", None, (), 0),
            Keyed("legs", b"elsewhere", b"3"),
        ]
        taken_away: list[dict[str, Any]] = [{"key": b"k", "value": b"1"}, {"key": b"k", "value": None}]
        assert bench.pump._ends_after(Output(0, [("balances", taken_away)], keyed), 7) == {
            "balances": OutputEnd(1, record_digest(b"k", None), 7, deleted=True),
            "letters": OutputEnd(1, record_digest(b"b", b"2"), 7, deleted=False, shared=True),
            "kept": OutputEnd(0, record_digest(b"p", None), 7, deleted=True, shared=True),
        }

    with_pump(test, tmp_path)
