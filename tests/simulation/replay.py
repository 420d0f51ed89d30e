"""The same inputs once more, in the order in which they were decided, without a crash and at another batch size.

What comes of it must be the same: entries (but for offsets and `recorded_at`), alerts, answers to holds, requests for
credits, legs, dead letters, counts, and accounts to the byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import msgspec
import pytest

from streams.ledger import grants
from streams.ledger.price_log import PriceLog, Published
from streams.ledger.rating import Price
from tests.model.memory import TOPICS, FixedPrices, MemoryLedger, Sent
from tests.simulation.checks import Cuts, rows
from tests.simulation.traffic import DAY_US
from tests.simulation.virtual_kafka import Record
from tests.simulation.world import PARTITIONS, Decided, World

WRITTEN = (
    "ledger",
    "alerts_threshold",
    "alerts_depletion",
    "alerts_topup",
    "topup_requests",
    "decisions",
    "transfer_legs",
)
OF_THE_BATCH = {
    "ledger": ("source_partition", "source_offset", "recorded_at"),
    "alerts_threshold": ("occurred_at",),
    "alerts_depletion": ("occurred_at",),
    "alerts_topup": ("occurred_at",),
    "topup_requests": ("occurred_at",),
}
"""What may differ: where a record stood, and when a thing was written that fell due before."""


def compare(world: World, cuts: Cuts, batch_records: int) -> None:
    """Replay every partition in batches of this size, and compare."""
    for number in range(PARTITIONS):
        again = replay(world, number, batch_records)
        for key in WRITTEN:
            written = (
                record
                for commit in world.kafka.commits
                if commit.partition == number
                for record in commit.records.get(TOPICS.name(key), ())
            )
            first = _told(key, list(written))
            second = _told(key, [Record(None, value, 0) for _, value, _ in again.written.get(TOPICS.name(key), [])])
            assert second == first, _difference(key, number, first, second)
        owned = {org for org in cuts.accounts if world.kafka.partition_of(org.encode()) == number}
        assert again.accounts.keys() == owned
        for org in owned:
            assert again.account(org) == cuts.accounts[org], f"{org} is another after the replay"
        ended = {f"{topic} {name}": count for topic, counts in again.outcomes.items() for name, count in counts.items()}
        assert Counter(ended) == cuts.outcomes[number], f"partition {number} counted {ended}"


def replay(world: World, number: int, batch_records: int) -> MemoryLedger:
    """One partition's inputs, to the end of time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grants, "EXHAUSTED_MAX", world.grants_remembered)
        prices = FixedPrices([])
        again = MemoryLedger(prices)
        rest = [
            (_sent(world, number, *position), commit.cause.prices)
            for commit in world.kafka.commits
            if commit.partition == number and isinstance(commit.cause, Decided)
            for position in commit.cause.records
        ]
        while rest:
            passed_at = min(record.at for record, _ in rest)  # one topic may be days behind the others
            for memory in again.partition.seen.values():
                memory.expire(passed_at)  # type: ignore[attr-defined]
            batch = _first(rest, batch_records)
            prices.records.log = _Moved(rest[0][1])
            again.feed(batch)
            del rest[: len(batch)]
        again.tick(world.kafka.at)
    return again


class _Moved(PriceLog):
    """A list of prices for a replay, whose records have other places: a price is known by its time."""

    def __init__(self, log: PriceLog) -> None:
        super().__init__(log._publications.values())

    def tie(self, price: Price, published: Published) -> Price | None:
        """As the worker judged it."""
        return super().tie(
            price, next(position for position in self._publications if position.at_ms == published.at_ms)
        )


def _first(rest: Sequence[tuple[Sent, PriceLog]], batch_records: int) -> list[Sent]:
    """As many, but none after a leap of days: ids are forgotten between batches, not within one.

    And none that was decided with other prices: what a worker knew of them is not the batch's affair.
    """
    first, prices = rest[0]
    alike = takewhile(lambda each: each[0].at - first.at <= DAY_US and each[1] is prices, rest[:batch_records])
    return [record for record, _ in alike]


def _sent(world: World, number: int, topic: str, offset: int) -> Sent:
    record = world.kafka.logs[topic, number][offset]
    assert record is not None, "an aborted record was decided"
    return Sent(topic, record.key, record.value, record.at)


def _told(key: str, records: Sequence[Record]) -> dict[str, list[Any]]:
    """What a topic says, by org, each in its order."""
    by_org: dict[str, list[Any]] = {}
    for row in rows(key, records):
        plain = msgspec.json.decode(msgspec.json.encode(row))
        compared = {name: value for name, value in plain.items() if name not in OF_THE_BATCH.get(key, ())}
        by_org.setdefault(row["org_id"], []).append(compared)
    return by_org


def _difference(key: str, number: int, first: dict[str, list[Any]], second: dict[str, list[Any]]) -> str:
    for org in sorted(first.keys() | second.keys()):
        ours, theirs = first.get(org, []), second.get(org, [])
        for position in range(max(len(ours), len(theirs))):
            one = ours[position] if position < len(ours) else None
            other = theirs[position] if position < len(theirs) else None
            if one != other:
                names = [name for name in one or other or {} if (one or {}).get(name) != (other or {}).get(name)]
                return f"{key} of {org} (partition {number}), {position}: {names}\n  {one}\n  {other}"
    return key
