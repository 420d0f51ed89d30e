"""Corrections of usage by revision: reversed, booked again, the history stays (product rules 21, 23)."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.amounts import NANOS, parse_amount
from schemas.enums import (
    AlertKind,
    BillingUnit,
    DeadLetterCode,
    EntryKind,
    GrantKind,
    HoldAction,
    RefundTarget,
    RejectReason,
    SettingKind,
)
from streams.ledger.budgets import all_budgets
from streams.ledger.entry import Entry, Outcome
from streams.ledger.refusals import DeadLetter
from tests.unit.ledger.world import DAY, World


def used(amount: str = "30", balance: str = "100") -> World:
    world = World()
    world.buy(balance)
    world.use(amount, event_id="u", user_id="ann", quantity_nanos=7)
    return world


def amend(world: World, cost: str, revision: int = 1, **more: Any) -> Outcome:
    return world.use(cost, event_id="u", revision=revision, **more)


def kinds(outcome: Outcome) -> list[EntryKind]:
    return [entry.kind for entry in outcome.entries]


def test_an_amendment_takes_back_what_was_and_books_the_new() -> None:
    world = used()
    outcome = amend(world, "12")
    undone, new = outcome.entries
    assert (undone.kind, undone.amount_nanos, undone.reason) == (EntryKind.CORRECTION, 30 * NANOS, "usage_amended")
    assert (undone.user_id, undone.quantity_nanos, undone.revision) == ("ann", 7, 1)
    assert (new.kind, new.amount_nanos, new.revision, new.event_id) == (EntryKind.USAGE, -12 * NANOS, 1, "u")
    wallet = world.account().wallets["USD"]
    assert (wallet.settled, wallet.used, wallet.lifetime_spent) == (88 * NANOS, 12 * NANOS, 12 * NANOS)
    assert next(entry.amount_nanos for entry in world.entries["acme"] if entry.event_id == "u") == -30 * NANOS
    world.check()


def test_a_void_takes_it_back_alone_and_may_be_amended_again() -> None:
    world = used()
    outcome = amend(world, "0", voided=True)
    assert (kinds(outcome), outcome.entries[0].reason) == ([EntryKind.CORRECTION], "usage_voided")
    assert world.settled() == 100 * NANOS
    assert kinds(amend(world, "5", 2)) == [EntryKind.CORRECTION, EntryKind.USAGE]
    assert world.settled() == 95 * NANOS
    world.check()


@pytest.mark.parametrize("revision", [1, 2])
def test_a_revision_that_is_not_higher_is_a_dead_letter(revision: int) -> None:
    world = used()
    amend(world, "12", 2)
    with pytest.raises(DeadLetter) as refusal:
        amend(world, "1", revision)
    assert refusal.value.code is DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT
    world.check()


def test_a_void_of_a_usage_that_nobody_knows_is_refused() -> None:
    world = World()
    world.buy("100")
    (entry,) = amend(world, "5", voided=True).entries
    assert (entry.kind, entry.reason) == (EntryKind.REJECTED, RejectReason.UNKNOWN_USAGE)
    assert world.settled() == 100 * NANOS
    world.check()


def test_a_revision_of_what_never_came_is_booked_as_it_stands() -> None:
    """Product rule 16: usage that has happened is booked; what is left of its history is known from here on."""
    world = World()
    world.buy("100")
    (entry,) = amend(world, "5", 2).entries
    assert (entry.kind, entry.amount_nanos, entry.revision) == (EntryKind.USAGE, -5 * NANOS, 2)
    for late in (0, 1, 2):
        with pytest.raises(DeadLetter) as refusal:
            amend(world, "7", late)
        assert refusal.value.code is DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT
    assert world.settled() == 95 * NANOS
    assert kinds(amend(world, "6", 3)) == [EntryKind.CORRECTION, EntryKind.USAGE]
    assert not world.refund(RefundTarget.USAGE, "u", "6").rejected
    assert world.settled() == 100 * NANOS
    world.check()


@pytest.mark.parametrize("amended", [False, True])
def test_a_revision_resolves_the_hold_that_it_names(amended: bool) -> None:
    world = used() if amended else World()
    world.buy("100")
    world.hold(HoldAction.PLACE, "h", "20")
    outcome = amend(world, "5", hold_id="h")
    assert kinds(outcome)[-2:] == [EntryKind.USAGE, EntryKind.HOLD_RELEASE]
    assert (world.account().wallets["USD"].held, world.account().holds) == (0, {})
    world.check()


def test_revisions_are_forgotten_when_they_can_be_corrected_no_longer() -> None:
    world = World()
    world.buy("100")
    amend(world, "5")
    world.use("1", event_id="v", revision=1)
    world.tick(20 * DAY)
    amend(world, "6", 2)
    world.tick(20 * DAY)
    world.use("1", event_id="w", revision=1)
    assert list(world.account().corrected) == ["u", "w"]
    world.check()


def test_a_correction_stands_where_the_usage_stood() -> None:
    """Its time and billing unit are the original's, so that it takes back from the same bucket of usage."""
    world = World()
    world.buy("100")
    fields: dict[str, Any] = {"cost_nanos": None, "model": "gpt", "input_tokens": 1_000, "event_id": "u"}
    first = world.use("0", unit=None, **fields).entries[0]
    world.tick(DAY)
    second = world.use("0", unit=None, revision=1, **{**fields, "input_tokens": 2_000}).entries
    world.tick(DAY)
    third = world.use("0", unit=None, revision=2, voided=True, **fields).entries
    assert [(each.occurred_at, each.billing_unit) for each in (first, second[0], second[1], third[0])] == [
        (world.at - 2 * DAY, BillingUnit.TOKEN),
        (world.at - 2 * DAY, BillingUnit.TOKEN),
        (world.at - DAY, BillingUnit.TOKEN),
        (world.at - DAY, BillingUnit.TOKEN),
    ]
    world.check()


