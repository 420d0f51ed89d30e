"""The pump of one owned partition: takes everything that is queued, decides, commits, and only then takes more.

The rules of this file:
1. Group commit: one transaction per turn, with all input topics of the partition in it. While it is being committed
   (in a thread), more gathers in the intake and other partitions decide.
2. `step` changes the state in place. So when a commit does not go through, the state is thrown away and the partition
   is restored from Kafka, which also tells whether the transaction had gone through after all.
3. The positions, the seen ids and the account states of this process follow the commit, never lead it.
4. Nothing is caught that is not understood: any other exception stops the worker, with the batch uncommitted.
5. A timer waits until every input has been read up to its time. What waits behind an open transaction counts as not
   read, so a record that came before the timer's time is decided before the timer. An answer of the broker says what
   there was when it was asked; a timer of a later time waits for the next answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from schemas.codec import RegistryUnavailableError
from streams.background import retry_until_available
from streams.engine.accounts import frame_account
from streams.engine.failures import ContractError, FencedError, PartitionLostError, StateLostError
from streams.engine.internal_topics import changelog_topic, seen_topic
from streams.engine.limits import DeadLetterLimit
from streams.engine.ports import EngineMetrics, Output, Processor, UnavailableError
from streams.engine.positions import POSITION_KEY, OutputEnd, PositionRecord, record_digest
from streams.engine.restore import Restored
from streams.engine.transaction import Writes
from streams.engine.trim import trim
from streams.errors import KafkaUnavailableError
from streams.kafka.inbound import Inbound, start_at
from streams.kafka.intake import Intake
from streams.seals import Seals, position_owner
from streams.settings import Settings

log = logging.getLogger(__name__)

TICK_IDLE_S = 1.0
# How soon a timer that waits for an input to be read is looked at again.
TICK_OVERDUE_S = 0.1
# A batch from here on and what it causes take 20 to 40 MiB until they are committed: one is committed while another is
# decided, which keeps a worker's core busy; more would cost memory.
LARGE_RECORDS_MIN = 1_000
LARGE_BATCHES_MAX = 2
# Each topic in a transaction costs the broker a request and a marker: the ids of small batches stay in the position
# record, which is written anyway, until there are about a thousand of them (24 bytes each).
PENDING_BYTES_MAX = 24 * 1024
TICK_ORGS_MAX = 1_000
UNAVAILABLE_PAUSE_S = 0.5
RESTORE_PAUSE_S = 1.0
RESEEK_PAUSE_S = 1.0
# A worker that is fenced five times within a minute fights with another that has the same transactional ids.
FENCES_PER_MINUTE_MAX = 5

UNAVAILABLE = (UnavailableError, RegistryUnavailableError, KafkaUnavailableError)


class Fetching(Protocol):
    """What a pump asks of the consumer, for its own partition."""

    def pause(self, partition: int) -> None:
        """Fetch no more of this partition for now."""
        ...

    def resume(self, partition: int) -> None:
        """Go on fetching it."""
        ...

    def pause_topic(self, partition: int, topic: str) -> None:
        """Fetch no more of this partition of one topic for now."""
        ...

    def resume_topic(self, partition: int, topic: str) -> None:
        """Go on fetching it."""
        ...

    async def seek(self, partition: int, next_offsets: Mapping[str, int]) -> None:
        """Fetch on from these offsets; raises `RetentionGapError` when one is gone."""
        ...

    def caught_up_us(self, partition: int, next_offsets: Mapping[str, int]) -> int | None:
        """How long ago the inputs had nothing at or beyond these offsets, not even behind an open transaction.

        Microseconds, rounded up: what the broker has taken since then is not known. None: there is something, or
        the last look is too long ago.
        """
        ...


@dataclass(frozen=True, slots=True)
class PumpSetup:
    """What all pumps of a worker share. `now` is the broker's clock in microseconds."""

    settings: Settings
    processor: Processor[Any, Any]
    metrics: EngineMetrics
    executor: Executor
    """Commits, one thread for each partition."""
    trimming: Executor
    """Deletes forgotten ids, one partition after the other: that must never keep a commit waiting."""
    large_batches: asyncio.Semaphore
    fetching: Fetching
    dead_letters: DeadLetterLimit
    restore: Callable[[int, Callable[[], bool]], Restored]
    now: Callable[[], int]
    stop_worker: Callable[[BaseException], None]


