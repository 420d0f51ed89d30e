"""The world: workers, partitions, virtual Kafka and virtual time, all from one seed.

Rules of this file: the pump, the restore, the positions, the remembered ids, the look-up, what is made of prices, and
the processor are the real ones. What stands in for others is Kafka's client, the loop's time, and Faust's part: who
owns what, and fetching. A worker that crashes loses all it knows; its partitions are taken over by another. There are
two clocks: the loop's, in which pauses and commits take their milliseconds, and the broker's, which the script moves
on by seconds or weeks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from streams.agents.processor import LedgerProcessor
from streams.engine import ledger_lookup
from streams.engine import pump as pump_module
from streams.engine import restore as restore_module
from streams.engine import transaction as transaction_module
from streams.engine.ledger_lookup import LedgerLookup
from streams.engine.limits import DeadLetterLimit
from streams.engine.ports import EngineMetrics, EntryMatch, Output, UnavailableError
from streams.engine.pump import Pump, PumpSetup
from streams.engine.restore import OwnTopics, Restored, restore
from streams.errors import KafkaUnavailableError
from streams.kafka import reader as reader_module
from streams.kafka.inbound import Inbound
from streams.ledger import grants
from streams.ledger.price_log import PriceLog
from streams.processing import decoding
from streams.processing.references import Gathered
from streams.processing.state import PartitionState
from streams.settings import Settings
from tests.model.memory import FixedSchemas, Sent
from tests.simulation.crashes import CrashError, Faults
from tests.simulation.price_topic import TOPIC as PRICE_TOPIC
from tests.simulation.price_topic import Ends, FollowedPrices
from tests.simulation.virtual_kafka import VirtualKafka
from tests.simulation.virtual_time import Inline, Later, Never, VirtualLoop, VirtualTime

FAR = "far"
PARTITIONS = 3
WORKERS = 2
START_US = 1_777_593_600 * 1_000_000
"""2026-05-01T00:00:00Z."""
SECOND_US = 1_000_000
MILLISECOND_US = 1_000
HOUR_US = 3_600 * SECOND_US
ALL_GRANTS = 64
"""So many empty grants are remembered as a run never has: then the auditor, who forgets none, can judge it."""
PATIENCE_S = 600.0
"""Virtual seconds in which all that is queued must be done; with a session waited for it takes ten or so."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What a step decided, in its order: (topic, offset) of each record; and the prices that it knew."""

    records: tuple[tuple[str, int], ...]
    prices: PriceLog
    prices_read: Ends


@dataclass(frozen=True, slots=True)
class Ticked:
    """A tick decided no record; what was due at `at` happened to these orgs."""

    at: int
    orgs: tuple[str, ...]


class WatchedProcessor(LedgerProcessor):
    """The processor; says what it is deciding, so that a transaction is known to be of it."""

    kafka: VirtualKafka
    prices: FollowedPrices

    def step(self, state: PartitionState, gathered: Gathered, inbound: Sequence[Inbound]) -> Output:
        """As the processor does."""
        places = ((batch.topic, offset) for batch in inbound for offset in batch.offsets)
        prices = gathered.price_log
        self.kafka.deciding = Decided(tuple(places), prices, self.prices.ends_of(prices))
        return super().step(state, gathered, inbound)

    def tick(self, state: PartitionState, at: int, orgs: Sequence[str]) -> Output | None:
        """As the processor does."""
        self.kafka.deciding = Ticked(at, tuple(orgs))
        return super().tick(state, at, orgs)


def lies_far(event_id: str) -> bool:
    """Whether a usage is one that lies further back than the end of the ledger that is looked through."""
    return event_id.startswith(FAR)


class FarLookup(LedgerLookup):
    """The look-up in a long ledger: a pass over its end does not come to usage that `lies_far`."""

    async def find_recent(self, partition: int, wanted: Mapping[Any, tuple[bytes, EntryMatch]]) -> dict[Any, bytes]:
        """As in `LedgerLookup`, of what lies near."""
        near = {name: sought for name, sought in wanted.items() if not lies_far(name[1])}
        return await super().find_recent(partition, near) if near else {}