def test_an_unknown_price_leaves_the_usage_as_it_was() -> None:
    world = used()
    with pytest.raises(DeadLetter):
        amend(world, "0", cost_nanos=None, operation="nobody")
    assert world.settled() == 70 * NANOS
    world.check()


def test_what_was_drawn_goes_back_to_the_same_grants() -> None:
    world = World()
    world.give("10", purchase_id="g")
    world.buy("100", purchase_id="p")
    world.use("30", event_id="u")
    amend(world, "4")
    remaining = {grant.grant_id: grant.remaining for grant in world.account().wallets["USD"].grants}
    assert remaining == {"purchase/g": 6 * NANOS, "purchase/p": 100 * NANOS}
    world.check()


def test_what_goes_back_to_an_expired_grant_expires_at_once() -> None:
    world = World()
    world.give("10", expires_at=world.at + DAY)
    world.buy("100")
    world.use("30", event_id="u")
    world.tick(2 * DAY)
    outcome = amend(world, "4")
    assert kinds(outcome) == [EntryKind.CORRECTION, EntryKind.USAGE, EntryKind.EXPIRY]
    assert (world.settled(), outcome.entries[-1].amount_nanos) == (100 * NANOS, -6 * NANOS)
    assert AlertKind.FREE_EXPIRED in {alert.kind for alert in outcome.alerts}
    world.check()


def test_an_overdraft_is_paid_by_what_comes_back() -> None:
    world = used("130")
    assert world.settled() == -30 * NANOS
    amend(world, "20")
    wallet = world.account().wallets["USD"]
    assert (wallet.settled, wallet.overdraft) == (80 * NANOS, 0)
    world.check()


def test_refunds_are_part_of_what_is_unwound_and_start_anew() -> None:
    world = used()
    world.refund(RefundTarget.USAGE, "u", "10")
    undone, _ = amend(world, "12").entries
    assert undone.amount_nanos == 20 * NANOS
    assert world.settled() == 88 * NANOS
    assert world.refund(RefundTarget.USAGE, "u", "12.1").entries[0].reason == RejectReason.EXCEEDS_REFUNDABLE
    assert not world.refund(RefundTarget.USAGE, "u", "12").rejected
    assert world.settled() == 100 * NANOS
    world.check()


