"""The engine of one worker: which partitions it owns, and one pump for each of them.

The rules of this file:
1. A partition's state is kept over a rebalance only when this process was in the group all along: same member id,
   next generation. Otherwise another worker may have owned it in between, and it is restored from Kafka.
2. After a rebalance everything queued is forgotten, and fetching goes on from the positions in the states.
3. All inputs of a partition belong to the same worker; the engine stops when an assignment says otherwise.
4. A position that an input topic no longer has (retention) or not yet has (topic recreated) stops the worker.
5. The first failure stops the worker: `failed` is set, and nothing more is committed. That includes the
   background tasks, even one that decides nothing: it would not be missed until it is needed (`streams.background`).
6. Stopping waits for the end of a rebalance that is under way, which then takes nothing more over: Faust's consumer
   waits for the rebalance, and the rebalance asks the consumer, so each would wait for the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faust
from aiokafka.errors import KafkaError, KafkaTimeoutError
from faust.types import TP

from streams.background import WatchedPool, retry_until_available, watched
from streams.engine.clock import ASK_INTERVAL_S, BrokerClock
from streams.engine.failures import (
    ContractError,
    PositionBeyondEndError,
    RetentionGapError,
    TopicGoneError,
    topic_deleted,
)
from streams.engine.internal_topics import changelog_topic, seen_topic
from streams.engine.ledger_lookup import LedgerLookup
from streams.engine.limits import DeadLetterLimit
from streams.engine.memory import give_memory_back
from streams.engine.ports import EngineMetrics, Processor
from streams.engine.pump import LARGE_BATCHES_MAX, Pump, PumpSetup
from streams.engine.restore import OwnTopics, Restored, restore
from streams.engine.stalled import StalledInputs
from streams.engine.table import LedgerConsumer, account_table
from streams.engine.topic_watch import LOOK_INTERVAL_S, TopicWatch
from streams.errors import KafkaUnavailableError, OperatorError
from streams.kafka.faust_app import batch_agent
from streams.kafka.inbound import Inbound
from streams.kafka.transport import commit_offsets, use_batches
from streams.seals import Seals
from streams.settings import Settings

log = logging.getLogger(__name__)

# A worker with a core or two restores this many partitions at a time: more only compete for the interpreter, and
# each holds its read-ahead and its unsorted ids for as long.
RESTORES_AT_ONCE = 2
DRAIN_TIMEOUT_S = 4.0
CLOSE_TIMEOUT_S = 5.0
RESTORE_PAUSE_S = 1.0
STOP_LOOK_S = 0.5
GROUP_OFFSETS_INTERVAL_S = 5.0
STUCK_AFTER_S = 60.0
INPUTS_INTERVAL_S = 1.0


def _no_clock() -> int:
    """With `CREDITS_CLOCK=log` timers are due when the records' own time has passed them, never before."""
    return 0


OffsetsQuery = Callable[..., Awaitable[Mapping[TP, int]]]


