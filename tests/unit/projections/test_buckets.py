"""Buckets are absolute: any batches, any replays, any forgetting give the sums of a plain fold."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.buckets import (
    COUNTS,
    DAILY,
    DIMENSIONS,
    HOURLY,
    LEVELS,
    MONTHLY,
    SUMS,
    Additions,
    Buckets,
    Level,
    additions,
    key_of,
    usage_rows,
)
from schemas.codec import batch_of
from tests.unit.projections.entries import NOON, Row, Totals, entry, entry_lists, folded

SHOWN = ("requests", "input_tokens", "output_tokens", "quantity", "cost", "refunded")


class Store:
    """What ClickHouse would hold: the newest version of each bucket, by key."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self.rows: dict[bytes, dict[str, Any]] = {}
        self.newest: int | None = None

    def keep(self, addition: Additions, table: Any | None) -> None:
        if table is None:
            return
        starts = {addition.keys[i]: int(addition.starts[i]) for i in range(len(addition.keys))}
        for row in table.to_pylist():
            start = level_start(self.level, row[self.level.column])
            key = key_of(row["dims_id"], start)
            assert starts[key] == start
            if row["version"] >= self.rows.get(key, {"version": -1})["version"]:
                self.rows[key] = row
            self.newest = start if self.newest is None else max(self.newest, start)

    def known(self, keys: list[bytes]) -> list[tuple[bytes, list[int]]]:
        return [(key, self._values(self.rows[key])) for key in keys if key in self.rows]

    @staticmethod
    def _values(row: dict[str, Any]) -> list[int]:
        scale = {"quantity": 9, "cost": 9, "refunded": 9}
        return [row["version"], *(int(row[name].scaleb(scale.get(name, 0)) if name in SUMS else row[name])
                                  for name in (*COUNTS, *SUMS))]  # fmt: skip

    def totals(self) -> dict[tuple[Any, ...], Totals]:
        found: dict[tuple[Any, ...], Totals] = {}
        for row in self.rows.values():
            start = row[self.level.column]
            values = dict(zip((*COUNTS, *SUMS), self._values(row)[1:], strict=True))
            found[start, *(row[name] for name in DIMENSIONS)] = tuple(values[name] for name in SHOWN)  # type: ignore[assignment]
        return found


def level_start(level: Level, shown: datetime | date) -> int:
    if isinstance(shown, datetime):
        return int(shown.timestamp()) // 3_600
    if level is MONTHLY:
        return (shown.year - 1970) * 12 + shown.month - 1
    return (shown - date(1970, 1, 1)).days


def apply(store: Store, buckets: Buckets, rows: list[Row], first: int, end: int) -> None:
    """Adds the rows with offsets `first` to `end` - 1, reading back what is missing."""
    if first >= end:
        return
    decoded = batch_of("entry", rows[first:end])
    usage = usage_rows(decoded, 0, np.arange(first, end))
    if usage is None:
        return
    addition = additions(store.level, usage)
    buckets.learn(store.known([addition.keys[index] for index in buckets.missing(addition)]))
    store.keep(addition, buckets.add(addition))
    buckets.bound()


@given(entry_lists(), st.sampled_from(LEVELS), st.data())
def test_any_batches_replays_and_restarts_give_the_plain_fold(
    rows: list[Row], level: Level, data: st.DataObject
) -> None:
    store = Store(level)
    buckets = Buckets(level, data.draw(st.sampled_from([2, 6, 1_000]), label="buckets_max"))
    position = 0
    while position < len(rows):
        match data.draw(st.sampled_from(["forward", "forward", "back", "restart"])):
            case "forward":
                end = data.draw(st.integers(position, len(rows)))
                apply(store, buckets, rows, position, end)
                position = end
            case "back":
                position = data.draw(st.integers(0, position))
            case _:
                buckets.restart(store.newest)
    assert store.totals() == folded(rows, level.column)


@given(entry_lists(), st.data())
def test_two_writers_at_once_do_no_harm(rows: list[Row], data: st.DataObject) -> None:
    """A replaced owner goes on for a while, from its own memory, beside the new one."""
    store = Store(HOURLY)
    old, new = Buckets(HOURLY, 1_000), Buckets(HOURLY, 1_000)
    split = data.draw(st.integers(0, len(rows)), label="taken over at")
    apply(store, old, rows, 0, split)
    new.restart(store.newest)
    beyond = data.draw(st.integers(split, len(rows)), label="the old one goes on to")
    apply(store, old, rows, split, beyond)
    middle = data.draw(st.integers(split, len(rows)))
    apply(store, new, rows, split, middle)
    apply(store, new, rows, middle, len(rows))
    assert store.totals() == folded(rows, "hour")


def test_sums_pass_64_bits() -> None:
    rows = [entry("acme", seq, -9 * 10**18, operation="x", input_tokens=2**63 - 1) for seq in range(1, 8)]
    store, buckets = Store(MONTHLY), Buckets(MONTHLY, 10)
    apply(store, buckets, rows, 0, 3)
    apply(store, buckets, rows, 3, 7)
    (totals,) = store.totals().values()
    assert totals == (7, 7 * (2**63 - 1), 0, 0, 63 * 10**18, 0)


