"""Prices that tie: the one published first is in force, whatever a worker saw of the topic (product rule 7)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.enums import BillingUnit, Direction
from streams.ledger.price_log import PriceLog, Publication, Published, _Filed
from streams.ledger.rating import Price, could_tie


def price(price_id: str, unit_price: int = 1, **more: Any) -> Price:
    fields: dict[str, Any] = {
        "operation": "chat",
        "billing_unit": BillingUnit.TOKEN,
        "wallet": "USD",
        "valid_from": 0,
        **more,
    }
    return Price(price_id, unit_price_nanos=unit_price, **fields)


def published(*prices: Price) -> list[Publication]:
    """The prices, one a second."""
    return [(Published(1_000 * number, 0, number), each.price_id, each) for number, each in enumerate(prices)]


def ids(log: PriceLog) -> set[str]:
    return {each.price_id for each in log.prices}


def test_the_later_of_two_that_tie_is_not_in_force() -> None:
    log = PriceLog(published(price("first", model="gpt"), price("second", 2, model="gpt", valid_from=5)))
    assert ids(log) == {"first"}
    tie = log.tie(price("second", 2, model="gpt", valid_from=5), Published(1_000, 0, 1))
    assert tie is not None
    assert tie.price_id == "first"
    assert log.tie(price("first", model="gpt"), Published(0, 0, 0)) is None


@pytest.mark.parametrize(
    "other",
    [
        {"model": "mini"},
        {"model": "gpt", "tool": "search"},
        {"model": "gpt", "org_id": "acme"},
        {"model": "gpt", "valid_from": 10},
        {"operation": "*", "model": "gpt"},
    ],
)
def test_prices_that_cannot_tie_are_all_in_force(other: dict[str, Any]) -> None:
    assert ids(PriceLog(published(price("a", model="gpt", valid_to=10), price("b", **other)))) == {"a", "b"}


def test_a_refused_price_stays_refused_until_it_is_published_again() -> None:
    second = price("second", 2)
    log = PriceLog(published(price("first"), second))
    gone = log.with_changes([(Published(9_000, 0, 9), "first", None)])
    assert ids(gone) == set()
    assert ids(gone.with_changes([(Published(9_500, 0, 10), "second", second)])) == {"second"}


def test_a_refused_price_changes_nothing_under_its_own_id() -> None:
    """It would have widened its price to what another one is about."""
    log = PriceLog(published(price("mini", model="mini"), price("gpt", model="gpt"), price("mini", 9, model="gpt")))
    assert {each.price_id: each.model for each in log.prices} == {"mini": "mini", "gpt": "gpt"}
    assert [place.offset for place in log.refused] == [2]


def test_a_price_that_ties_with_a_refused_one_alone_is_in_force() -> None:
    any_tool = price("first", model="gpt", tool="a")
    between = price("second", model="gpt", provider="p")
    beside = price("third", model="gpt", tool="b")
    assert could_tie(any_tool, between)
    assert could_tie(between, beside)
    assert ids(PriceLog(published(any_tool, between, beside))) == {"first", "third"}


some = st.one_of(st.none(), st.sampled_from(("a", "b")))
prices = st.builds(
    price,
    st.sampled_from([f"p{number}" for number in range(6)]),
    st.integers(0, 9),
    operation=st.sampled_from(("chat", "embed", "*")),
    model=some,
    tool=some,
    tier=st.sampled_from((None, "pro")),
    direction=st.sampled_from(Direction),
    org_id=st.sampled_from((None, None, "acme")),
    valid_from=st.integers(0, 3),
    valid_to=st.one_of(st.none(), st.integers(4, 6)),
)
changes = st.tuples(st.one_of(prices, st.sampled_from([f"p{number}" for number in range(6)])), st.integers(0, 2))


@given(st.lists(changes, max_size=12), st.data())
def test_every_worker_comes_to_the_same_prices(log: list[tuple[Price | str, int]], data: st.DataObject) -> None:
    """One saw all of it, record by record; another got the partitions' records in any order."""
    records: list[Publication] = []
    for offset, (change, at) in enumerate(log):
        price_id = change if isinstance(change, str) else change.price_id
        place = Published(offset // 3 + at, hash(price_id) % 2, offset)
        records.append((place, price_id, None if isinstance(change, str) else change))
    live = PriceLog()
    for record in records:
        live = live.with_changes([record])
    restarted = PriceLog(data.draw(st.permutations(records)))
    assert list(live.prices) == list(restarted.prices)
    in_force = list(live.prices)
    assert not [pair for one in in_force for pair in in_force if one is not pair and could_tie(one, pair)]
    for place, _, each in records:
        tie = None if each is None else live.tie(each, place)
        assert (tie is not None) == (place in live.refused)
        assert tie is None or each is None or could_tie(tie, each)


_NAMES = st.sampled_from([None, "a", "b"])
_ANY_PRICES = st.lists(
    st.builds(
        lambda operation, end, **named: {"operation": operation, "valid_to": end, **named},
        st.sampled_from(["chat", "embed", "*"]),
        st.sampled_from([None, 5]),
        model=_NAMES,
        tool=_NAMES,
        provider=_NAMES,
        category=_NAMES,
        tier=_NAMES,
        direction=st.sampled_from(list(Direction)),
        org_id=st.sampled_from([None, "acme"]),
        valid_from=st.sampled_from([0, 5]),
    ),
    max_size=12,
)


@given(_ANY_PRICES)
def test_what_is_filed_by_shape_is_what_comparing_each_with_each_says(all_budgets: list[dict[str, Any]]) -> None:
    prices = [price(f"p{number}", **fields) for number, fields in enumerate(all_budgets)]
    expected: list[Price] = []
    for each in prices:
        if not any(could_tie(each, other) for other in expected):
            expected.append(each)
    assert ids(PriceLog(published(*prices))) == {each.price_id for each in expected}


@pytest.mark.parametrize("dimension", ["operation", "model", "tool", "provider", "category", "tier"])
def test_a_price_is_compared_with_few_however_long_the_list(dimension: str) -> None:
    by_field = _Filed()
    shared = (dimension,)
    for number in range(2_000):
        named: dict[str, Any] = {dimension: f"v{number}"}
        by_field.add(price(f"p{number}", **named))
        assert len(by_field.alike(price("new", **named), shared)) == 1
