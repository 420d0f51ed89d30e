"""The monthly allowance: granting, lapsing, rolling over, in the org's time zone (product rule 5)."""

from __future__ import annotations

from datetime import datetime

import pytest

from schemas.amounts import NANOS
from schemas.enums import EntryKind, RefundTarget, SettingKind
from streams.ledger.entry import Entry
from tests.unit.ledger.world import DAY, World

ALLOWANCE, ROLLOVER, EXPIRY, USAGE = EntryKind.ALLOWANCE, EntryKind.ROLLOVER, EntryKind.EXPIRY, EntryKind.USAGE


def micros(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * 1_000_000


def wallet(world: World, allowance: str, **more: object) -> list[Entry]:
    return world.set(SettingKind.WALLET, {"unit": "USD", "allowance": allowance, **more}).entries


def moved(entries: list[Entry]) -> list[tuple[EntryKind, int]]:
    return [(entry.kind, entry.amount_nanos // NANOS) for entry in entries]


def test_the_current_month_is_granted_when_the_allowance_is_first_set() -> None:
    world = World()
    setting, allowance = wallet(world, "100")
    assert (setting.kind, setting.amount_nanos, setting.source_topic) == (EntryKind.SETTING, 0, "topic")
    assert (allowance.kind, allowance.amount_nanos, allowance.source_topic) == (ALLOWANCE, 100 * NANOS, "")
    assert allowance.correlation_id == setting.event_id
    assert allowance.grants[0].expires_at == micros("2026-06-01T00:00:00+00:00")
    world.check()


def test_it_resets_on_the_first_and_the_rest_lapses() -> None:
    world = World()
    wallet(world, "100")
    world.use("30")
    june = micros("2026-06-01T00:00:00+00:00")
    assert world.account().due_at == june
    assert world.tick(june - 1 - world.at) == []
    entries = world.tick(1)
    assert moved(entries) == [(ROLLOVER, 0), (EXPIRY, -70), (ALLOWANCE, 100)]
    assert {entry.occurred_at for entry in entries} == {june}
    assert entries[1].reason == "allowance_lapsed"
    usd = world.account().wallets["USD"]
    assert (usd.settled, usd.allocation, usd.used) == (100 * NANOS, 100 * NANOS, 0)
    world.check()


@pytest.mark.parametrize(("limit", "carried"), [("0", 0), ("50", 50), ("70", 70), ("500", 70)])
def test_what_is_left_rolls_over_up_to_the_limit(limit: str, carried: int) -> None:
    world = World()
    wallet(world, "100", rollover_max=limit)
    world.use("30")
    world.tick(31 * DAY)
    usd = world.account().wallets["USD"]
    assert usd.settled == usd.allocation == (100 + carried) * NANOS
    world.check()


def test_rolled_over_credits_count_against_the_limit_again() -> None:
    world = World()
    wallet(world, "100", rollover_max="150")
    for _ in range(3):
        world.tick(31 * DAY)
    assert world.settled() == 250 * NANOS
    entry = world.use("120").entries[-1]
    assert [(part.grant_id, part.amount_nanos // NANOS) for part in entry.slices] == [
        ("allowance/USD/2026-08", 100),
        ("allowance/USD/2026-08/rolled-over", 20),
    ]
    world.check()


def test_bought_credits_roll_over_untouched() -> None:
    world = World()
    wallet(world, "10")
    world.buy("40")
    world.tick(31 * DAY)
    assert world.settled() == 50 * NANOS
    world.check()


def test_months_that_nobody_looked_at_are_caught_up_one_by_one() -> None:
    world = World()
    wallet(world, "100")
    entries = world.tick(31 * DAY + 30 * DAY + 31 * DAY)
    assert moved(entries) == 3 * [(ROLLOVER, 0), (EXPIRY, -100), (ALLOWANCE, 100)]
    assert [entry.event_id for entry in entries if entry.kind is ALLOWANCE] == [
        f"allowance/USD/2026-{month:02d}" for month in (6, 7, 8)
    ]
    world.check()


@pytest.mark.parametrize(
    ("zone", "begins"),
    [
        ("Europe/Madrid", "2026-05-31T22:00:00+00:00"),
        ("America/Los_Angeles", "2026-06-01T07:00:00+00:00"),
        ("Asia/Tokyo", "2026-05-31T15:00:00+00:00"),
    ],
)
def test_the_month_begins_in_the_time_zone_of_the_org(zone: str, begins: str) -> None:
    world = World()
    world.at += DAY
    world.set(SettingKind.ORG, {"time_zone": zone})
    wallet(world, "100")
    assert world.account().due_at == micros(begins)


def test_a_new_time_zone_moves_the_end_of_the_month() -> None:
    world = World()
    world.at += DAY
    wallet(world, "100")
    world.set(SettingKind.ORG, {"time_zone": "Asia/Tokyo"})
    assert world.account().due_at == micros("2026-05-31T15:00:00+00:00")
    world.at = micros("2026-05-31T20:00:00+00:00")
    assert moved(world.settle("acme").entries) == [(ROLLOVER, 0), (EXPIRY, -100), (ALLOWANCE, 100)]
    world.check()


def test_a_zone_where_the_month_has_begun_turns_it_at_once_and_only_once() -> None:
    world = World()
    world.at = micros("2026-05-31T20:00:00+00:00")
    wallet(world, "100")
    outcome = world.set(SettingKind.ORG, {"time_zone": "Asia/Tokyo"})
    assert moved(outcome.entries)[1:] == [(ROLLOVER, 0), (EXPIRY, -100), (ALLOWANCE, 100)]
    world.set(SettingKind.ORG, {"time_zone": "UTC"})
    assert world.tick(5 * DAY) == []
    assert world.account().due_at == micros("2026-07-01T00:00:00+00:00")
    world.check()


def test_a_changed_allowance_counts_from_the_next_month() -> None:
    world = World()
    wallet(world, "100")
    assert len(wallet(world, "30")) == 1
    assert world.settled() == 100 * NANOS
    world.tick(31 * DAY)
    assert world.settled() == 30 * NANOS
    world.check()


def test_an_allowance_taken_away_lapses_and_does_not_come_back() -> None:
    world = World()
    wallet(world, "100")
    wallet(world, "0")
    assert moved(world.tick(31 * DAY)) == [(ROLLOVER, 0), (EXPIRY, -100)]
    assert world.tick(31 * DAY) == []
    assert len(wallet(world, "5")) == 2  # a first setting again: its month is granted
    world.check()


def test_it_is_not_granted_twice_in_a_month() -> None:
    world = World()
    wallet(world, "100")
    wallet(world, "0")
    assert len(wallet(world, "100")) == 1
    assert world.settled() == 100 * NANOS


def test_a_debt_is_paid_from_the_next_allowance() -> None:
    world = World()
    wallet(world, "100")
    world.use("130")
    world.tick(31 * DAY)
    usd = world.account().wallets["USD"]
    assert (usd.settled, usd.allocation, usd.overdraft) == (70 * NANOS, 70 * NANOS, 0)
    world.check()


def test_the_turn_of_the_month_never_dips_on_the_way() -> None:
    """No line is crossed by the lapse that is not crossed when the month has begun."""
    world = World()
    wallet(world, "100")
    rules = [{"rule_id": "half", "type": "left_percent", "level": "50"}]
    world.set(SettingKind.THRESHOLDS, {"unit": "USD", "rules": rules})
    world.use("30")
    assert world.alerts == []
    world.tick(31 * DAY)
    assert world.alerts == []
    world.check()


def test_a_wallet_without_an_allowance_begins_its_month_too() -> None:
    world = World()
    world.buy("100")
    world.use("30")
    entries = world.tick(31 * DAY)
    assert moved(entries) == [(ROLLOVER, 0)]
    usd = world.account().wallets["USD"]
    assert (usd.settled, usd.allocation, usd.used) == (70 * NANOS, 70 * NANOS, 0)
    assert world.account().due_at is None
    world.check()


def test_a_month_in_which_nothing_happened_takes_no_entry() -> None:
    world = World()
    world.buy("100")
    assert world.account().due_at is None
    assert world.tick(400 * DAY) == []
    world.use("1")
    assert world.account().wallets["USD"].used == NANOS
    world.check()


def test_usage_refunded_next_month_returns_to_the_allowance_that_has_lapsed() -> None:
    world = World()
    wallet(world, "100")
    world.use("30", event_id="u")
    world.tick(31 * DAY)
    outcome = world.refund(RefundTarget.USAGE, "u", "30")
    assert moved(outcome.entries) == [(EntryKind.REFUND, 30), (EXPIRY, -30)]
    assert world.settled() == 100 * NANOS
    world.check()


def test_an_allowance_takes_no_more_than_the_bound_of_amounts_leaves() -> None:
    world = World()
    world.buy("8999999999")
    wallet(world, "5")
    assert world.settled() == 9_000_000_000 * NANOS
    world.check()


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Asia/Tokyo"])
@pytest.mark.parametrize("spent", ["100", "99"])
def test_what_comes_back_after_the_time_zone_has_changed_is_still_this_months(zone: str, spent: str) -> None:
    """Whether or not something was left of the allowance when it changed."""
    world = World()
    wallet(world, "100", rollover_max="100")
    world.use(spent, event_id="u")
    world.set(SettingKind.ORG, {"time_zone": zone})
    world.refund(RefundTarget.USAGE, "u", "60")
    world.tick(32 * DAY)
    assert world.settled() == (260 - int(spent)) * NANOS
    world.check()


def test_the_allowance_of_a_month_that_has_ended_stays_ended_when_the_time_zone_changes() -> None:
    world = World()
    wallet(world, "100", rollover_max="100")
    world.use("100", event_id="u")
    world.tick(32 * DAY)
    world.set(SettingKind.ORG, {"time_zone": "America/Los_Angeles"})
    entries = world.refund(RefundTarget.USAGE, "u", "60").entries
    assert moved(entries) == [(EntryKind.REFUND, 60), (EXPIRY, -60)]
    assert world.settled() == 100 * NANOS
    world.check()


def test_a_new_time_zone_may_change_the_order_in_which_credits_are_drawn() -> None:
    """Rolled-over credits end with the month: before the gift by the old zone, after it by the new."""
    world = World()
    wallet(world, "10", rollover_max="10")
    world.tick(31 * DAY)
    world.give("5", expires_at=micros("2026-07-01T03:00:00+00:00"), purchase_id="gift")
    world.use("10")
    assert [part.grant_id for part in world.use("1").entries[0].slices] == ["allowance/USD/2026-06/rolled-over"]
    world.set(SettingKind.ORG, {"time_zone": "America/Los_Angeles"})
    assert [part.grant_id for part in world.use("1").entries[0].slices] == ["purchase/gift"]
    world.check()
