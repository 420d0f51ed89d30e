"""Ids of purchases and transfers are unique for 35 days, each later use makes new credits (product rules 19, 22)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from schemas.amounts import NANOS, parse_amount
from schemas.enums import RefundTarget, SettingKind
from streams.ledger.commands import Transfer
from tests.unit.ledger.world import DAY, World

LATER = 40 * DAY


def _send(world: World, amount: str) -> None:
    world.do(Transfer("t", "acme", "beta", world.at, "USD", parse_amount(amount), "alice"))
    world.deliver()


def _bought(world: World, amount: str) -> None:
    world.buy(amount, "beta", purchase_id="p")


def _bought_for_a_day(world: World, amount: str) -> None:
    world.buy(amount, "beta", purchase_id="p", expires_at=world.at + DAY)


def _sent(world: World, amount: str) -> None:
    world.buy(amount)
    _send(world, amount)


def _sent_for_a_day(world: World, amount: str) -> None:
    world.buy(amount, expires_at=world.at + DAY)
    _send(world, amount)


Added = Callable[[World, str], None]
WAYS: dict[str, tuple[Added, Added]] = {"purchase": (_bought, _bought_for_a_day), "transfer": (_sent, _sent_for_a_day)}


def _world() -> World:
    world = World()
    for org in ("acme", "beta"):
        world.set(SettingKind.ORG, {"administrators": ["alice"]}, org)
    return world


def _left(world: World, org: str = "acme") -> list[tuple[str, str, int]]:
    return [
        (unit, grant.grant_id, grant.remaining // NANOS)
        for unit, wallet in world.account(org).wallets.items()
        for grant in wallet.grants
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("first", "second"), [("10", "10"), ("4", "10"), ("10", "4")])
def test_the_later_expires_and_the_first_stays(way: str, first: str, second: str) -> None:
    add, add_for_a_day = WAYS[way]
    world = _world()
    add(world, first)
    world.tick(LATER)
    add_for_a_day(world, second)
    ids = [grant_id for _, grant_id, _ in _left(world, "beta")]
    assert len(ids) == len(set(ids)) == 2
    world.tick(2 * DAY)
    assert [entry.amount_nanos for entry in world.entries["beta"] if entry.kind == "expiry"] == [-int(second) * NANOS]
    assert world.settled("beta") == int(first) * NANOS
    world.check()


def test_only_the_id_of_the_later_tells_that_it_is_the_later() -> None:
    world = _world()
    world.buy("10", purchase_id="p")
    world.tick(LATER)
    world.buy("4", purchase_id="p")
    seq = world.account().seq
    assert _left(world) == [("USD", "purchase/p", 10), ("USD", f"purchase@{seq}/p", 4)]
    world.tick(LATER)
    world.buy("1", purchase_id="p")
    assert len({grant_id for _, grant_id, _ in _left(world)}) == 3
    world.check()


@pytest.mark.parametrize("unit", ["USD", "EUR"])
def test_a_refund_is_about_the_latest_purchase_of_the_id(unit: str) -> None:
    world = _world()
    world.buy("10", purchase_id="p")
    world.tick(LATER)
    world.buy("4", purchase_id="p", unit=unit)
    (entry,) = world.refund(RefundTarget.PURCHASE, "p", "5").entries
    assert (entry.kind, entry.reason) == ("rejected", "exceeds_refundable")
    (entry,) = world.refund(RefundTarget.PURCHASE, "p", "4").entries
    assert (entry.kind, entry.wallet, entry.amount_nanos) == ("refund", unit, -4 * NANOS)
    assert _left(world) == [("USD", "purchase/p", 10)]
    (entry,) = world.refund(RefundTarget.PURCHASE, "p", "1").entries
    assert (entry.kind, entry.reason) == ("rejected", "exceeds_refundable")
    world.check()


def test_usage_goes_back_to_the_purchase_that_it_was_drawn_from() -> None:
    world = _world()
    world.buy("10", purchase_id="p")
    world.tick(LATER)
    world.buy("4", purchase_id="p")
    world.use("12", event_id="u")
    world.refund(RefundTarget.USAGE, "u", "12")
    assert [left for _, _, left in _left(world)] == [10, 4]
    world.check()


@pytest.mark.parametrize("other", ["x/p", "p/5", "5/p", "@5/p"])
def test_an_id_that_looks_like_another_is_another(other: str) -> None:
    world = _world()
    world.buy("10", purchase_id="p")
    world.buy("4", purchase_id=other)
    assert sorted(grant_id for _, grant_id, _ in _left(world)) == sorted(["purchase/p", f"purchase/{other}"])
    (entry,) = world.refund(RefundTarget.PURCHASE, "p", "10").entries
    assert entry.kind == "refund"
    assert _left(world) == [("USD", f"purchase/{other}", 4)]
    world.check()