def test_a_voided_usage_has_nothing_to_refund() -> None:
    world = used()
    amend(world, "0", voided=True)
    assert world.refund(RefundTarget.USAGE, "u", "1").entries[0].reason == RejectReason.EXCEEDS_REFUNDABLE


def test_it_may_move_to_another_wallet() -> None:
    world = used()
    world.buy("50", unit="EUR")
    amend(world, "20", wallet="EUR")
    assert (world.settled(), world.settled(unit="EUR")) == (100 * NANOS, 30 * NANOS)
    world.check()


def test_budgets_know_of_it() -> None:
    world = World()
    world.buy("100")
    body = {"budget_id": "ann", "unit": "USD", "scope": {"user_id": "ann"}, "window": "day", "limit": "20"}
    world.set(SettingKind.BUDGET, body)
    world.use("20", event_id="u", user_id="ann")
    outcome = amend(world, "5", user_id="bob")
    assert [alert.thresholds_left for alert in outcome.alerts] == [("ann",)]
    book = world.account().wallets["USD"].budgets
    assert book is not None
    assert book.by_field[0]["ann"][0].spent == 0
    world.check()


def test_credits_given_back_keep_their_kind() -> None:
    world = World()
    world.set(SettingKind.WALLET, {"unit": "USD", "allowance": "10"})
    world.buy("100")
    world.use("15", event_id="u")
    amend(world, "0", voided=True)
    kinds_left = [(grant.kind, grant.remaining) for grant in world.account().wallets["USD"].grants]
    assert kinds_left == [(GrantKind.ALLOWANCE, 10 * NANOS), (GrantKind.PURCHASED, 100 * NANOS)]
    assert world.account().wallets["USD"].lifetime_spent == 0
    world.check()


def watched() -> World:
    world = used("60")
    world.set(SettingKind.BUDGET, {"budget_id": "all", "unit": "USD", "scope": {}, "window": "month", "limit": "40"})
    rules = [{"rule_id": "half", "type": "used_percent", "level": "50"}]
    world.set(SettingKind.THRESHOLDS, {"unit": "USD", "rules": rules})
    assert {alert.rule_id for alert in world.alerts} == {"all", "half"}
    return world


def test_an_amendment_that_ends_on_the_same_side_of_a_line_says_nothing() -> None:
    world = watched()
    assert amend(world, "55", user_id="ann").alerts == ()
    assert amend(world, "99", 2, user_id="ann").alerts != ()  # low: another line
    assert amend(world, "70", 3, user_id="ann").alerts[0].thresholds_left == ("low",)
    world.check()


@pytest.mark.parametrize("user", ["ann", "bob"])
def test_an_amendment_that_leaves_a_line_says_so_once(user: str) -> None:
    world = watched()
    (resolved,) = amend(world, "30", user_id=user).alerts
    assert set(resolved.thresholds_left) == {"half", "all"}
    (crossed, other) = amend(world, "60", 2, user_id=user).alerts
    assert {(crossed.rule_id, crossed.epoch), (other.rule_id, other.epoch)} == {("half", 2), ("all", 2)}
    world.check()


def test_an_amendment_that_gives_back_nothing_in_the_end_arms_nothing() -> None:
    world = used("5")
    world.set(
        SettingKind.THRESHOLDS,
        {"unit": "USD", "rules": [{"rule_id": "b", "type": "balance_at_or_below", "level": "50"}]},
    )
    world.hold(HoldAction.PLACE, "h", "60")
    world.hold(HoldAction.RELEASE, "h")
    assert amend(world, "6", user_id="ann").alerts == ()
    (resolved,) = amend(world, "4", 2, user_id="ann").alerts
    assert resolved.thresholds_left == ("b",)
    world.check()


MONTH = 31 * DAY
"""From the first day of the world, in May, into June."""


