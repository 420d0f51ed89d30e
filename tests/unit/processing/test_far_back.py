"""Refunds of usage whose id is forgotten: where in the ledger it is looked for, and how often (product rule 21)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from schemas.amounts import NANOS
from schemas.enums import HoldAction, InputKind
from streams.engine.ports import EntryMatch, TimeOf
from streams.processing.negative_cache import NEGATIVE_CACHE_SIZE_MAX, NEGATIVE_CACHE_US, NegativeCache
from streams.processing.references import capture_id
from streams.processing.rows import unique_id
from tests.model.memory import NOW_US, FixedPrices, MemoryLedger, Sent, sent

DAY_US = 86_400_000_000
MINUTE_US = 60_000_000
Looked = Mapping[Any, tuple[bytes, EntryMatch]]


class Watched(MemoryLedger):
    """Notes where the ledger was searched without a remembered place; its look-back finds nothing (too far back)."""

    def __post_init__(self) -> None:
        self.searches: list[int | None] = []
        super().__post_init__()

    async def find_recent(self, partition: int, wanted: Looked) -> dict[Any, bytes]:
        self.searches.append(None)
        return {}

    async def find_since(self, partition: int, at: int, time_of: TimeOf, wanted: Looked) -> dict[Any, bytes]:
        self.searches.append(at)
        return await super().find_since(partition, at, time_of, wanted)

    def pass_time(self, at: int) -> None:
        """Nothing but time: what is past its window is forgotten, as the engine forgets it."""
        self.partition.clock_at = self.state.clock_at = at
        for seen in self.partition.seen.values():
            seen.expire(at)  # type: ignore[attr-defined]

    def last(self) -> tuple[str, str | None]:
        row = self.rows("ledger")[-1]
        return row["kind"], row["reason"]


def ledger() -> Watched:
    book = Watched(FixedPrices([]))
    book.feed([
        sent("purchase", {"purchase_id": "p", "org_id": "acme", "wallet": "USD", "amount_nanos": 10 * NANOS}),
        sent("usage", {"event_id": "u", "org_id": "acme", "operation": "chat", "cost_nanos": 2 * NANOS}),
    ])  # fmt: skip
    return book


def refund(name: str, at: int, target: str = "u", **more: Any) -> Sent:
    fields = {"refund_id": name, "org_id": "acme", "target": "usage", "target_id": target, "amount_nanos": NANOS}
    return sent("refund", {**fields, **more}, at)


@pytest.mark.parametrize("early", [0, 5 * MINUTE_US])
def test_a_refund_that_names_the_time_finds_usage_weeks_later(early: int) -> None:
    book, later = ledger(), NOW_US + 20 * DAY_US
    book.pass_time(later)
    book.feed([refund("r1", later, target_recorded_at=NOW_US - early)])
    assert book.last() == ("refund", "usage_refunded")
    assert book.account("acme").wallets["USD"].settled == 9 * NANOS
    assert book.searches == [(NOW_US - early) // MINUTE_US * MINUTE_US]


def test_refunds_of_one_minute_are_one_search() -> None:
    book, later = ledger(), NOW_US + 20 * DAY_US
    minute = NOW_US - NOW_US % MINUTE_US
    book.pass_time(later)
    book.feed([refund("r1", later, target_recorded_at=minute), refund("r2", later, target_recorded_at=minute + 1)])
    assert book.searches == [minute]
    assert book.account("acme").wallets["USD"].settled == 10 * NANOS


def test_without_the_time_or_with_a_later_one_it_is_unknown_beyond_the_last_entries() -> None:
    book, later = ledger(), NOW_US + 20 * DAY_US
    book.pass_time(later)
    book.feed([refund("r1", later)])
    assert book.last() == ("rejected", "unknown_usage")
    book.feed([refund("r2", later, target_recorded_at=NOW_US + DAY_US)])
    assert book.last() == ("rejected", "unknown_usage")
    book.feed([refund("r3", later, target_recorded_at=NOW_US)])
    assert book.last() == ("refund", "usage_refunded")


def test_what_was_not_found_is_not_looked_for_with_every_batch() -> None:
    book = ledger()
    for number in range(5):
        book.feed([refund(f"r{number}", NOW_US, "nobody"), refund(f"s{number}", NOW_US, "none")])
    assert book.searches == [None]
    book.pass_time(NOW_US + NEGATIVE_CACHE_US)
    book.feed([refund("again", NOW_US + NEGATIVE_CACHE_US, "nobody")])
    assert book.searches == [None, None]


def test_a_void_of_something_unknown_is_looked_for_once_too() -> None:
    book = ledger()
    book.feed([sent("usage", {"event_id": "v", "org_id": "acme", "operation": "chat", "voided": True})])
    assert book.last() == ("rejected", "unknown_usage")
    found: list[str] = []
    find = book.find

    async def counting(partition: int, hint: int, key: bytes, wanted: EntryMatch) -> bytes | None:
        found.append("searched")
        return await find(partition, hint, key, wanted)

    book.find = counting  # type: ignore[method-assign]
    for number in range(3):
        book.feed([refund(f"r{number}", NOW_US, "v")])
        assert book.last() == ("rejected", "unknown_usage")
    assert found == ["searched"]


def test_usage_that_captured_a_hold_is_remembered_as_long_as_money() -> None:
    book, later = ledger(), NOW_US + 20 * DAY_US
    hold = {"hold_id": "h", "org_id": "acme", "wallet": "USD", "amount_nanos": 3 * NANOS}
    book.feed([sent("hold", {**hold, "action": "place"}), sent("hold", {**hold, "action": "capture"})])
    book.pass_time(later)
    book.feed([refund("r1", later, "h")])
    assert book.last() == ("refund", "usage_refunded")
    assert book.searches == []


def test_a_capture_is_known_by_the_same_bytes_everywhere() -> None:
    record = {"org_id": "acme", "hold_id": "h\N{SNOWMAN}", "action": HoldAction.CAPTURE.value}
    assert capture_id("acme", "h\N{SNOWMAN}") == unique_id(InputKind.HOLD, record)


def test_the_memory_of_searches_is_bounded() -> None:
    missed = NegativeCache()
    missed.note(range(NEGATIVE_CACHE_SIZE_MAX + 5), 0)
    assert len(missed) == NEGATIVE_CACHE_SIZE_MAX
    assert missed.should_search(0, 1)
    assert not missed.should_search(5, 1)
    assert missed.should_search(5, NEGATIVE_CACHE_US)
