"""The ledger as the engine runs it: gather what a batch needs, decide it, hand over what it causes.

`gather` decodes, reads prices on when a usage has none, and looks up the entries that refunds refer to. Whoever must be
asked for that is asked in a thread: the loop serves other partitions and the group's heartbeats meanwhile. `step` is
pure: (accounts, decoded batch, prices) → (entries, alerts, balances, accounts). `tick` lets time pass. No rule about
money stands here; they are in `streams.ledger`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from schemas.codec import DecodedBatch, RegistryUnavailableError
from schemas.enums import InputKind
from schemas.topics import BY_KEY, INPUT_TOPICS, Topics
from streams.engine.ports import EntrySource, Output, Partition, SeenWindow, UnavailableError
from streams.engine.seals import Seals
from streams.kafka.inbound import Inbound
from streams.kafka.registry import Kept, connect_registry
from streams.ledger.price_log import PriceLog
from streams.ledger.settle import settle_due
from streams.processing.balances import balance_columns
from streams.processing.decoding import Decoder
from streams.processing.gathered import Gathered
from streams.processing.negative_cache import Missed
from streams.processing.notices import NoticeLog
from streams.processing.old_ids import old_ids
from streams.processing.outbound import Outbound
from streams.processing.prices import PriceReader, PriceSource
from streams.processing.references import Finder
from streams.processing.rows import MONEY_IDS, RowBooking
from streams.processing.state import PartitionState
from streams.processing.usage_booking import UsageBooking
from streams.processing.usage_guards import UsageGuards, segments
from streams.processing.usage_rating import Kinds, kinds_of, unpriced
from streams.processing.validation import FUTURE_TOLERANCE_US
from streams.settings import Settings

log = logging.getLogger(__name__)

HOUR_US: Final = 3_600_000_000
USAGE_IDS: Final = "usage"
LEG_RECORD: Final = "leg"
WRITTEN: Final = (
    "ledger",
    "alerts_threshold",
    "alerts_depletion",
    "alerts_topup",
    "topup_requests",
    "decisions",
    "balances",
    "dead_letters",
    "transfer_legs",
    "kept_prices",
)
"""Keys of the topics that a batch may write to."""
START_PAUSE_S: Final = 1.0


class LedgerProcessor:
    """The engine's `Processor` for the credit ledger."""

    def __init__(self, settings: Settings, registry: Kept, prices: PriceSource) -> None:
        self._topics = Topics(settings.namespace)
        self._registry = registry
        self._decoder = Decoder(registry)
        self._prices = prices
        self._entries: EntrySource | None = None
        self._missed = Missed()
        self._notice_log = NoticeLog(log, settings.usage_window_hours)
        self._partitions = settings.partitions
        self._seals = Seals.of(settings)
        self._usage_window_us = settings.usage_window_hours * HOUR_US
        self._money_window_us = settings.money_window_days * 24 * HOUR_US
        self._input_kinds = {self._topics.name(key): kind for kind, key in INPUT_TOPICS.items()}
        self._legs = self._topics.name("transfer_legs")

    @property
    def inputs(self) -> Sequence[str]:
        """The input topics of the contract, and the transfer legs."""
        return [*self._input_kinds, self._legs]

    @property
    def outputs(self) -> Sequence[str]:
        """Every topic that a batch may write to."""
        return [self._topics.name(key) for key in WRITTEN]

    @property
    def witness(self) -> str:
        """The ledger: while it has entries, there are accounts."""
        return self._topics.name("ledger")

    @property
    def seen_windows(self) -> Sequence[SeenWindow]:
        """Ids are remembered for their window and for as far as a record may be ahead of its time."""
        return [
            SeenWindow(USAGE_IDS, self._usage_window_us + FUTURE_TOLERANCE_US),
            SeenWindow(MONEY_IDS, self._money_window_us + FUTURE_TOLERANCE_US),
        ]

    async def start(self, entries: EntrySource) -> None:
        """Know every schema id that a step writes with, and all prices, before the first event is rated.

        Waits for a registry or a broker that is away: `step` must not.
        """
        self._entries = entries
        await _patiently(self._know_written_schemas)
        await _patiently(self._prices.start)

    async def stop(self) -> None:
        """Let go of the registry and of the price topic."""
        self._decoder.close()
        await asyncio.to_thread(self._prices.stop)

    def _know_written_schemas(self) -> None:
        """Have in memory what `step` writes with, and reads again of its own entries."""
        for key in WRITTEN:
            if BY_KEY[key].record is not None:
                self._registry.writer(self._registry.schema_id(key))

    def load(self, partition: Partition) -> PartitionState:
        """The state of a partition that is now ours: nothing decoded yet."""
        return PartitionState(partition, self._partitions, self._seals)

    async def gather(self, state: PartitionState, inbound: Sequence[Inbound]) -> Gathered:
        """Decode the batch and fetch what it refers to."""
        decoded = await self._decoder.decoded([(self._record(batch.topic), batch.values) for batch in inbound])
        usage_kinds = [
            kinds_of(read.batch) if self._input_kinds.get(batch.topic) is InputKind.USAGE else None
            for batch, read in zip(inbound, decoded, strict=True)
        ]
        price_log = await self._prices_for(state, inbound, usage_kinds)
        assert self._entries is not None, "start comes first"
        finder = Finder(self._entries, self._missed, self._registry, state.partition)
        seen = state.partition.seen
        references = await finder.look_up(decoded, seen[USAGE_IDS], seen[MONEY_IDS])
        return Gathered(decoded, usage_kinds, price_log, references)

    async def _prices_for(
        self, state: PartitionState, inbound: Sequence[Inbound], usage_kinds: Sequence[Kinds | None]
    ) -> PriceLog:
        """The prices; read on to their end first when some usage of the batch has none, or a price is to be judged.

        Also before any usage when they may be out of date. Prices and tiers of an org's own count, but not beside
        settings of the same batch, which may change them.
        """
        price_log, current = self._prices.records.log, self._prices.current()
        inputs = [self._input_kinds.get(batch.topic) for batch in inbound]
        account = None if InputKind.SETTING in inputs else state.account
        for kind, usage in zip(inputs, usage_kinds, strict=True):
            rated = usage is not None and (not current or unpriced(usage, price_log.prices, account))
            if rated or kind is InputKind.PRICE:
                await asyncio.to_thread(self._prices.catch_up)
                return self._prices.records.log
        return price_log

    def _record(self, topic: str) -> str:
        kind = self._input_kinds.get(topic)
        return LEG_RECORD if kind is None else kind.value

    def step(self, state: PartitionState, gathered: Gathered, inbound: Sequence[Inbound]) -> Output:
        """Decide the whole batch, inbound by inbound, record by record."""
        outbound = Outbound(self._topics, self._registry)
        for batch, decoded, kinds in zip(inbound, gathered.decoded, gathered.kinds, strict=True):
            if not len(batch):
                continue
            kind = self._input_kinds.get(batch.topic)
            if kind is InputKind.USAGE:
                self._book_usage(state, batch, decoded, kinds, gathered, outbound)
                continue
            rows = RowBooking(state, batch, outbound, gathered.prices, gathered.references)
            if kind is None:
                rows.book_legs(decoded)
            elif kind is InputKind.PRICE:
                rows.judge_prices(decoded, gathered.price_log, self._prices.records)
            else:
                rows.book_commands(kind, decoded, state.partition.seen[MONEY_IDS], self._money_window_us)
        return self._output(state, outbound)

    def _book_usage(
        self,
        state: PartitionState,
        batch: Inbound,
        decoded: DecodedBatch,
        kinds: Kinds | None,
        gathered: Gathered,
        outbound: Outbound,
    ) -> None:
        seen = state.partition.seen[USAGE_IDS]
        guards = UsageGuards(state, batch, outbound, self._usage_window_us)
        for part in segments(guards.admit(decoded)):
            rows = guards.new(part, seen)
            if len(rows):
                booked = UsageBooking(state, batch, rows, kinds, gathered, outbound).book(seen)
                old = old_ids(booked.batch.column("event_id"), booked.arrived, self._usage_window_us)
                if old:
                    outbound.notice(batch.topic, "old_id", old)

    def tick(self, state: PartitionState, at: int, orgs: Sequence[str]) -> Output | None:
        """Settle what fell due at or before `at` for these orgs; the clock may be ahead of it.

        A second account, in a partition that is not the org's, is frozen (`streams.ledger.merges`).
        """
        foreign = state.own_keys.foreign([org.encode() for org in orgs])
        outbound = Outbound(self._topics, self._registry)
        state.clock_at = max(state.clock_at, at)
        for org in orgs:
            if org.encode() in foreign:
                continue
            outbound.outcome(settle_due(state.account(org), state.clock_at, until=at))
        return None if outbound.empty else self._output(state, outbound)

    def _output(self, state: PartitionState, outbound: Outbound) -> Output:
        touched = outbound.touched_orgs()
        accounts = [state.account(org) for org in touched]
        balances = None
        if accounts:
            balances = [org.encode() for org in touched], balance_columns(accounts, state.clock_at)
        output = outbound.output(state.clock_at, balances, state.seals)
        output.accounts = state.encoded(touched)
        return output

    def committed(self, state: PartitionState, output: Output) -> None:
        """The batch is in Kafka: accounts may be let go, and what an operator should know of is logged."""
        if output.notices:
            self._notice_log.committed(state.partition.number, output.notices, time.monotonic())
        state.forget_some()


async def _patiently(ask: Callable[[], object]) -> None:
    """Ask in a thread until there is an answer; says once that it waits."""
    told = False
    while True:
        try:
            await asyncio.to_thread(ask)
        except (UnavailableError, RegistryUnavailableError) as missing:
            if not told:
                log.warning("The worker waits: %s", missing)
                told = True
            await asyncio.sleep(START_PAUSE_S)
        else:
            return


def make_processor(settings: Settings) -> LedgerProcessor:
    """The processor of a worker with these settings."""
    registry = connect_registry(settings)
    return LedgerProcessor(settings, registry, PriceReader(settings, registry))
