"""Batches instead of messages: the consumer of a Faust app that hands over all fetched records of a partition at once.

The rules of this file:
1. The value of every Faust message is one `Inbound`: the committed records of one topic and partition from
   `first_offset` up to, not including, `next_offset`, in columns. No Python object is made per record by Faust or by
   aiokafka beyond the key and the value themselves.
2. Only committed records are handed over (`read_committed`), whatever the app's own settings say.
3. Consecutive batches of a partition join: `first_offset` is the `next_offset` of the one before, unless there was
   a seek, or aiokafka's position was reset behind our back (retention). A reader that cares compares the two.
4. Faust commits no offset by itself (`acks=False` on the topic that `batch_topic` makes). Who wants group offsets
   calls `commit_offsets` after its effects are durable.
5. After every rebalance a consumer starts from what its `Positions` say; without them, from the group's offsets.

Used by the ledger's engine and by the projections. It reaches into private parts of faust-streaming 0.15.3 and
aiokafka 0.14.0 (both pinned): the fetched record sets of aiokafka's fetcher, and Faust's consumer thread. The tests in
`tests/integration/engine/test_transport.py` fail if these move.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, NamedTuple, Protocol, cast

import faust
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.kafka.header_decoding import patch_header_decoding
from streams.kafka.inbound import Headers, Inbound

Columns = dict[TP, Inbound]

# The broker gathers for so long before it answers, and what one answer brings to a partition becomes one transaction,
# which costs worker and broker several milliseconds whatever its size. With 8 partitions 50 ms make 160 transactions a
# second; at 30 ms two small cores are full and everything waits longer than it does for this. Whatever else is asked on
# the connection waits for the answer, too: Faust's fixed 1.5 s made a start take 9 s.
FETCH_WAIT_MS = 50
FETCH_BYTES_MIN = 256 * 1024
FETCH_RECENT_S = 5.0


class FetchedEnds(NamedTuple):
    """The ends of a partition, as the broker's answer to a fetch has them. They differ while a transaction is open."""

    last_stable_offset: int
    high_watermark: int
    asked_at_s: float
    """Monotonic time when the request left. What the broker took since then may be missing in the answer."""


class Positions(Protocol):
    """Where a consumer must go on after a rebalance."""

    async def seeks(self, assignment: Collection[TP]) -> Mapping[TP, int]:
        """The next offset to read of each assigned partition that is to be read."""
        ...