class Engine:
    """Binds a processor to a Faust app. Make it before the app starts; `start` it before, `stop` it after."""

    def __init__(
        self, settings: Settings, processor: Processor[Any, Any], metrics: EngineMetrics | None = None
    ) -> None:
        self._settings = settings
        Seals.of(settings)  # a key that cannot be used is refused before anything starts
        self._processor = processor
        self._metrics = metrics or EngineMetrics()
        self._inputs = tuple(processor.inputs)
        self._pumps: dict[int, Pump] = {}
        self._changelog_ends: dict[int, int] = {}
        self._membership: tuple[str, int] = ("", -1)
        self._executor = ThreadPoolExecutor(max_workers=settings.partitions, thread_name_prefix="commit")
        self._trimming = WatchedPool(self.fail, "trim", threads=1)
        self._entries = LedgerLookup(settings, processor.ledger_topic)
        self._group_offsets: asyncio.Task[None] | None = None
        self._clock = BrokerClock(settings) if settings.clock == "wall" else None
        self._clock_asking: asyncio.Task[None] | None = None
        self._stalled = StalledInputs(self._metrics)
        self._watching: list[asyncio.Task[None]] = []
        self._stopping = False
        self._rebalancing = asyncio.Lock()
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.ready = asyncio.Event()
        self._setup = PumpSetup(
            settings=settings,
            processor=processor,
            metrics=self._metrics,
            executor=self._executor,
            trimming=self._trimming,
            large_batches=asyncio.Semaphore(LARGE_BATCHES_MAX),
            fetching=self,
            dead_letters=DeadLetterLimit(
                settings.dead_letters_per_minute_max, pauses=settings.dead_letter_flood == "pause"
            ),
            restore=self._restore,
            now=_no_clock if self._clock is None else self._clock.now,
            stop_worker=self.fail,
        )

    def bind(self, app: faust.App) -> None:
        """Give the app its consumer, its account table, and the processor's agents."""
        self._app = app
        use_batches(app, self, self._settings.batch_records_max, consumer=LedgerConsumer)
        account_table(app, self, self._settings.partitions)
        app.on_partitions_revoked.connect(self._revoked, weak=False)

        agents = self._processor.inputs
        for name in dict.fromkeys(agents.values()):
            batch_agent(app, name, [topic for topic in agents if agents[topic] == name], self._offer)

    async def start(self) -> None:
        """Start the processor and the clock. Before the app."""
        await self._processor.start(self._entries)
        if self._clock is not None:
            asking = asyncio.create_task(self._poll_clock(self._clock), name="clock")
            self._clock_asking = watched(asking, self.fail)
        for watch in (self._watch_topics(), self._watch_inputs()):
            self._watching.append(watched(asyncio.create_task(watch), self.fail))

    async def stop(self) -> None:
        """Finish open transactions and stop. Before the app stops."""
        self._stopping = True
        async with self._rebalancing:
            pass
        for task in (self._group_offsets, self._clock_asking, *self._watching):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(pump.close(CLOSE_TIMEOUT_S) for pump in self._pumps.values()))
        self._pumps.clear()
        await self._processor.stop()
        self._entries.close()
        self._executor.shutdown(wait=False)
        self._trimming.shutdown(wait=False, cancel_futures=True)

    @property
    def owned(self) -> list[int]:
        """The partitions that this worker serves."""
        return sorted(self._pumps)

    def stuck(self, now_s: float) -> list[int]:
        """Partitions with work but without a commit for `STUCK_AFTER_S`, at the monotonic time `now_s`."""
        return [n for n, pump in self._pumps.items() if pump.waiting and now_s - pump.progress_at_s > STUCK_AFTER_S]

    def stalled_inputs(self, now_s: float) -> list[str]:
        """A sentence for each input that waits behind an open transaction, at the monotonic time `now_s`."""
        return self._stalled.sentences(now_s)

    # What Faust asks: the table's store, the transport's positions, the signal before a rebalance.

    async def _revoked(self, _app: Any, _revoked: Collection[TP], **_options: Any) -> None:
        await asyncio.gather(*(pump.drain(DRAIN_TIMEOUT_S) for pump in self._pumps.values()))

    async def rebalanced(self, assignment: Collection[TP]) -> None:
        """See `PartitionOwner`."""
        async with self._rebalancing:
            if not self._stopping:
                with self._stop_on_operator_error():
                    await self._rebalanced(assignment)

    async def _rebalanced(self, assignment: Collection[TP]) -> None:
        try:
            owned = self._owned_of(assignment)
        except TopicGoneError as error:
            self.fail(error)
            return
        before, self._membership = self._membership, self._consumer.thread.member()
        kept = before == (self._membership[0], self._membership[1] - 1)
        gone = [number for number in self._pumps if not kept or number not in owned]
        await asyncio.gather(*(self._pumps.pop(number).close(CLOSE_TIMEOUT_S) for number in gone))
        for pump in self._pumps.values():
            pump.discard_queued()
        thread = self._consumer.thread
        self._consumer.resume(thread.paused_partitions)
        await thread.pause_and_discard([tp for tp in assignment if tp.topic not in self._inputs])
        missing = sorted(owned - self._pumps.keys())
        limit = asyncio.Semaphore(RESTORES_AT_ONCE)
        await asyncio.gather(*(self._take_over(number, limit) for number in missing))
        if missing:
            give_memory_back()
        self._metrics.partitions(len(self._pumps))
        if self._group_offsets is None:
            writing = asyncio.create_task(self._write_group_offsets(), name="group-offsets")
            self._group_offsets = watched(writing, self.fail)

    def changelog_end(self, partition: int) -> int | None:
        """See `PartitionOwner`."""
        return self._changelog_ends.get(partition)

    async def seeks(self, assignment: Collection[TP]) -> Mapping[TP, int]:
        """See `Positions`: where to go on is what the states say, and it must still be there."""
        sought = {
            TP(topic, number): offset
            for number, pump in self._pumps.items()
            for topic, offset in pump.next_offsets.items()
        }
        with self._stop_on_operator_error():
            await self._check_positions(sought)
        if self._stopping:
            return {}
        log.info("Worker serves partitions %s", self.owned)
        self.ready.set()
        return sought

    @contextlib.contextmanager
    def _stop_on_operator_error(self) -> Iterator[None]:
        """What an operator must fix stops the worker from here.

        Raised into Faust it would crash the thread that reads, and the tracebacks of that would follow the one line
        that says what to do.
        """
        try:
            yield
        except OperatorError as error:
            self.fail(error)

    # What the pumps ask.

    def pause(self, partition: int) -> None:
        """See `Fetching`."""
        self._consumer.pause(self._tps(partition))

    def resume(self, partition: int) -> None:
        """See `Fetching`."""
        self._consumer.resume(self._tps(partition))

    def pause_topic(self, partition: int, topic: str) -> None:
        """See `Fetching`."""
        self._consumer.pause([TP(topic, partition)])

    def resume_topic(self, partition: int, topic: str) -> None:
        """See `Fetching`."""
        self._consumer.resume([TP(topic, partition)])

    @property
    def paused(self) -> list[str]:
        """The inputs that are paused for their dead letters, as topic/partition."""
        return [f"{topic}/{number}" for number, pump in sorted(self._pumps.items()) for topic in pump.paused]

    async def seek(self, partition: int, next_offsets: Mapping[str, int]) -> None:
        """See `Fetching`."""
        sought = {TP(topic, partition): offset for topic, offset in next_offsets.items()}
        if partition in self._pumps:
            await self._check_positions(sought)
            await self._consumer.thread.seek_assigned(sought)

    def caught_up_us(self, partition: int, next_offsets: Mapping[str, int]) -> int | None:
        """See `Fetching`."""
        thread = self._consumer.thread
        times = [thread.caught_up_at_s(TP(topic, partition), offset) for topic, offset in next_offsets.items()]
        known = [at_s for at_s in times if at_s is not None]
        return math.ceil((time.monotonic() - min(known)) * 1_000_000) if len(known) == len(times) else None

    @property
    def _consumer(self) -> LedgerConsumer:
        consumer = self._app.consumer
        assert isinstance(consumer, LedgerConsumer)
        return consumer

    def _tps(self, partition: int) -> list[TP]:
        return [TP(topic, partition) for topic in self._inputs]

    async def _offer(self, inbound: Inbound) -> None:
        pump = self._pumps.get(inbound.partition)
        if pump is not None and not self._stopping:
            pump.offer(inbound)

    def _owned_of(self, assignment: Collection[TP]) -> set[int]:
        by_topic = {topic: {tp.partition for tp in assignment if tp.topic == topic} for topic in self._inputs}
        owned = set().union(*by_topic.values())
        for topic, partitions in by_topic.items():
            if not partitions and owned:  # the group may hear of a deletion before `TopicWatch` looks again
                raise topic_deleted(topic)
            if partitions != owned:
                raise ContractError(f"assigned {sorted(partitions)} of {topic}, but {sorted(owned)} of the others")
        return owned

    def _restore(self, number: int, wanted: Callable[[], bool]) -> Restored:
        processor = self._processor
        topics = OwnTopics(processor.ledger_topic, processor.outputs, processor.seen_windows)
        restored = restore(self._settings, number, topics, wanted)
        self._changelog_ends[number] = restored.changelog_end
        ids = sum(len(memory) for memory in restored.seen.values())
        self._metrics.restored(number, len(restored.accounts), ids, restored.seconds)
        log.info(
            "Partition %s restored: %s accounts, %s ids, %.2f s", number, len(restored.accounts), ids, restored.seconds
        )
        return restored

    async def _take_over(self, number: int, limit: asyncio.Semaphore) -> None:
        def wanted() -> bool:
            return not self._stopping

        async with limit:
            if self._stopping:
                return
            try:
                restored = await retry_until_available(
                    lambda: asyncio.to_thread(self._restore, number, wanted),
                    KafkaUnavailableError,
                    f"Partition {number}",
                    RESTORE_PAUSE_S,
                    wanted,
                )
            except KafkaUnavailableError:
                return
            firsts = await self._first_offsets(restored)
            if firsts is None:
                restored.producer.close()
                return
            pump = Pump(self._setup, restored, firsts)
            self._pumps[number] = pump
            pump.start()

    async def _first_offsets(self, restored: Restored) -> dict[str, int] | None:
        """For inputs that the state has never read: the beginning of their log. None when the engine stops."""
        number = restored.partition.number
        known = restored.position.next_offsets
        unread = [TP(topic, number) for topic in self._inputs if topic not in known]
        firsts = await self._query_offsets(self._consumer.thread.earliest_offsets, unread)
        if firsts is None:
            return None
        for tp, offset in firsts.items():
            if offset > 0:
                log.warning("Partition %s of %s is read for the first time, from offset %s", number, tp.topic, offset)
        return {**{tp.topic: offset for tp, offset in firsts.items()}, **known}

    async def _query_offsets(self, ask: OffsetsQuery, partitions: Collection[TP]) -> Mapping[TP, int] | None:
        """Ask the brokers for offsets, for as long as it takes while they are away. None when the engine stops."""
        while not self._stopping:
            if not partitions:
                return {}
            answer = asyncio.ensure_future(ask(*partitions))
            while not answer.done() and not self._stopping:
                await asyncio.wait([answer], timeout=STOP_LOOK_S)
            if not answer.done():
                answer.cancel()
                return None
            try:
                return answer.result()
            except KafkaError as error:
                if not (error.retriable or isinstance(error, KafkaTimeoutError)):
                    raise
                log.warning("Waiting for Kafka: %r", error)
                await asyncio.sleep(RESTORE_PAUSE_S)
        return None

    async def _check_positions(self, sought: Mapping[TP, int]) -> None:
        firsts = await self._query_offsets(self._consumer.thread.earliest_offsets, sought)
        ends = await self._query_offsets(self._consumer.thread.log_ends, sought)
        if firsts is None or ends is None:
            return
        for tp, offset in sought.items():
            if offset < firsts[tp]:
                raise RetentionGapError(
                    f"offsets {offset} to {firsts[tp] - 1} of {tp.topic}/{tp.partition} are gone, but were never read",
                    "restore them, or raise the topic's retention and rebuild the state",
                )
            if offset > ends[tp]:
                raise PositionBeyondEndError(
                    f"the state has read {tp.topic}/{tp.partition} up to {offset}, but the log ends at {ends[tp]}",
                    "was the topic recreated? restore it, or use another CREDITS_NAMESPACE",
                )

    async def _write_group_offsets(self) -> None:
        """Show the positions to tools that display lag. Decides nothing."""
        shown: dict[TP, int] = {}
        while True:
            await asyncio.sleep(GROUP_OFFSETS_INTERVAL_S)
            reached = {
                TP(topic, number): offset
                for number, pump in self._pumps.items()
                for topic, offset in pump.next_offsets.items()
            }
            moved = {tp: offset for tp, offset in reached.items() if shown.get(tp) != offset}
            if moved and await commit_offsets(self._app, moved):
                shown = reached

    async def _watch_inputs(self) -> None:
        """See what waits behind open transactions of producers."""
        while True:
            await asyncio.sleep(INPUTS_INTERVAL_S)
            if self._pumps:
                thread = self._consumer.thread
                ends = {tp: thread.fetched_ends(tp) for number in self._pumps for tp in self._tps(number)}
                self._stalled.observe(ends, time.monotonic())

    async def _watch_topics(self) -> None:
        """Stop the worker when one of its topics is deleted, or deleted and created again."""
        app_id, windows = self._settings.app_id, self._processor.seen_windows
        own = [changelog_topic(app_id), *(seen_topic(app_id, window.name) for window in windows)]
        watch = TopicWatch(self._settings, [*self._inputs, *self._processor.outputs, *own])
        while True:
            await asyncio.to_thread(watch.look)
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def _poll_clock(self, clock: BrokerClock) -> None:
        while True:
            await asyncio.to_thread(clock.ask)
            await asyncio.sleep(ASK_INTERVAL_S)

    def fail(self, error: BaseException) -> None:
        """Stop the worker for this error, unless it stops already. On the event loop."""
        if not self.failed.done():
            self._stopping = True
            self.failed.set_result(error)
