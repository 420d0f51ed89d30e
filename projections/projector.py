"""The Faust app of the projection: committed batches in, `Sink.apply` about once a second, positions from ClickHouse.

Rules of this file:
1. Where to read on is what ClickHouse says (`positions`), after every rebalance. Group offsets are written afterwards,
   for lag displays, and decide nothing.
2. What waits to be written is bounded; when it is too much, fetching pauses and the backlog stays in Kafka.
3. ClickHouse or the registry away: the same batches are retried, with pauses, until they succeed; nothing is dropped.
   Anything else that goes wrong crashes the app, before a position is written.
4. After a rebalance everything that waits is forgotten; it is read again from the positions.
5. The ledger's entries must be there from the position on: where retention took them, or the topic was recreated, the
   app stops and names the gap. The other topics may lose old records to their retention.
6. What people read lags by a second or two, and the positions say as of when it is true (product rule 34).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import faust
from clickhouse_connect.driver.client import Client
from faust.types import TP
from mode import Service

from projections.clickhouse import ClickHouseUnavailableError
from projections.sink import PROJECTED, LedgerGapError, Sink
from schemas.codec import RegistryUnavailableError
from schemas.topics import Topics
from streams.kafka.faust_app import batch_agent, faust_app
from streams.kafka.inbound import Inbound
from streams.kafka.intake import Intake
from streams.kafka.registry import connect_registry
from streams.kafka.transport import BatchConsumer, commit_offsets, use_batches
from streams.seals import Seals

if TYPE_CHECKING:
    from streams.settings import Settings

FETCH_BYTES_MAX = 4 * 1024 * 1024
GROUP_OFFSETS_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How often and how much is written at once."""

    interval_s: float = 1.0
    """ClickHouse likes about one insert a second and table: each makes a part on disk that must be merged."""
    rows_max: int = 65_536
    """Rows in one write. A row of the ledger is 1 to 2 kB with its columns and copies: 130 MB at most."""
    queue_rows_max: int = 131_072
    """Rows waiting before fetching pauses."""
    queue_bytes_max: int = 64 * 1024 * 1024
    """Bytes of values, keys and headers waiting before fetching pauses: a dead letter may have 8 MiB."""
    retry_first_s: float = 0.5
    """Pause before trying again what could not be written; it doubles each time."""
    retry_max_s: float = 15.0
    """The longest pause."""


def build_projection_app(settings: Settings, client: Client, pace: Pace | None = None) -> faust.App:
    """The app that projects this installation's topics into the client's database, which is migrated already.

    The client must not be used elsewhere. The caller starts and stops the app; it ends by itself (`crashed`) when it
    cannot go on.
    """
    app = faust_app(settings, settings.projection_id, folder="faust-projection", fetch_bytes_max=FETCH_BYTES_MAX)
    topics = Topics(settings.namespace)
    sink = Sink(client, topics, connect_registry(settings), None, settings.partitions, Seals.of(settings))
    Projector(app, sink, topics, pace or Pace()).bind()
    return app


def waiting_s(app: faust.App, now_s: float) -> float:
    """For how long the projection has had something to write without writing any of it, at monotonic time `now_s`.

    0 while it keeps up. What it waits for (ClickHouse, the registry) is in the log.
    """
    return max((each.waiting_s(now_s) for each in app._extra_services if isinstance(each, Projector)), default=0.0)


