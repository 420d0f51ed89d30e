"""Calendar months in an org's time zone (product rule 5).

Rules of this file: a month is a number that grows by one (`year * 12 + month - 1`), an instant is microseconds UTC.
A month begins at 00:00 local time on the 1st; where a zone skips that hour, at the instant the clocks skip from.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def month_of(at: int, time_zone: str) -> int:
    """The number of the month that `at` falls in."""
    local = (_EPOCH + timedelta(microseconds=at)).astimezone(ZoneInfo(time_zone))
    return local.year * 12 + local.month - 1


@lru_cache(maxsize=4096)
def month_starts_at(month: int, time_zone: str) -> int:
    """The instant at which month number `month` begins."""
    first = datetime(month // 12, month % 12 + 1, 1, tzinfo=ZoneInfo(time_zone))
    return (first.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)


def month_name(month: int) -> str:
    """The month as people write it: "2026-05"."""
    return f"{month // 12:04d}-{month % 12 + 1:02d}"
