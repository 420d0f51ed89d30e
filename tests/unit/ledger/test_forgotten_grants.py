"""What comes back to a grant that is no longer remembered: in parts, and never an error (product rules 2, 21 to 23)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from schemas.amounts import NANOS
from schemas.enums import RefundTarget, SettingKind
from streams.ledger.account import Grant
from streams.ledger.commands import PRIORITY_DEFAULT
from streams.ledger.grants import EXHAUSTED_MAX, find_grant
from tests.unit.ledger.world import DAY, World

Case = tuple[Callable[[World], object], Callable[[World], object]]
"""What uses 10 credits of the grant `purchase/g`; what gives all of them back, in two parts."""


def _use_two(world: World) -> None:
    world.use("4", event_id="a")
    world.use("6", event_id="b")


def _refund_two(world: World) -> None:
    world.refund(RefundTarget.USAGE, "a", "4")
    world.refund(RefundTarget.USAGE, "b", "6")


def _use_one(world: World) -> None:
    world.use("10", event_id="a")


def _refund_in_parts(world: World) -> None:
    world.refund(RefundTarget.USAGE, "a", "3")
    world.refund(RefundTarget.USAGE, "a", "7")


def _void_two(world: World) -> None:
    for event_id in ("a", "b"):
        world.use("0", event_id=event_id, revision=1, voided=True)


def _send_two(world: World) -> None:
    world.set(SettingKind.ORG, {"administrators": ["alice"]})
    world.set(SettingKind.ORG, {"administrators": ["alice"], "closed": True}, "shut")
    world.send("4", "acme", "shut")
    world.send("6", "acme", "shut")


CASES: dict[str, Case] = {
    "refunds of two usages": (_use_two, _refund_two),
    "two refunds of a usage": (_use_one, _refund_in_parts),
    "two voids": (_use_two, _void_two),
    "two returned transfers": (_send_two, World.deliver),
}


def _forget_all(world: World) -> None:
    for number in range(EXHAUSTED_MAX + 1):
        world.buy("1", purchase_id=f"x{number}")
        world.use("1", event_id=f"y{number}")
    assert find_grant(world.account().wallets["USD"], "purchase/g") is None


def _grant(world: World) -> Grant:
    (grant,) = world.account().wallets["USD"].grants
    assert grant.grant_id == "purchase/g"
    return grant


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("forgotten", [False, True])
def test_what_comes_back_in_parts_is_one_grant_again(case: str, forgotten: bool) -> None:
    use, give_back = CASES[case]
    world = World()
    expires_at = world.at + 30 * DAY
    world.give("10", purchase_id="g", expires_at=expires_at)
    use(world)
    if forgotten:
        _forget_all(world)
    give_back(world)
    grant = _grant(world)
    assert (grant.kind, grant.amount, grant.remaining) == ("promotional", 10 * NANOS, 10 * NANOS)
    assert grant.expires_at == expires_at
    world.check()


@pytest.mark.parametrize("case", CASES)
def test_what_comes_back_in_parts_pays_the_debt_first(case: str) -> None:
    use, give_back = CASES[case]
    world = World()
    world.buy("10", purchase_id="g")
    use(world)
    _forget_all(world)
    world.use("5")
    give_back(world)
    assert _grant(world).remaining == world.settled() == 5 * NANOS
    world.check()


@pytest.mark.parametrize("case", CASES)
def test_what_comes_back_in_parts_after_its_end_expires_in_parts(case: str) -> None:
    use, give_back = CASES[case]
    world = World()
    world.give("10", purchase_id="g", expires_at=world.at + DAY)
    use(world)
    _forget_all(world)
    world.tick(2 * DAY)
    give_back(world)
    expired = [entry.amount_nanos for entry in world.entries["acme"] if entry.kind == "expiry"]
    assert (len(expired), sum(expired), world.settled()) == (2, -10 * NANOS, 0)
    world.check()


def test_what_was_drawn_since_makes_room_for_what_comes_back() -> None:
    """The grant came back with 4; 3 of them are used, so of the 6 that come back nothing needs to be refused."""
    world = World()
    world.buy("10", purchase_id="g")
    _use_two(world)
    _forget_all(world)
    world.refund(RefundTarget.USAGE, "a", "4")
    world.use("3")
    world.refund(RefundTarget.USAGE, "b", "2")
    assert (_grant(world).amount, _grant(world).remaining) == (4 * NANOS, 3 * NANOS)
    world.refund(RefundTarget.USAGE, "b", "4")
    assert (_grant(world).amount, _grant(world).remaining) == (8 * NANOS, 7 * NANOS)
    world.check()


def test_returned_transfers_bring_priority_and_cost_basis_back() -> None:
    world = World()
    world.buy("10", purchase_id="g", priority=10, price_paid_nanos=100, currency="USD")
    _send_two(world)
    _forget_all(world)
    world.deliver()
    grant = _grant(world)
    assert (grant.priority, grant.price_paid, grant.currency) == (10, 100, "USD")
    world.check()


def test_what_no_slice_tells_of_a_forgotten_grant_takes_its_default() -> None:
    """A refund of usage brings its kind and expiry back; its priority and cost basis nobody knows any more."""
    world = World()
    end = world.at + 90 * DAY
    world.buy("10", purchase_id="g", priority=10, price_paid_nanos=100, currency="USD", expires_at=end)
    world.use("10", event_id="a")
    _forget_all(world)
    world.refund(RefundTarget.USAGE, "a", "10")
    grant = _grant(world)
    assert (grant.kind, grant.expires_at, grant.remaining) == ("purchased", end, 10 * NANOS)
    assert (grant.priority, grant.price_paid) == (PRIORITY_DEFAULT, None)


def test_a_return_that_empties_one_grant_does_not_push_out_the_next() -> None:
    """The debt takes all that comes back to the forgotten grant; the oldest of the empty ones gets the rest."""
    world = World()
    world.buy("6", purchase_id="g", priority=10)
    world.buy("5", purchase_id="x", priority=90)
    world.use("1", event_id="part")
    world.use("10", event_id="both")
    world.refund(RefundTarget.USAGE, "part", "1")
    world.use("1")
    for number in range(EXHAUSTED_MAX - 1):
        world.buy("1", purchase_id=f"x{number}")
        world.use("1", event_id=f"y{number}")
    wallet = world.account().wallets["USD"]
    assert [find_grant(wallet, f"purchase/{name}") is None for name in "gx"] == [False, True]
    world.use("7")
    world.refund(RefundTarget.USAGE, "both", "10")
    assert _grant(world).remaining == world.settled() == 3 * NANOS
    world.check()


def test_the_allowance_of_the_month_is_never_forgotten_and_drawn_first_again() -> None:
    world = World()
    world.set(SettingKind.WALLET, {"unit": "USD", "allowance": "5"})
    world.use("5", event_id="a")
    for number in range(EXHAUSTED_MAX + 1):
        world.buy("1", purchase_id=f"x{number}")
        world.use("1", event_id=f"y{number}")
    world.buy("10", purchase_id="next", priority=0)
    world.refund(RefundTarget.USAGE, "a", "2")
    (used,) = world.use("3").entries
    assert [(part.kind.value, part.amount_nanos) for part in used.slices] == [
        ("allowance", 2 * NANOS),
        ("purchased", NANOS),
    ]
