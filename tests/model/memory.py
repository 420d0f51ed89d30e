"""The ledger without Kafka: one partition in memory, its processor for real.

What goes in are Kafka values and keys; what comes out are the records of each topic, decoded. A commit always succeeds.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.codec import decode_columns, encode_one, rows_of
from schemas.enums import InputKind
from schemas.records import BundledSchemas, bundled_id
from schemas.topics import BY_KEY, INPUT_TOPICS, Topics
from streams.agents.processor import LedgerProcessor
from streams.engine.ports import EntryMatch, Output, Partition, TimeOf
from streams.engine.seen import SeenMemory
from streams.kafka.inbound import Inbound
from streams.kafka.registry import CachedRegistry
from streams.ledger.account import Account, decode_account
from streams.ledger.price_log import Published
from streams.ledger.rating import Price
from streams.processing.prices import PriceRecords
from streams.settings import Settings

NOW_US = 1_780_000_000_000_000
"""A fixed instant, in 2026."""

TOPICS = Topics()


class FixedSchemas(CachedRegistry):
    """The released schemas under their fixed ids, as the built-in registry has them."""

    def __init__(self) -> None:
        super().__init__(_Released(), fetch_interval_s=0.0)


class _Released(BundledSchemas):
    def schema_id(self, key: str) -> int:
        """The id of a topic's record."""
        record = BY_KEY[key].record
        assert record is not None
        return bundled_id(record)


SCHEMAS = FixedSchemas()
"""Of all ledgers: what one has asked, the others know."""


@functools.cache
def _loop() -> asyncio.Runner:
    """One event loop for all ledgers; to make one for each batch would take longer than the batch."""
    runner = asyncio.Runner()
    atexit.register(runner.close)
    return runner


