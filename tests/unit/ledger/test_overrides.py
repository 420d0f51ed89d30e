"""Prices of an org's own, by setting; tiers, replicas, free models (product rules 7-9)."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.amounts import NANOS
from schemas.enums import BillingUnit, EntryKind, SettingKind
from streams.ledger.entry import Outcome
from streams.ledger.rating import Price, PriceList
from streams.ledger.refusals import DeadLetter
from streams.ledger.settings import OVERRIDES_MAX
from tests.unit.ledger.world import DAY, PRICES, World


def override(world: World, price: str = "1", name: str = "own", **more: Any) -> Outcome:
    body = {"price_id": name, "operation": "chat", "unit_price": price, "billing_unit": "1000_tokens", "wallet": "USD"}
    return world.set(SettingKind.PRICE_OVERRIDE, {**body, "model": "gpt", **more})


def cost(world: World, org: str = "acme", tokens: int = 1_000, **more: Any) -> int:
    fields = {"cost_nanos": None, "model": "gpt", "input_tokens": tokens, **more}
    return -world.use("0", org, None, **fields).entries[-1].amount_nanos


def test_an_override_is_for_its_org_alone_and_goes_before_the_list() -> None:
    world = World()
    override(world)
    assert (cost(world), cost(world, "beta")) == (NANOS, 2_500_000)
    override(world, "2")
    assert cost(world) == 2 * NANOS
    world.check()


def test_it_counts_from_when_the_setting_occurred() -> None:
    world = World()
    world.tick(DAY)
    override(world)
    assert cost(world, occurred_at=world.at - 1) == 2_500_000
    assert cost(world) == NANOS


def test_it_may_make_a_model_free_or_price_what_nobody_else_has() -> None:
    world = World()
    override(world, "0", free=True)
    assert cost(world) == 0
    override(world, "3", "new", model="new-model")
    assert cost(world, model="new-model") == 3 * NANOS


def test_a_tie_is_refused_and_so_is_one_too_many() -> None:
    world = World()
    override(world)
    assert override(world, "2", "other").rejected
    for number in range(OVERRIDES_MAX - 1):
        assert not override(world, "1", f"p{number}", model=f"m{number}").rejected
    assert override(world, "1", "more", model="more").rejected
    assert override(world, "5").entries[0].kind is EntryKind.SETTING


@pytest.mark.parametrize(("tier", "expected"), [(None, 2), ("pro", 1), ("free", 2)])
def test_rates_by_tier(tier: str | None, expected: int) -> None:
    prices = PriceList(
        [
            Price("all", "run", 2 * NANOS, BillingUnit.REQUEST, "tool_runs", 0),
            Price("pro", "run", NANOS, BillingUnit.REQUEST, "tool_runs", 0, tier="pro"),
        ]
    )
    world = World(prices)
    world.set(SettingKind.ORG, {"tier": tier})
    assert cost(world, operation="run", input_tokens=None) == expected * NANOS


@pytest.mark.parametrize(("replicas", "expected"), [(None, 3), (1, 3), (2, 6), (0, 0)])
def test_hosting_is_charged_per_replica(replicas: int | None, expected: int) -> None:
    prices = PriceList([*PRICES, Price("host", "hosting", NANOS, BillingUnit.GPU_HOUR, "USD", 0)])
    more: dict[str, Any] = {
        "operation": "hosting",
        "input_tokens": None,
        "quantity_nanos": 3 * NANOS,
        "replicas": replicas,
    }
    assert cost(World(prices), **more) == expected * NANOS


def test_a_new_version_leaves_the_price_of_usage_before_it() -> None:
    """Product rule 7: the price as of the usage's time."""
    world = World()
    override(world, "1")
    world.tick(2 * DAY)
    override(world, "2")
    world.tick(2 * DAY)
    override(world, "3", model="gpt")
    times = (world.at - 3 * DAY, world.at - 2 * DAY, world.at - 1, world.at)
    assert [cost(world, occurred_at=at) for at in times] == [NANOS, 2 * NANOS, 2 * NANOS, 3 * NANOS]
    override(world, "4", valid_from="2026-05-04T00:00:00Z")
    assert [cost(world, occurred_at=at) for at in times] == [NANOS, 2 * NANOS, 4 * NANOS, 4 * NANOS]
    world.check()


def test_a_version_that_begins_later_does_not_end_the_one_in_force() -> None:
    world = World()
    override(world, "1")
    override(world, "2", valid_from="2026-05-03T00:00:00Z")
    assert cost(world) == NANOS
    world.tick(2 * DAY)
    assert cost(world) == 2 * NANOS
    world.check()


def test_a_price_that_was_planned_is_taken_back() -> None:
    """By the terms that shall hold instead, from now on; or, for the price of the list, by a time that has passed."""
    world = World()
    override(world, "1")
    override(world, "2", valid_from="2026-06-01T00:00:00Z")
    override(world, "1", valid_from="2026-05-01T00:00:00Z")
    override(world, "2", "planned", model="gpt-9", valid_from="2026-06-01T00:00:00Z")
    override(world, "2", "planned", model="gpt-9", valid_from="2026-01-01T00:00:00Z", valid_to="2026-01-02T00:00:00Z")
    world.tick(40 * DAY)
    assert cost(world) == NANOS
    with pytest.raises(DeadLetter, match="there is no price"):
        cost(world, model="gpt-9")
    world.check()


def test_versions_are_forgotten_and_bounded() -> None:
    world = World()
    for number in range(OVERRIDES_MAX + 10):
        override(world, str(number + 1))
        world.tick(1)
    overrides = world.account().overrides
    assert overrides is not None
    assert len(overrides.prices) == OVERRIDES_MAX + 1
    world.tick(40 * DAY)
    override(world, "5")
    world.tick(40 * DAY)
    override(world, "6")
    overrides = world.account().overrides
    assert overrides is not None
    assert [price.unit_price_nanos for price in overrides.prices.values()] == [6 * NANOS, 5 * NANOS]
    world.check()
