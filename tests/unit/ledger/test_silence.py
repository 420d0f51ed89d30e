"""A wallet that never had credits has no alerts about credits (product rule 26)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from schemas.enums import AlertKind, SettingKind
from streams.ledger.entry import Alert
from tests.unit.ledger.world import DAY, World

RULES = [
    {"rule_id": "used", "type": "used_percent", "level": "80"},
    {"rule_id": "left", "type": "left_percent", "level": "25"},
    {"rule_id": "balance", "type": "balance_at_or_below", "level": "20"},
    {"rule_id": "days", "type": "days_left_below", "level": "3"},
]


def alerts_of(alerts: list[Alert] | tuple[Alert, ...]) -> list[str | None]:
    return [alert.rule_id for alert in alerts]


@pytest.mark.fault(
    "rules-before-credits",
    title="rules are set for an organisation that never had credits",
    provoked="percent used, percent left, balance and days rules set at once; then usage, a month; then credits",
    holds="no alert before there were credits; then each line as ever",
    faults_row=19,
)
def test_rules_are_silent_until_there_were_credits(seen: Callable[[str], None]) -> None:
    world = World()
    world.set(SettingKind.THRESHOLDS, {"unit": "USD", "rules": RULES})
    world.set(SettingKind.WALLET, {"unit": "USD", "low_balance_threshold": "10"})
    world.use("5")
    world.tick(40 * DAY)
    world.use("5")
    assert world.alerts == []
    assert alerts_of(world.buy("110").alerts) == []
    assert alerts_of(world.use("78.999999999").alerts) == ["left"]
    assert alerts_of(world.use("0.000000001").alerts) == ["used"]
    assert alerts_of(world.use("6").alerts) == ["balance"]
    assert alerts_of(world.use("20").alerts) == ["low", "depleted"]
    world.check()
    seen("no alert before the first purchase; after it each line once, as it was reached")


def test_the_first_credits_are_judged_like_any() -> None:
    """They do not pay all that is owed: the wallet is low and depleted from then on."""
    world = World()
    world.use("5")
    assert world.alerts == []
    assert alerts_of(world.buy("3").alerts) == ["low", "depleted"]
    world.check()


def test_credits_that_were_gone_when_they_came_are_none() -> None:
    world = World()
    world.use("5")
    world.give("20", expires_at=world.at - 1)
    assert [alert.kind for alert in world.alerts] == [AlertKind.FREE_EXPIRED]
    world.check()


def test_an_allowance_and_a_transfer_are_credits() -> None:
    world = World()
    world.set(SettingKind.THRESHOLDS, {"unit": "USD", "rules": RULES[2:3]})
    assert alerts_of(world.set(SettingKind.WALLET, {"unit": "USD", "allowance": "15"}).alerts) == ["balance"]
    for org in ("acme", "beta"):
        world.set(SettingKind.ORG, {"administrators": ["alice"]}, org)
    world.set(SettingKind.THRESHOLDS, {"unit": "USD", "rules": RULES[2:3]}, "beta")
    before = len(world.alerts)
    world.send("5", "acme", "beta")
    world.deliver()
    assert "balance" in {alert.rule_id for alert in world.alerts[before:] if alert.org_id == "beta"}
    world.check()


@pytest.mark.parametrize(
    ("kind", "body", "alert"),
    [
        ("thresholds", {"rules": [{"rule_id": "m", "type": "month_spend_above", "level": "5"}]}, "m"),
        ("month_limits", {"allowed_limit": "5"}, "allowed_limit"),
        ("budget", {"budget_id": "b", "scope": {}, "window": "month", "limit": "5"}, "b"),
        ("wallet", {"negative_limit": "5"}, "negative_limit"),
    ],
)
def test_what_is_measured_by_usage_is_told_all_the_same(kind: str, body: dict[str, object], alert: str) -> None:
    """An organisation that pays afterwards has limits and budgets, and no credits."""
    world = World()
    world.set(SettingKind(kind), {"unit": "USD", **body})
    assert alerts_of(world.use("5").alerts) == [alert]
    world.check()
