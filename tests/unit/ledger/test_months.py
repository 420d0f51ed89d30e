"""Months begin at midnight of the 1st in the org's time zone."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.ledger.months import month_name, month_of, month_starts_at


def micros(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("month", "zone", "starts_at"),
    [
        (2026 * 12 + 4, "UTC", "2026-05-01T00:00:00+00:00"),
        (2026 * 12 + 0, "UTC", "2026-01-01T00:00:00+00:00"),
        (2026 * 12 + 4, "Europe/Madrid", "2026-05-01T00:00:00+02:00"),
        (2026 * 12 + 0, "Europe/Madrid", "2026-01-01T00:00:00+01:00"),
        (2026 * 12 + 4, "America/Los_Angeles", "2026-05-01T00:00:00-07:00"),
        (2026 * 12 + 4, "Asia/Kolkata", "2026-05-01T00:00:00+05:30"),
    ],
)
def test_a_month_starts_at_local_midnight(month: int, zone: str, starts_at: str) -> None:
    assert month_starts_at(month, zone) == micros(starts_at)


@given(
    st.integers(0, 4_000_000_000 * 1_000_000),
    st.sampled_from(["UTC", "Europe/Madrid", "Pacific/Kiritimati", "America/St_Johns"]),
)
def test_every_instant_is_in_its_month(at: int, zone: str) -> None:
    month = month_of(at, zone)
    assert month_starts_at(month, zone) <= at < month_starts_at(month + 1, zone)


def test_names() -> None:
    assert month_name(2026 * 12) == "2026-01"
    assert month_name(2026 * 12 + 11) == "2026-12"
