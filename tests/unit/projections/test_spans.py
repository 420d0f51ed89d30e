"""Where local hours, days and months begin: against the calendar, walked in steps of a quarter of an hour."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.spans import (
    DAY_US,
    HOUR_US,
    Granularity,
    Source,
    TooManySpansError,
    begin,
    cut,
    local_midnight,
    local_text,
    source_of,
)
from schemas.times import parse_time, to_datetime

QUARTER_US = HOUR_US // 4
ZONES = (
    "UTC", "Europe/Madrid", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns",
    "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia", "Pacific/Chatham",
)  # fmt: skip
CHANGES = (
    "2026-03-29T00:00:00Z",  # Madrid: 23 hours
    "2026-10-25T00:00:00Z",  # Madrid: 25 hours
    "2026-04-04T14:00:00Z",  # Lord Howe: half an hour back
    "2026-10-03T14:00:00Z",  # Lord Howe: half an hour on
    "2018-11-04T02:00:00Z",  # Sao Paulo: there is no midnight
    "2019-02-17T01:00:00Z",  # Sao Paulo: the last hour of the day comes twice
    "2011-12-30T09:00:00Z",  # Apia: a day is left out
    "2026-02-28T20:00:00Z",
)
MOMENTS = st.sampled_from(CHANGES).map(parse_time)


def walked(granularity: Granularity, starts_at: int, ends_at: int, time_zone: str) -> list[int]:
    """Each quarter of an hour whose local hour, day or month is another than that of the quarter before."""

    def label(at: int) -> object:
        local = to_datetime(at).astimezone(ZoneInfo(time_zone))
        match granularity:
            case Granularity.HOUR:
                return local.date(), local.hour, local.utcoffset()
            case Granularity.DAY:
                return local.date()
            case Granularity.MONTH:
                return local.year, local.month

    inside = range(starts_at + QUARTER_US, ends_at, QUARTER_US)
    return [starts_at, *(at for at in inside if label(at) != label(at - QUARTER_US)), ends_at]


@given(
    zone=st.sampled_from(ZONES),
    moment=MOMENTS,
    before=st.integers(1, 200),
    after=st.integers(1, 200),
    granularity=st.sampled_from(Granularity),
)
def test_cuts_are_where_the_calendar_changes(
    zone: str, moment: int, before: int, after: int, granularity: Granularity
) -> None:
    starts_at, ends_at = moment - before * QUARTER_US, moment + after * QUARTER_US
    assert cut(granularity, starts_at, ends_at, zone, 10_000) == walked(granularity, starts_at, ends_at, zone)


@given(zone=st.sampled_from(ZONES), moment=MOMENTS, later=st.integers(0, 400), granularity=st.sampled_from(Granularity))
def test_a_span_begins_at_or_before_its_instants(zone: str, moment: int, later: int, granularity: Granularity) -> None:
    at = moment + later * QUARTER_US + 1
    start = begin(granularity, at, zone)
    if granularity is not Granularity.HOUR:  # a local hour may have begun before the clocks changed
        assert start <= at < cut(granularity, start, start + 40 * DAY_US, zone, 1_000)[1]
    assert start <= at


def test_a_day_of_half_an_hour_more() -> None:
    """Lord Howe, 5 April 2026: 24 and a half hours, of which one has 30 minutes."""
    start = local_midnight(2026, 4, 5, "Australia/Lord_Howe")
    hours = cut(Granularity.HOUR, start, cut(Granularity.DAY, start, start + 2 * DAY_US, "Australia/Lord_Howe", 9)[1],
                "Australia/Lord_Howe", 99)  # fmt: skip
    lengths = [(later - earlier) // 60_000_000 for earlier, later in itertools.pairwise(hours)]
    assert sum(lengths) == 24 * 60 + 30
    assert sorted(set(lengths)) == [30, 60]
    assert local_text(hours[0], "Australia/Lord_Howe") == "2026-04-05T00:00:00+11:00"


@pytest.mark.parametrize(
    ("granularity", "zone", "source"),
    [
        (Granularity.MONTH, "UTC", Source.MONTHLY),
        (Granularity.DAY, "UTC", Source.DAILY),
        (Granularity.MONTH, "Europe/Madrid", Source.HOURLY),
        (Granularity.DAY, "Europe/Madrid", Source.HOURLY),
        (Granularity.DAY, "Asia/Kolkata", Source.ENTRIES),
        (Granularity.HOUR, "Asia/Kathmandu", Source.ENTRIES),
        (Granularity.HOUR, "Europe/Madrid", Source.HOURLY),
    ],
)
def test_the_coarsest_table_that_fits(granularity: Granularity, zone: str, source: Source) -> None:
    starts_at, ends_at = local_midnight(2026, 4, 1, zone), local_midnight(2026, 6, 1, zone)
    assert source_of(cut(granularity, starts_at, ends_at, zone, 10_000)) is source


def test_a_range_that_begins_inside_an_hour_needs_the_entries() -> None:
    assert source_of([QUARTER_US, HOUR_US]) is Source.ENTRIES


def test_too_many_spans_are_refused() -> None:
    with pytest.raises(TooManySpansError, match="more than 10 spans of one hour"):
        cut(Granularity.HOUR, 0, 11 * HOUR_US, "UTC", 10)
    assert len(cut(Granularity.HOUR, 0, 10 * HOUR_US, "UTC", 10)) == 11


def test_text_of_an_instant() -> None:
    at = parse_time(datetime(2026, 4, 30, 18, 30, tzinfo=UTC))
    assert local_text(at, "Asia/Kolkata") == "2026-05-01T00:00:00+05:30"
    assert local_midnight(2026, 5, 1, "Asia/Kolkata") == at
