"""Transfers between orgs: nothing is created or lost, and everything ends once (product rule 22)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from schemas.amounts import AMOUNT_MAX, NANOS
from schemas.enums import DeadLetterCode, EntryKind, GrantKind, LegKind, SettingKind
from streams.ledger.account import encode_account
from streams.ledger.refusals import DeadLetter
from tests.unit.ledger.world import DAY, START, World


def world_of_two(*, closed: bool = False, administrators: tuple[str, ...] = ("alice",)) -> World:
    """acme with 10 bought USD, and beta; alice manages acme."""
    world = World()
    world.set(SettingKind.ORG, {"administrators": ["alice", "carol"]})
    world.set(SettingKind.ORG, {"administrators": list(administrators), "closed": closed}, "beta")
    world.buy("10", purchase_id="p", price_paid_nanos=20 * NANOS, currency="EUR", priority=7)
    return world


def test_credits_arrive_and_are_acknowledged() -> None:
    world = world_of_two()
    (out,) = world.send("4", "acme", "beta").entries
    assert (out.kind, out.amount_nanos, out.counterparty_org_id) == (EntryKind.TRANSFER_OUT, -4 * NANOS, "beta")
    assert world.account().in_transit_nanos("USD") == 4 * NANOS
    world.check()
    (credit,) = world.legs
    assert (credit.kind, credit.org_id) == (LegKind.CREDIT, "beta")
    world.deliver()
    assert world.account().in_transit_nanos("USD") == 0
    assert (world.settled(), world.settled("beta")) == (6 * NANOS, 4 * NANOS)
    arrived = world.entries["beta"][-1]
    assert (arrived.kind, arrived.amount_nanos, arrived.counterparty_org_id) == (
        EntryKind.TRANSFER_IN, 4 * NANOS, "acme",
    )  # fmt: skip
    acknowledged = world.entries["acme"][-1]
    assert (acknowledged.kind, acknowledged.amount_nanos) == (EntryKind.TRANSFER_OUT, 0)
    world.check()


def test_grants_keep_kind_expiry_priority_and_their_share_of_the_cost() -> None:
    world = world_of_two()
    world.give("3", expires_at=START + 9 * DAY)
    world.send("8", "acme", "beta")
    world.deliver()
    grants = [
        (grant.kind, grant.amount // NANOS, grant.priority, grant.expires_at, grant.price_paid, grant.currency)
        for grant in world.account("beta").wallets["USD"].grants
    ]
    assert grants == [(GrantKind.PURCHASED, 8, 7, None, 16 * NANOS, "EUR")]
    world.at += 1
    world.send("5", "acme", "beta")
    world.deliver()
    kinds = [(grant.kind, grant.amount // NANOS) for grant in world.account("beta").wallets["USD"].grants]
    assert kinds == [(GrantKind.PURCHASED, 8), (GrantKind.PURCHASED, 2), (GrantKind.PROMOTIONAL, 3)]
    assert world.account("beta").wallets["USD"].grants[-1].expires_at == START + 9 * DAY
    world.check()


def test_the_shares_of_the_cost_add_up_to_the_whole() -> None:
    world = world_of_two()
    world.buy("3", purchase_id="three", price_paid_nanos=100, currency="EUR", priority=0)
    for _ in range(3):
        world.send("1", "acme", "beta")
        world.deliver()
    shares = [grant.price_paid for grant in world.account("beta").wallets["USD"].grants]
    assert sorted(share or 0 for share in shares) == [33, 33, 34]
    world.check()


@pytest.mark.fault(
    "transfers-refused",
    title="transfers that may not be",
    provoked="of zero, below zero, to itself, of more than there is, by somebody who is no administrator",
    holds="refused by name; nothing moves",
    faults_row=18,
)
@pytest.mark.parametrize(
    ("amount", "target", "actor", "reason"),
    [
        ("0", "beta", "alice", "amount_not_positive"),
        ("-1", "beta", "alice", "amount_not_positive"),
        ("1", "acme", "alice", "same_org"),
        ("1", "beta", "mallory", "not_authorized"),
        ("10.000000001", "beta", "alice", "insufficient_credits"),
        ("10", "beta", "alice", None),
    ],
)
def test_what_the_source_refuses(
    amount: str, target: str, actor: str, reason: str | None, seen: Callable[[str], None]
) -> None:
    world = world_of_two()
    outcome = world.send(amount, "acme", target, actor)
    assert outcome.entries[0].reason == reason
    assert bool(outcome.legs) == (reason is None)
    world.check()
    seen("each was rejected with its reason")


def test_an_org_that_nobody_knows_cannot_send_and_stays_unknown() -> None:
    world = world_of_two()
    assert world.send("1", "nobody", "acme").entries[0].reason == "unknown_org"
    assert not world.account("nobody").known


def test_a_closed_org_cannot_send() -> None:
    world = world_of_two()
    world.set(SettingKind.ORG, {"administrators": ["alice"], "closed": True})
    assert world.send("1", "acme", "beta").entries[0].reason == "org_closed"
    world.check()


@pytest.mark.parametrize(
    ("closed", "administrators", "reason"),
    [(True, ("alice",), "org_closed"), (False, ("bob",), "not_authorized")],
)
def test_what_the_target_refuses_comes_back(closed: bool, administrators: tuple[str, ...], reason: str) -> None:
    world = world_of_two(closed=closed, administrators=administrators)
    before = world.account().wallets["USD"]
    grants = [(grant.grant_id, grant.remaining) for grant in before.grants]
    world.send("4", "acme", "beta")
    world.deliver()
    assert world.settled() == 10 * NANOS
    returned = world.entries["acme"][-1]
    assert (returned.kind, returned.amount_nanos, returned.reason) == (EntryKind.TRANSFER_RETURN, 4 * NANOS, reason)
    refused = world.entries["beta"][-1]
    assert (refused.kind, refused.reason) == (EntryKind.REJECTED, reason)
    assert [(grant.grant_id, grant.remaining) for grant in world.account().wallets["USD"].grants] == grants
    assert not world.account().in_transit
    world.check()


@pytest.mark.fault(
    "transfer-to-nobody",
    title="a transfer to an organisation that nobody knows",
    provoked="a transfer to an id without an account",
    holds="the credits come back; the id stays unknown",
    faults_row=18,
)
def test_an_unknown_target_writes_nothing_and_the_credits_come_back(seen: Callable[[str], None]) -> None:
    world = world_of_two()
    world.send("4", "acme", "nowhere")
    world.deliver()
    assert world.entries["nowhere"] == []
    assert world.entries["acme"][-1].reason == "unknown_target"
    assert world.settled() == 10 * NANOS
    world.check()
    seen("the target has no entry and the source has its credits")


def test_a_target_without_room_sends_the_credits_back() -> None:
    world = world_of_two()
    world.buy("9000000000", "beta")
    world.send("4", "acme", "beta")
    world.deliver()
    assert world.entries["acme"][-1].reason == "amount_out_of_range"
    assert (world.settled(), world.settled("beta")) == (10 * NANOS, AMOUNT_MAX)
    world.check()


def test_what_comes_back_to_an_expired_grant_expires_at_once() -> None:
    world = world_of_two(closed=True)
    world.give("5", expires_at=world.at + DAY, priority=0)
    world.send("5", "acme", "beta")
    world.tick(2 * DAY)
    world.deliver()
    kinds = [entry.kind for entry in world.entries["acme"][-2:]]
    assert kinds == [EntryKind.TRANSFER_RETURN, EntryKind.EXPIRY]
    assert world.settled() == 10 * NANOS
    world.check()


def test_what_comes_back_pays_a_debt_first() -> None:
    world = world_of_two(closed=True)
    world.send("10", "acme", "beta")
    world.use("4")
    world.deliver()
    assert world.settled() == 6 * NANOS
    assert world.account().wallets["USD"].overdraft == 0
    world.check()


@pytest.mark.fault(
    "transfers-cross",
    title="transfers that cross",
    provoked="A to B while B to A, and in a circle",
    holds="both end; the sum of credits is the same",
    faults_row=18,
)
def test_transfers_that_cross_and_circles_conserve(seen: Callable[[str], None]) -> None:
    world = world_of_two()
    world.buy("10", "beta")
    world.send("4", "acme", "beta")
    world.send("7", "beta", "acme")
    world.check()
    world.deliver()
    assert (world.settled(), world.settled("beta")) == (13 * NANOS, 7 * NANOS)
    world.send("13", "acme", "beta")
    world.deliver()
    world.send("20", "beta", "acme")
    world.deliver()
    assert world.settled() == 20 * NANOS
    world.check()
    seen("all transfers ended and the sum of credits was the same")


def test_two_orgs_may_use_the_same_transfer_id() -> None:
    world = world_of_two()
    world.set(SettingKind.ORG, {"administrators": ["alice"]}, "gamma")
    world.buy("10", "beta")
    for source in ("acme", "beta"):
        world._offset = 100
        world.send("1", source, "gamma")
    assert len({leg.leg_id for leg in world.legs}) == 2
    world.deliver()
    assert world.settled("gamma") == 2 * NANOS
    world.check()


def test_an_id_is_not_used_again_while_its_transfer_is_on_its_way() -> None:
    """However long that takes: one answer would end both."""
    world = world_of_two()
    world.buy("1")
    world._offset = 100
    world.send("4", "acme", "beta")
    world.tick(40 * DAY)
    world._offset = 100
    with pytest.raises(DeadLetter, match="still in transit") as refusal:
        world.send("3", "acme", "beta")
    assert refusal.value.code is DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT
    assert world.account().in_transit_nanos("USD") == 4 * NANOS
    world.deliver()
    world._offset = 100
    world.send("3", "acme", "beta")
    world.deliver()
    assert (world.account().in_transit_nanos("USD"), world.settled("beta")) == (0, 7 * NANOS)
    world.check()


def test_an_answer_to_a_transfer_that_has_ended_changes_nothing() -> None:
    world = world_of_two()
    world.send("4", "acme", "beta")
    credit = world.legs.pop()
    (answer,) = world.do(credit).legs
    world.legs.clear()
    world.do(answer)
    before = encode_account(world.account())
    assert world.do(answer).entries == []
    assert encode_account(world.account()) == before


def test_credits_that_return_in_a_later_month_count_in_its_allocation() -> None:
    world = world_of_two(closed=True)
    world.use("1")
    world.send("4", "acme", "beta")
    world.tick(31 * DAY)
    assert world.account().wallets["USD"].allocation == 5 * NANOS
    world.deliver()
    assert world.account().wallets["USD"].allocation == 9 * NANOS
    world.check()


def test_credits_that_return_in_the_same_month_are_counted_in_it_already() -> None:
    world = world_of_two(closed=True)
    world.send("4", "acme", "beta")
    world.deliver()
    assert world.account().wallets["USD"].allocation == 10 * NANOS
