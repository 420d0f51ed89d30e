"""Status and health of a wallet (product rule 14; contract, meanings)."""

from __future__ import annotations

import pytest

from schemas.amounts import NANOS
from schemas.enums import SettingKind
from streams.ledger.account import Account, OrgTerms, Wallet
from streams.ledger.balances import health, status
from streams.processing.balances import balance_columns
from tests.unit.ledger.world import World


@pytest.mark.parametrize(
    ("settled", "held", "funded", "closed", "expected"),
    [
        (11, 0, True, False, "ok"),
        (10, 0, True, False, "low"),
        (20, 10, True, False, "low"),
        (20, 9, True, False, "ok"),
        (1, 5, True, False, "low"),
        (0, 0, True, False, "depleted"),
        (0, 0, False, False, "low"),
        (-1, 0, False, False, "negative"),
        (-1, 0, True, False, "negative"),
        (-1, 0, True, True, "blocked"),
        (50, 0, True, True, "blocked"),
    ],
)
def test_status(settled: int, held: int, funded: bool, closed: bool, expected: str) -> None:
    account = Account("acme", org=OrgTerms(closed=closed))
    wallet = Wallet("USD", settled=settled * NANOS, held=held * NANOS, funded=funded)
    assert status(account, wallet) == expected


@pytest.mark.parametrize(
    ("settled", "held", "allocation", "expected"),
    [
        (76, 0, 100, "green"),
        (75, 0, 100, "yellow"),
        (25, 0, 100, "yellow"),
        (24, 0, 100, "red"),
        (1, 0, 100, "red"),
        (0, 0, 100, "triangle"),
        (-1, 0, 100, "triangle"),
        (50, 50, 100, "triangle"),
        (50, 26, 100, "red"),
        (0, 0, 0, "triangle"),
        (5, 0, 0, "red"),
    ],
)
def test_health(settled: int, held: int, allocation: int, expected: str) -> None:
    assert health(Wallet("USD", settled=settled, held=held, allocation=allocation)) == expected


def test_the_balance_record_has_the_wallets_by_unit() -> None:
    world = World()
    world.set(SettingKind.WALLET, {"unit": "USD", "allowance": "10"})
    world.buy("5", unit="EUR")
    world.use("4")
    [record] = balance_columns([world.account()], world.at).to_pylist()
    assert (record["org_id"], record["seq"], record["as_of"]) == ("acme", 4, world.at)
    assert [wallet["unit"] for wallet in record["wallets"]] == ["USD", "EUR"]
    assert record["wallets"][0] == {
        "unit": "USD",
        "settled_nanos": 6 * NANOS,
        "held_nanos": 0,
        "available_nanos": 6 * NANOS,
        "allocation_nanos": 10 * NANOS,
        "month_spent_nanos": 4 * NANOS,
        "lifetime_added_nanos": 0,
        "lifetime_spent_nanos": 0,
        "status": "low",
        "health": "yellow",
        "on_the_way_nanos": 0,
    }


def published(world: World, org: str = "acme") -> dict[str, tuple[int, int, int]]:
    """What the balance record says of each wallet: settled, available, on the way, in whole credits."""
    [record] = balance_columns([world.account(org)], world.at).to_pylist()
    names = ("settled_nanos", "available_nanos", "on_the_way_nanos")
    return {wallet["unit"]: tuple(wallet[name] // NANOS for name in names) for wallet in record["wallets"]}


def world_of_two() -> World:
    """acme with 10 USD and 5 EUR, and beta without a wallet; alice manages both."""
    world = World()
    for org in ("acme", "beta"):
        world.set(SettingKind.ORG, {"administrators": ["alice"]}, org)
    world.buy("10")
    world.buy("5", unit="EUR")
    return world


def test_credits_are_on_the_way_until_the_arrival_is_acknowledged() -> None:
    world = world_of_two()
    world.send("4", "acme", "beta")
    world.at += 1
    world.send("6", "acme", "beta")  # a wallet whose credits have all left is still shown
    world.send("2", "acme", "beta", unit="EUR")
    assert published(world) == {"USD": (0, 0, 10), "EUR": (3, 3, 2)}
    arrivals, world.legs = world.legs, []
    for leg in arrivals:
        world.do(leg)
    assert published(world, "beta") == {"USD": (10, 10, 0), "EUR": (2, 2, 0)}
    assert published(world) == {"USD": (0, 0, 10), "EUR": (3, 3, 2)}  # not known to acme yet
    first, *others = world.legs
    world.do(first)
    assert published(world) == {"USD": (0, 0, 6), "EUR": (3, 3, 2)}
    for leg in others:
        world.do(leg)
    assert published(world) == {"USD": (0, 0, 0), "EUR": (3, 3, 0)}


def test_credits_are_on_the_way_until_they_return() -> None:
    world = world_of_two()
    world.set(SettingKind.ORG, {"administrators": ["alice"], "closed": True}, "beta")
    world.send("4", "acme", "beta")
    assert published(world) == {"USD": (6, 6, 4), "EUR": (5, 5, 0)}
    world.deliver()
    assert published(world) == {"USD": (10, 10, 0), "EUR": (5, 5, 0)}
