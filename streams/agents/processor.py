"""The ledger as the engine runs it: all agents together, gathered for at once and committed at once.

`gather` decodes, reads prices on when a usage has none, and looks up the entries that refunds refer to. It asks
Kafka and the registry in a thread, so the loop serves other partitions and the group's heartbeats meanwhile. `step` is
pure: (accounts, decoded batch, prices) → (entries, alerts, balances, accounts); each batch is decided by the agent of
its topic. `tick` lets time pass. No rule about money stands here; they are in `streams.ledger`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from schemas.codec import RegistryUnavailableError
from schemas.enums import InputKind
from schemas.topics import BY_KEY, Topics
from streams.agents import timers
from streams.agents.agent import ACCOUNT_OUTPUTS, Agent, Batch, PricesAtHand
from streams.agents.money import AGENT as MONEY
from streams.agents.prices import AGENT as PRICES
from streams.agents.settings import AGENT as SETTINGS
from streams.agents.transfer_legs import AGENT as TRANSFER_LEGS
from streams.agents.usage import AGENT as USAGE
from streams.background import retry_until_available
from streams.engine.ports import EntrySource, Output, Partition, SeenWindow, UnavailableError
from streams.kafka.inbound import Inbound
from streams.kafka.registry import CachedRegistry, connect_registry
from streams.ledger.price_log import PriceLog
from streams.ledger.usage_batch_rating import Kinds, kinds_of
from streams.processing.balances import balance_columns
from streams.processing.decoding import Decoder
from streams.processing.negative_cache import NegativeCache
from streams.processing.notices import NoticeLog
from streams.processing.outbound import Outbound
from streams.processing.prices import PriceReader, PriceSource
from streams.processing.references import Finder, Gathered
from streams.processing.rows import MONEY_IDS
from streams.processing.state import USAGE_IDS, PartitionState, Windows
from streams.seals import Seals
from streams.settings import Settings

log = logging.getLogger(__name__)

AGENTS: Final = (USAGE, MONEY, SETTINGS, PRICES, TRANSFER_LEGS)
"""Every agent that Faust runs."""

WRITTEN: Final = tuple(dict.fromkeys((*ACCOUNT_OUTPUTS, *(key for agent in AGENTS for key in agent.outputs))))
"""Keys of the topics that a batch may write to."""

START_PAUSE_S: Final = 1.0


class LedgerProcessor:
    """The engine's `Processor` for the credit ledger."""

    def __init__(self, settings: Settings, registry: CachedRegistry, prices: PriceSource) -> None:
        self._topics = Topics(settings.namespace)
        self._registry = registry
        self._decoder = Decoder(registry)
        self._prices = prices
        self._entries: EntrySource | None = None
        self._negative_cache = NegativeCache()
        self._notice_log = NoticeLog(log, settings.usage_window_hours)
        self._partitions = settings.partitions
        self._seals = Seals.of(settings)
        self._windows = Windows.of(settings)
        self._agents: dict[str, Agent] = {self._topics.name(key): agent for agent in AGENTS for key in agent.inputs}
        self._records = {self._topics.name(key): str(BY_KEY[key].record) for agent in AGENTS for key in agent.inputs}

    @property
    def inputs(self) -> Mapping[str, str]:
        """The input topics of all agents, each with the name of its agent."""
        return {topic: agent.name for topic, agent in self._agents.items()}

    @property
    def outputs(self) -> Sequence[str]:
        """Every topic that a batch may write to."""
        return [self._topics.name(key) for key in WRITTEN]

    @property
    def ledger_topic(self) -> str:
        """The ledger: while it has entries, there are accounts."""
        return self._topics.name("ledger")

    @property
    def seen_windows(self) -> Sequence[SeenWindow]:
        """Ids are remembered for their window and for as far as a record may be ahead of its time."""
        return [
            SeenWindow(USAGE_IDS, self._windows.usage.remembered_us),
            SeenWindow(MONEY_IDS, self._windows.money.remembered_us),
        ]

    async def start(self, entries: EntrySource) -> None:
        """Know every schema id that a step writes with, and all prices, before the first event is rated.

        Waits for a registry or a broker that is away: `step` must not.
        """
        self._entries = entries
        for ask in (self._know_written_schemas, self._prices.start):
            away = (UnavailableError, RegistryUnavailableError)
            await retry_until_available(partial(asyncio.to_thread, ask), away, "The worker", START_PAUSE_S)

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
        decoded = await self._decoder.decoded([(self._records[batch.topic], batch.values) for batch in inbound])
        usage_kinds = [kinds_of(read.batch) if read.record == InputKind.USAGE else None for read in decoded]
        price_log = await self._prices_for(state, inbound, usage_kinds)
        assert self._entries is not None, "start comes first"
        finder = Finder(self._entries, self._negative_cache, self._registry, state.partition)
        seen = state.partition.seen
        references = await finder.look_up(decoded, seen[USAGE_IDS], seen[MONEY_IDS])
        return Gathered(decoded, usage_kinds, price_log, references)

    async def _prices_for(
        self, state: PartitionState, inbound: Sequence[Inbound], usage_kinds: Sequence[Kinds | None]
    ) -> PriceLog:
        """The prices; read on to their end first when an agent of the batch needs that.

        Prices and tiers of an org's own count, unless the batch has settings, which may change them.
        """
        agents = [self._agents[batch.topic] for batch in inbound]
        account = None if SETTINGS in agents else state.account
        known = PricesAtHand(self._prices.records.log, self._prices.current(), account)
        for agent, usage_kind in zip(agents, usage_kinds, strict=True):
            if agent.needs_newer_prices(usage_kind, known):
                await asyncio.to_thread(self._prices.catch_up)
                return self._prices.records.log
        return known.log

    def step(self, state: PartitionState, gathered: Gathered, inbound: Sequence[Inbound]) -> Output:
        """Decide the whole batch, inbound by inbound, record by record."""
        outbound = Outbound(self._topics, self._registry)
        for each, decoded, kinds in zip(inbound, gathered.decoded, gathered.kinds, strict=True):
            if len(each):
                self._agents[each.topic].decide(
                    Batch(
                        inbound=each,
                        decoded=decoded,
                        usage_kinds=kinds,
                        gathered=gathered,
                        prices=self._prices.records,
                        state=state,
                        windows=self._windows,
                        outbound=outbound,
                    )
                )
        return self._output(state, outbound)

    def tick(self, state: PartitionState, at: int, orgs: Sequence[str]) -> Output | None:
        """Settle what fell due at or before `at` for these orgs."""
        outbound = Outbound(self._topics, self._registry)
        timers.decide(state, at, orgs, outbound)
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


def make_processor(settings: Settings) -> LedgerProcessor:
    """The processor of a worker with these settings."""
    registry = connect_registry(settings)
    return LedgerProcessor(settings, registry, PriceReader(settings, registry))
