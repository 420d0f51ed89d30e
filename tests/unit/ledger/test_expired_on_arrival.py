"""Credits that have expired by the time they come in pay no debt: they expire whole (product rule 4)."""

from __future__ import annotations

import pytest

from schemas.amounts import NANOS
from schemas.enums import AlertKind, RefundTarget, SettingKind
from tests.unit.ledger.world import DAY, World


@pytest.mark.parametrize("ends_in", [-DAY, 0])
def test_a_gift_that_has_expired_pays_no_debt(ends_in: int) -> None:
    world = World()
    world.use("5")
    entries = world.give("10", expires_at=world.at + ends_in).entries
    assert [(entry.kind, entry.amount_nanos) for entry in entries] == [
        ("purchase", 10 * NANOS),
        ("expiry", -10 * NANOS),
    ]
    assert world.settled() == -5 * NANOS
    world.check()


def test_a_gift_that_lives_a_moment_longer_pays() -> None:
    world = World()
    world.use("5")
    world.give("10", expires_at=world.at + 1)
    world.tick(DAY)
    assert world.settled() == 0
    world.check()


def test_what_expires_on_its_way_to_another_org_pays_no_debt_there() -> None:
    world = World()
    for org in ("acme", "beta"):
        world.set(SettingKind.ORG, {"administrators": ["alice"]}, org)
    world.use("5", "beta")
    world.give("3", expires_at=world.at + DAY)
    world.buy("4")
    world.send("7", "acme", "beta")
    world.tick(2 * DAY)
    world.deliver()
    assert world.settled("beta") == -NANOS
    world.check()


def _alerts_of(world: World, before: int) -> list[tuple[AlertKind, str | None]]:
    return [(alert.kind, alert.rule_id) for alert in world.alerts[before:]]


def test_a_gift_that_has_expired_lifts_no_wallet_over_its_lines() -> None:
    """Nothing of it could ever be spent: neither the alarms nor the stop are left, and raised again."""
    world = World()
    world.set(SettingKind.WALLET, {"unit": "USD", "negative_limit": "5"})
    world.use("6")
    before = len(world.alerts)
    world.give("20", purchase_id="g", expires_at=world.at - 1)
    assert _alerts_of(world, before) == [(AlertKind.FREE_EXPIRED, "purchase/g")]
    world.check()


def test_what_returns_to_an_expired_grant_lifts_no_wallet_over_its_lines() -> None:
    world = World()
    world.set(SettingKind.MONTH_LIMITS, {"unit": "USD", "alert_threshold": "15"})
    world.give("20", purchase_id="g", expires_at=world.at + 10 * DAY)
    world.use("20", event_id="u")
    world.tick(11 * DAY)
    before = len(world.alerts)
    world.refund(RefundTarget.USAGE, "u", "20")
    alerts = [each for each in _alerts_of(world, before) if each[0] is not AlertKind.EXPIRING]
    assert alerts == [(AlertKind.RESOLVED, "resolved"), (AlertKind.FREE_EXPIRED, "purchase/g")]
    (resolved,) = (alert for alert in world.alerts[before:] if alert.kind is AlertKind.RESOLVED)
    assert resolved.thresholds_left == ("alert_threshold",)  # less was used, though nothing is left of it
    world.check()


def test_only_what_lasts_of_a_refund_lifts_a_wallet_over_a_line() -> None:
    world = World()
    world.buy("5", purchase_id="p")
    world.give("20", purchase_id="g", expires_at=world.at + 10 * DAY)
    world.use("22", event_id="u")  # 20 of the gift, 2 of the purchase
    world.tick(11 * DAY)
    before = len(world.alerts)
    world.refund(RefundTarget.USAGE, "u", "22")
    assert AlertKind.RESOLVED not in [kind for kind, _ in _alerts_of(world, before)]
    before = len(world.alerts)
    world.buy("20")
    assert _alerts_of(world, before) == [(AlertKind.RESOLVED, "resolved")]
    world.check()


def test_an_amendment_that_leaves_expired_credits_lifts_no_wallet_over_a_line() -> None:
    world = World()
    world.buy("5")
    world.give("20", purchase_id="g", expires_at=world.at + 10 * DAY)
    world.use("20", event_id="u")
    world.tick(11 * DAY)
    before = len(world.alerts)
    world.use("4", event_id="u", revision=1)
    alerts = [each for each in _alerts_of(world, before) if each[0] is not AlertKind.EXPIRING]
    assert alerts == [(AlertKind.FREE_EXPIRED, "purchase/g")]
    world.check()
