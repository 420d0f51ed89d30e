"""Days, weeks and months in an org's time zone (product rule 11).

Rules of this file: a window is a number that grows by one, so that windows are compared without a calendar: a day is
its proleptic ordinal, a week counts from Monday 0001-01-01, a month is `months.month_of`. Instants: microseconds UTC.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import assert_never
from zoneinfo import ZoneInfo

from schemas.enums import BudgetWindow
from streams.ledger.months import month_of, month_starts_at

DAYS_PER_WEEK = 7

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def window_of(window: BudgetWindow, at: int, time_zone: str) -> int:
    """The number of the window that `at` falls in."""
    match window:
        case BudgetWindow.DAY:
            return _day_of(at, time_zone)
        case BudgetWindow.WEEK:
            return (_day_of(at, time_zone) - 1) // DAYS_PER_WEEK
        case BudgetWindow.MONTH:
            return month_of(at, time_zone)
        case _:
            assert_never(window)


def window_starts_at(window: BudgetWindow, number: int, time_zone: str) -> int:
    """The instant at which window `number` begins."""
    match window:
        case BudgetWindow.DAY:
            return _day_starts_at(number, time_zone)
        case BudgetWindow.WEEK:
            return _day_starts_at(number * DAYS_PER_WEEK + 1, time_zone)
        case BudgetWindow.MONTH:
            return month_starts_at(number, time_zone)
        case _:
            assert_never(window)


def _day_of(at: int, time_zone: str) -> int:
    return (_EPOCH + timedelta(microseconds=at)).astimezone(ZoneInfo(time_zone)).toordinal()


@lru_cache(maxsize=4096)
def _day_starts_at(ordinal: int, time_zone: str) -> int:
    first = datetime.combine(date.fromordinal(ordinal), datetime.min.time(), tzinfo=ZoneInfo(time_zone))
    return (first.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)
