"""Where the hours, days and months of an organisation begin, in its own time zone (product rule 31). Pure.

Rules of this file:
1. A range of time is cut at each full local hour, at each local midnight, or at each 1st of a month. A list of cuts
   begins with the range's start and ends with its end, so that the first and the last span may be shorter.
2. Days are as long as the clocks make them: 23, 24 or 25 hours, and none where the calendar skips a day. An hour also
   ends when the clocks change; an hour that is repeated is two spans.
3. Usage is summed by whole hours, days and months of UTC. `source_of` says the coarsest table in which no bucket has a
   cut inside it; zones of half and quarter hours have none, and their spans are summed from the ledger's entries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import assert_never
from zoneinfo import ZoneInfo

from schemas.enums import BudgetWindow
from schemas.times import to_datetime
from streams.ledger.windows import window_of, window_starts_at

SECOND_US = 10**6
HOUR_US = 3_600 * SECOND_US
DAY_US = 24 * HOUR_US
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Granularity(StrEnum):
    """How long the spans of a report are."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class Source(StrEnum):
    """Where a report is summed from."""

    MONTHLY = "usage_monthly"
    DAILY = "usage_daily"
    HOURLY = "usage_hourly"
    ENTRIES = "ledger"


class TooManySpansError(ValueError):
    """The range has more spans than one answer may have."""


def cut(granularity: Granularity, starts_at: int, ends_at: int, time_zone: str, spans_max: int) -> list[int]:
    """The cuts of a range, ascending: `starts_at`, where each later span begins, `ends_at`. Microseconds UTC.

    Raises `TooManySpansError` where the range has more than `spans_max` spans.
    """
    following = _following(granularity, time_zone)
    cuts = [starts_at]
    while cuts[-1] < ends_at:
        if len(cuts) > spans_max:
            raise TooManySpansError(f"more than {spans_max:,} spans of one {granularity.value}")
        cuts.append(min(following(cuts[-1]), ends_at))
    return cuts


def begin(granularity: Granularity, at: int, time_zone: str) -> int:
    """The start of the local hour, day or month that an instant is in."""
    match granularity:
        case Granularity.HOUR:
            return at - (at + _offset(at, ZoneInfo(time_zone))) % HOUR_US
        case Granularity.DAY:
            return window_starts_at(BudgetWindow.DAY, window_of(BudgetWindow.DAY, at, time_zone), time_zone)
        case Granularity.MONTH:
            return window_starts_at(BudgetWindow.MONTH, window_of(BudgetWindow.MONTH, at, time_zone), time_zone)
        case _:
            assert_never(granularity)


def source_of(cuts: Sequence[int]) -> Source:
    """The coarsest table whose buckets do not contain one of these cuts inside."""
    if all(_is_utc_month(each) for each in cuts):
        return Source.MONTHLY
    if not any(each % DAY_US for each in cuts):
        return Source.DAILY
    if not any(each % HOUR_US for each in cuts):
        return Source.HOURLY
    return Source.ENTRIES


def local_text(at: int, time_zone: str) -> str:
    """An instant with the zone's offset: 2026-05-01T00:00:00+05:30."""
    return to_datetime(at).astimezone(ZoneInfo(time_zone)).isoformat()


def local_midnight(year: int, month: int, day: int, time_zone: str) -> int:
    """The instant at which a local day begins; ValueError for a date that the calendar does not have."""
    local = datetime(year, month, day, tzinfo=ZoneInfo(time_zone))
    return (local.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)


def _following(granularity: Granularity, time_zone: str) -> Callable[[int], int]:
    """The function from an instant to the start of the next span."""
    match granularity:
        case Granularity.HOUR:
            zone = ZoneInfo(time_zone)
            return lambda at: _next_hour(at, zone)
        case Granularity.DAY:
            return lambda at: _next_window(BudgetWindow.DAY, at, time_zone)
        case Granularity.MONTH:
            return lambda at: _next_window(BudgetWindow.MONTH, at, time_zone)
        case _:
            assert_never(granularity)


def _next_window(window: BudgetWindow, at: int, time_zone: str) -> int:
    """The next midnight or 1st; a day that the calendar skips has no length, and is passed over."""
    number = window_of(window, at, time_zone) + 1
    while (starts_at := window_starts_at(window, number, time_zone)) <= at:
        number += 1
    return starts_at


def _next_hour(at: int, zone: ZoneInfo) -> int:
    """The next full local hour, or the moment at which the clocks change, if that comes first."""
    offset = _offset(at, zone)
    full = at + HOUR_US - (at + offset) % HOUR_US
    if _offset(full - 1, zone) == offset:
        return full
    before, after = at, full - 1  # the clocks change between these two
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (middle, after) if _offset(middle, zone) == offset else (before, middle)
    return after


def _offset(at: int, zone: ZoneInfo) -> int:
    """What local time is ahead of UTC at an instant, in microseconds."""
    ahead = to_datetime(at).astimezone(zone).utcoffset()
    assert ahead is not None, "a zone has an offset"
    return ahead // timedelta(microseconds=1)


def _is_utc_month(at: int) -> bool:
    return at % DAY_US == 0 and to_datetime(at).day == 1