class World:
    """One run. `drive` is the script: it sends, waits, and moves the broker's time."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(f"world {seed}")
        self.loop = VirtualLoop()
        self.faults = Faults(Random(f"faults {seed}"))
        self.kafka = VirtualKafka(PARTITIONS, START_US, self.faults)
        self.schemas = FixedSchemas()
        self.settings = Settings(
            _env_file=None,
            partitions=PARTITIONS,
            batch_records_max=self.random.choice((1, 3, 10, 100)),
            queue_records_max=self.random.choice((5, 40, 1_000)),
            session_timeout_ms=6_000,
        )
        self.pending_bytes_max = self.random.choice((100, 1_000, 24 * 1024))
        self.grants_remembered = self.random.choice((1, 3, ALL_GRANTS, ALL_GRANTS, ALL_GRANTS))
        self.near_records = self.random.choice((1, 5, 20_000))
        self.workers: list[Worker] = []
        self.used_again: set[str] = set()
        """Ids that were sent again after their window."""
        self.failure: BaseException | None = None

    def run(self, drive: Callable[[World], Any]) -> None:
        """Run the script to its end. Raises what stopped a worker that was not meant to stop."""
        asyncio.set_event_loop(self.loop)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reader_module, "Consumer", self.kafka.consumer)
            patch.setattr(restore_module, "secrets", SimpleNamespace(randbits=self.random.getrandbits))
            patch.setattr(transaction_module, "Producer", self.kafka.producer)
            patch.setattr(pump_module, "time", VirtualTime(self.loop))
            patch.setattr(pump_module, "PENDING_BYTES_MAX", self.pending_bytes_max)
            patch.setattr(decoding, "ThreadPoolExecutor", Inline)
            patch.setattr(grants, "EXHAUSTED_MAX", self.grants_remembered)
            patch.setattr(ledger_lookup, "place_of", partial(ledger_lookup.place_of, near=self.near_records))
            try:
                self.loop.run_until_complete(self._run(drive))
            finally:
                self._forget()

    def _forget(self) -> None:
        rest = asyncio.all_tasks(self.loop)
        for task in rest:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
        asyncio.set_event_loop(None)
        self.loop.close()

    async def _run(self, drive: Callable[[World], Any]) -> None:
        for _ in range(WORKERS):
            await self._hire()
        for number in range(PARTITIONS):
            await self.give(number)
        await drive(self)
        for worker in self.workers:
            await worker.end()

    async def _hire(self) -> Worker:
        worker = Worker(self)
        await worker.start()
        self.workers.append(worker)
        return worker

    async def give(self, number: int) -> None:
        """Let a worker take a partition over; the previous owner learns of it later, or when it is fenced."""
        while True:
            while not self.workers:  # the next one has not read the prices yet
                await asyncio.sleep(0.1)
            owners = [worker for worker in self.workers if number in worker.pumps]
            worker = self.random.choice([each for each in self.workers if each not in owners] or self.workers)
            if await worker.take(number):
                break
        for each in self.workers:
            if each is not worker and number in each.pumps:
                self.faults.note("moved")
                self.loop.call_later(self.random.uniform(0, 3), each.lose, number, each.pumps[number])

    async def crash(self, worker: Worker) -> None:
        """A worker is gone with all it knew; another one starts, and its partitions find owners."""
        if worker not in self.workers:
            return
        self.workers.remove(worker)
        owned = list(worker.pumps)
        await worker.end(0)
        self.faults.note("restart")
        await self._hire()
        for number in owned:
            await self.give(number)

    def stopped(self, worker: Worker, error: BaseException) -> None:
        """A worker's pump ended: as drawn, or because something is wrong."""
        if isinstance(error, CrashError):
            worker.background(self.crash(worker))
        else:
            self.failure = self.failure or error

    async def sleep(self, seconds: float) -> None:
        """Let workers work; raises when one has failed."""
        await asyncio.sleep(seconds)
        if self.failure is not None:
            raise self.failure

    def send(self, record: Sent) -> None:
        """A producer sends a record. Prices have a millisecond of their own: which came first is the broker's time."""
        if record.topic == PRICE_TOPIC:
            self.pass_time(MILLISECOND_US)
        self.kafka.append(record.topic, record.key, record.value)

    def pass_time(self, micros: int) -> None:
        """The broker's time moves on, by whole milliseconds."""
        self.kafka.at += micros // 1_000 * 1_000

    def quiet(self) -> bool:
        """Every record is decided, nothing is due, everybody knows what he owns."""
        owners = [number for worker in self.workers for number in worker.pumps]
        if sorted(owners) != list(range(PARTITIONS)):
            return False
        return all(worker.quiet(number) for worker in self.workers for number in worker.pumps)

    async def settle(self) -> None:
        """Wait until it is quiet."""
        end_s = self.loop.time() + PATIENCE_S
        while not self.quiet():
            assert self.loop.time() < end_s, "the workers make no progress"
            await self.sleep(0.25)