class BatchSchema(faust.Schema):
    """Hands the batch to the agent as it is: there is nothing left to decode."""

    def loads_key(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> None:
        """Batches have no key."""

    def loads_value(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        """The `Inbound` itself."""
        return message.value


def batch_topic(app: faust.App, *names: str) -> Any:
    """A Faust topic (of one or several names) whose stream yields `Inbound` values. Needs `use_batches` on the app."""
    schema = BatchSchema(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    return app.topic(*names, schema=schema, acks=False)


def use_batches(
    app: faust.App,
    positions: Positions | None = None,
    records_max: int = 8_192,
    consumer: type[BatchConsumer] | None = None,
) -> None:
    """Makes the app's consumer a `BatchConsumer`. Call it before the app starts.

    `records_max` bounds a batch, up to the end of the Kafka batch that passes it. Without `positions` each partition
    goes on from the group's committed offset.
    """
    patch_header_decoding()
    bound = {"positions": positions, "batch_records_max": records_max}
    app.transport.Consumer = type("BoundBatchConsumer", (consumer or BatchConsumer,), bound)


async def commit_offsets(app: faust.App, offsets: Mapping[TP, int]) -> bool:
    """Writes group offsets (the next offset to read). False when the broker or a rebalance was in the way.

    Not being able to is no error: the next call, or the next owner after a replay, makes up for it.
    """
    consumer = cast(BatchConsumer, app.consumer)
    owned = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
    return await consumer.thread.try_commit(owned)


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that talks to the brokers: reads committed records, and unpacks them into columns."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.paused_partitions: frozenset[TP] = frozenset()
        self.asked_at_s: dict[TopicPartition, float] = {}
        """When the request left whose answer the fetcher knows last, by partition."""
        self.records_max: int = self.consumer.batch_records_max

    def _create_worker_consumer(self, transport: Any) -> Any:
        return configure_fetch(super()._create_worker_consumer(transport))

    def _create_client_consumer(self, transport: Any) -> Any:
        return configure_fetch(super()._create_client_consumer(transport))

    async def on_thread_stop(self) -> None:
        """Stop the consumer.

        With a broker away, aiokafka lets what it met on the way out; Faust would wait a minute for a thread
        that this has ended.
        """
        with contextlib.suppress(asyncio.CancelledError, KafkaError):
            await super().on_thread_stop()

    def _stopped_set(self) -> None:
        """Tell the thread that it is to end: one that has crashed has ended, and its loop is closed."""
        with contextlib.suppress(RuntimeError):
            super()._stopped_set()

    async def _fetch_records(
        self, consumer: Any, active_partitions: set[TP], timeout: float | None = None, max_records: int | None = None
    ) -> Columns:
        if not self.consumer.flow_active:
            return {}
        fetcher = consumer._fetcher
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError()
        time_requests(fetcher, self.asked_at_s)
        with fetcher._subscriptions.fetch_context():
            return await self._fetched_columns(fetcher, active_partitions, timeout or 0.0)

    async def _fetched_columns(self, fetcher: Any, active: Collection[TP], timeout: float) -> Columns:
        """aiokafka's `Fetcher.fetched_records`, for columns. Waits up to `timeout` seconds for something to arrive."""
        deadline = time.monotonic() + timeout
        while True:
            if fetcher._subscriptions.reassignment_in_progress:
                await fetcher._subscriptions.wait_for_assignment()
            drained: Columns = {}
            for tp in list(fetcher._records):
                if (active and tp not in active) or tp in self.paused_partitions:
                    if not fetcher._subscriptions.is_assigned(tp):
                        del fetcher._records[tp]
                    continue
                fetched = fetcher._records[tp]
                if type(fetched) is FetchResult:
                    inbound = take_columns(fetched, TP(tp.topic, tp.partition), self.records_max)
                    if not fetched.has_more():
                        del fetcher._records[tp]
                        fetcher._notify(fetcher._wait_consume_future)
                    if inbound is not None:
                        drained[TP(tp.topic, tp.partition)] = inbound
                elif drained:
                    return drained
                else:
                    del fetcher._records[tp]
                    fetcher._notify(fetcher._wait_consume_future)
                    fetched.check_raise()
            remaining = deadline - time.monotonic()
            if drained or remaining <= 0:
                return drained
            waiter = fetcher._create_fetch_waiter()
            done, _ = await asyncio.wait([waiter], timeout=remaining)
            if not done or fetcher._closed:
                waiter.cancel()
                return {}
            waiter.result()

    def wake(self) -> None:
        """Look again at what was fetched; called from another thread when partitions are no longer held."""
        consumer = self._consumer
        if consumer is not None and not self.thread_loop.is_closed():
            self.thread_loop.call_soon_threadsafe(_notify_waiters, consumer._fetcher)

    async def try_commit(self, offsets: Mapping[Any, OffsetAndMetadata]) -> bool:
        """Commit group offsets for what is still assigned; False when that could not be done now."""
        return bool(await self.call_thread(self._try_commit, offsets))

    async def _try_commit(self, offsets: Mapping[Any, OffsetAndMetadata]) -> bool:
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        owned = {tp: offset for tp, offset in offsets.items() if tp in assigned}
        try:
            if owned:
                await consumer.commit(owned)
        except KafkaError as error:
            self.log.info("Group offsets not written now: %r", error)
            return False
        return len(owned) == len(offsets)

    async def seek_assigned(self, offsets: Mapping[TP, int]) -> None:
        """Fetch on from these offsets, for those partitions that are still assigned."""
        await self.call_thread(self._seek_assigned, offsets)

    async def _seek_assigned(self, offsets: Mapping[TP, int]) -> None:
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        for tp, offset in offsets.items():
            if tp in assigned:
                consumer.seek(TopicPartition(*tp), offset)
                # Faust drops what is before its own read offset.
                self.consumer._read_offset[tp] = offset or None

    async def pause_and_discard(self, tps: Collection[TP]) -> None:
        """Fetch nothing of these assigned partitions, and drop what was fetched of them."""
        await self.call_thread(self._pause_and_discard, tps)

    async def _pause_and_discard(self, tps: Collection[TP]) -> None:
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        for tp in tps:
            partition = TopicPartition(*tp)
            if partition in assigned:
                consumer.pause(partition)
                consumer._fetcher._records.pop(partition, None)

    async def log_ends(self, *partitions: TP) -> Mapping[TP, int]:
        """The offset after the last record of each partition, whatever the tables say."""
        ends: Mapping[TP, int] = await self.call_thread(self._ensure_consumer().end_offsets, partitions)
        return ends

    def caught_up_at_s(self, tp: TP, offset: int) -> float | None:
        """The monotonic time at which the partition had nothing at or beyond `offset`; None when it had or is unknown.

        The log's end is the high watermark. The last stable offset is before it while a transaction is open, and
        what waits behind it came before that time.
        """
        ends = self.fetched_ends(tp)
        return None if ends is None or ends.high_watermark > offset else ends.asked_at_s

    def fetched_ends(self, tp: TP) -> FetchedEnds | None:
        """What the last fetch of the partition said of its end; None when that was long ago, or there was none."""
        assignment = self._ensure_consumer()._fetcher._subscriptions.subscription.assignment
        if assignment is None or TopicPartition(*tp) not in assignment.tps:
            return None
        asked_at_s = self.asked_at_s.get(TopicPartition(*tp))  # before the ends: they may be newer than it, not older
        fetched = assignment.state_value(TopicPartition(*tp))
        if fetched.lso is None or asked_at_s is None or time.monotonic() - asked_at_s >= FETCH_RECENT_S:
            return None
        return FetchedEnds(fetched.lso, fetched.highwater, asked_at_s)

    def member(self) -> tuple[str, int]:
        """This process's id and generation in the consumer group; they change in steps of one while it stays in."""
        coordinator = self._ensure_consumer()._coordinator
        return coordinator.member_id, coordinator.generation


class BatchConsumer(driver.Consumer):
    """Faust's aiokafka consumer with one message per partition and fetch."""

    positions: Positions | None = None
    batch_records_max: int = 8_192

    def _new_consumer_thread(self) -> Any:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def thread(self) -> BatchConsumerThread:
        """The thread with the connection."""
        return cast(BatchConsumerThread, self._thread)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """One message for each partition that has something; see the rules of this file."""
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if records is None or self.should_stop:
            return
        for tp, inbound in records.items():
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if active is None or tp in active or tp in self._buffered_partitions:
                yield tp, _message(tp, inbound, generation)

    def pause(self, tps: Collection[TP]) -> None:
        """Fetch no more from these partitions for now (back-pressure)."""
        self.thread.paused_partitions = self.thread.paused_partitions | frozenset(tps)

    def resume(self, tps: Collection[TP]) -> None:
        """Go on with these partitions."""
        if self.thread.paused_partitions.intersection(tps):
            self.thread.paused_partitions = self.thread.paused_partitions - frozenset(tps)
            self.thread.wake()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """After a rebalance: go where `positions` say; without them, to the group's offsets."""
        if self.positions is None:
            return dict(await super().seek_to_committed())
        sought = dict(await self.positions.seeks(self.assignment()))
        if sought:
            await self.thread.seek_wait(sought)
        return sought

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's suspicion of partitions that nothing is fetched of, eight lines every few seconds.

        A changelog's are paused on purpose, and its commits decide nothing here; `/livez` tells real standstill.
        """

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Faust's own commits are not wanted: who needs group offsets uses `commit_offsets`."""
        return True


def time_requests(fetcher: Any, asked_at_s: dict[TopicPartition, float]) -> None:
    """Let an aiokafka `Fetcher` note in `asked_at_s` when it sent the request of each partition's last answer.

    The fetcher itself keeps the time of the answer. A record that the broker took while the answer was on its way is
    older than that, and is not in it.
    """
    if "_proc_fetch_request" in vars(fetcher):
        return
    send = fetcher._proc_fetch_request

    async def timed(assignment: Any, node_id: Any, request: Any) -> Any:
        sent_at_s = time.monotonic()
        states = {
            tp: state
            for topic, partitions in request.topics
            for partition, *_ in partitions
            if (state := assignment.state_value(tp := TopicPartition(topic, partition))) is not None
        }
        before = {tp: state.timestamp for tp, state in states.items()}
        found = await send(assignment, node_id, request)
        # An answer of the same millisecond as the one before passes for none: then the older time stands, on the safe
        # side.
        asked_at_s.update({tp: sent_at_s for tp, state in states.items() if state.timestamp != before[tp]})
        return found

    fetcher._proc_fetch_request = timed


def take_columns(fetched: Any, tp: TP, records_max: int) -> Inbound | None:
    """Takes whole Kafka batches off an aiokafka `FetchResult` until `records_max` is reached; None when it is stale.

    The same walk as aiokafka's `PartitionRecords._unpack_records`: aborted transactions and control batches are left
    out, and the position moves past them. What is not taken stays for the next call.
    """
    if not fetched.check_assignment(tp) or not fetched.has_more():
        return None
    parts = fetched._partition_records
    inbound = Inbound(tp.topic, tp.partition, parts.next_fetch_offset, parts.next_fetch_offset)
    headers: list[Headers] = []
    any_headers = False
    memory = parts._records
    while memory.has_next() and len(inbound.offsets) < records_max:
        batch = memory.next_batch()
        if parts._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {tp}")
        if parts._isolation_level == READ_COMMITTED and batch.producer_id is not None:
            parts._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch:
                if parts._contains_abort_marker(batch):
                    parts._aborted_producers.discard(batch.producer_id)
            elif batch.is_transactional and batch.producer_id in parts._aborted_producers:
                parts.next_fetch_offset = batch.next_offset
                continue
        if not batch.is_control_batch:
            records = memory.records_of(batch)
            if records and records[0].offset < parts.next_fetch_offset:
                records = [record for record in records if record.offset >= parts.next_fetch_offset]
            inbound.offsets += [record.offset for record in records]
            inbound.timestamps_ms += [record.timestamp for record in records]
            inbound.keys += [record.key for record in records]
            inbound.values += [record.value for record in records]
            batch_headers = [record.headers for record in records]
            any_headers = any_headers or any(batch_headers)
            headers += batch_headers
        parts.next_fetch_offset = batch.next_offset
    inbound.next_offset = parts.next_fetch_offset
    if any_headers:
        inbound.headers = headers
    fetched._update_position()
    if not memory.has_next():
        fetched._partition_records = None
    return inbound


def _message(tp: TP, inbound: Inbound, generation: int) -> Any:
    timestamp = inbound.timestamps_ms[-1] / 1000.0 if inbound.timestamps_ms else 0.0
    last = inbound.next_offset - 1
    # Without its generation a stream drops the message without a word.
    return ConsumerMessage(
        tp.topic, tp.partition, last, timestamp, 0, [], None, inbound, None, 0, 0, tp, generation_id=generation
    )


def configure_fetch(consumer: Any) -> Any:
    """The consumer, set to committed records and to this module's fetch sizes."""
    consumer._isolation_level = "read_committed"
    consumer._fetch_max_wait_ms = FETCH_WAIT_MS
    consumer._fetch_min_bytes = FETCH_BYTES_MIN
    return consumer


def _notify_waiters(fetcher: Any) -> None:
    for waiter in list(fetcher._fetch_waiters):
        fetcher._notify(waiter)
