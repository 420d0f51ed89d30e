"""Limits: of the month, budgets, models, low-credit and negative limit; who is let in (product rules 11-17)."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from schemas.amounts import NANOS
from schemas.enums import (
    AlertKind,
    BudgetWindow,
    DecisionCode,
    EntryKind,
    Health,
    HoldAction,
    OnShortage,
    RefundTarget,
    RejectReason,
    SettingKind,
    WalletStatus,
)
from streams.ledger.account import ModelAccess
from streams.ledger.admission import AdmissionRequest, admit, model_allowed
from streams.ledger.authority import may_pay
from streams.ledger.balances import health, status
from streams.ledger.budgets import BUDGETS_MAX, Scope, all_budgets, find_budget
from streams.ledger.entry import Outcome
from streams.ledger.hold_decisions import DECISION_CODES, HTTP_STATUS
from tests.unit.ledger.world import DAY, START, World

HOUR = DAY // 24


def alerts_of(outcome: Outcome) -> list[tuple[AlertKind, str | None]]:
    return [(alert.kind, alert.rule_id) for alert in outcome.alerts]


def rich(amount: str = "1000") -> World:
    world = World()
    world.buy(amount)
    return world


class Answer(NamedTuple):
    """What a caller is answered before work."""

    allowed: bool
    grantable: int
    code: DecisionCode = DecisionCode.OK
    http_status: int = 200
    limit_id: str | None = None
    limit_window: BudgetWindow | None = None
    limit_ends_at: int | None = None
    message: str = ""


def ask(world: World, amount: int = 1, operation: str | None = None, free: bool = False, **scope: str) -> Answer:
    world.settle("acme")
    request = AdmissionRequest("USD", amount * NANOS, Scope(**scope), operation, free)
    admission = admit(world.account(), request, world.at)
    refused = admission.refused
    if refused is None:
        return Answer(admission.allowed, admission.grantable)
    code = DECISION_CODES[refused.reason]
    return Answer(
        admission.allowed,
        admission.grantable,
        code,
        HTTP_STATUS[code],
        refused.limit_id,
        refused.limit_window,
        refused.limit_ends_at,
        refused.message,
    )


def budget(world: World, limit: str, window: str = "month", name: str = "b", **scope: str) -> Outcome:
    body = {"budget_id": name, "unit": "USD", "scope": scope, "window": window, "limit": limit}
    return world.set(SettingKind.BUDGET, body)


def month_limits(world: World, alert: str | None, allowed: str | None) -> Outcome:
    return world.set(SettingKind.MONTH_LIMITS, {"unit": "USD", "alert_threshold": alert, "allowed_limit": allowed})


@pytest.mark.parametrize("stop", ["reached", "over"])
def test_a_usage_counts_once_in_each_of_its_budgets_when_the_last_of_them_stands_in_the_way(stop: str) -> None:
    """The quick way has counted it in the first before it meets the last."""
    world = rich()
    budget(world, "100", name="all")
    budget(world, "50", name="ann", user_id="ann")
    budget(world, "5" if stop == "reached" else "50", "day", name="gpt", model="gpt")
    world.use("3", user_id="ann", model="gpt")
    if stop == "over":
        world.at += DAY
    world.use("2", user_id="ann", model="gpt")
    book = world.account().wallets["USD"].budgets
    assert book is not None
    spent = {each.budget_id: each.spent // NANOS for each in all_budgets(book)}
    assert spent == {"all": 5, "ann": 5, "gpt": 5 if stop == "reached" else 2}
    world.check()


def test_an_alert_threshold_above_the_allowed_limit_is_refused() -> None:
    world = rich()
    outcome = month_limits(world, "101", "100")
    assert [entry.reason for entry in outcome.entries] == [RejectReason.INVALID_SETTING]
    assert not month_limits(world, "100", "100").rejected
    world.check()


def test_the_months_limits_are_told_once_each_and_decide_status_and_health() -> None:
    world = rich()
    month_limits(world, "80", "100")
    wallet = world.account().wallets["USD"]
    assert alerts_of(world.use("79")) == []
    assert (status(world.account(), wallet), health(wallet)) == (WalletStatus.OK, Health.GREEN)
    assert alerts_of(world.use("1")) == [(AlertKind.LIMIT_ALERT, "alert_threshold")]
    assert health(wallet) is Health.ORANGE
    assert alerts_of(world.use("20")) == [(AlertKind.LIMIT_REACHED, "allowed_limit")]
    assert (status(world.account(), wallet), health(wallet)) == (WalletStatus.LIMIT_REACHED, Health.RED)
    assert alerts_of(world.use("5")) == []  # booked all the same
    world.tick(31 * DAY)
    (resolved,) = [alert for alert in world.alerts if alert.kind is AlertKind.RESOLVED]
    assert resolved.thresholds_left == ("alert_threshold", "allowed_limit")
    assert status(world.account(), wallet) is WalletStatus.OK
    assert alerts_of(world.use("100")) == [
        (AlertKind.LIMIT_ALERT, "alert_threshold"),
        (AlertKind.LIMIT_REACHED, "allowed_limit"),
    ]
    world.check()


def test_a_limit_that_is_raised_is_left_and_one_that_is_lowered_is_judged_at_once() -> None:
    world = rich()
    month_limits(world, None, "100")
    world.use("100")
    (alert,) = month_limits(world, None, "200").alerts
    assert (alert.kind, alert.thresholds_left) == (AlertKind.RESOLVED, ("allowed_limit",))
    assert alerts_of(month_limits(world, None, "50")) == [(AlertKind.LIMIT_REACHED, "allowed_limit")]
    world.check()


@pytest.mark.parametrize(
    ("window", "days"),
    [("day", 1), ("week", 3), ("month", 31)],  # 2026-05-01 is a Friday: the week ends on the 4th
)
def test_a_budget_is_reached_once_a_window(window: str, days: int) -> None:
    world = rich()
    budget(world, "10", window, user_id="ann")
    assert alerts_of(world.use("9.999999999", user_id="ann")) == []
    assert alerts_of(world.use("50", user_id="bob")) == []
    assert alerts_of(world.use("50")) == []
    assert alerts_of(world.use("0.000000001", user_id="ann")) == [(AlertKind.BUDGET_REACHED, "b")]
    assert alerts_of(world.use("1", user_id="ann")) == []
    world.tick(days * DAY - 1)
    assert alerts_of(world.use("1", user_id="ann")) == []
    world.tick(1)
    (resolved,) = [alert for alert in world.alerts if alert.kind is AlertKind.RESOLVED]
    assert resolved.thresholds_left == ("b",)
    (again,) = world.use("10", user_id="ann").alerts
    assert (again.kind, again.epoch) == (AlertKind.BUDGET_REACHED, 2)
    world.check()


@pytest.mark.parametrize("field", Scope._fields)
def test_every_field_may_be_the_scope_of_a_budget(field: str) -> None:
    world = rich()
    budget(world, "10", **{field: "x"})
    assert alerts_of(world.use("20", **{field: "y"})) == []
    assert alerts_of(world.use("10", **{field: "x"})) == [(AlertKind.BUDGET_REACHED, "b")]
    world.check()


def test_a_budget_of_two_fields_needs_both() -> None:
    world = rich()
    budget(world, "10", user_id="ann", model="gpt")
    world.use("20", user_id="ann")
    world.use("20", user_id="ann", model="mini")
    assert alerts_of(world.use("10", user_id="ann", model="gpt")) == [(AlertKind.BUDGET_REACHED, "b")]
    world.check()


def test_days_of_a_budget_are_those_of_the_orgs_time_zone() -> None:
    world = rich()
    world.set(SettingKind.ORG, {"time_zone": "Asia/Tokyo"})
    budget(world, "10", "day")
    world.use("10")
    assert ask(world).limit_ends_at == START + 15 * DAY // 24  # midnight in Tokyo
    world.tick(15 * DAY // 24)
    assert ask(world).allowed
    world.check()


def test_an_org_wide_budget_decides_the_status_and_knows_the_month() -> None:
    world = rich()
    world.use("30")
    budget(world, "40")
    assert alerts_of(world.use("10")) == [(AlertKind.BUDGET_REACHED, "b")]
    assert status(world.account(), world.account().wallets["USD"]) is WalletStatus.LIMIT_REACHED
    assert alerts_of(budget(world, "60")) == [(AlertKind.RESOLVED, "resolved")]
    assert alerts_of(world.use("20")) == [(AlertKind.BUDGET_REACHED, "b")]
    world.check()


def test_a_refund_gives_back_to_the_budget() -> None:
    world = rich()
    budget(world, "10", user_id="ann")
    world.use("10", event_id="u", user_id="ann")
    (alert,) = world.refund("usage", "u", "4").alerts  # type: ignore[arg-type]
    assert (alert.kind, alert.thresholds_left) == (AlertKind.RESOLVED, ("b",))
    assert ask(world, 4, user_id="ann").allowed
    assert not ask(world, 5, user_id="ann").allowed
    world.check()


def spent(world: World, name: str = "b") -> int:
    found = find_budget(world.account(), name)
    assert found is not None
    return found[1].spent // NANOS


def test_what_is_given_back_of_usage_before_the_budget_was_set_is_no_room_in_it() -> None:
    world = rich()
    world.use("10", event_id="before", user_id="ann")
    world.tick(1)
    budget(world, "10", "day", user_id="ann")
    world.tick(1)
    world.use("4", event_id="after", user_id="ann")
    world.refund(RefundTarget.USAGE, "before", "10")
    assert spent(world) == 4
    world.refund(RefundTarget.USAGE, "after", "1")
    assert spent(world) == 3
    world.tick(1)
    budget(world, "20", "day", user_id="ann")  # the same budget with another limit goes on counting
    world.refund(RefundTarget.USAGE, "after", "1")
    assert spent(world) == 2
    world.check()


def test_a_day_that_is_open_when_the_time_zone_moves_west_goes_on() -> None:
    """Its usage was counted in it, although by the new zone it was of the day before."""
    world = rich()
    world.set(SettingKind.ORG, {"time_zone": "Europe/Madrid"})
    budget(world, "10", "day", user_id="ann")
    world.tick(23 * HOUR)  # 1 May 23:00 UTC: the 2nd in Madrid
    world.use("10", event_id="u", user_id="ann")
    world.tick(HOUR)
    world.set(SettingKind.ORG, {"time_zone": "America/New_York"})
    world.refund(RefundTarget.USAGE, "u", "4")
    assert spent(world) == 6
    admission = ask(world, 5, user_id="ann")
    assert (admission.allowed, admission.limit_ends_at) == (False, START + 52 * HOUR)  # the 3rd in New York
    world.check()


def test_a_day_that_ends_because_the_time_zone_moves_east_takes_its_usage_with_it() -> None:
    world = rich()
    world.set(SettingKind.ORG, {"time_zone": "America/New_York"})
    budget(world, "10", "day", user_id="ann")
    world.tick(23 * HOUR)  # 1 May 23:00 UTC: the 1st in New York, the 2nd in Tokyo
    world.use("6", event_id="old", user_id="ann")
    world.tick(1)
    world.set(SettingKind.ORG, {"time_zone": "Asia/Tokyo"})
    world.tick(1)
    world.use("3", event_id="new", user_id="ann")
    world.refund(RefundTarget.USAGE, "old", "6")
    assert spent(world) == 3
    world.refund(RefundTarget.USAGE, "new", "1")
    assert spent(world) == 2
    world.check()


def test_the_number_of_budgets_is_bounded() -> None:
    world = rich()
    for number in range(BUDGETS_MAX):
        budget(world, "1", name=f"b{number}", user_id=f"u{number}")
    assert budget(world, "1", name="more").rejected
    assert not budget(world, "2", name="b7", user_id="u7").rejected


def test_the_first_limit_hit_decides_and_names_itself() -> None:
    world = rich("100")
    month_limits(world, None, "50")
    budget(world, "20", "day", "ann-day", user_id="ann")
    budget(world, "30", "week", "all-week")
    world.use("20", user_id="ann")
    answer = ask(world, 1, user_id="ann")
    assert (answer.code, answer.http_status, answer.limit_id) == (DecisionCode.LIMIT_REACHED, 402, "ann-day")
    assert (answer.limit_window, answer.limit_ends_at) == (BudgetWindow.DAY, START + DAY)
    assert ask(world, 1, user_id="bob").allowed
    world.use("10", user_id="bob")
    assert ask(world, 1, user_id="ann").limit_id == "all-week"
    world.use("20", user_id="bob")
    assert ask(world, 1, user_id="ann").limit_id == "allowed_limit"
    assert ask(world, 1, user_id="ann").limit_ends_at == START + 31 * DAY


def test_what_would_pass_a_limit_is_refused_before() -> None:
    world = rich()
    budget(world, "20", "day")
    assert ask(world, 20).allowed
    assert (ask(world, 21).code, ask(world, 21).grantable) == (DecisionCode.LIMIT_REACHED, 20 * NANOS)
    assert ask(world, 21).message == "Limit b of 20 USD a day would be passed: 20 are left, 21 asked for."
    world.use("20")
    assert ask(world, 21).message == "Limit b of 20 USD a day is reached."


@pytest.mark.parametrize(
    ("allow", "deny", "model", "allowed"),
    [
        (("*",), (), "gpt-4", True),
        (("*",), ("gpt-4",), "gpt-4", False),
        (("*",), ("gpt-4",), "gpt-4o", True),
        (("gpt-*",), ("*-mini",), "gpt-4o-mini", False),
        (("gpt-*",), (), "claude", False),
        ((), (), "gpt-4", False),
        ((), (), None, True),
        (("a[b]?",), (), "a[b]?", True),
        (("a?",), (), "ab", False),
    ],
)
def test_model_access(allow: tuple[str, ...], deny: tuple[str, ...], model: str | None, allowed: bool) -> None:
    assert model_allowed(ModelAccess(allow, deny), model) is allowed


def test_a_model_that_is_denied_is_refused_even_if_free_but_its_usage_is_booked() -> None:
    world = rich()
    world.set(SettingKind.MODEL_ACCESS, {"deny": ["gpt"]})
    answer = ask(world, model="gpt", free=True)
    assert (answer.code, answer.http_status) == (DecisionCode.MODEL_NOT_ALLOWED, 403)
    assert world.use("1", model="gpt").entries[0].kind is EntryKind.USAGE


def test_free_models_are_let_in_at_zero_balance() -> None:
    world = World()
    assert (ask(world).code, ask(world).http_status) == (DecisionCode.CREDITS_NOT_AVAILABLE, 402)
    assert ask(world, free=True).allowed


def test_a_user_of_role_none_may_not_spend_and_its_usage_is_booked() -> None:
    """Rule 17 asked, and by a hold: 403, free work too; others may, recorded or not."""
    world = rich()
    for name, role in (("mia", "member"), ("noa", "none")):
        world.set(SettingKind.MEMBER, {"user_id": name, "role": role})
    for free in (False, True):
        refused = ask(world, free=free, user_id="noa")
        assert (refused.code, refused.http_status, refused.grantable) == (DecisionCode.NOT_AUTHORIZED, 403, 0)
    assert all(ask(world, user_id=name).allowed for name in ("mia", "somebody"))
    for shortage in OnShortage:
        held = world.hold(HoldAction.PLACE, f"h-{shortage}", "1", user_id="noa", on_shortage=shortage)
        assert [(entry.kind, entry.reason) for entry in held.entries] == [("rejected", "not_authorized")]
        assert [(decision.code, decision.http_status) for decision in held.decisions] == [("not_authorized", 403)]
    world.set(SettingKind.MEMBER, {"user_id": "noa", "role": "member"})
    assert ask(world, user_id="noa").allowed


def test_an_org_whose_members_all_left_has_none_recorded() -> None:
    world = rich()
    for role in ("admin", "none"):
        world.set(SettingKind.MEMBER, {"user_id": "noa", "role": role})
    assert may_pay(world.account(), "anybody")


def test_a_closed_org_is_blocked() -> None:
    world = rich()
    world.set(SettingKind.ORG, {"closed": True})
    assert (ask(world).code, ask(world).http_status) == (DecisionCode.BLOCKED, 403)


def negative(world: World, low: str, limit: str) -> None:
    world.set(SettingKind.WALLET, {"unit": "USD", "low_credit_limit": low, "negative_limit": limit})


def test_below_the_low_credit_limit_running_work_goes_on_and_deployments_do_not() -> None:
    world = rich("100")
    negative(world, "20", "50")
    assert ask(world, operation="deployment").allowed
    world.use("80")
    refused = ask(world, operation="deployment")
    assert (refused.code, refused.limit_id) == (DecisionCode.CREDITS_NOT_AVAILABLE, "low_credit_limit")
    assert ask(world, 60, operation="chat").allowed
    assert not ask(world, 71, operation="chat").allowed
    world.use("40")
    assert ask(world, 30, operation="chat").allowed
    assert status(world.account(), world.account().wallets["USD"]) is WalletStatus.NEGATIVE


def test_the_negative_limit_stops_once_and_is_paid_back() -> None:
    world = rich("100")
    negative(world, "0", "50")
    world.use("149.999999999")
    (alert,) = world.use("0.000000001").alerts
    assert alert.kind is AlertKind.NEGATIVE_LIMIT_CROSSED
    assert alert.message == (
        "You've used all your available credits. Please add more credits to your account to continue."
    )
    wallet = world.account().wallets["USD"]
    assert status(world.account(), wallet) is WalletStatus.BLOCKED
    assert ask(world).code is DecisionCode.BLOCKED
    assert alerts_of(world.use("5")) == []
    left = world.buy("10").alerts
    assert [(alert.kind, alert.thresholds_left) for alert in left] == [(AlertKind.RESOLVED, ("negative_limit",))]
    assert wallet.settled == -45 * NANOS
    assert status(world.account(), wallet) is WalletStatus.NEGATIVE
    world.buy("60")
    assert (wallet.settled, wallet.overdraft) == (15 * NANOS, 0)
    world.check()


def test_a_negative_limit_of_zero_is_none() -> None:
    world = rich("10")
    world.use("15")
    assert status(world.account(), world.account().wallets["USD"]) is WalletStatus.NEGATIVE
    assert AlertKind.NEGATIVE_LIMIT_CROSSED not in {alert.kind for alert in world.alerts}


def test_a_budget_of_nothing_stays_reached_when_its_window_ends() -> None:
    world = World()
    world.buy("100")
    assert alerts_of(budget(world, "0", "day")) == [(AlertKind.BUDGET_REACHED, "b")]
    before = len(world.alerts)
    for _ in range(3):
        world.tick(DAY)
        world.use("1")
        assert ask(world).code is DecisionCode.LIMIT_REACHED
    assert world.alerts[before:] == []
    assert [alert.thresholds_left for alert in budget(world, "5", "day").alerts] == [("b",)]
    world.check()


def test_windows_that_end_together_take_one_entry() -> None:
    world = rich()
    for name in ("a", "b", "c"):
        budget(world, "0" if name == "c" else "10", "day", name, user_id=name)
        if name != "c":
            world.use("10", user_id=name)
    entries = world.tick(DAY)
    assert [(entry.kind, entry.reason) for entry in entries] == [(EntryKind.ROLLOVER, "budget_window_ended")]
    assert world.alerts[-1].thresholds_left == ("a", "b")
    assert world.tick(3 * DAY) == []  # c is reached whatever the day
    assert ask(world, user_id="c").limit_id == "c"
    assert ask(world, user_id="a").allowed
    world.check()


def test_a_stop_by_the_negative_limit_names_it() -> None:
    world = rich("1")
    negative(world, "0", "5")
    world.use("6")
    answer = ask(world)
    assert (answer.code, answer.limit_id) == (DecisionCode.BLOCKED, "negative_limit")