class FixedPrices:
    """A price topic without Kafka; `later` appears when it is read on."""

    def __init__(self, prices: Iterable[Mapping[str, Any]], later: Iterable[Mapping[str, Any]] = ()) -> None:
        self.records = PriceRecords(1, SCHEMAS, TOPICS)
        self.caught_up = 0
        self.is_current = True
        self._offset = 0
        self._later = later
        self.publish(prices, 0)

    def publish(self, prices: Iterable[Mapping[str, Any]], at: int) -> None:
        """Prices appear one after the other, at one instant (microseconds)."""
        read = [Price.from_record(price) for price in prices]
        self.records.log = self.records.log.with_changes(
            (Published(at // 1_000, 0, self._offset + place), price.price_id, price) for place, price in enumerate(read)
        )
        self._offset += len(read)

    def start(self) -> None:
        """Nothing to wait for."""

    def catch_up(self) -> None:
        """The later prices appear."""
        self.caught_up += 1
        self.is_current = True
        self.publish(self._later, NOW_US)
        self._later = ()

    def current(self) -> bool:
        """As the test says, until it is read on."""
        return self.is_current

    def stop(self) -> None:
        """Nothing to let go of."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One record on its way in."""

    topic: str
    key: bytes | None
    value: bytes | None
    at: int


def sent(kind: InputKind | str, fields: Mapping[str, Any], at: int = NOW_US, key: str | None = None) -> Sent:
    """A record as a producer sends it; `fields` as in Avro, `occurred_at` defaults to `at`."""
    kind = InputKind(kind)
    whole = dict(fields) if kind is InputKind.PRICE else {"occurred_at": at, **fields}
    owner = key or str(whole["price_id" if kind is InputKind.PRICE else "org_id"])
    value = encode_one(kind.value, whole, bundled_id(kind.value))
    return Sent(TOPICS.name(INPUT_TOPICS[kind]), owner.encode(), value, at)


@dataclass
class MemoryLedger:
    """A partition, its processor, and everything it has written."""

    prices: FixedPrices
    accounts: dict[str, bytes] = field(default_factory=dict)
    number: int = 0
    partitions: int = 1
    written: dict[str, list[tuple[bytes | None, bytes | None, Mapping[str, bytes]]]] = field(default_factory=dict)
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    notices: dict[str, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.processor = LedgerProcessor(Settings(_env_file=None, partitions=self.partitions), SCHEMAS, self.prices)
        self.partition = Partition(
            number=self.number,
            accounts=self.accounts,
            seen={window.name: SeenMemory(window.window_us) for window in self.processor.seen_windows},
            seed=7,
        )
        self.state = self.processor.load(self.partition)
        self._offsets: dict[str, int] = {}
        _loop().run(self.processor.start(self))

    async def find(self, partition: int, hint: int, key: bytes, wanted: EntryMatch) -> bytes | None:
        """The engine's look-up of a ledger record, in what was written."""
        for owner, value, _ in self.written.get(TOPICS.name("ledger"), [])[hint:]:
            if owner == key and value is not None and wanted(value):
                return value
        return None

    async def find_recent(self, partition: int, wanted: Mapping[Any, tuple[bytes, EntryMatch]]) -> dict[Any, bytes]:
        """The engine's look-up without a hint."""
        found = {name: await self.find(partition, 0, key, match) for name, (key, match) in wanted.items()}
        return {name: value for name, value in found.items() if value is not None}

    async def find_since(
        self, partition: int, at: int, time_of: TimeOf, wanted: Mapping[Any, tuple[bytes, EntryMatch]]
    ) -> dict[Any, bytes]:
        """The engine's look-up by time."""
        written = self.written.get(TOPICS.name("ledger"), [])
        earlier = sum(value is not None and time_of(value) < at for _, value, _ in written)
        found = {name: await self.find(partition, earlier, key, match) for name, (key, match) in wanted.items()}
        return {name: value for name, value in found.items() if value is not None}

    def feed(self, records: Sequence[Sent]) -> None:
        """One batch, as the engine would hand it over: runs of one topic stay together."""
        inbound: list[Inbound] = []
        for record in records:
            offset = self._offsets.get(record.topic, 0)
            if not inbound or inbound[-1].topic != record.topic:
                inbound.append(Inbound(record.topic, self.number, offset, offset, [], [], [], []))
            run = inbound[-1]
            run.offsets.append(offset)
            run.timestamps_ms.append(record.at // 1_000)
            run.keys.append(record.key)
            run.values.append(record.value)
            run.next_offset = self._offsets[record.topic] = offset + 1
        gathered = _loop().run(self.processor.gather(self.state, inbound))
        self._commit(self.processor.step(self.state, gathered, inbound))

    def tick(self, at: int) -> None:
        """Let time pass: what is due at or before `at` happens."""
        due = [org for org, state in self.accounts.items() if (decode_account(state).due_at or at + 1) <= at]
        output = self.processor.tick(self.state, at, sorted(due))
        if output is not None:
            self._commit(output)

    def _commit(self, output: Output) -> None:
        for topic, messages in output.records:
            out = self.written.setdefault(topic, [])
            out += [(message["key"], message["value"], {}) for message in messages]
        for keyed in output.keyed:
            self.written.setdefault(keyed.topic, []).append((keyed.key, keyed.value, dict(keyed.headers)))
        self.accounts.update({org: state for org, (_, state) in output.accounts.items()})
        for topic, ended in output.outcomes.items():
            counts = self.outcomes.setdefault(topic, {})
            for name, count in ended.items():
                counts[name] = counts.get(name, 0) + count
        for topic, noticed in output.notices.items():
            counts = self.notices.setdefault(topic, {})
            for notice, count in noticed.items():
                counts[notice] = counts.get(notice, 0) + count
        for seen in self.partition.seen.values():
            seen.take_pending(0)  # type: ignore[attr-defined]
        self.partition.clock_at = output.clock_at
        self.partition.ledger_end = len(self.written.get(TOPICS.name("ledger"), []))
        self.processor.committed(self.state, output)

    def rows(self, key: str) -> list[dict[str, Any]]:
        """The records of an output topic, decoded."""
        record = BY_KEY[key].record
        assert record is not None
        values = [value for _, value, _ in self.written.get(TOPICS.name(key), [])]
        decoded = decode_columns(record, values, SCHEMAS)
        assert not decoded.failures
        return rows_of(decoded.batch)

    def dead_letters(self) -> list[tuple[str, bytes | None]]:
        """Code and value of each dead letter."""
        letters = self.written.get(TOPICS.name("dead_letters"), [])
        return [(headers["credits.error.code"].decode(), value) for _, value, headers in letters]

    def account(self, org_id: str) -> Account:
        """The committed account of an org."""
        return decode_account(self.accounts[org_id])


def legs(ledger: MemoryLedger) -> list[Sent]:
    """The transfer legs written so far, as they come back in."""
    topic = TOPICS.name("transfer_legs")
    return [Sent(topic, key, value, ledger.partition.clock_at) for key, value, _ in ledger.written.get(topic, [])]
