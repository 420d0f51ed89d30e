"""Re-rating: the difference of a booked usage, of any age, given back or charged, and nothing remembered."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from schemas.amounts import NANOS, parse_amount
from schemas.codec import batch_of
from schemas.enums import EntryKind, GrantKind, RefundTarget, RejectReason, SettingKind
from streams.ledger.account import Account, encode_account
from streams.ledger.entry import Outcome
from streams.verify.fold import LedgerFold
from tests.unit.ledger.world import DAY, World

RERATED = RefundTarget.RERATED_USAGE


def used(cost: str = "30", balance: str = "100") -> World:
    world = World()
    world.buy(balance)
    world.use(cost, event_id="u", user_id="ann", model="gpt", quantity_nanos=7)
    return world


def rerate(world: World, amount: str, usage: str = "u", **more: Any) -> Outcome:
    return world.refund(RERATED, usage, amount, **more)


def checked(world: World) -> None:
    """The invariants, and the auditor's fold of the same entries."""
    world.check()
    fold = LedgerFold()
    fold.add(batch_of("entry", [entry.to_record() for entry in world.entries["acme"]]))
    fold.finish()
    assert fold.differences.kept == []
    for unit, wallet in world.account().wallets.items():
        assert fold.orgs["acme"].wallets[unit].lifetime_spent == wallet.lifetime_spent


def test_what_cost_too_much_goes_back_to_the_grants_it_drew() -> None:
    world = used()
    (entry,) = rerate(world, "10", refund_id="rerate:abc:2", actor="ops").entries
    assert (entry.kind, entry.amount_nanos, entry.reason) == (EntryKind.CORRECTION, 10 * NANOS, "usage_rerated")
    assert (entry.event_id, entry.correlation_id, entry.actor) == ("rerate:abc:2", "u", "ops")
    assert (entry.user_id, entry.model, entry.quantity_nanos) == ("ann", "gpt", None), "dimensions, and no quantities"
    wallet = world.account().wallets["USD"]
    assert (wallet.settled, wallet.used, wallet.lifetime_spent) == (80 * NANOS, 20 * NANOS, 20 * NANOS)
    assert [grant.remaining for grant in wallet.grants] == [80 * NANOS]
    checked(world)


def test_what_cost_too_little_is_drawn_like_usage_that_happens_now() -> None:
    world = used("90")
    world.give("5", expires_at=world.at + DAY)
    (entry,) = rerate(world, "-20").entries
    assert (entry.kind, entry.amount_nanos) == (EntryKind.CORRECTION, -20 * NANOS)
    assert [(part.kind, part.amount_nanos) for part in entry.slices] == [
        (GrantKind.PROMOTIONAL, 5 * NANOS),
        (GrantKind.PURCHASED, 10 * NANOS),
        (GrantKind.OVERDRAFT, 5 * NANOS),
    ]
    wallet = world.account().wallets["USD"]
    assert (wallet.settled, wallet.used, wallet.lifetime_spent) == (-5 * NANOS, 110 * NANOS, 110 * NANOS)
    checked(world)


def test_it_has_the_usages_time_of_any_age() -> None:
    world = used()
    at = world.at
    world.tick(400 * DAY)
    (entry,) = [each for each in rerate(world, "10").entries if each.kind is EntryKind.CORRECTION]
    assert (entry.occurred_at, entry.recorded_at) == (at, at + 400 * DAY)
    checked(world)


def test_more_than_it_drew_comes_back_after_it_was_charged_more_before() -> None:
    world = used("30")
    rerate(world, "-50")
    (entry,) = rerate(world, "70").entries
    assert sum(lot.amount_nanos for lot in entry.grants) - sum(part.amount_nanos for part in entry.slices) == 70 * NANOS
    assert world.settled() == 90 * NANOS
    checked(world)


def test_the_account_remembers_nothing_of_it() -> None:
    def shape(account: Account) -> tuple[int, int, int]:
        return len(account.corrected), len(account.refunded), len(encode_account(account))

    world = used("30")
    rerate(world, "-1")
    before = shape(world.account())
    for _ in range(50):
        rerate(world, "-0.5")
    after = shape(world.account())
    assert after[:2] == before[:2] == (0, 0)
    assert after[2] - before[2] < 16, "numbers grow, nothing is added"


def test_budgets_count_it_in_the_window_of_the_usage() -> None:
    world = World()
    world.buy("100")
    body = {"budget_id": "b", "unit": "USD", "scope": {"user_id": "ann"}, "window": "day", "limit": "50"}
    world.set(SettingKind.BUDGET, body)
    world.use("30", event_id="u", user_id="ann")
    rerate(world, "-10")
    book = world.account().wallets["USD"].budgets
    assert book is not None
    (budget,) = book.by_field[0]["ann"]
    assert budget.spent == 40 * NANOS
    world.tick(DAY)
    world.use("1", user_id="ann")
    rerate(world, "-10")
    assert budget.spent == NANOS, "the day in which it was used has ended"
    checked(world)


@pytest.mark.parametrize(
    ("amount", "usage", "actor", "reason"),
    [
        ("0", "u", None, RejectReason.AMOUNT_NOT_POSITIVE),
        ("1", "unheard-of", None, RejectReason.UNKNOWN_USAGE),
        ("-1", "unheard-of", None, RejectReason.UNKNOWN_USAGE),
        ("1", "u", "mallory", RejectReason.NOT_AUTHORIZED),
    ],
)
def test_what_is_refused(amount: str, usage: str, actor: str | None, reason: RejectReason) -> None:
    world = used()
    world.set(SettingKind.MEMBER, {"user_id": "boss", "role": "owner"})
    (entry,) = rerate(world, amount, usage, actor=actor).entries
    assert (entry.kind, entry.reason) == (EntryKind.REJECTED, reason)
    assert world.settled() == 70 * NANOS


def test_components_stand_in_the_entry() -> None:
    world = used()
    part = {
        "meter": "input_tokens",
        "quantity_nanos": NANOS,
        "unit_price_nanos": 1,
        "billing_unit": "unit",
        "price_id": "p",
        "amount_nanos": -parse_amount("10"),
    }
    (entry,) = rerate(world, "10", components=[part]).entries
    assert [msgspec.to_builtins(each) for each in entry.components] == [part]
