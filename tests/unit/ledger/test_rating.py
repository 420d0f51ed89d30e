"""Prices and what they come to (product rules 7-10)."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.amounts import AMOUNT_MAX, NANOS
from schemas.enums import BillingUnit, DeadLetterCode, Direction
from streams.ledger.commands import Usage
from streams.ledger.rating import Price, PriceList, Rated, RatingPlan, Work, could_tie, rate_by
from streams.ledger.refusals import DeadLetter

ANY, INPUT, OUTPUT = Direction.ANY, Direction.INPUT, Direction.OUTPUT


def price(price_id: str = "p", operation: str = "chat", unit_price: int = 100, **more: object) -> Price:
    fields = {
        "price_id": price_id, "operation": operation, "unit_price_nanos": unit_price,
        "billing_unit": "request", "wallet": "USD", "valid_from": 0, **more,
    }  # fmt: skip
    return Price.from_record(fields)


def rate(
    plan: RatingPlan,
    at: int,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    quantity: int | None = None,
    replicas: int | None = None,
) -> Rated:
    """One usage, rated; its components add up to its cost."""
    usage = Usage(
        "e",
        "acme",
        at,
        "chat",
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        quantity_nanos=quantity,
        replicas=replicas,
    )
    rated = rate_by(plan.tariff(at, input_tokens), usage)
    assert sum(component.amount_nanos for component in rated.components) == rated.cost
    return rated


def found(
    prices: list[Price],
    at: int = 10,
    org: str = "acme",
    tier: str | None = None,
    operation: str = "chat",
    **dims: str,
) -> str | None:
    """Which price wins: each is told by its unit price."""
    numbered = [msgspec.structs.replace(each, unit_price_nanos=number) for number, each in enumerate(prices)]
    plan = PriceList(numbered).plan(
        org, tier, Work(operation, dims.get("category"), dims.get("model"), None, dims.get("provider"))
    )
    try:
        return prices[plan.tariff(at).unit_price].price_id
    except DeadLetter:
        return None


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        ({}, "plain"),
        ({"model": "gpt"}, "model"),
        ({"model": "gpt", "provider": "azure"}, "model and provider"),
        ({"model": "other"}, "plain"),
        ({"category": "llm"}, "category"),
        ({"tier": "pro"}, "tier"),
        ({"org": "vip"}, "override"),
        ({"org": "vip", "model": "gpt", "provider": "azure"}, "override"),
    ],
)
def test_the_most_specific_price_wins(dims: dict[str, str], expected: str) -> None:
    prices = [
        price("star", "*"),
        price("plain"),
        price("model", model="gpt"),
        price("model and provider", model="gpt", provider="azure"),
        price("category", category="llm"),
        price("tier", tier="pro"),
        price("override", "*", org_id="vip"),
    ]
    for order in (prices, prices[::-1]):
        assert found(order, **dims) == expected  # type: ignore[arg-type]


def test_a_star_matches_any_operation() -> None:
    prices = [price("star", "*"), price("chat")]
    assert found(prices, operation="image") == "star"
    assert found(prices) == "chat"


@pytest.mark.parametrize(("at", "expected"), [(4, None), (5, "old"), (9, "old"), (10, "new"), (99, "new")])
def test_the_price_of_the_time_of_the_usage_applies(at: int, expected: str | None) -> None:
    prices = [price("old", valid_from=5, valid_to=10), price("new", valid_from=10)]
    assert found(prices, at) == expected


def test_a_plan_follows_validity_back_and_forth() -> None:
    plan = PriceList(
        [price("old", valid_from=5, valid_to=10, unit_price=1), price("new", valid_from=10, unit_price=2)]
    ).plan("acme", None, Work("chat"))
    assert [rate(plan, at).cost for at in (5, 10, 9, 11)] == [1, 2, 1, 2]
    with pytest.raises(DeadLetter) as refusal:
        rate(plan, 4)
    assert refusal.value.code is DeadLetterCode.UNKNOWN_PRICE


def test_nothing_priced_is_never_free() -> None:
    with pytest.raises(DeadLetter) as refusal:
        rate(PriceList([price("other", "image")]).plan("acme", None, Work("chat")), 1)
    assert refusal.value.code is DeadLetterCode.UNKNOWN_PRICE


@pytest.mark.parametrize(
    ("unit", "unit_price", "input_tokens", "output_tokens", "cost"),
    [
        ("token", 3, 10, 5, 45),
        ("1000_tokens", 1_000, 10, 5, 15),
        ("1000_tokens", 1, 499, 0, 0),
        ("1000_tokens", 1, 500, 0, 1),
        ("1000_tokens", 1, 250, 250, 1),  # added before the one rounding
        ("1000000_tokens", 2_500_000_000, 1_000_000, 0, 2_500_000_000),
        ("1000000_tokens", 2_500_000_000, 1, 0, 2_500),
        ("token", 3, 0, None, 0),
        ("token", 3, None, 0, 0),
    ],
)
def test_tokens(unit: str, unit_price: int, input_tokens: int | None, output_tokens: int | None, cost: int) -> None:
    plan = PriceList([price(unit_price=unit_price, billing_unit=unit)]).plan("acme", None, Work("chat"))
    assert rate(plan, 1, input_tokens, output_tokens).cost == cost


@pytest.mark.parametrize("quantity", [None, NANOS])
def test_tokens_that_nobody_counted_are_not_taken_for_nothing(quantity: int | None) -> None:
    plan = PriceList([price(billing_unit="token")]).plan("acme", None, Work("chat"))
    with pytest.raises(DeadLetter, match="input_tokens, output_tokens or both") as refusal:
        rate(plan, 1, quantity=quantity)
    assert refusal.value.code is DeadLetterCode.INVALID_FIELD
    assert rate(PriceList([price(billing_unit="token", free=True)]).plan("acme", None, Work("chat")), 1).cost == 0


def test_input_and_output_tokens_have_their_own_price() -> None:
    prices = PriceList(
        [
            price("in", unit_price=2_500_000_000, billing_unit="1000000_tokens", direction="input"),
            price("out", unit_price=10_000_000_000, billing_unit="1000000_tokens", direction="output"),
        ]
    )
    rated = rate(prices.plan("acme", None, Work("chat")), 1, 1000, 100)
    assert rated.cost == 1000 * 2_500 + 100 * 10_000
    assert (rated.unit_price, rated.output_unit_price) == (2_500_000_000, 10_000_000_000)
    assert rated.billing_unit is BillingUnit.MILLION_TOKENS


def test_a_direction_without_a_price_is_unknown_only_when_it_has_tokens() -> None:
    plan = PriceList([price("in", billing_unit="token", direction="input")]).plan("acme", None, Work("chat"))
    assert rate(plan, 1, 5, 0).cost == 500
    with pytest.raises(DeadLetter):
        rate(plan, 1, 5, 1)


@pytest.mark.parametrize(
    ("unit", "quantity", "replicas", "cost"),
    [
        ("request", None, None, 100),
        ("request", 3 * NANOS, None, 300),
        ("request", NANOS, 2, 100),  # replicas multiply times only
        ("minute", NANOS // 2, None, 50),
        ("minute", NANOS, 2, 200),  # two replicas cost twice one
        ("hour", NANOS, 3, 300),
        ("gpu_hour", NANOS // 4, 8, 200),
        ("minute", None, 2, 200),
        ("unit", 0, None, 0),
        ("unit", NANOS // 200, None, 1),  # 0.5 nano rounds up
        ("unit", NANOS // 200 - 1, None, 0),
    ],
)
def test_quantities(unit: str, quantity: int | None, replicas: int | None, cost: int) -> None:
    plan = PriceList([price(billing_unit=unit)]).plan("acme", None, Work("chat"))
    assert rate(plan, 1, quantity=quantity, replicas=replicas).cost == cost


@pytest.mark.parametrize("unit", ["token", "request", "minute"])
def test_free_costs_nothing_and_says_so(unit: str) -> None:
    plan = PriceList([price(billing_unit=unit, free=True)]).plan("acme", None, Work("chat"))
    assert (rate(plan, 1, 10, 10, NANOS, 2).cost, plan.tariff(1).free) == (0, True)


def test_a_cost_beyond_the_bound_is_refused() -> None:
    plan = PriceList([price(unit_price=AMOUNT_MAX)]).plan("acme", None, Work("chat"))
    assert rate(plan, 1).cost == AMOUNT_MAX
    with pytest.raises(DeadLetter) as refusal:
        rate(plan, 1, quantity=2 * NANOS)
    assert refusal.value.code is DeadLetterCode.AMOUNT_OUT_OF_RANGE


@pytest.mark.parametrize(
    ("one", "other", "tie"),
    [
        ({}, {}, True),
        ({"model": "a"}, {"model": "b"}, False),
        ({"model": "a"}, {"provider": "x"}, True),
        ({"model": "a"}, {}, False),
        ({"valid_to": 10}, {"valid_from": 10}, False),
        ({"valid_to": 11}, {"valid_from": 10}, True),
        ({"direction": "input"}, {"direction": "output"}, False),
        ({"direction": "input"}, {"direction": "input"}, True),
        ({"org_id": "a"}, {}, False),
        ({"org_id": "a"}, {"org_id": "b"}, False),
        ({"org_id": "a"}, {"org_id": "a"}, True),
        ({"operation": "*"}, {}, False),
        ({"operation": "*", "model": "a"}, {}, True),
        ({"tier": "pro"}, {"tier": "pro"}, True),
    ],
)
def test_ties_are_found_when_published(one: dict[str, object], other: dict[str, object], tie: bool) -> None:
    listed, published = price("one", **one), price("other", **other)  # type: ignore[arg-type]
    assert could_tie(listed, published) is could_tie(published, listed) is tie


def test_plans_are_shared_by_orgs_without_prices_of_their_own() -> None:
    prices = PriceList([price("all"), price("vip", org_id="vip", unit_price=7)])
    assert prices.plan("a", None, Work("chat")) is prices.plan("b", None, Work("chat"))
    assert rate(prices.plan("vip", None, Work("chat")), 1).cost == 7


@given(
    st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**12), st.integers(0, 10**12),
    st.sampled_from(["token", "1000_tokens", "1000000_tokens"]),
)  # fmt: skip
def test_the_cost_is_the_exact_value_rounded_once(
    input_tokens: int, output_tokens: int, input_price: int, output_price: int, unit: str
) -> None:
    prices = PriceList(
        [
            price("in", unit_price=input_price, billing_unit=unit, direction="input"),
            price("out", unit_price=output_price, billing_unit=unit, direction="output"),
        ]
    )
    size = {"token": 1, "1000_tokens": 1000, "1000000_tokens": 1_000_000}[unit]
    exact = (Decimal(input_tokens) * input_price + Decimal(output_tokens) * output_price) / size
    expected = int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))
    if expected <= AMOUNT_MAX:
        assert rate(prices.plan("acme", None, Work("chat")), 1, input_tokens, output_tokens).cost == expected