class Projector(Service):
    """Queues what the app's agent reads, and writes it. A service of the app: it starts and ends with it."""

    def __init__(self, app: faust.App, sink: Sink, topics: Topics, pace: Pace) -> None:
        super().__init__()
        self._app = app
        self._sink = sink
        self._pace = pace
        self._names = [topics.name(key) for key in PROJECTED]
        self._ledger = topics.name("ledger")
        self._intake: Intake[TP] = Intake({}, _place_of, pace.queue_rows_max, pace.queue_bytes_max)
        self._arrived = asyncio.Event()
        # One user of the sink at a time: a write, or the restoring after a rebalance.
        self._using_sink = asyncio.Lock()
        self._generation = 0
        self._shown_at_s = 0.0
        self._waiting_since_s: float | None = None

    def waiting_s(self, now_s: float) -> float:
        """See the function of this name."""
        return 0.0 if self._waiting_since_s is None else max(0.0, now_s - self._waiting_since_s)

    def bind(self) -> None:
        """Give the app its consumer, its agent and this service."""
        use_batches(self._app, self, self._pace.rows_max)
        batch_agent(self._app, "projection", self._names, self._offer)
        self._app._extra_services.append(self)

    @property
    def queued_rows(self) -> int:
        """Rows that wait to be written."""
        return self._intake.records

    async def seeks(self, assignment: Collection[TP]) -> Mapping[TP, int]:
        """See `streams.kafka.transport.Positions`: called after every rebalance, before anything is fetched."""
        owned = [tp for tp in assignment if tp.topic in self._names]
        self._generation += 1
        self._forget_queued({})
        positions = await self._restored([(tp.topic, tp.partition) for tp in owned])
        if positions is None:
            return {}
        sought = {tp: positions[tp.topic, tp.partition] for tp in owned}
        await self._check_ends(sought)
        self._forget_queued(sought)
        return sought

    @Service.task
    async def _writing(self) -> None:
        started_s = 0.0
        while not self.should_stop:
            await self._arrived.wait()
            pause_s = started_s + self._pace.interval_s - time.monotonic()
            if pause_s > 0 and self._intake.records < self._pace.rows_max:
                # The queue may fill up meanwhile; fetching pauses then, so waiting is harmless.
                await asyncio.sleep(min(pause_s, self._pace.interval_s / 10))
                continue
            started_s = time.monotonic()
            generation, batches = self._generation, self._take()
            if await self._written(generation, batches):
                await self._show_group_offsets()

    async def on_stop(self) -> None:
        """Let the write that is under way end: the client may be closed after this."""
        async with self._using_sink:
            pass

    async def _offer(self, inbound: Inbound) -> None:
        """Queue a batch that continues what is queued."""
        tp, intake = _place_of(inbound), self._intake
        if tp not in intake.next_offsets:
            return
        if not intake.offer(inbound):
            generation = self._generation
            if not await self._may_skip(tp, intake.next_offsets[tp]) or generation != self._generation:
                return
            intake.next_offsets[tp] = inbound.first_offset
            intake.offer(inbound)
        if intake and self._waiting_since_s is None:
            self._waiting_since_s = time.monotonic()
        if intake:
            self._arrived.set()
        if intake.is_full:
            self._consumer.pause(intake.next_offsets.keys())

    async def _may_skip(self, tp: TP, wanted: int) -> bool:
        """A batch begins beyond what is wanted: whether that is because older records are gone for good.

        If they are still there, fetching goes back to them.
        """
        first = (await self._consumer.thread.earliest_offsets(tp))[tp]
        if first <= wanted:
            await self._consumer.thread.seek_assigned({tp: wanted})
            return False
        if tp.topic == self._ledger:
            await self._app.crash(
                LedgerGapError(f"offsets {wanted} to {first - 1} of {tp.topic}/{tp.partition} are gone, not projected")
            )
            return False
        self.log.warning("Offsets %s to %s of %s/%s were deleted before they were projected", wanted, first - 1, *tp)
        return True

    async def _check_ends(self, positions: Mapping[TP, int]) -> None:
        ends = await self._consumer.thread.log_ends(*positions) if positions else {}
        for tp, position in positions.items():
            if position > ends[tp]:
                raise LedgerGapError(
                    f"ClickHouse has {tp.topic}/{tp.partition} up to offset {position}, but the topic ends at"
                    f" {ends[tp]}: it was recreated; run `credits rebuild`"
                )

    async def _restored(self, topic_partitions: list[tuple[str, int]]) -> dict[tuple[str, int], int] | None:
        """The sink's positions; waits while ClickHouse is away. None when the app stops meanwhile."""
        pause_s = self._pace.retry_first_s
        while not self._app.should_stop:
            try:
                async with self._using_sink:
                    return await asyncio.to_thread(self._sink.restore, topic_partitions)
            except ClickHouseUnavailableError as error:
                self.log.warning("Waiting for ClickHouse: %s", error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._pace.retry_max_s)
        return None

    async def _written(self, generation: int, batches: list[Inbound]) -> bool:
        """Whether the batches are in ClickHouse; tries until they are, or until a rebalance has made them void."""
        pause_s = self._pace.retry_first_s
        while not self.should_stop:
            try:
                async with self._using_sink:
                    if generation != self._generation:
                        return False
                    applied = await asyncio.to_thread(self._sink.apply, batches)
            except (ClickHouseUnavailableError, RegistryUnavailableError) as error:
                self.log.warning("Not written, trying again in %.1f s: %s", pause_s, error)
            else:
                self._waiting_since_s = time.monotonic() if self._intake else None
                self.log.debug("Written: %s; %s entries were there already", applied.rows, applied.entries_skipped)
                return True
            await self.sleep(pause_s)
            pause_s = min(2 * pause_s, self._pace.retry_max_s)
        return False

    def _take(self) -> list[Inbound]:
        """The oldest batches, up to `rows_max` rows; fetching goes on when there is room again."""
        taken = self._intake.take(self._pace.rows_max)
        if not self._intake:
            self._arrived.clear()
        if self._intake.has_room:
            self._consumer.resume(self._intake.next_offsets.keys())
        return taken

    def _forget_queued(self, next_offsets: Mapping[TP, int]) -> None:
        """Go on at these offsets."""
        self._intake.restart(next_offsets)
        self._waiting_since_s = None
        self._arrived.clear()
        self._consumer.resume(self._consumer.thread.paused_partitions)

    async def _show_group_offsets(self) -> None:
        if time.monotonic() - self._shown_at_s < GROUP_OFFSETS_INTERVAL_S:
            return
        self._shown_at_s = time.monotonic()
        await commit_offsets(
            self._app, {TP(*topic_partition): offset for topic_partition, offset in self._sink.positions().items()}
        )

    @property
    def _consumer(self) -> BatchConsumer:
        return cast(BatchConsumer, self._app.consumer)


def _place_of(inbound: Inbound) -> TP:
    return TP(inbound.topic, inbound.partition)
