"""Credits that have expired by the time they come in pay no debt: they expire whole (product rule 4)."""

from __future__ import annotations

import pytest

from schemas.amounts import NANOS
from schemas.enums import SettingKind
from tests.unit.ledger.world import DAY, World


@pytest.mark.parametrize("ends_in", [-DAY, 0])
def test_a_gift_that_has_expired_pays_no_debt(ends_in: int) -> None:
    world = World()
    world.use("5")
    entries = world.give("10", expires_at=world.at + ends_in).entries
    assert [(entry.kind, entry.amount_nanos) for entry in entries] == [
        ("purchase", 10 * NANOS),
        ("expiry", -10 * NANOS),
    ]
    assert world.settled() == -5 * NANOS
    world.check()


def test_a_gift_that_lives_a_moment_longer_pays() -> None:
    world = World()
    world.use("5")
    world.give("10", expires_at=world.at + 1)
    world.tick(DAY)
    assert world.settled() == 0
    world.check()


def test_what_expires_on_its_way_to_another_org_pays_no_debt_there() -> None:
    world = World()
    for org in ("acme", "beta"):
        world.set(SettingKind.ORG, {"administrators": ["alice"]}, org)
    world.use("5", "beta")
    world.give("3", expires_at=world.at + DAY)
    world.buy("4")
    world.send("7", "acme", "beta")
    world.tick(2 * DAY)
    world.deliver()
    assert world.settled("beta") == -NANOS
    world.check()
