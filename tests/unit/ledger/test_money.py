"""Purchases, gifts, adjustments, failed charges and refunds (product rules 4, 19, 21)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from schemas.amounts import AMOUNT_MAX, NANOS
from schemas.enums import (
    AlertKind,
    DeadLetterCode,
    EntryKind,
    GrantKind,
    HoldAction,
    RefundTarget,
    RejectReason,
    SettingKind,
)
from streams.ledger.account import encode_account
from streams.ledger.commands import Purchase
from streams.ledger.grants import EXHAUSTED_MAX
from streams.ledger.refusals import DeadLetter
from tests.unit.ledger.world import DAY, FAILED, World

PURCHASE, USAGE = RefundTarget.PURCHASE, RefundTarget.USAGE


def test_credits_are_available_at_once() -> None:
    world = World()
    entry = world.buy("12.5", purchase_id="p", price_paid_nanos=10 * NANOS, currency="EUR", actor="bob").entries[0]
    assert (entry.kind, entry.amount_nanos, entry.available_nanos) == (
        EntryKind.PURCHASE,
        125 * NANOS // 10,
        entry.balance_nanos,
    )
    assert (entry.event_id, entry.actor, entry.source_topic) == ("p", "bob", "topic")
    (lot,) = entry.grants
    assert (lot.grant_id, lot.kind, lot.price_paid_nanos, lot.currency) == (
        "purchase/p", GrantKind.PURCHASED, 10 * NANOS, "EUR",
    )  # fmt: skip
    world.check()


@pytest.mark.parametrize(
    ("amount", "more", "reason"),
    [
        ("0", {}, "amount_not_positive"),
        ("-1", {}, "amount_not_positive"),
        ("0.999999999", {}, "amount_not_positive"),
        ("1", {}, None),
        ("0", {"kind": "promotional"}, "amount_not_positive"),
        ("0.000000001", {"kind": "promotional"}, None),
        ("0", {"kind": "adjustment"}, "amount_not_positive"),
        ("0.000000001", {"kind": "adjustment"}, None),
        ("-0.000000001", {"kind": "adjustment"}, "insufficient_credits"),
    ],
)
def test_what_is_refused(amount: str, more: dict[str, str], reason: str | None) -> None:
    world = World()
    outcome = world.buy(amount, **more)
    assert outcome.entries[0].reason == reason
    assert outcome.rejected == (reason is not None)
    assert bool(world.account().wallets) == (reason is None)
    world.check()


def test_an_adjustment_down_draws_like_usage_and_counts_as_none() -> None:
    world = World()
    world.buy("5", purchase_id="a")
    entry = world.buy("-2", kind="adjustment").entries[0]
    assert (entry.kind, entry.amount_nanos) == (EntryKind.ADJUSTMENT, -2 * NANOS)
    wallet = world.account().wallets["USD"]
    assert (wallet.settled, wallet.used, wallet.lifetime_spent) == (3 * NANOS, 0, 0)
    world.check()


def test_a_failed_charge_moves_nothing_and_says_so() -> None:
    world = World()
    outcome = world.buy("50", purchase_id="p", status=FAILED, failure_reason="card declined")
    (entry,) = outcome.entries
    assert (entry.kind, entry.amount_nanos, entry.reason) == (EntryKind.PURCHASE, 0, "purchase_failed")
    assert '"failure_reason":"card declined"' in (entry.details or "")
    (alert,) = outcome.alerts
    assert (alert.kind, alert.rule_id) == (AlertKind.PURCHASE_FAILED, "p")
    assert alert.message == "A purchase of USD credits has failed: card declined."
    world.check()


def test_lifetime_counts_credits_added_and_usage_drawn_but_no_allowance() -> None:
    world = World()
    world.set(SettingKind.WALLET, {"unit": "USD", "allowance": "10"})
    world.buy("20")
    world.give("5")
    world.use("12")
    wallet = world.account().wallets["USD"]
    assert (wallet.lifetime_added, wallet.lifetime_spent, wallet.used) == (25 * NANOS, 2 * NANOS, 12 * NANOS)
    world.check()


# Expiry.


def test_a_grant_expires_at_its_time_without_any_traffic() -> None:
    world = World()
    world.give("5", purchase_id="trial", expires_at=world.at + DAY)
    assert world.account().due_at == world.at + DAY
    assert world.tick(DAY - 1) == []
    expires_at = world.at + 1
    (entry,) = world.tick(3 * DAY)
    assert (entry.kind, entry.amount_nanos, entry.balance_nanos) == (EntryKind.EXPIRY, -5 * NANOS, 0)
    assert (entry.occurred_at, entry.recorded_at, entry.source_topic) == (expires_at, world.at, "")
    assert [(part.grant_id, part.amount_nanos) for part in entry.slices] == [("purchase/trial", 5 * NANOS)]
    free = [alert for alert in world.alerts if alert.kind is AlertKind.FREE_EXPIRED]
    assert [(alert.rule_id, alert.level) for alert in free] == [("purchase/trial", "5")]
    world.check()


def test_only_what_is_left_expires_and_bought_credits_say_nothing_of_free_ones() -> None:
    world = World()
    world.buy("5", expires_at=world.at + DAY)
    world.use("4.5")
    (entry,) = world.tick(DAY)
    assert entry.amount_nanos == -NANOS // 2
    assert AlertKind.FREE_EXPIRED not in {alert.kind for alert in world.alerts}
    world.check()


def test_credits_that_are_used_up_do_not_expire() -> None:
    world = World()
    world.give("5", expires_at=world.at + DAY)
    world.use("5")
    assert world.tick(DAY) == []


def test_a_gift_that_has_expired_on_arrival_expires_at_once() -> None:
    world = World()
    outcome = world.give("5", expires_at=world.at)
    assert [entry.kind for entry in outcome.entries] == [EntryKind.PURCHASE, EntryKind.EXPIRY]
    assert [entry.source_topic for entry in outcome.entries] == ["topic", ""]
    assert world.settled() == 0
    world.check()


def test_grants_that_expire_together_go_in_draw_down_order() -> None:
    world = World()
    world.buy("1", purchase_id="b", expires_at=world.at + DAY)
    world.give("1", purchase_id="c", expires_at=world.at + DAY)
    world.buy("1", purchase_id="a", priority=1, expires_at=world.at + DAY)
    assert [entry.event_id for entry in world.tick(DAY)] == ["purchase/a", "purchase/c", "purchase/b"]


# Refunds of purchases.


@pytest.mark.parametrize(
    ("target", "amount", "reason"),
    [
        ("p", "3", None),
        ("p", "3.000000001", "exceeds_refundable"),
        ("p", "0", "amount_not_positive"),
        ("p", "-1", "amount_not_positive"),
        ("other", "1", "unknown_purchase"),
    ],
)
def test_a_refund_of_a_purchase_takes_at_most_what_is_left(target: str, amount: str, reason: str | None) -> None:
    world = World()
    world.buy("5", purchase_id="p", priority=1)
    world.buy("5")
    world.use("2")
    before = world.settled()
    (entry,) = world.refund(PURCHASE, target, amount).entries
    assert entry.reason == (reason or "purchase_refunded")
    assert entry.kind is (EntryKind.REJECTED if reason else EntryKind.REFUND)
    assert world.settled() == before - (0 if reason else 3 * NANOS)
    world.check()


def test_partial_refunds_of_a_purchase_add_up() -> None:
    world = World()
    world.buy("5", purchase_id="p")
    assert not world.refund(PURCHASE, "p", "2").rejected
    assert not world.refund(PURCHASE, "p", "3").rejected
    assert world.refund(PURCHASE, "p", "0.000000001").entries[0].reason == "exceeds_refundable"
    world.check()


@pytest.mark.fault(
    "refund-before-purchase",
    title="a refund that comes before its purchase",
    provoked="a refund of a purchase that nobody has made yet, then the purchase",
    holds="the refund is refused; the purchase stands",
    faults_row=17,
)
def test_a_refund_before_the_purchase_is_refused_and_the_purchase_stands(seen: Callable[[str], None]) -> None:
    world = World()
    assert world.refund(PURCHASE, "p", "1").entries[0].reason == "unknown_purchase"
    world.buy("5", purchase_id="p")
    assert world.settled() == 5 * NANOS
    world.check()
    seen("rejected as unknown_purchase; the purchase was booked whole")


def test_a_purchase_that_paid_a_debt_can_give_back_only_the_rest() -> None:
    world = World()
    world.use("3")
    world.buy("5", purchase_id="p")
    assert world.refund(PURCHASE, "p", "3").entries[0].reason == "exceeds_refundable"
    assert not world.refund(PURCHASE, "p", "2").rejected
    world.check()


def test_empty_purchases_are_remembered_within_a_bound() -> None:
    world = World()
    for number in range(EXHAUSTED_MAX + 1):
        world.buy("1", purchase_id=f"{number:03d}")
        world.use("1")
    assert len(world.account().wallets["USD"].exhausted) == EXHAUSTED_MAX
    assert world.refund(PURCHASE, "001", "1").entries[0].reason == "exceeds_refundable"
    assert world.refund(PURCHASE, "000", "1").entries[0].reason == "unknown_purchase"
    world.check()


# Refunds of usage.


def slices(world: World, *, of: int = -1) -> list[tuple[str, int]]:
    return [(part.grant_id, part.amount_nanos) for part in world.entries["acme"][of].slices]


def test_a_refund_of_usage_gives_back_the_slices_the_last_drawn_first() -> None:
    world = World()
    world.buy("3", purchase_id="a")
    world.buy("5", purchase_id="b")
    world.use("4", event_id="u")
    (entry,) = world.refund(USAGE, "u", "2").entries
    assert (entry.kind, entry.amount_nanos, entry.correlation_id) == (EntryKind.REFUND, 2 * NANOS, "u")
    assert slices(world) == [("purchase/b", -NANOS), ("purchase/a", -NANOS)]
    world.refund(USAGE, "u", "2")
    assert slices(world) == [("purchase/a", -2 * NANOS)]
    assert world.settled() == 8 * NANOS
    wallet = world.account().wallets["USD"]
    assert (wallet.used, wallet.lifetime_spent) == (0, 0)
    world.check()


@pytest.mark.parametrize(
    ("usage", "amount", "reason"),
    [
        ("u", "4", None),
        ("u", "4.000000001", "exceeds_refundable"),
        ("other", "1", "unknown_usage"),
        ("u", "0", "amount_not_positive"),
    ],
)
def test_a_refund_of_usage_is_at_most_the_usage(usage: str, amount: str, reason: str | None) -> None:
    world = World()
    world.buy("5")
    world.use("4", event_id="u")
    assert world.refund(USAGE, usage, amount).entries[0].reason == (reason or "usage_refunded")
    world.check()


@pytest.mark.fault(
    "refunds-add-up",
    title="refunds of one usage, one after the other",
    provoked="partial refunds until more than the usage is asked for",
    holds="together at most the usage",
    faults_row=17,
)
def test_partial_refunds_of_usage_add_up_to_it(seen: Callable[[str], None]) -> None:
    world = World()
    world.buy("5")
    world.use("4", event_id="u")
    assert not world.refund(USAGE, "u", "3").rejected
    assert world.refund(USAGE, "u", "1.5").entries[0].reason == "exceeds_refundable"
    assert not world.refund(USAGE, "u", "1").rejected
    world.check()
    seen("what was beyond the usage was rejected as exceeds_refundable")


@pytest.mark.fault(
    "refund-after-expiry",
    title="a refund of usage whose grant has expired",
    provoked="usage of a gift is refunded after the gift has expired",
    holds="what returns expires at once",
    faults_row=17,
)
def test_what_returns_to_an_expired_grant_expires_at_once(seen: Callable[[str], None]) -> None:
    world = World()
    world.give("3", purchase_id="free", expires_at=world.at + DAY)
    world.buy("5", purchase_id="b")
    world.use("4", event_id="u")
    world.tick(2 * DAY)
    outcome = world.refund(USAGE, "u", "4")
    assert [(entry.kind, entry.amount_nanos) for entry in outcome.entries] == [
        (EntryKind.REFUND, 4 * NANOS),
        (EntryKind.EXPIRY, -3 * NANOS),
    ]
    assert world.settled() == 5 * NANOS
    world.check()
    seen("the refund and an expiry of the same amount were booked together")


def test_what_has_expired_pays_no_debt() -> None:
    world = World()
    world.give("3", purchase_id="free", expires_at=world.at + DAY)
    world.use("3", event_id="u")
    world.tick(2 * DAY)
    world.use("5")
    world.refund(USAGE, "u", "3")
    assert world.settled() == -5 * NANOS
    world.check()


def test_usage_in_the_negative_is_given_back_to_the_debt_first() -> None:
    world = World()
    world.buy("3", purchase_id="a")
    world.use("5", event_id="u")
    world.use("1")
    world.refund(USAGE, "u", "4")
    assert slices(world) == [("purchase/a", -NANOS), ("overdraft", -3 * NANOS)]
    assert world.settled() == NANOS
    world.check()


def test_a_debt_that_was_paid_comes_back_as_an_adjustment() -> None:
    world = World()
    world.use("5", event_id="u")
    world.buy("9", purchase_id="a")
    (entry,) = world.refund(USAGE, "u", "5", refund_id="r").entries
    assert [(lot.grant_id, lot.kind, lot.amount_nanos) for lot in entry.grants] == [
        ("refund/r", GrantKind.ADJUSTMENT, 5 * NANOS)
    ]
    assert world.settled() == 9 * NANOS
    world.check()


def test_a_refund_of_allowance_does_not_touch_lifetime_spent() -> None:
    world = World()
    world.set(SettingKind.WALLET, {"unit": "USD", "allowance": "10"})
    world.buy("5")
    world.use("12", event_id="u")
    world.refund(USAGE, "u", "5")
    assert world.account().wallets["USD"].lifetime_spent == 0
    world.check()


def test_usage_cannot_be_refunded_after_its_window() -> None:
    world = World()
    world.buy("5")
    world.use("4", event_id="u")
    world.tick(36 * DAY)
    assert world.refund(USAGE, "u", "1").entries[0].reason == "unknown_usage"


def test_refunds_are_forgotten_only_when_they_cannot_be_repeated() -> None:
    world = World()
    world.buy("50")
    world.use("4", event_id="u")
    world.refund(USAGE, "u", "1")
    world.tick(36 * DAY)
    world.use("4", event_id="v")
    world.refund(USAGE, "v", "1")
    assert list(world.account().refunded) == ["v"]
    world.check()


# Bounds.


def test_a_balance_beyond_the_bound_is_a_dead_letter_and_changes_nothing() -> None:
    world = World()
    world.buy("9000000000")
    before = encode_account(world.account())
    with pytest.raises(DeadLetter) as refusal:
        world.do(Purchase("p2", "acme", world.at, "USD", NANOS))
    assert refusal.value.code is DeadLetterCode.AMOUNT_OUT_OF_RANGE
    assert encode_account(world.account()) == before


def test_usage_beyond_the_bound_is_a_dead_letter_and_changes_nothing() -> None:
    world = World()
    world.use("9000000000")
    before = encode_account(world.account())
    with pytest.raises(DeadLetter) as refusal:
        world.use("0.000000001")
    assert refusal.value.code is DeadLetterCode.AMOUNT_OUT_OF_RANGE
    assert encode_account(world.account()) == before
    assert world.settled() == -AMOUNT_MAX


def test_room_is_kept_for_what_may_come_back() -> None:
    world = World()
    world.set(SettingKind.ORG, {"administrators": ["alice"]})
    world.buy("5000000000")
    world.send("5000000000", "acme", "beta")
    with pytest.raises(DeadLetter):
        world.buy("5000000000")
    world.deliver()
    assert world.settled() == 5_000_000_000 * NANOS
    world.check()


def test_a_refund_of_usage_is_told_apart_as_the_usage_was() -> None:
    """All its dimensions and its billing unit, for reports by them; no quantity, for none is given back."""
    world = World()
    world.buy("100")
    named = {"provider": "p", "endpoint": "e", "deployment": "d", "category": "c", "user_id": "ann", "model": "gpt"}
    world.use("0", unit=None, event_id="u", cost_nanos=None, input_tokens=1_000, **named)
    (entry,) = world.refund(RefundTarget.USAGE, "u", "0.001").entries
    assert {name: getattr(entry, name) for name in named} == named
    assert (entry.operation, entry.billing_unit, entry.input_tokens) == ("chat", "token", None)
    world.check()


def test_the_usage_of_a_captured_hold_is_refunded_by_the_id_of_the_hold() -> None:
    world = World()
    world.buy("100")
    world.hold(HoldAction.PLACE, "h", "30", user_id="ann")
    world.hold(HoldAction.CAPTURE, "h", "20")
    (entry,) = world.refund(RefundTarget.USAGE, "h", "5").entries
    assert (entry.kind, entry.amount_nanos, entry.correlation_id) == (EntryKind.REFUND, 5 * NANOS, "h")
    assert entry.user_id == "ann"
    assert world.refund(RefundTarget.USAGE, "h", "15.1").entries[0].reason == RejectReason.EXCEEDS_REFUNDABLE
    assert not world.refund(RefundTarget.USAGE, "h", "15").rejected
    assert world.settled() == 100 * NANOS
    world.check()
