"""Holds: placed, captured, released, timed out; each resolved exactly once (product rules 17, 18)."""

from __future__ import annotations

import pytest

from schemas.amounts import NANOS, parse_amount
from schemas.enums import AlertKind, DeadLetterCode, DecisionCode, EntryKind, HoldAction, OnShortage, SettingKind
from streams.ledger.entry import HoldDecision, Outcome
from streams.ledger.hold_decisions import HOLD_MAX_MICROS
from streams.ledger.holds import RESOLVED_MAX
from streams.ledger.refusals import DeadLetter
from tests.unit.ledger.world import DAY, World

PLACE, CAPTURE, RELEASE = HoldAction.PLACE, HoldAction.CAPTURE, HoldAction.RELEASE


def rich(amount: str = "100") -> World:
    world = World()
    world.buy(amount)
    return world


def decision(outcome: Outcome) -> HoldDecision:
    (only,) = outcome.decisions
    assert only.entry_seq == next(entry.seq for entry in reversed(outcome.entries) if entry.hold_id == only.hold_id)
    return only


def standing(world: World) -> tuple[int, int]:
    wallet = world.account().wallets["USD"]
    return wallet.settled // NANOS, wallet.held // NANOS


def kinds(outcome: Outcome) -> list[EntryKind]:
    return [entry.kind for entry in outcome.entries]


def test_a_hold_is_set_aside_and_changes_no_settled_balance() -> None:
    world = rich()
    outcome = world.hold(PLACE, "h", "30", user_id="ann")
    answer = decision(outcome)
    assert (answer.allowed, answer.code, answer.http_status) == (True, DecisionCode.OK, 200)
    assert (answer.granted_nanos, answer.available_nanos) == (30 * NANOS, 70 * NANOS)
    assert answer.expires_at == world.at + HOLD_MAX_MICROS
    (entry,) = outcome.entries
    assert (entry.kind, entry.amount_nanos, entry.held_nanos) == (EntryKind.HOLD, 0, 30 * NANOS)
    assert standing(world) == (100, 30)
    world.check()


@pytest.mark.parametrize(
    ("captured", "entries", "left"),
    [
        ("10", [EntryKind.USAGE, EntryKind.HOLD_RELEASE], 90),
        ("30", [EntryKind.USAGE], 70),
        ("45", [EntryKind.USAGE], 55),
        ("130", [EntryKind.USAGE], -30),
        ("0", [EntryKind.USAGE, EntryKind.HOLD_RELEASE], 100),
    ],
)
@pytest.mark.parametrize("by_usage", [False, True])
def test_a_capture_of_less_as_much_and_more(captured: str, entries: list[EntryKind], left: int, by_usage: bool) -> None:
    world = rich()
    world.hold(PLACE, "h", "30")
    outcome = world.use(captured, hold_id="h") if by_usage else world.hold(CAPTURE, "h", captured)
    assert kinds(outcome) == entries
    assert outcome.entries[0].hold_id == "h"
    assert [entry.source_offset >= 0 for entry in outcome.entries] == [True, False][: len(entries)]
    assert decision(outcome).granted_nanos == parse_amount(captured)
    assert standing(world) == (left, 0)
    again = world.hold(CAPTURE, "h", captured)
    assert (decision(again).code, decision(again).http_status) == (DecisionCode.ALREADY_RESOLVED, 409)
    assert kinds(again) == [EntryKind.REJECTED]
    assert standing(world) == (left, 0)
    world.check()


def test_a_release_gives_it_free_once() -> None:
    world = rich()
    world.hold(PLACE, "h", "30")
    assert decision(world.hold(RELEASE, "h")).allowed
    assert standing(world) == (100, 0)
    assert decision(world.hold(RELEASE, "h")).code is DecisionCode.ALREADY_RESOLVED
    assert decision(world.hold(PLACE, "h", "5")).code is DecisionCode.ALREADY_RESOLVED
    world.check()


def test_what_never_was_is_unknown() -> None:
    world = rich()
    answer = decision(world.hold(CAPTURE, "h", "30"))
    assert (answer.code, answer.http_status, answer.allowed) == (DecisionCode.UNKNOWN_HOLD, 404, False)


