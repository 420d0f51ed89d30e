"""Times: whole microseconds, and nothing without a zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.times import TIME_DOUBTED_BELOW, TIME_MAX, format_time, mistaken_unit, parse_time, to_datetime


@pytest.mark.parametrize(
    ("value", "micros"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-31T12:00:00Z", 1_769_860_800_000_000),
        ("2026-01-31T13:00:00+01:00", 1_769_860_800_000_000),
        ("2026-01-31T12:00:00.000001Z", 1_769_860_800_000_001),
        ("2299-12-31T23:59:59.999999Z", TIME_MAX),
        (5, 5),
        (TIME_MAX, TIME_MAX),
        (datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 0),
        (datetime(1970, 1, 2, tzinfo=UTC), 86_400_000_000),
    ],
)
def test_parse(value: Any, micros: int) -> None:
    assert parse_time(value) == micros


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-31T12:00:00", "2026-01-31", "yesterday", "", "1769860800000000", "2026-02-30T00:00:00Z", 10**400,
        "1969-12-31T23:59:59Z", "2300-01-01T00:00:00Z", datetime(2026, 1, 1), 1.5, True, None, -1, TIME_MAX + 1,
    ],
    ids=repr,
)  # fmt: skip
def test_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_time(value)


NOON_US = 1_769_860_800_000_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (NOON_US // 1_000, "looks like milliseconds since 1970.*multiply by 1,000$"),
        (NOON_US // 1_000_000, "looks like seconds since 1970.*multiply by 1,000,000$"),
        (NOON_US * 1_000, "looks like nanoseconds since 1970.*divide by 1,000$"),
        ("1970-01-21T11:37:40Z", "looks like milliseconds"),
    ],
)
def test_another_unit_is_told(value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_time(value)


def test_what_is_no_unit_is_a_time() -> None:
    assert mistaken_unit(0) is None
    assert mistaken_unit(NOON_US) is None
    assert mistaken_unit(TIME_DOUBTED_BELOW) is None
    assert mistaken_unit(TIME_DOUBTED_BELOW - 1) is not None


@given(st.integers(0, TIME_MAX).filter(lambda micros: mistaken_unit(micros) is None))
def test_there_and_back(micros: int) -> None:
    assert parse_time(format_time(micros)) == micros
    assert parse_time(to_datetime(micros)) == micros


def test_format() -> None:
    assert format_time(0) == "1970-01-01T00:00:00Z"
    assert format_time(1_500_000) == "1970-01-01T00:00:01.500000Z"