class Pump:
    """Serves one partition from its restoration until it is closed."""

    def __init__(self, setup: PumpSetup, restored: Restored, next_offsets: Mapping[str, int]) -> None:
        """`next_offsets`: for every input topic, where the state says (or a first start begins) to read on."""
        self._setup = setup
        self.number = restored.partition.number
        self._changelog = changelog_topic(setup.settings.app_id)
        self._seals = Seals.of(setup.settings)
        self._wake = asyncio.Event()
        self._closing = False
        self._backpressured = False
        self._paused: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._busy = asyncio.Lock()
        self._reseeks: dict[str, float] = {}
        self._reseeking: set[asyncio.Task[None]] = set()
        self._fences: list[float] = []
        self._commit_began_s = time.monotonic()
        self._ticked = False
        self._idle_since_s = time.monotonic()
        self.progress_at_s = time.monotonic()
        self._install(restored, next_offsets)

    def _install(self, restored: Restored, next_offsets: Mapping[str, int]) -> None:
        self._partition = restored.partition
        self._accounts = restored.accounts
        self._seen = restored.seen
        self._producer = restored.producer
        position = restored.position
        positions = {**next_offsets, **position.next_offsets}
        self._position = msgspec.structs.replace(
            position,
            next_offsets=positions,
            starts={**next_offsets, **position.starts},
            accounts_checksum=restored.accounts_checksum,
        )
        self._output_ends = dict(restored.output_ends)
        stale = restored.stale_seals
        # Each part comes with the position record: an empty one, where that alone is to be sealed again.
        self._stale = [stale[start : start + TICK_ORGS_MAX] for start in range(0, len(stale), TICK_ORGS_MAX)]
        if restored.stale_position and not self._stale:
            self._stale = [()]
        self._arrived_at: dict[str, int] = {}
        self._forgotten: dict[str, int] = {}
        self._state = self._setup.processor.load(self._partition)
        settings = self._setup.settings
        self.intake = Intake(positions, _topic_of, settings.queue_records_max, settings.queue_bytes_max)

    @property
    def next_offsets(self) -> dict[str, int]:
        """Per input topic, the offset to read next, as committed."""
        return dict(self._position.next_offsets)

    @property
    def waiting(self) -> bool:
        """Whether there is work that is not committed yet."""
        return bool(self.intake) or self._busy.locked()

    @property
    def paused(self) -> list[str]:
        """The input topics that are read no further for now: dead letters flooded in by them."""
        return sorted(self._paused)

    def start(self) -> None:
        """Begin to serve."""
        self._task = asyncio.create_task(self._run(), name=f"pump-{self.number}")
        self._task.add_done_callback(self._ended)

    async def close(self, timeout_s: float) -> None:
        """Finish the transaction that is open, take no more, and stop. After `timeout_s` it is left to be fenced."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            done, _ = await asyncio.wait([self._task], timeout=timeout_s)
            if not done:
                self._task.cancel()
                await asyncio.wait([self._task])
        self._producer.close()
        for topic in self._paused:  # the next owner of the partition decides by itself
            self._setup.metrics.paused(topic, self.number, False)

    async def drain(self, timeout_s: float) -> None:
        """Forget what is queued and wait for the open transaction, so that another owner need not fence it."""
        self.discard_queued()
        try:
            async with asyncio.timeout(timeout_s), self._busy:
                self.discard_queued()
        except TimeoutError:
            log.warning("Partition %s: its transaction is still open", self.number)

    def discard_queued(self) -> None:
        """Drop what is queued: after a rebalance it is fetched again from the committed positions."""
        self.intake.restart(self._position.next_offsets)
        self._apply_backpressure()

    async def book(self, decide: Callable[[Any], Output]) -> None:
        """Commit what `decide` makes of the state, instead of `start`: see `maintenance`."""
        await self._commit(decide(self._state), {})

    def offer(self, inbound: Inbound) -> None:
        """Queue what was fetched; seeks back when something before it is missing."""
        if not self.waiting:
            self.progress_at_s = time.monotonic()
        if inbound.topic in self._paused:  # fetched before it was paused, or resumed by a rebalance
            self._setup.fetching.pause_topic(self.number, inbound.topic)
            return
        if not self.intake.offer(inbound):
            self._reseek(inbound.topic, inbound.first_offset)
            return
        self._apply_backpressure()
        self._wake.set()

    def _apply_backpressure(self) -> None:
        if not self._backpressured and self.intake.is_full:
            self._backpressured = True
            self._setup.fetching.pause(self.number)
        elif self._backpressured and self.intake.has_room:
            self._backpressured = False
            self._setup.fetching.resume(self.number)
            for topic in self._paused:
                self._setup.fetching.pause_topic(self.number, topic)

    def _pause_topic(self, topic: str, dead_letters: int, pause_s: float) -> None:
        """Read a topic no further for a while; what is queued of it is fetched again afterwards."""
        self._paused[topic] = time.monotonic() + pause_s
        self._setup.fetching.pause_topic(self.number, topic)
        self.intake.drop(topic, self._position.next_offsets[topic])
        self._setup.metrics.paused(topic, self.number, True)
        asyncio.get_running_loop().call_later(pause_s, self._wake.set)
        log.warning(
            "Partition %s of %s is paused for %.0f s: %s dead letters came by the topic within a minute, the limit is "
            "%s; see `credits dead-letters list`, and stop the producer that writes them",
            self.number,
            topic,
            pause_s,
            dead_letters,
            self._setup.settings.dead_letters_per_minute_max,
        )

    def _resume_topics(self, now_s: float) -> None:
        """Go on with the topics whose pause has passed, from their committed positions."""
        for topic in [topic for topic, until_s in self._paused.items() if until_s <= now_s]:
            del self._paused[topic]
            self._setup.metrics.paused(topic, self.number, False)
            log.info("Partition %s of %s is read again", self.number, topic)
            if not self._backpressured:
                self._setup.fetching.resume_topic(self.number, topic)
            self._seek_back(topic)

    def _reseek(self, topic: str, found: int) -> None:
        now_s = time.monotonic()
        if now_s - self._reseeks.get(topic, -RESEEK_PAUSE_S) < RESEEK_PAUSE_S:
            return
        self._reseeks[topic] = now_s
        wanted = self.intake.next_offsets[topic]
        log.info("Partition %s of %s: expected offset %s, got %s; seeking back", self.number, topic, wanted, found)
        self._seek_back(topic)

    def _seek_back(self, topic: str) -> None:
        task = asyncio.create_task(self._setup.fetching.seek(self.number, {topic: self.intake.next_offsets[topic]}))
        self._reseeking.add(task)
        task.add_done_callback(self._reseek_done)

    def _reseek_done(self, task: asyncio.Task[None]) -> None:
        self._reseeking.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._closing:
            self._setup.stop_worker(error)

    async def _run(self) -> None:
        while not self._closing:
            try:
                await self._turn()
            except PartitionLostError as lost:
                await self._recover(lost)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._setup.stop_worker(error)

    async def _turn(self) -> None:
        if self._paused:
            self._resume_topics(time.monotonic())
        clock_at = self._position.clock_at
        due_at = self._accounts.next_due()
        read_up_to = clock_at if due_at is None or due_at > clock_at else self._read_up_to()
        if self._stale:
            await self._reseal()
        elif due_at is not None and due_at <= read_up_to and not (self._ticked and self.intake):
            self._ticked = True
            await self._tick(read_up_to)
        elif self.intake:
            # In turns, so that the first of a month, when every account is due, does not keep events waiting.
            self._ticked = False
            async with self._busy:
                await self._decide(self.intake.take(self._setup.settings.batch_records_max))
        elif due_at is not None and due_at <= (known_at := self._idle_at()):
            await self._tick(max(clock_at, known_at))
        else:
            self._wake.clear()
            if not self.intake and not self._closing:
                overdue = due_at is not None and due_at <= clock_at
                await self._sleep(None if due_at is None else TICK_OVERDUE_S if overdue else TICK_IDLE_S)

    def _idle_at(self) -> int:
        """No record of any input that is still to come arrived before this broker's time; 0: it is not known."""
        if time.monotonic() - self._idle_since_s < TICK_IDLE_S:
            return 0
        ago_us = self._setup.fetching.caught_up_us(self.number, self._position.next_offsets)
        return 0 if ago_us is None else max(0, self._setup.now() - ago_us)

    async def _sleep(self, timeout_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout_s)

    async def _decide(self, batch: Sequence[Inbound]) -> None:
        batch = [fresh for inbound in batch if (fresh := self._undecided(inbound)) is not None]
        positions = {inbound.topic: inbound.next_offset for inbound in batch}
        batch = [inbound for inbound in batch if len(inbound)]
        records = sum(len(inbound) for inbound in batch)
        if not records:
            # Only markers and compacted offsets: remembered with the next transaction that has something to say.
            self._position.next_offsets.update(positions)
            return
        async with self._setup.large_batches if records >= LARGE_RECORDS_MIN else contextlib.nullcontext():
            await self._decide_and_commit(batch, records, positions)

    async def _decide_and_commit(self, batch: Sequence[Inbound], records: int, positions: Mapping[str, int]) -> None:
        started_s = time.perf_counter()
        gathered = await self._gather(batch)
        gathered_s = time.perf_counter()
        output = self._setup.processor.step(self._state, gathered, batch)
        decided_s = time.perf_counter()
        _check_outcomes(batch, output)
        for inbound in batch:
            self._arrived_at[inbound.topic] = inbound.timestamps_ms[-1] * 1_000
        del gathered, batch
        await self._commit(output, positions)
        committed_s = time.perf_counter()
        metrics = self._setup.metrics
        metrics.batch(self.number, records, gathered_s - started_s, decided_s - gathered_s, committed_s - decided_s)
        for topic, ends in output.outcomes.items():
            for outcome, ended in ends.items():
                metrics.outcome(topic, outcome, ended)
        for topic, notices in output.notices.items():
            for notice, noticed in notices.items():
                metrics.noticed(topic, self.number, notice, noticed)
        metrics.queued(self.number, self.intake.records)
        self._apply_backpressure()

    def _undecided(self, inbound: Inbound) -> Inbound | None:
        """The part of a batch beyond the position.

        A rebalance may empty the queue while a transaction is open for longer than the rebalance waits. Then the
        records of that transaction are fetched and queued a second time.
        """
        position = self._position.next_offsets[inbound.topic]
        if inbound.next_offset <= position:
            return None
        if inbound.first_offset > position:
            raise ContractError(f"{inbound.topic} goes on at {inbound.first_offset}, the position is {position}")
        return inbound if inbound.first_offset == position else start_at(inbound, position)

    async def _gather(self, batch: Sequence[Inbound]) -> Any:
        try:
            return await retry_until_available(
                lambda: self._setup.processor.gather(self._state, batch),
                UNAVAILABLE,
                f"Partition {self.number}",
                UNAVAILABLE_PAUSE_S,
                self._is_open,
            )
        except UNAVAILABLE as missing:
            raise PartitionLostError("closed while waiting") from missing

    async def _tick(self, at: int) -> None:
        async with self._busy:
            orgs = self._accounts.take_due(at, TICK_ORGS_MAX)
            output = self._setup.processor.tick(self._state, at, orgs)
            if output is not None:
                if output.outcomes:
                    raise ContractError("a tick has no input records")
                await self._commit(output, {})

    async def _reseal(self) -> None:
        """Write again what has an older key's checksum, or none, so that the old key can be dropped.

        Some accounts at a time, the position record with each.
        """
        async with self._busy:
            orgs = self._stale.pop(0)
            states = {org: state for org in orgs if (state := self._accounts.get(org)) is not None}
            accounts = {org: (self._accounts.due_at(org), state) for org, state in states.items()}
            await self._commit(Output(self._position.clock_at, accounts=accounts), {})

    async def _commit(self, output: Output, positions: Mapping[str, int]) -> None:
        """Make one output durable, then believe it.

        1. The transaction: records, seen ids, account states, positions. 2. Account states and due times in memory.
        3. Clock, counters, positions in memory. 4. The processor's `committed`. A crash before the end of 1 costs a
        repeat of the batch from the old positions; after it, nothing: 2 to 4 are read back from 1.
        """
        dead_letters = {topic: ends.get("dead_letters", 0) for topic, ends in output.outcomes.items()}
        self._setup.dead_letters.check(sum(dead_letters.values()), time.monotonic())
        ledger_topic = self._setup.processor.ledger_topic
        entries = sum(len(messages) for topic, messages in output.records if topic == ledger_topic)
        writes, framed, position = self._writes(output, positions)
        self._commit_began_s = time.monotonic()
        loop = asyncio.get_running_loop()
        self._producer.write(writes)
        await loop.run_in_executor(self._setup.executor, self._producer.commit)
        floods = self._setup.dead_letters.count(self.number, dead_letters, time.monotonic())
        self._accounts.apply(framed)
        self._position = position
        self._output_ends |= {
            topic: end.offset + 2  # the last record and the marker
            for topic, end in (position.outputs or {}).items()
            if end.commit == position.commit
        }
        partition = self._partition
        partition.clock_at = position.clock_at
        # A lower bound is enough for a hint, and it is exact: the entries and the commit marker.
        partition.ledger_end += entries + (1 if entries else 0)
        self._forget_ids()
        self._idle_since_s = self.progress_at_s = time.monotonic()
        self._setup.processor.committed(self._state, output)
        for topic, (within, pause_s) in floods.items():
            self._pause_topic(topic, within, pause_s)

    def _forget_ids(self) -> None:
        """Forget ids whose repeat would be too old, whatever is still to come.

        The clock is the latest time of all inputs; one of them may be days behind it, with a repeat in its backlog
        that is not too old by its own time. So only what every input has passed is forgotten. What was forgotten
        before this commit, the committed state no longer counts: that is deleted from Kafka.
        """
        for name, oldest in self._forgotten.items():
            self._setup.trimming.submit(trim, self._setup.settings, name, self.number, oldest)
        self._forgotten = {}
        passed_at = self._read_up_to()
        for name, memory in self._seen.items():
            if memory.expire(passed_at):
                self._forgotten[name] = memory.oldest_bucket(passed_at)

    def _read_up_to(self) -> int:
        """No record of any input that is still to come arrived before this; microseconds."""
        return min(self._passed_at(topic, offset) for topic, offset in self._position.next_offsets.items())

    def _passed_at(self, topic: str, next_offset: int) -> int:
        """No record of the topic that is still to come arrived before this; microseconds."""
        clock_at = self._position.clock_at
        ago_us = self._setup.fetching.caught_up_us(self.number, {topic: next_offset})
        now = self._setup.now()
        if ago_us is not None and not now:  # the broker's time is not known: that of the records is all there is
            return clock_at
        known_at = 0 if ago_us is None else now - ago_us
        return min(clock_at, max(known_at, self._arrived_at.get(topic, 0)))

    def _writes(self, output: Output, positions: Mapping[str, int]) -> tuple[Writes, dict[str, bytes], PositionRecord]:
        app_id = self._setup.settings.app_id
        before = self._position
        commit = before.commit + 1
        batches = list(output.records)
        pending = {}
        for name, memory in self._seen.items():
            blobs = [*self._position.pending.get(name, ()), *(each.encode() for each in memory.take_pending(commit))]
            if sum(map(len, blobs)) >= PENDING_BYTES_MAX:
                owner, seal = position_owner(self.number), self._seals.seal
                batches.append((seen_topic(app_id, name), [{"value": seal("seen", owner, blob)} for blob in blobs]))
            elif blobs:
                pending[name] = blobs
        framed = {org: frame_account(due_at, state, commit) for org, (due_at, state) in output.accounts.items()}
        position = msgspec.structs.replace(
            before.advanced(positions, output.clock_at, output.outcomes, self._ends_after(output, commit)),
            seen={name: memory.counts for name, memory in self._seen.items()},
            pending=pending,
            accounts=self._accounts.count_with(output.accounts),
            accounts_checksum=self._accounts.checksum_with(framed, commit, before.accounts_checksum or 0, before.seed),
        )
        changed = [{"key": org.encode(), "value": value} for org, value in framed.items()]
        if self._seals.writes:
            changed = [{**each, "value": self._seals.seal("account", each["key"], each["value"])} for each in changed]
        encoded = self._seals.seal("position", position_owner(self.number), position.encode())
        changed.append({"key": POSITION_KEY, "value": encoded})
        batches.append((self._changelog, changed))
        # Where time is the log's, a transfer's leg arrives when it left; else when the broker takes it.
        keyed_at_ms = output.clock_at // 1_000 if self._setup.settings.clock == "log" else 0
        return Writes(batches, output.keyed, keyed_at_ms), framed, position

    def _ends_after(self, output: Output, commit: int) -> dict[str, OutputEnd]:
        """The last record of each topic that an output writes to in this partition."""
        ends: dict[str, OutputEnd] = {}
        next_offsets: dict[str, int] = {}
        for topic, messages in output.records:
            if messages:
                next_offsets[topic] = next_offsets.get(topic, self._output_ends.get(topic, 0)) + len(messages)
                last = messages[-1]
                digest = record_digest(last.get("key"), last["value"])
                ends[topic] = OutputEnd(next_offsets[topic] - 1, digest, commit, last["value"] is None)
        for record in output.keyed:
            if record.partition == self.number:  # dead letters and kept prices; a leg's partition has other writers
                topic = record.topic
                next_offsets[topic] = next_offsets.get(topic, self._output_ends.get(topic, 0)) + 1
                digest = record_digest(record.key, record.value)
                ends[topic] = OutputEnd(next_offsets[topic] - 1, digest, commit, record.value is None, shared=True)
        return ends

    async def _recover(self, lost: PartitionLostError) -> None:
        """Throw the state away and restore the partition, as often as it takes, unless it is taken from us."""
        if self._closing:
            return
        log.warning("Partition %s is restored: %s", self.number, lost)
        self._producer.close()
        session_s = self._setup.settings.session_timeout_ms / 1000
        if isinstance(lost, FencedError):
            self._count_fence()
        if isinstance(lost, FencedError) or time.monotonic() - self._commit_began_s >= session_s:
            # Most likely the group has given the partition to another worker: leave time for the news.
            until_s = time.monotonic() + session_s
            while time.monotonic() < until_s and not self._closing:
                await asyncio.sleep(0.1)
        if self._closing:
            return
        try:
            restored = await retry_until_available(
                lambda: asyncio.to_thread(self._setup.restore, self.number, self._is_open),
                KafkaUnavailableError,
                f"Partition {self.number}",
                RESTORE_PAUSE_S,
                self._is_open,
            )
        except KafkaUnavailableError:
            return
        if self._closing:
            restored.producer.close()
            return
        self._install(restored, self._position.starts)
        self._apply_backpressure()
        await self._setup.fetching.seek(self.number, self.intake.next_offsets)

    def _is_open(self) -> bool:
        return not self._closing

    def _count_fence(self) -> None:
        now_s = time.monotonic()
        self._fences = [each for each in self._fences if each > now_s - 60.0] + [now_s]
        if len(self._fences) > FENCES_PER_MINUTE_MAX:
            raise StateLostError(
                f"another process uses the transactional id {self._setup.settings.app_id}-{self.number}",
                "give each installation its own CREDITS_NAMESPACE",
            )


def _topic_of(inbound: Inbound) -> str:
    return inbound.topic


def _check_outcomes(batch: Sequence[Inbound], output: Output) -> None:
    """Every record of the batch has exactly one end; raises `ContractError` before anything is committed."""
    given: dict[str, int] = {}
    for inbound in batch:
        given[inbound.topic] = given.get(inbound.topic, 0) + len(inbound)
    ended = {topic: sum(ends.values()) for topic, ends in output.outcomes.items()}
    if {topic: n for topic, n in ended.items() if n} != given:
        raise ContractError(f"{given} records came in, and {ended} ended")