def test_the_memory_of_resolved_holds_is_bounded_and_none_has_a_second_effect() -> None:
    world = rich("10000")
    for number in range(RESOLVED_MAX + 1):
        world.hold(PLACE, f"h{number}", "1")
        world.hold(CAPTURE, f"h{number}", "1")
    assert decision(world.hold(CAPTURE, "h0", "1")).code is DecisionCode.UNKNOWN_HOLD
    assert decision(world.hold(CAPTURE, "h1", "1")).code is DecisionCode.ALREADY_RESOLVED
    assert standing(world) == (10_000 - RESOLVED_MAX - 1, 0)


@pytest.mark.parametrize(
    ("asked_micros", "lasts_micros"),
    [(None, HOLD_MAX_MICROS), (DAY // 24, DAY // 24), (3 * DAY, HOLD_MAX_MICROS)],
)
def test_it_times_out_by_itself_after_24_hours_at_most(asked_micros: int | None, lasts_micros: int) -> None:
    world = rich()
    world.hold(PLACE, "h", "30", expires_at=None if asked_micros is None else world.at + asked_micros)
    due_at = world.at + lasts_micros
    assert world.tick(lasts_micros - 1) == []
    assert standing(world) == (100, 30)
    (entry,) = world.tick(1)
    assert (entry.kind, entry.reason, entry.occurred_at) == (EntryKind.HOLD_RELEASE, "hold_timed_out", due_at)
    assert standing(world) == (100, 0)
    assert decision(world.hold(CAPTURE, "h", "1")).code is DecisionCode.ALREADY_RESOLVED
    world.check()


def test_one_that_was_over_when_it_came_is_free_again_at_once() -> None:
    world = rich()
    assert kinds(world.hold(PLACE, "h", "30", expires_at=world.at - 1)) == [EntryKind.HOLD, EntryKind.HOLD_RELEASE]
    assert standing(world) == (100, 0)
    world.check()


@pytest.mark.parametrize(
    ("shortage", "granted"),
    [(OnShortage.REJECT, None), (OnShortage.CAP, 40), (OnShortage.OVERFLOW, 70)],
)
def test_what_becomes_of_a_shortage(shortage: OnShortage, granted: int | None) -> None:
    world = rich()
    world.hold(PLACE, "first", "60")
    answer = decision(world.hold(PLACE, "h", "70", on_shortage=shortage))
    assert answer.allowed is (granted is not None)
    assert answer.granted_nanos == (granted or 0) * NANOS
    assert standing(world) == (100, 60 + (granted or 0))
    world.check()


def test_held_by_other_work_is_told_from_out_of_credits() -> None:
    world = rich()
    world.hold(PLACE, "first", "60")
    held, out = world.hold(PLACE, "a", "70"), world.hold(PLACE, "b", "101")
    assert [decision(held).code, decision(out).code] == [DecisionCode.CREDITS_HELD, DecisionCode.CREDITS_NOT_AVAILABLE]
    assert [outcome.entries[0].reason for outcome in (held, out)] == ["credits_held", "insufficient_credits"]
    assert decision(held).http_status == decision(out).http_status == 402


def test_holds_count_towards_limits_and_cap_grants_what_they_leave() -> None:
    world = rich()
    body = {"budget_id": "ann", "unit": "USD", "scope": {"user_id": "ann"}, "window": "day", "limit": "20"}
    world.set(SettingKind.BUDGET, body)
    world.hold(PLACE, "h1", "15", user_id="ann")
    refused = decision(world.hold(PLACE, "h2", "10", user_id="ann"))
    assert (refused.code, refused.limit_id, refused.limit_window) == (DecisionCode.LIMIT_REACHED, "ann", "day")
    assert decision(world.hold(PLACE, "h3", "10", user_id="ann", on_shortage="cap")).granted_nanos == 5 * NANOS
    assert decision(world.hold(PLACE, "h4", "10", user_id="bob")).allowed
    world.check()


def test_free_work_sets_nothing_aside_and_needs_no_credits() -> None:
    world = World()
    answer = decision(world.hold(PLACE, "h", "30", operation="chat", model="free"))
    assert (answer.allowed, answer.granted_nanos) == (True, 0)
    assert kinds(world.use("0", hold_id="h")) == [EntryKind.USAGE, EntryKind.HOLD_RELEASE]
    world.check()


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        (SettingKind.ORG, {"closed": True}, DecisionCode.BLOCKED),
        (SettingKind.MODEL_ACCESS, {"deny": ["free"]}, DecisionCode.MODEL_NOT_ALLOWED),
    ],
)
@pytest.mark.parametrize("shortage", list(OnShortage))
def test_free_work_is_refused_like_any_where_it_may_not_be_done(
    kind: SettingKind, body: dict[str, object], code: DecisionCode, shortage: OnShortage
) -> None:
    world = rich()
    world.set(kind, body)
    outcome = world.hold(PLACE, "h", "30", operation="chat", model="free", on_shortage=shortage)
    assert (decision(outcome).code, kinds(outcome)) == (code, [EntryKind.REJECTED])
    assert not world.account().holds
    world.check()


