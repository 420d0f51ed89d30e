"""Usage under an id that is older than the window of ids: booked, and counted (it may be there already)."""

from __future__ import annotations

import uuid

import numpy as np
import pyarrow as pa
import pytest

from streams.processing.old_ids import old_ids
from tests.model.memory import NOW_US, FixedPrices, MemoryLedger
from tests.unit.processing.test_step import HOUR_US, PRICE_LIST, usage

WINDOW_US = 72 * HOUR_US
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def uuid7(at: int, random: int = 0x123456789ABCDEF) -> str:
    """A UUID of version 7 made at `at` microseconds (RFC 9562)."""
    return str(uuid.UUID(int=(at // 1_000) << 80 | 0x7 << 76 | 0x2 << 62 | random))


def ulid(at: int) -> str:
    """A ULID made at `at` microseconds."""
    number = (at // 1_000) << 80 | 0xABCDEF0123456789
    return "".join(CROCKFORD[number >> 5 * index & 31] for index in reversed(range(26)))


def count(*ids: str) -> int:
    return old_ids(pa.array(ids), np.full(len(ids), NOW_US), WINDOW_US)


@pytest.mark.parametrize("make", [uuid7, ulid, lambda at: uuid7(at).upper(), lambda at: ulid(at).lower()])
def test_an_id_made_before_the_window_is_old_and_one_inside_it_is_not(make) -> None:  # type: ignore[no-untyped-def]
    assert count(make(NOW_US - 78 * HOUR_US)) == 1
    assert count(make(NOW_US - WINDOW_US - 1_000)) == 1
    assert count(make(NOW_US - WINDOW_US)) == 0
    assert count(make(NOW_US)) == 0


@pytest.mark.parametrize(
    "other",
    [
        "e1",
        str(uuid.UUID(int=0x9F1C2D3E4A5B4C6D8E7F001122334455, version=4)),
        "7" * 36,
        "chatcmpl-9f1c2d3e4a5b6c7d-",
        "01ARZ3NDEKTSV4RRFFQ69G5FA!",
        "00000000000000000000000000",
        "zzzzzzzzzzzzzzzzzzzzzzzzzz",
        "é" * 13,
        "é" * 18,
    ],
)
def test_ids_that_carry_no_time_are_not_judged(other: str) -> None:
    assert count(other) == 0


def test_a_column_of_all_kinds_is_counted_row_by_row() -> None:
    old, new = NOW_US - 100 * HOUR_US, NOW_US - HOUR_US
    ids = pa.array(
        ["x", "skipped", uuid7(old), ulid(new), "e1", ulid(old), uuid7(new), "y", str(uuid.UUID(int=7, version=4))]
    )
    assert old_ids(ids.slice(2), np.full(len(ids) - 2, NOW_US), WINDOW_US) == 2


def test_usage_of_100_hours_ago_stamped_again_is_booked_and_counted() -> None:
    """Its id is forgotten, so it is booked twice, and the metric tells. A repeat inside the window counts nothing."""
    book = MemoryLedger(FixedPrices(PRICE_LIST))
    first = NOW_US - 100 * HOUR_US
    book.feed([usage(uuid7(first), at=first, model="m0")])
    assert book.notices == {}
    book.partition.clock_at = book.state.clock_at = NOW_US
    for seen in book.partition.seen.values():
        seen.expire(NOW_US)  # type: ignore[attr-defined]
    book.feed([usage(uuid7(first), model="m0"), usage("e2", model="m0")])
    book.feed([usage(uuid7(first), model="m0")])
    assert book.outcomes["credits.usage.v1"] == {"entries": 3, "duplicates": 1}
    assert book.notices == {"credits.usage.v1": {"old_id": 1}}
