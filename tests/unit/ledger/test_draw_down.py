"""Which grants a usage draws on, and what happens below zero (product rules 2, 3, 16)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.amounts import NANOS
from schemas.enums import EntryKind, GrantKind, SettingKind
from tests.unit.ledger.world import DAY, START, World


def drawn(world: World, cost: str) -> list[tuple[str, int]]:
    entry = world.use(cost).entries[-1]
    return [(part.grant_id, part.amount_nanos) for part in entry.slices]


def test_the_order_of_the_rule() -> None:
    """Allowance of the month, priority, expiry (never last), promotional before purchased, creation, id."""
    world = World()
    world.buy("1", purchase_id="never")
    world.buy("1", purchase_id="later", expires_at=START + 20 * DAY)
    world.buy("1", purchase_id="soon", expires_at=START + 2 * DAY)
    world.give("1", purchase_id="free", expires_at=START + 20 * DAY)
    world.buy("1", purchase_id="first", priority=10)
    world.give("1", purchase_id="free always")
    world.at += 1
    world.buy("1", purchase_id="younger")
    world.buy("1", purchase_id="a younger")
    world.set(SettingKind.WALLET, {"unit": "USD", "allowance": "1"})
    assert [name for name, _ in drawn(world, "9")] == [
        "allowance/USD/2026-05",
        "purchase/first",
        "purchase/soon",
        "purchase/free",
        "purchase/later",
        "purchase/free always",
        "purchase/never",
        "purchase/a younger",
        "purchase/younger",
    ]
    world.check()


def test_slices_add_up_to_the_cost() -> None:
    world = World()
    world.buy("3", purchase_id="a")
    world.buy("3", purchase_id="b")
    assert drawn(world, "4") == [("purchase/a", 3 * NANOS), ("purchase/b", NANOS)]
    assert drawn(world, "1") == [("purchase/b", NANOS)]


def test_usage_below_zero_is_booked_with_an_overdraft_slice() -> None:
    world = World()
    world.buy("1", purchase_id="a")
    assert drawn(world, "3") == [("purchase/a", NANOS), ("overdraft", 2 * NANOS)]
    assert world.settled() == -2 * NANOS
    assert drawn(world, "1") == [("overdraft", NANOS)]
    world.check()


def test_usage_of_an_org_that_nobody_knows_is_booked() -> None:
    world = World()
    entry = world.use("1").entries[-1]
    assert (entry.seq, entry.balance_nanos, entry.kind) == (1, -NANOS, EntryKind.USAGE)
    world.check()


def test_the_next_credits_pay_what_is_owed_first() -> None:
    world = World()
    world.use("5")
    entry = world.buy("2", purchase_id="a").entries[-1]
    assert entry.balance_nanos == -3 * NANOS
    assert not world.account().wallets["USD"].grants
    entry = world.buy("10", purchase_id="b").entries[-1]
    assert entry.amount_nanos == 10 * NANOS
    assert [(part.grant_id, part.amount_nanos) for part in entry.slices] == [
        ("purchase/b", 3 * NANOS),
        ("overdraft", -3 * NANOS),
    ]
    grant = world.account().wallets["USD"].grants[0]
    assert (grant.grant_id, grant.remaining) == ("purchase/b", 7 * NANOS)
    world.check()


def test_wallets_are_never_mixed() -> None:
    world = World()
    world.buy("5", unit="EUR")
    world.use("1", unit="USD")
    assert world.settled(unit="EUR") == 5 * NANOS
    assert world.settled(unit="USD") == -NANOS
    world.check()


def test_usage_rated_upstream_without_a_wallet_goes_to_the_default_one() -> None:
    world = World()
    assert world.use("1", unit=None).entries[-1].wallet == "USD"
    world = World()
    world.buy("5", unit="EUR")
    world.buy("5", unit="model_credits")
    assert world.use("1", unit=None).entries[-1].wallet == "EUR"
    world.set(SettingKind.WALLET, {"unit": "model_credits", "default": True})
    assert world.use("1", unit=None).entries[-1].wallet == "model_credits"
    world.set(SettingKind.WALLET, {"unit": "EUR", "default": True})
    assert world.use("1", unit=None).entries[-1].wallet == "EUR"
    world.check()


def test_free_usage_is_counted_and_costs_nothing() -> None:
    world = World()
    world.buy("5")
    entry = world.use("0").entries[-1]
    assert (entry.amount_nanos, entry.slices, entry.balance_nanos) == (0, (), 5 * NANOS)
    world.check()


grants = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.one_of(st.none(), st.integers(1, 3)),
        st.sampled_from([GrantKind.PROMOTIONAL, GrantKind.PURCHASED]),
        st.integers(0, 2),
        st.integers(1, 5),
    ),
    min_size=1,
    max_size=8,
)


@given(grants, st.lists(st.integers(1, 6), min_size=1, max_size=10))
def test_draw_down_against_a_plain_sort(
    lots: list[tuple[int, int | None, GrantKind, int, int]], costs: list[int]
) -> None:
    """An oracle that sorts all grants again for each unit drawn."""
    world = World()
    keys: list[tuple[int, int, bool, int, str]] = []
    remaining: dict[str, int] = {}
    for number, (priority, expiry, kind, later, amount) in enumerate(lots):
        world.at += later
        expires_at = None if expiry is None else START + expiry * DAY
        give = world.give if kind is GrantKind.PROMOTIONAL else world.buy
        give(str(amount), purchase_id=f"{number:02d}", priority=priority, expires_at=expires_at)
        keys.append((priority, expiry or 99, kind is GrantKind.PURCHASED, world.at, f"purchase/{number:02d}"))
        remaining[keys[-1][-1]] = amount
    for cost in costs:
        expected: dict[str, int] = {}
        for _ in range(cost):
            name = next((key[-1] for key in sorted(keys) if remaining[key[-1]]), "overdraft")
            remaining[name] = remaining.get(name, 0) - 1
            expected[name] = expected.get(name, 0) + NANOS
        assert drawn(world, str(cost)) == list(expected.items())