def test_lines_look_at_what_is_available() -> None:
    world = rich()
    assert [alert.kind for alert in world.hold(PLACE, "h", "95").alerts] == [AlertKind.BALANCE_LOW]
    assert world.hold(RELEASE, "h").alerts == ()  # not replenished
    world.check()


def test_usage_of_another_wallet_resolves_the_hold_without_taking_from_it() -> None:
    world = rich()
    world.buy("50", unit="EUR")
    world.hold(PLACE, "h", "30")
    assert kinds(world.use("10", unit="EUR", hold_id="h")) == [EntryKind.USAGE, EntryKind.HOLD_RELEASE]
    assert standing(world) == (100, 0)
    assert world.settled(unit="EUR") == 40 * NANOS
    world.check()


def test_usage_that_names_a_hold_which_is_gone_is_booked_as_any() -> None:
    world = rich()
    outcome = world.use("10", hold_id="gone")
    assert (kinds(outcome), outcome.decisions) == ([EntryKind.USAGE], ())


def test_a_hold_placed_twice_while_active_is_a_dead_letter() -> None:
    world = rich()
    world.hold(PLACE, "h", "30")
    with pytest.raises(DeadLetter) as refusal:
        world.hold(PLACE, "h", "30")
    assert refusal.value.code is DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT


def test_new_work_is_told_that_the_credits_are_held() -> None:
    world = rich()
    world.hold(PLACE, "h", "100")
    answer = decision(world.hold(PLACE, "new", "10", operation="deployment"))
    assert (answer.code, answer.limit_id) == (DecisionCode.CREDITS_HELD, "low_credit_limit")
    answer = decision(world.hold(PLACE, "more", "101", operation="deployment"))
    assert (answer.code, answer.limit_id) == (DecisionCode.CREDITS_NOT_AVAILABLE, "low_credit_limit")
    world.check()


@pytest.mark.parametrize("budgeted", [False, True])
@pytest.mark.parametrize("shortage", OnShortage)
def test_no_new_work_begins_below_the_low_credit_limit(shortage: OnShortage, budgeted: bool) -> None:
    """Whatever else is in the way, and whatever is done about it (product rule 15)."""
    world = rich("5")
    world.set(SettingKind.WALLET, {"unit": "USD", "low_credit_limit": "10"})
    if budgeted:
        world.set(SettingKind.BUDGET, {"budget_id": "b", "unit": "USD", "window": "month", "limit": "3"})
    assert not decision(world.hold(PLACE, "h", "20", operation="deployment", on_shortage=shortage)).allowed
    assert decision(world.hold(PLACE, "run", "2", operation="chat", on_shortage=shortage)).allowed
    world.check()


def test_usage_that_names_a_hold_and_no_wallet_is_of_the_holds() -> None:
    world = rich()
    world.buy("100", unit="EUR")
    world.hold(PLACE, "h", "40", unit="EUR")
    outcome = world.use("30", unit=None, hold_id="h")
    assert [entry.wallet for entry in outcome.entries] == ["EUR", "EUR"]
    assert (world.settled(), world.settled(unit="EUR")) == (100 * NANOS, 70 * NANOS)
    assert decision(outcome).granted_nanos == 30 * NANOS
    world.check()