@pytest.mark.parametrize(
    ("before", "after", "june", "expired"),
    [("79", "80", "99", None), ("90", "89", "100", "1"), ("5", "5", "100", None)],
)
def test_an_amendment_after_the_month_moves_the_difference(
    before: str, after: str, june: str, expired: str | None
) -> None:
    """What May gave back is drawn again before it expires; only more than that is drawn on June's allowance."""
    world = World()
    world.set(SettingKind.WALLET, {"unit": "USD", "allowance": "100"})
    world.use(before, event_id="u")
    world.tick(MONTH)
    _, new, *expiry = amend(world, after).entries
    assert new.slices[0].grant_id == "allowance/USD/2026-05"
    assert [entry.amount_nanos for entry in expiry] == ([] if expired is None else [-parse_amount(expired)])
    wallet = world.account().wallets["USD"]
    assert (wallet.settled, wallet.used) == (parse_amount(june), parse_amount(after) - parse_amount(before))
    world.check()


def test_an_amendment_draws_first_on_what_it_gave_back_in_the_order_it_was_drawn() -> None:
    world = World()
    world.give("10", purchase_id="g")
    world.buy("100", purchase_id="p")
    world.use("30", event_id="u")
    world.give("50", purchase_id="later", priority=0)
    _, new = amend(world, "12").entries
    assert drawn(new) == [("purchase/g", 10), ("purchase/p", 2)]
    _, new = amend(world, "40", 2).entries
    assert drawn(new) == [("purchase/g", 10), ("purchase/p", 2), ("purchase/later", 28)]
    refund = world.refund(RefundTarget.USAGE, "u", "29").entries[0]
    assert drawn(refund) == [("purchase/later", -28), ("purchase/p", -1)]
    _, new = amend(world, "12", 3).entries
    assert drawn(new) == [("purchase/g", 10), ("purchase/p", 1), ("purchase/later", 1)]
    world.check()


