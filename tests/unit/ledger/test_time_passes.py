"""What time alone brings: days of credit left, notices of expiry, free credits that go (product rules 4, 25, 26)."""

from __future__ import annotations

import pytest

from schemas.amounts import NANOS
from schemas.enums import AlertKind, EntryKind, RefundTarget, SettingKind
from streams.ledger.entry import Entry
from streams.ledger.grants import EXPIRING_NOTICE_MICROS
from tests.unit.ledger.world import DAY, World


def follow(world: World, days: str) -> None:
    rules = [{"rule_id": "d", "type": "days_left_below", "level": days, "channels": ["email"]}]
    world.set(SettingKind.THRESHOLDS, {"unit": "USD", "rules": rules})


def alerts_of(world: World) -> list[AlertKind]:
    return [alert.kind for alert in world.alerts]


def reasons(entries: list[Entry]) -> list[tuple[EntryKind, str | None]]:
    return [(entry.kind, entry.reason) for entry in entries]


def test_days_left_are_judged_by_the_usage_of_complete_days() -> None:
    world = World()
    world.buy("100")
    follow(world, "5")
    world.use("15")
    assert alerts_of(world) == []  # the day is not over
    assert reasons(world.tick(DAY)) == [(EntryKind.ROLLOVER, "day_ended")]
    assert alerts_of(world) == []  # 85 left at 15 a day
    (alert,) = world.use("10").alerts  # 75 at 15 a day: on the line
    assert (alert.kind, alert.rule_id, alert.level, alert.channels) == (AlertKind.DAYS_LEFT, "d", "5", ("email",))
    world.check()


def test_a_purchase_does_not_distort_the_rate_and_arms_it_again() -> None:
    world = World()
    world.buy("50")
    follow(world, "5")
    world.use("15")
    world.tick(DAY)
    assert alerts_of(world) == [AlertKind.DAYS_LEFT]
    (resolved,) = world.buy("1000").alerts
    assert resolved.thresholds_left == ("d",)
    wallet = world.account().wallets["USD"]
    assert wallet.burn is not None
    assert wallet.burn.days == [15 * NANOS]
    world.check()


def test_a_quiet_wallet_stops_having_days() -> None:
    world = World()
    world.buy("1000")
    follow(world, "1")
    world.use("70")
    entries = world.tick(20 * DAY)
    assert len(entries) == 8  # the day of usage, and a week until it is out of the mean
    assert world.tick(5 * DAY) == []
    world.use("1")
    assert len(world.tick(DAY)) == 1
    world.check()


def test_the_turn_of_the_month_does_not_lose_a_days_usage() -> None:
    world = World()
    world.buy("1000")
    world.tick(30 * DAY)
    follow(world, "1")
    world.use("70")
    world.tick(DAY)
    wallet = world.account().wallets["USD"]
    assert wallet.burn is not None
    assert (wallet.used, wallet.burn.days) == (0, [70 * NANOS])
    world.check()


def test_an_expiry_is_told_a_week_before_and_again_when_it_comes() -> None:
    world = World()
    world.give("30", expires_at=world.at + 30 * DAY, purchase_id="g")
    world.use("10")
    assert world.tick(30 * DAY - EXPIRING_NOTICE_MICROS - 1) == []
    (entry,) = world.tick(1)
    assert reasons([entry]) == [(EntryKind.ROLLOVER, "grant_expiring")]
    (alert,) = world.alerts
    assert (alert.kind, alert.rule_id, alert.level) == (AlertKind.EXPIRING, "purchase/g", "20")
    world.tick(EXPIRING_NOTICE_MICROS)
    assert alerts_of(world)[1:] == [AlertKind.FREE_EXPIRED, AlertKind.BALANCE_LOW, AlertKind.BALANCE_DEPLETED]
    world.check()


def test_one_that_lives_no_longer_than_a_week_is_not_told_before() -> None:
    world = World()
    world.give("30", expires_at=world.at + EXPIRING_NOTICE_MICROS)
    assert reasons(world.tick(EXPIRING_NOTICE_MICROS)) == [(EntryKind.EXPIRY, "grant_expired")]


def test_twenty_rules_and_no_more() -> None:
    world = World()
    rules = [{"rule_id": f"r{n}", "type": "used_percent", "level": str(n)} for n in range(21)]
    assert not world.set(SettingKind.THRESHOLDS, {"unit": "USD", "rules": rules[:20]}).rejected
    assert world.set(SettingKind.THRESHOLDS, {"unit": "USD", "rules": rules}).rejected


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (22, [AlertKind.EXPIRING]),
        (23, []),  # a week before its end, to the microsecond
        (28, []),
        (31, []),
    ],
)
@pytest.mark.parametrize("forgotten", [False, True])
def test_credits_that_come_back_in_the_last_week_of_their_grant_are_not_said_to_expire_in_a_week(
    days: int, expected: list[AlertKind], forgotten: bool
) -> None:
    world = World()
    world.give("20", purchase_id="g", expires_at=world.at + 30 * DAY)
    world.use("20", event_id="u")
    if forgotten:
        world.account().wallets["USD"].exhausted.clear()
    world.tick(days * DAY)
    world.refund(RefundTarget.USAGE, "u", "20")
    world.tick(40 * DAY)
    assert [alert.kind for alert in world.alerts if alert.kind is AlertKind.EXPIRING] == expected
    assert "grant_expired" in [entry.reason for entry in world.entries["acme"]]
    if not forgotten:
        world.check()


def test_a_grant_is_noticed_once_whatever_comes_back_to_it() -> None:
    world = World()
    world.give("20", purchase_id="g", expires_at=world.at + 30 * DAY)
    world.use("15", event_id="u")
    world.tick(25 * DAY)
    (alert,) = (alert for alert in world.alerts if alert.kind is AlertKind.EXPIRING)
    assert alert.level == "5"
    world.refund(RefundTarget.USAGE, "u", "15")
    world.tick(10 * DAY)
    assert [alert.kind for alert in world.alerts].count(AlertKind.EXPIRING) == 1
    world.check()
