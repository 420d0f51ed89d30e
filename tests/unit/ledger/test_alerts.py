"""Thresholds, low balance, depletion: each crossing once, in order, with an id of its own (product rules 25-28)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from schemas.amounts import NANOS
from schemas.enums import AlertKind, HoldAction, RefundTarget, SettingKind
from streams.ledger.account import AlertState, Wallet, new_account
from streams.ledger.alerts import evaluate_alerts, figures
from streams.ledger.entry import Alert, Outcome
from tests.unit.ledger.world import DAY, World

CROSSED = AlertKind.THRESHOLD_CROSSED
LOW, DEPLETED, RESTORED, RESOLVED = (
    AlertKind.BALANCE_LOW, AlertKind.BALANCE_DEPLETED, AlertKind.BALANCE_RESTORED, AlertKind.RESOLVED,
)  # fmt: skip


def rules(world: World, *wanted: tuple[str, str, str]) -> Outcome:
    body = {"unit": "USD", "rules": [{"rule_id": name, "type": kind, "level": at} for name, kind, at in wanted]}
    return world.set(SettingKind.THRESHOLDS, body)


def quiet() -> World:
    """A wallet of 100 USD whose low line is at 0, so that only what a test sets is heard."""
    world = World()
    world.set(SettingKind.WALLET, {"unit": "USD", "low_balance_threshold": "0"})
    world.buy("100", purchase_id="p")
    assert world.alerts == []
    return world


def alerts_of(outcome: Outcome) -> list[tuple[AlertKind, str | None]]:
    return [(alert.kind, alert.rule_id) for alert in outcome.alerts]


@pytest.mark.fault(
    "line-once",
    title="a balance on a line, then beyond it",
    provoked="one nano-credit onto the line of each kind of rule, then more usage",
    holds="one alert, at the line",
    faults_row=19,
)
@pytest.mark.parametrize(
    ("kind", "level", "before", "onto", "beyond"),
    [
        ("balance_at_or_below", "20", "79.999999999", "0.000000001", "5"),
        ("used_percent", "80", "79.999999999", "0.000000001", "5"),
        ("used_percent", "33.3", "33.299999999", "0.000000001", "5"),
        ("left_percent", "25", "74.999999999", "0.000000001", "5"),
        ("month_spend_above", "50", "49.999999999", "0.000000001", "5"),
    ],
)
def test_on_the_line_counts_and_each_crossing_alerts_once(
    kind: str, level: str, before: str, onto: str, beyond: str, seen: Callable[[str], None]
) -> None:
    world = quiet()
    rules(world, ("r", kind, level))
    assert alerts_of(world.use(before)) == []
    (alert,) = world.use(onto).alerts
    assert (alert.kind, alert.rule_id, alert.level, alert.epoch) == (CROSSED, "r", level, 1)
    assert alerts_of(world.use(beyond)) == []
    world.check()
    seen("one alert, when the line was reached; none beyond it")


@pytest.mark.fault(
    "lines-jumped",
    title="one usage over several lines",
    provoked="a usage that crosses five lines of different kinds",
    holds="each is told, from near to far",
    faults_row=19,
)
def test_a_jump_over_several_lines_reports_each_in_order(seen: Callable[[str], None]) -> None:
    world = quiet()
    rules(
        world,
        ("b10", "balance_at_or_below", "10"),
        ("u50", "used_percent", "50"),
        ("b40", "balance_at_or_below", "40"),
        ("u20", "used_percent", "20"),
        ("m70", "month_spend_above", "70"),
    )
    assert [name for _, name in alerts_of(world.use("95"))] == ["u20", "u50", "b40", "m70", "b10"]
    world.check()
    seen("five alerts from one usage, in the order in which they were reached")


def test_all_lines_of_one_usage_down_to_zero_and_below() -> None:
    world = World()
    world.buy("100")
    rules(world, ("b50", "balance_at_or_below", "50"))
    assert alerts_of(world.use("120")) == [(CROSSED, "b50"), (LOW, "low"), (DEPLETED, "depleted")]
    assert alerts_of(world.use("1")) == []
    world.check()


def test_what_an_alert_says() -> None:
    world = quiet()
    rules(world, ("u50", "used_percent", "50"))
    world.use("40", event_id="a")
    outcome = world.use("20", event_id="b")
    (alert,) = outcome.alerts
    record = alert.to_record()
    assert (record["used_percent"], record["previous_percent"], record["level"]) == (60.0, 40.0, "50")
    assert (alert.entry_seq, alert.occurred_at) == (outcome.entries[0].seq, world.at)
    assert (alert.balance_nanos, alert.available_nanos) == (40 * 10**9, 40 * 10**9)


def test_it_rearms_only_when_replenished_above_the_line() -> None:
    world = quiet()
    rules(world, ("r", "balance_at_or_below", "20"))
    (first,) = world.use("85").alerts
    assert alerts_of(world.buy("5")) == []  # at 20: still on the line
    assert alerts_of(world.use("1")) == []
    (resolved,) = world.buy("10").alerts
    assert (resolved.kind, resolved.thresholds_left) == (RESOLVED, ("r",))
    (second,) = world.use("15").alerts
    assert (first.epoch, second.epoch) == (1, 2)
    assert first.alert_id != second.alert_id
    world.check()


def test_leaving_several_alarms_raises_one_resolved_that_lists_them() -> None:
    world = World()
    world.buy("100")
    rules(world, ("b50", "balance_at_or_below", "50"), ("b30", "balance_at_or_below", "30"))
    world.use("95")
    (resolved,) = world.buy("30").alerts
    assert (resolved.kind, resolved.thresholds_left) == (RESOLVED, ("low", "b30"))
    (resolved,) = world.buy("30").alerts
    assert resolved.thresholds_left == ("b50",)
    world.check()


def test_depleted_and_restored_take_turns() -> None:
    world = quiet()
    assert alerts_of(world.use("100")) == [(LOW, "low"), (DEPLETED, "depleted")]
    assert alerts_of(world.use("5")) == []
    assert alerts_of(world.buy("5")) == []
    assert alerts_of(world.buy("5")) == [(RESTORED, "depleted"), (RESOLVED, "resolved")]
    assert alerts_of(world.use("5")) == [(LOW, "low"), (DEPLETED, "depleted")]
    ids = [alert.alert_id for alert in world.alerts]
    assert len(set(ids)) == len(ids)
    world.check()


def test_low_is_at_ten_by_default_and_where_the_wallet_says_otherwise() -> None:
    world = World()
    world.buy("11")
    assert alerts_of(world.use("1")) == [(LOW, "low")]
    outcome = world.set(SettingKind.WALLET, {"unit": "USD", "low_balance_threshold": "5"})
    assert [alert.thresholds_left for alert in outcome.alerts] == [("low",)]
    (alert,) = world.use("5").alerts
    assert (alert.kind, alert.level, alert.rule_version) == (LOW, "5", outcome.entries[0].seq)
    (alert,) = world.set(SettingKind.WALLET, {"unit": "USD", "low_balance_threshold": "50"}).alerts
    assert (alert.kind, alert.level) == (LOW, "50")
    world.check()


def test_a_wallet_that_was_only_set_up_is_not_low() -> None:
    world = World()
    assert world.set(SettingKind.WALLET, {"unit": "USD"}).alerts == ()
    assert alerts_of(world.buy("5")) == [(LOW, "low")]


def test_a_changed_rule_is_judged_again_and_has_a_new_version() -> None:
    world = quiet()
    rules(world, ("r", "balance_at_or_below", "20"))
    (first,) = world.use("90").alerts
    assert alerts_of(rules(world, ("r", "balance_at_or_below", "20"))) == []  # unchanged: it stays as it is
    (second,) = rules(world, ("r", "balance_at_or_below", "15")).alerts
    assert second.rule_version > first.rule_version
    assert second.alert_id != first.alert_id
    (resolved,) = rules(world, ("r", "balance_at_or_below", "5")).alerts
    assert (resolved.kind, resolved.thresholds_left) == (RESOLVED, ("r",))
    assert alerts_of(world.use("5")) == [(CROSSED, "r")]
    world.check()


def test_a_rule_taken_away_in_alarm_is_left() -> None:
    world = quiet()
    rules(world, ("a", "balance_at_or_below", "20"), ("b", "balance_at_or_below", "15"))
    world.use("90")
    (resolved,) = rules(world, ("b", "balance_at_or_below", "15")).alerts
    assert resolved.thresholds_left == ("a",)
    (again,) = rules(world, ("a", "balance_at_or_below", "20"), ("b", "balance_at_or_below", "15")).alerts
    assert again.rule_id == "a"
    world.check()


def test_a_new_rule_that_is_crossed_already_alerts_at_once() -> None:
    world = quiet()
    world.use("90")
    assert alerts_of(rules(world, ("r", "used_percent", "80"))) == [(CROSSED, "r")]


def test_an_allocation_of_zero_counts_as_all_used() -> None:
    world = quiet()
    world.use("100")
    world.tick(32 * DAY)
    assert world.account().wallets["USD"].allocation == 0
    assert alerts_of(rules(world, ("u", "used_percent", "100"), ("l", "left_percent", "10"))) == [
        (CROSSED, "u"),
        (CROSSED, "l"),
    ]
    assert (RESOLVED, "resolved") in alerts_of(world.buy("100"))


def test_a_new_month_rearms_what_counts_the_month() -> None:
    world = quiet()
    rules(world, ("m", "month_spend_above", "10"), ("u", "used_percent", "10"), ("b", "balance_at_or_below", "90"))
    assert [name for _, name in alerts_of(world.use("10"))] == ["m", "u", "b"]
    world.tick(31 * DAY)
    assert world.alerts[-1].thresholds_left == ("m", "u")
    assert [name for _, name in alerts_of(world.use("10"))] == ["u", "m"]
    world.check()


def test_purchases_count_in_the_allocation_and_refunds_of_usage_as_not_used() -> None:
    world = quiet()
    rules(world, ("u", "used_percent", "50"))
    world.use("49", event_id="u1")
    world.buy("100")
    assert alerts_of(world.use("50")) == []
    world.refund(RefundTarget.USAGE, "u1", "20")
    assert alerts_of(world.use("20")) == []
    assert alerts_of(world.use("1")) == [(CROSSED, "u")]
    world.check()


def test_the_same_crossing_has_the_same_id_in_every_run() -> None:
    def run() -> list[Alert]:
        world = quiet()
        rules(world, ("r", "balance_at_or_below", "20"))
        world.use("100")
        return world.alerts

    assert run() == run()
    assert len({alert.alert_id for alert in run()}) == 3


def test_channels_and_dismissable_come_from_the_rule() -> None:
    world = quiet()
    rule = {
        "rule_id": "r", "type": "used_percent", "level": "100", "channels": ["banner", "email"], "dismissable": False,
    }  # fmt: skip
    world.set(SettingKind.THRESHOLDS, {"unit": "USD", "rules": [rule]})
    alert = next(alert for alert in world.use("100").alerts if alert.kind is CROSSED)
    assert (alert.channels, alert.dismissable) == (("banner", "email"), False)


def test_credits_that_are_no_longer_held_do_not_rearm_a_line() -> None:
    account = new_account("acme")
    wallet = Wallet("USD", settled=30 * NANOS, held=25 * NANOS, opened=True, funded=True, low=AlertState(crossed=True))
    before = figures(wallet)
    wallet.held = 0
    assert evaluate_alerts(account, wallet, 0, before, replenished=False) == []
    assert wallet.low == AlertState(crossed=True)
    (alert,) = evaluate_alerts(account, wallet, 0, before, replenished=True)
    assert alert.kind is RESOLVED
    assert wallet.low == AlertState(epoch=2)


def test_the_turn_of_the_month_is_judged_once_by_the_new_month_alone() -> None:
    """One `credit_resolved` lists all lines left; nothing is crossed for the old month, or between the entries."""
    world = World()
    world.set(SettingKind.WALLET, {"unit": "USD", "allowance": "100", "low_balance_threshold": "90"})
    rules(
        world, ("u50", "used_percent", "50"), ("b120", "balance_at_or_below", "120"), ("m60", "month_spend_above", "60")
    )
    world.set(SettingKind.AUTO_TOPUP, {"unit": "USD", "enabled": False, "threshold": "5", "purchase_amount": "50"})
    world.use("80")
    heard = len(world.alerts)
    entries = world.tick(31 * DAY)
    (alert,) = world.alerts[heard:]
    assert (alert.kind, alert.thresholds_left) == (RESOLVED, ("low", "u50", "m60"))
    assert (alert.entry_seq, alert.occurred_at) == (entries[-1].seq, entries[-1].occurred_at)
    world.check()


def test_the_turn_asks_for_no_credits_while_the_allowance_is_on_its_way() -> None:
    world = World()
    world.set(SettingKind.WALLET, {"unit": "USD", "allowance": "100"})
    world.set(SettingKind.AUTO_TOPUP, {"unit": "USD", "enabled": True, "threshold": "50", "purchase_amount": "50"})
    world.use("20")
    world.tick(31 * DAY)
    assert (world.settled(), world.topup_requests) == (100 * NANOS, [])
    world.check()


def test_an_alert_of_what_fell_due_is_of_the_time_it_fell_due() -> None:
    world = World(timers=False)
    expires_at = world.at + 3 * DAY
    world.give("50", expires_at=expires_at)
    world.tick(10 * DAY)
    world.settle("acme")
    due = [alert for alert in world.alerts if alert.occurred_at == expires_at]
    assert {alert.kind for alert in due} == {AlertKind.FREE_EXPIRED, LOW, DEPLETED}
    assert due == world.alerts
    world.check()


def test_a_month_arms_a_line_that_a_hold_had_crossed_although_nothing_was_used() -> None:
    world = quiet()
    rules(world, ("left", "left_percent", "20"))
    assert alerts_of(world.hold(HoldAction.PLACE, "h", "85")) == [(CROSSED, "left")]
    world.hold(HoldAction.RELEASE, "h")
    world.tick(32 * DAY)
    assert [(alert.kind, alert.thresholds_left) for alert in world.alerts[1:]] == [(RESOLVED, ("left",))]
    assert alerts_of(world.use("85")) == [(CROSSED, "left")]
    world.check()


def test_an_alert_of_an_amendment_says_how_much_was_used_before_it() -> None:
    world = quiet()
    rules(world, ("u80", "used_percent", "80"))
    world.use("60", event_id="u")
    (alert,) = world.use("90", event_id="u", revision=1).alerts
    assert (alert.previous_percent, alert.used_percent) == (60 * NANOS, 90 * NANOS)
    world.check()