def drawn(entry: Entry) -> list[tuple[str, int]]:
    return [(part.grant_id, part.amount_nanos // NANOS) for part in entry.slices]


def test_an_amendment_of_what_was_overdraft() -> None:
    """A debt that still stands is made again; of one that was paid, the credits that came back are drawn again."""
    world = used("130")
    assert drawn(amend(world, "140").entries[1]) == [("purchase/p1", 100), ("overdraft", 40)]
    world.buy("60", purchase_id="q")
    new = amend(world, "141", 2).entries[1]
    assert drawn(new) == [("purchase/p1", 100), ("correction/u/2", 40), ("purchase/q", 1)]
    assert world.settled() == 19 * NANOS
    world.check()


def test_an_amendment_pays_with_what_came_back_for_other_usage() -> None:
    world = used("30")
    world.use("100", event_id="v")
    assert drawn(amend(world, "20").entries[1]) == [("overdraft", 20)]
    assert world.settled() == -20 * NANOS
    world.check()


def test_a_revision_that_resolves_a_hold_draws_what_came_back() -> None:
    world = World()
    world.set(SettingKind.WALLET, {"unit": "USD", "allowance": "100"})
    world.use("10", event_id="u")
    world.tick(MONTH)
    world.hold(HoldAction.PLACE, "h", "20")
    _, new, release = amend(world, "15", hold_id="h").entries
    assert [(part.grant_id[-2:], part.amount_nanos) for part in new.slices] == [("05", 10 * NANOS), ("06", 5 * NANOS)]
    assert (release.kind, world.account().wallets["USD"].held) == (EntryKind.HOLD_RELEASE, 0)
    world.check()


def budgeted(*budgets: dict[str, Any]) -> World:
    world = World()
    world.buy("1000")
    for number, body in enumerate(budgets):
        world.set(SettingKind.BUDGET, {"budget_id": f"b{number}", "unit": "USD", "limit": "50", **body})
    return world


def spent(world: World) -> list[int]:
    book = world.account().wallets["USD"].budgets
    assert book is not None
    return [budget.spent // NANOS for budget in sorted(all_budgets(book), key=lambda budget: budget.budget_id)]


def test_a_revision_counts_in_the_windows_of_the_first_booking() -> None:
    bodies: tuple[dict[str, Any], ...] = (
        {"window": "day"},
        {"window": "month"},
        {"window": "month", "scope": {"user_id": "ann"}},
    )
    world = budgeted(*({"limit": "500", **body} for body in bodies))
    world.use("40", event_id="u", user_id="ann")
    world.tick(DAY)
    world.use("1")
    amend(world, "42", user_id="ann")
    assert spent(world) == [1, 43, 42]
    world.tick(MONTH)
    world.use("45", user_id="ann")
    amend(world, "45", 2, user_id="ann")
    assert spent(world) == [45, 45, 45]
    amend(world, "46", 3, user_id="ann")
    assert spent(world) == [45, 45, 45]
    amend(world, "0", 4, voided=True)
    assert (
        world.account().wallets["USD"].budgeted_fast_path_limit > 47 * NANOS
    )  # the fast way is open, and not for this
    amend(world, "47", 5, user_id="ann")
    world.refund(RefundTarget.USAGE, "u", "40")
    assert spent(world) == [45, 45, 45]
    assert world.account().wallets["USD"].used == (45 + 47 - 42 - 40) * NANOS
    world.check()


def test_a_revision_of_what_never_came_counts_when_it_comes() -> None:
    world = budgeted({"window": "day"})
    amend(world, "5", 2)
    assert spent(world) == [5]
    world.tick(DAY)
    amend(world, "6", 3)
    world.use("1")
    assert spent(world) == [1]
    world.check()


def test_refunds_of_an_amended_usage_are_known_as_long_as_it_can_be_refunded() -> None:
    """35 days from its last revision, not from its first booking."""
    world = used()
    world.tick(30 * DAY)
    amend(world, "30")
    world.refund(RefundTarget.USAGE, "u", "20")
    world.tick(10 * DAY)
    world.use("1", event_id="v")
    world.refund(RefundTarget.USAGE, "v", "1")
    assert world.refund(RefundTarget.USAGE, "u", "20").entries[0].reason == RejectReason.EXCEEDS_REFUNDABLE
    world.check()


def test_an_amendment_of_people_alone_leaves_the_lines_of_the_wallet() -> None:
    world = World()
    world.buy("20")
    world.use("12", event_id="u", user_id="ann")
    assert [alert.rule_id for alert in world.alerts] == ["low"]
    assert amend(world, "12", user_id="bob").alerts == ()
    world.check()


def test_an_amendment_of_people_is_judged_budget_by_budget() -> None:
    """The org's budget stays reached, one user's is left and the other's is reached, by one entry."""
    ann, bob = ({"window": "day", "scope": {"user_id": name}} for name in ("ann", "bob"))
    world = budgeted({"window": "day"}, ann, bob)
    world.use("60", event_id="u", user_id="ann")
    assert {alert.rule_id for alert in world.alerts} == {"b0", "b1"}
    crossed, resolved = amend(world, "60", user_id="bob").alerts
    assert (crossed.rule_id, crossed.epoch, resolved.thresholds_left) == ("b2", 1, ("b1",))
    assert spent(world) == [60, 0, 60]
    (resolved,) = amend(world, "40", 2, user_id="bob").alerts
    assert set(resolved.thresholds_left) == {"b0", "b2"}
    world.check()


def test_an_amendment_that_names_no_wallet_stays_in_that_of_the_usage() -> None:
    world = World()
    world.buy("100")
    world.buy("100", unit="EUR")
    world.use("79", unit=None, event_id="u")
    world.set(SettingKind.WALLET, {"unit": "EUR", "default": True})
    outcome = amend(world, "80", unit=None)
    assert [(entry.wallet, entry.amount_nanos // NANOS) for entry in outcome.entries] == [("USD", 79), ("USD", -80)]
    assert world.use("1", unit=None).entries[0].wallet == "EUR"
    world.check()
