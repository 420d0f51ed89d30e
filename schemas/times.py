"""Times: whole microseconds since 1970-01-01 UTC, and ISO 8601 text for people.

Rules of this file: a time without a zone is refused, a float never becomes a time, all times are between 1970 and the
end of 2299 (`TIME_MAX`), which Python's calendar and ClickHouse's DateTime64(6) can both hold; and seconds,
milliseconds and nanoseconds given as microseconds are refused by name.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

TIME_MAX = 10_413_792_000_000_000 - 1
"""The last microsecond of 2299."""

_LIKELY_S = (978_307_200, 4_102_444_800)
"""2001 to 2100, in seconds."""

TIME_DOUBTED_BELOW = _LIKELY_S[1] * 1_000
"""17 February 1970, in microseconds: an earlier time may be another unit (`mistaken_unit`)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def parse_time(value: int | str | datetime) -> int:
    """Microseconds of a time given as such, as ISO 8601 text with a zone, or as an aware datetime.

    Raises ValueError, with a sentence for people, for anything else and for times outside 1970-2299.
    """
    if isinstance(value, str):
        value = _parse_iso(value)
    if isinstance(value, datetime):
        if value.tzinfo is None or value.utcoffset() is None:
            raise ValueError("a time needs a zone, such as 2026-01-31T12:00:00Z")
        value = (value - _EPOCH) // _MICROSECOND
    if isinstance(value, bool) or not isinstance(value, int):
        kind = type(value).__name__
        raise ValueError(f"a time is ISO 8601 text with a zone or whole microseconds since 1970, not {kind}")
    mistake = mistaken_unit(value)
    if mistake is not None:
        raise ValueError(mistake)
    if not 0 <= value <= TIME_MAX:
        raise ValueError("a time is between 1970 and 2299")
    return value


def mistaken_unit(micros: int) -> str | None:
    """A sentence where microseconds look like another unit: they would be of 2001 to 2100 in it, and 1970 as they are.

    Two parts of early 1970 are no times for that: no credits are bought, used or lapse in them.
    """
    first, last = _LIKELY_S
    for unit, per_second, remedy in (
        ("seconds", 1, "multiply by 1,000,000"),
        ("milliseconds", 1_000, "multiply by 1,000"),
        ("nanoseconds", 1_000_000_000, "divide by 1,000"),
    ):
        if first * per_second <= micros < last * per_second:
            return f"{micros} looks like {unit} since 1970; a time is whole microseconds: {remedy}"
    return None


def _parse_iso(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:64]!r} is not an ISO 8601 time such as 2026-01-31T12:00:00Z") from None


def to_datetime(micros: int) -> datetime:
    """The aware UTC datetime of a time."""
    return _EPOCH + timedelta(microseconds=micros)


def format_time(micros: int) -> str:
    """ISO 8601 text in UTC with microseconds where there are any: 2026-01-31T12:00:00Z."""
    return to_datetime(micros).isoformat().removesuffix("+00:00") + "Z"