def test_memory_is_bounded() -> None:
    buckets, store = Buckets(HOURLY, 100), Store(HOURLY)
    rows = [entry("acme", seq, -1, operation="x", user_id=f"u{seq}") for seq in range(1, 2_001)]
    for first in range(0, 2_000, 10):
        apply(store, buckets, rows, first, first + 10)
        assert len(buckets) <= 110
    assert len(store.rows) == 2_000


def test_a_bucket_that_was_dropped_is_read_back_before_it_grows() -> None:
    store, buckets = Store(HOURLY), Buckets(HOURLY, 4)
    rows = [entry("acme", seq, -1, operation="x", user_id=f"u{seq % 7}") for seq in range(1, 71)]
    for first in range(70):
        apply(store, buckets, rows, first, first + 1)
    assert store.totals() == folded(rows, "hour")


def test_what_is_newer_than_everything_written_is_not_read_back() -> None:
    """A new hour begins many times a day; asking ClickHouse for its buckets each time would be work for nothing."""
    buckets, store = Buckets(HOURLY, 100), Store(HOURLY)
    apply(store, buckets, [entry("acme", 1, -1, operation="x")], 0, 1)
    buckets.restart(store.newest)
    later = [entry("acme", 2, -1, operation="x", occurred_at=NOON + 3_600 * 10**6)]
    usage = usage_rows(batch_of("entry", later), 0, np.array([1]))
    assert usage is not None
    assert buckets.missing(additions(HOURLY, usage)) == []
    same_hour = usage_rows(batch_of("entry", [entry("acme", 2, -1, operation="x")]), 0, np.array([1]))
    assert same_hour is not None
    assert buckets.missing(additions(HOURLY, same_hour)) == [0]


@pytest.mark.parametrize(
    ("level", "at", "shown"),
    [
        (HOURLY, datetime(2026, 5, 29, 12, 59, 59, 999_999, UTC), datetime(2026, 5, 29, 12, tzinfo=UTC)),
        (DAILY, datetime(2026, 5, 29, 23, 59, tzinfo=UTC), date(2026, 5, 29)),
        (MONTHLY, datetime(2024, 2, 29, 23, 59, tzinfo=UTC), date(2024, 2, 1)),
        (MONTHLY, datetime(1970, 1, 1, tzinfo=UTC), date(1970, 1, 1)),
        (HOURLY, datetime(1969, 12, 31, 23, 30, tzinfo=UTC), datetime(1969, 12, 31, 23, tzinfo=UTC)),
        (DAILY, datetime(1969, 12, 31, 23, 30, tzinfo=UTC), date(1969, 12, 31)),
    ],
)
def test_starts_and_times(level: Level, at: datetime, shown: datetime | date) -> None:
    micros = np.array([int(at.timestamp() * 10**6)])
    assert level.times(level.starts(micros)).to_pylist() == [shown]


def test_the_same_value_in_another_dimension_is_another_bucket() -> None:
    rows = [
        entry("acme", 1, -1, operation="x", user_id="a"),
        entry("acme", 2, -2, operation="x", team="a"),
        entry("acme", 3, -4, operation="x", user_id="", team="a"),
        entry("acme", 4, -8, operation="x", model="x"),
    ]
    usage = usage_rows(batch_of("entry", rows), 0, np.arange(4))
    assert usage is not None
    addition = additions(HOURLY, usage)
    assert len(set(addition.keys)) == 3
    other = usage_rows(batch_of("entry", rows), 1, np.arange(4))
    assert other is not None
    assert not set(addition.keys) & set(additions(HOURLY, other).keys), "a bucket belongs to one partition"


def test_many_values_in_every_dimension() -> None:
    """The product of the cardinalities passes 64 bits: the codes are packed again on the way."""
    names = [name for name in DIMENSIONS if name not in {"org_id", "wallet"}]

    def dimensions(i: int) -> dict[str, str]:
        return {name: f"{name}{(i * 7 + j) % 101}" for j, name in enumerate(names)}

    rows = [entry(f"o{i % 97}", i, -1, wallet=f"w{i % 89}", **dimensions(i)) for i in range(1, 400)]
    store = Store(HOURLY)
    apply(store, Buckets(HOURLY, 10_000), rows, 0, len(rows))
    assert store.totals() == folded(rows, "hour")


def test_a_batch_without_usage_adds_nothing() -> None:
    rows = [entry("acme", 1, 5, kind="purchase"), entry("acme", 2, -5, kind="refund", reason="purchase_refunded")]
    assert usage_rows(batch_of("entry", rows), 0, np.arange(2)) is None
    assert isinstance(usage_rows(batch_of("entry", [entry("acme", 3, -1)]), 0, np.arange(1)).dims, pa.Table)  # type: ignore[union-attr]