class Worker:
    """One process: its processor, its pumps, and the consumer that feeds them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pumps: dict[int, Pump] = {}
        self.fetched: dict[int, dict[str, int]] = {}
        self.held: set[int] = set()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.ended = False
        self.prices = FollowedPrices(world.kafka, world.schemas, world.loop)
        self.processor = WatchedProcessor(world.settings, world.schemas, self.prices)
        self.processor.kafka, self.processor.prices = world.kafka, self.prices
        self.setup = PumpSetup(
            settings=world.settings,
            processor=self.processor,
            metrics=EngineMetrics(),
            executor=Later(world.loop, lambda: world.random.choice((0.0, 0.002, 0.02, 0.2))),
            trimming=Never(),
            large_batches=asyncio.Semaphore(2),
            fetching=self,
            dead_letters=DeadLetterLimit(1_000_000),
            restore=self._restore,
            now=lambda: world.kafka.at,
            stop_worker=lambda error: world.stopped(self, error),
        )

    async def start(self) -> None:
        """Before it owns anything."""
        await self.processor.start(FarLookup(self.world.settings, self.processor.ledger_topic))
        self.background(self._follow_prices())

    async def _follow_prices(self) -> None:
        """Now and then, and not always soon: a batch must not be decided with what is too old."""
        while not self.ended:
            await asyncio.sleep(self.world.random.choice((0.2, 1.0, 1.0, 9.0)))
            with contextlib.suppress(UnavailableError):
                self.prices.catch_up()

    def background(self, work: Any) -> None:
        """Do it beside everything else; what fails there fails the run."""
        task = self.world.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._background_done)

    def _background_done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.world.stopped(self, error)

    def _restore(self, number: int, wanted: Callable[[], bool]) -> Restored:
        processor = self.processor
        topics = OwnTopics(processor.ledger_topic, processor.outputs, processor.seen_windows)
        return restore(self.world.settings, number, topics, wanted)

    async def take(self, number: int) -> bool:
        """Take a partition over, as `Engine` does; again when Kafka is away, or it dies doing so. False: it is gone."""
        while not self.ended:
            try:
                restored = self._restore(number, lambda: True)
            except KafkaUnavailableError:
                await asyncio.sleep(0.5)
                continue
            except CrashError:  # another process of its name tries again
                self.world.faults.note("crash while taking over")
                continue
            if number in self.pumps:
                await self.pumps.pop(number).close(0.1)
                if self.ended:  # meanwhile
                    return False
            known = restored.position.next_offsets
            firsts = {topic: known.get(topic, 0) for topic in self.processor.inputs}
            pump = Pump(self.setup, restored, firsts)
            self.pumps[number] = pump
            self.fetched[number] = pump.next_offsets
            self.held.discard(number)
            pump.start()
            self.background(self._fetch(number, pump))
            return True
        return False

    def lose(self, number: int, pump: Pump) -> None:
        """The group says that the partition is somebody else's now."""
        if self.pumps.get(number) is pump:
            del self.pumps[number]
            self.background(pump.close(0.1))

    async def end(self, timeout_s: float = 1.0) -> None:
        """The process is no more."""
        self.ended = True
        pumps = list(self.pumps.values())
        self.pumps.clear()
        for pump in pumps:
            await pump.close(timeout_s)
        mine = asyncio.current_task()
        for task in [task for task in self.tasks if task is not mine]:
            task.cancel()

    def quiet(self, number: int) -> bool:
        """Nothing is to do in this partition at the broker's time."""
        pump = self.pumps[number]
        due_at = pump._accounts.next_due()
        due = due_at is not None and due_at <= self.world.kafka.at
        return not pump.waiting and not due and self.caught_up_us(number, pump.next_offsets) is not None

    # Fetching, which is Faust's part.

    async def _fetch(self, number: int, pump: Pump) -> None:
        while self.pumps.get(number) is pump:
            found = number not in self.held and self._deliver(number, pump)
            await asyncio.sleep(self.world.random.uniform(0.001, 0.03) if found else 0.05)

    def _deliver(self, number: int, pump: Pump) -> bool:
        """Some records of one topic; now and then some that were there before, or not those that come next."""
        random, kafka = self.world.random, self.world.kafka
        fetched = self.fetched[number]
        topics = [topic for topic in self.processor.inputs if fetched[topic] < len(kafka.logs[topic, number])]
        if not topics:
            return False
        topic = random.choice(topics)
        log, first = kafka.logs[topic, number], fetched[topic]
        if self.world.faults.active and not random.randrange(15):
            first = max(0, min(len(log) - 1, first + random.randint(-4, 2)))
            self.world.faults.note("fetched elsewhere")
        end = min(len(log), first + random.choice((1, 2, 5, 50)))
        found = [(offset, record) for offset in range(first, end) if (record := log[offset]) is not None]
        inbound = Inbound(topic, number, first, end, [], [], [], [])
        for offset, record in found:
            inbound.offsets.append(offset)
            inbound.timestamps_ms.append(record.at // 1_000)
            inbound.keys.append(record.key)
            inbound.values.append(record.value)
        fetched[topic] = end
        pump.offer(inbound)
        return True

    # What a pump asks of the consumer.

    def pause(self, partition: int) -> None:
        """See `Fetching`."""
        self.world.faults.note("held back")
        self.held.add(partition)

    def resume(self, partition: int) -> None:
        """See `Fetching`."""
        self.held.discard(partition)

    def pause_topic(self, partition: int, topic: str) -> None:
        """Nothing floods here."""

    def resume_topic(self, partition: int, topic: str) -> None:
        """Nothing floods here."""

    async def seek(self, partition: int, next_offsets: Mapping[str, int]) -> None:
        """See `Fetching`."""
        if partition in self.fetched:
            self.fetched[partition].update(next_offsets)

    def caught_up_us(self, partition: int, next_offsets: Mapping[str, int]) -> int | None:
        """See `Fetching`."""
        logs = self.world.kafka.logs
        return 0 if all(offset >= len(logs[topic, partition]) for topic, offset in next_offsets.items()) else None
