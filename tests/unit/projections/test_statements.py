"""Monthly statements (product rule 24): opening + movements = closing, in the org's own months, from month to month."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import given
from hypothesis import strategies as st

from projections.finance import Finance, MonthToComeError, UnknownWalletError
from projections.sink import Sink
from projections.statements import (
    MOVEMENT_NAMES,
    Movement,
    StatementBrokenError,
    month,
    month_at,
    parse_month,
    wallet_statement,
    zone_at,
)
from schemas.enums import EntryKind
from schemas.records import BundledSchemas
from schemas.times import parse_time
from streams.ledger.months import month_of
from tests.unit.projections.entries import LEDGER, NOON, TOPICS, Row, entry, inbound

DAY = 24 * 3_600 * 10**6
ZONES = ("UTC", "Europe/Madrid", "America/Los_Angeles", "Asia/Tokyo", "Pacific/Kiritimati", "Pacific/Niue")


def at(text: str) -> int:
    return parse_time(text)


def org_setting(seq: int, zone: str, recorded_at: int, org: str = "acme") -> Row:
    details = f'{{"kind":"org","body":{{"time_zone":"{zone}","closed":false}},"before":null}}'
    return entry(org, seq, 0, kind="setting", wallet="", details=details, recorded_at=recorded_at,
                 source_topic=TOPICS.name("settings"))  # fmt: skip


def project(client: Client, rows: list[Row]) -> Finance:
    """The rows, with running balances, in ClickHouse, twice."""
    balances: dict[tuple[str, str], int] = {}
    for row in rows:
        wallet = (row["org_id"], row["wallet"])
        balances[wallet] = row["balance_nanos"] = balances.get(wallet, 0) + row["amount_nanos"]
    Sink(client, TOPICS, BundledSchemas()).apply([inbound(rows, 0)])
    for table in ("ledger", "activity", "purchases"):
        client.command(f"INSERT INTO {table} SELECT * FROM {table}")
    return Finance(client, LEDGER)


# Months.


@given(
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from(ZONES)), max_size=4),
    st.integers(0, 400),
    st.integers(0, 23),
)
def test_every_instant_is_in_one_month(changes: list[tuple[int, str]], day: int, hour: int) -> None:
    """Whatever the org did to its time zone, months follow each other without a gap, and no month begins twice."""
    start = at("2026-01-01T00:00:00Z")
    zones = [(start + days * DAY + 7, zone) for days, zone in sorted(dict(changes).items())]
    instant = start + day * DAY + hour * DAY // 24
    found = month_at(instant, zones)
    assert found.starts_at <= instant < found.ends_at
    assert month(found.number + 1, zones).starts_at == found.ends_at
    assert found.number >= month_of(instant, zone_at(instant, zones))
    # What is said later about the zone does not move a month that has begun.
    known = [(since, zone) for since, zone in zones if since <= instant]
    assert month_at(instant, known).starts_at == found.starts_at


def test_a_month_in_its_zone() -> None:
    may = month(parse_month("2026-05"), [(0, "Europe/Madrid")])
    assert (may.name, may.starts_at, may.ends_at) == ("2026-05", at("2026-04-30T22:00:00Z"), at("2026-05-31T22:00:00Z"))


def test_a_zone_that_moves_over_the_turn_of_the_month() -> None:
    """UTC, then Tokyo from a moment at which it is June there already: June begins at that moment."""
    moved = at("2026-05-31T20:00:00Z")
    zones = [(moved, "Asia/Tokyo")]
    assert month(parse_month("2026-05"), zones).ends_at == moved
    assert month(parse_month("2026-05"), zones).time_zone == "UTC"
    assert month(parse_month("2026-06"), zones).time_zone == "Asia/Tokyo"
    # And west: June has begun in UTC, and does not begin again.
    zones = [(at("2026-06-01T01:00:00Z"), "America/Los_Angeles")]
    assert month_at(at("2026-06-01T02:00:00Z"), zones).name == "2026-06"
    assert month_at(at("2026-06-01T02:00:00Z"), zones).time_zone == "America/Los_Angeles"
    assert month(parse_month("2026-07"), zones).starts_at == at("2026-07-01T07:00:00Z")


@pytest.mark.parametrize("text", ["2026-13", "2026-00", "2026-5", "05-2026", "", "1969-12", "2300-01", "2026-05-01"])
def test_what_is_no_month(text: str) -> None:
    with pytest.raises(ValueError, match="is not a month such as 2026-05"):
        parse_month(text)


# Wallets.


def test_it_adds_up_or_is_not_shown() -> None:
    moved = [
        Movement("usage", 3, Decimal(-7)),
        Movement("purchase", 1, Decimal(10)),
        Movement("of_tomorrow", 1, Decimal(1)),
    ]
    shown = wallet_statement("USD", Decimal(2), Decimal(6), moved)
    assert [each["kind"] for each in shown["movements"]] == ["purchase", "usage", "of_tomorrow"]
    assert (shown["opening"], shown["movement"], shown["closing"]) == ("2", "4", "6")
    with pytest.raises(StatementBrokenError):
        wallet_statement("USD", Decimal(2), Decimal("6.000000001"), moved)


def test_every_kind_that_can_move_a_balance_has_a_name() -> None:
    never = {EntryKind.HOLD, EntryKind.HOLD_RELEASE, EntryKind.SETTING, EntryKind.REJECTED, EntryKind.REFUND}
    assert set(MOVEMENT_NAMES) == {kind.value for kind in EntryKind if kind not in never} | {
        "promotional",
        "usage_refunded",
        "purchase_refunded",
    }


# In ClickHouse.


def test_months_follow_each_other(client: Client) -> None:
    madrid = [
        org_setting(1, "Europe/Madrid", at("2026-04-02T00:00:00Z")),
        entry("acme", 2, 50 * 10**9, kind="purchase", recorded_at=at("2026-04-30T21:59:59.999999Z")),
        entry("acme", 3, -10 * 10**9, recorded_at=at("2026-04-30T22:00:00Z")),
        entry("acme", 4, 0, kind="hold", recorded_at=at("2026-05-02T22:00:00Z")),
        entry("acme", 5, -5 * 10**9, recorded_at=at("2026-05-31T21:59:59Z")),
        entry("acme", 6, 7 * 10**9, wallet="EUR", kind="purchase", recorded_at=at("2026-07-01T00:00:00Z")),
    ]
    finance = project(client, madrid)
    now = at("2026-07-15T00:00:00Z")

    def shown(name: str, wallet: str | None = None) -> list[tuple[Any, ...]]:
        found = finance.statement("acme", now=now, number=parse_month(name), wallet=wallet)
        assert found is not None
        assert found["month"] == name
        return [
            (
                part["wallet"],
                part["opening"],
                {each["kind"]: each["amount"] for each in part["movements"]},
                part["closing"],
            )
            for part in found["wallets"]
        ]

    assert shown("2026-03") == []
    assert shown("2026-04") == [("USD", "0", {"purchase": "50"}, "50")]
    assert shown("2026-05") == [("USD", "50", {"usage": "-15"}, "35")]
    assert shown("2026-06") == [("USD", "35", {}, "35")]
    assert shown("2026-07") == [("EUR", "0", {"purchase": "7"}, "7"), ("USD", "35", {}, "35")]
    assert shown("2026-07", "EUR") == [("EUR", "0", {"purchase": "7"}, "7")]
    assert finance.statement("acme", now=now) == finance.statement("acme", now=now, number=parse_month("2026-07"))
    assert finance.statement("nosuch", now=now) is None
    with pytest.raises(UnknownWalletError):
        finance.statement("acme", now=now, wallet="GBP")
    with pytest.raises(MonthToComeError):
        finance.statement("acme", now=now, number=parse_month("2026-08"))


def test_a_setting_without_a_time_zone_means_utc(client: Client) -> None:
    rows = [org_setting(1, "Asia/Tokyo", NOON), org_setting(2, "", NOON + DAY), entry("acme", 3, 1, recorded_at=NOON)]
    rows[1]["details"] = '{"kind":"org","body":{"closed":false},"before":{"time_zone":"Asia/Tokyo"}}'
    found = project(client, rows).statement("acme", now=NOON + 30 * DAY)
    assert found is not None
    assert found["time_zone"] == "UTC"


def test_what_is_beyond_the_position_is_not_in_it(client: Client) -> None:
    """A projection at work has rows beyond its position; a part of them would not add up."""
    rows = [entry("acme", seq, 10**9, kind="purchase", recorded_at=NOON) for seq in (1, 2, 3)]
    finance = project(client, rows)
    client.command("TRUNCATE TABLE positions")
    client.command(f"INSERT INTO positions VALUES ('{LEDGER}', 0, 3, now64(6))")  # offsets 0 and 2 are before it
    found = finance.statement("acme", now=NOON)
    assert found is not None
    assert found["wallets"][0]["closing"] == "2"


def test_a_lost_entry_is_noticed(client: Client) -> None:
    rows = [entry("acme", seq, 10**9, kind="purchase", recorded_at=NOON) for seq in (1, 2, 3)]
    finance = project(client, rows)
    client.command("DELETE FROM ledger WHERE seq = 2")
    with pytest.raises(StatementBrokenError):
        finance.statement("acme", now=NOON)
