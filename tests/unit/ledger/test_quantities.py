"""Quantities, conditions, names and factors: what the world's prices come to (product rules 35-39)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.amounts import NANOS, format_amount, parse_amount
from schemas.enums import BillingUnit, DeadLetterCode
from schemas.meters import DIMENSIONS, NAMED_METERS, is_part_of
from streams.ledger.commands import Usage
from streams.ledger.rating import Overrides, Price, PriceList, PriceTier, Rated, Work, could_tie, rate_by
from streams.ledger.refusals import DeadLetter

MILLION = BillingUnit.MILLION_TOKENS


def price(meter: str | None, per_million: str, price_id: str = "", **more: Any) -> Price:
    """A price in USD per 1,000,000, of a meter."""
    terms: dict[str, Any] = {"billing_unit": MILLION, "meter": meter, **more}
    name = price_id or f"{meter}{more.get('service_tier', '')}{more.get('input_tokens_above', '')}"
    operation, wallet, valid_from = terms.pop("operation", "chat"), terms.pop("wallet", "USD"), 0
    unit = terms.pop("billing_unit")
    return Price(name, operation, parse_amount(per_million), unit, wallet, valid_from, **terms)


def each(meter: str, amount: str, **more: Any) -> Price:
    """A price in USD of one of a meter."""
    return price(meter, amount, billing_unit=BillingUnit.UNIT, **more)


def rate(
    prices: list[Price],
    *,
    model: str | None = None,
    org: str = "acme",
    tier: str | None = None,
    overrides: Overrides | None = None,
    used: Mapping[str, int] | None = None,
    **said: Any,
) -> Rated:
    """One usage, rated; its components add up to its cost."""
    usage = Usage("e", org, 1, said.pop("operation", "chat"), model=model, **said)
    work = Work(usage.operation, usage.category, model, usage.tool, usage.provider, usage.service_tier)
    rated = rate_by(PriceList(prices).plan(org, tier, work, overrides).tariff(1, usage.input_tokens), usage, used or {})
    assert sum(component.amount_nanos for component in rated.components) == rated.cost
    return rated


def cost(prices: list[Price], **said: Any) -> str:
    return format_amount(rate(prices, **said).cost)


def refusal(prices: list[Price], **said: Any) -> tuple[DeadLetterCode, str]:
    with pytest.raises(DeadLetter) as refused:
        rate(prices, **said)
    return refused.value.code, refused.value.message


# --- cases from the field -------------------------------------------------------------------------------------------


def test_cached_tokens_cost_what_they_cost() -> None:
    prices = [price("input_tokens", "1.4"), price("cache_read_tokens", "0.26"), price("output_tokens", "4.4")]
    assert cost(prices, input_tokens=27_147, cache_read_tokens=27_146, output_tokens=351) == "0.00860376"


def test_reasoning_is_taken_out_of_the_output() -> None:
    prices = [price("input_tokens", "2"), price("output_tokens", "8"), price("output_reasoning_tokens", "3")]
    assert cost(prices, input_tokens=100, output_tokens=10_000, output_reasoning_tokens=9_000) == "0.0352"


def test_audio_is_taken_out_of_the_output() -> None:
    prices = [price("input_tokens", "2.5"), price("output_tokens", "10"), price("output_audio_tokens", "80")]
    assert cost(prices, input_tokens=17, output_tokens=592, output_audio_tokens=482) == "0.0397025"


def test_searches_are_charged() -> None:
    prices = [price("input_tokens", "3"), price("output_tokens", "15"), each("web_searches", "0.01")]
    searched = {"quantities": {"web_searches": 3 * NANOS}}
    assert cost(prices, input_tokens=105, output_tokens=6_039, **searched) == "0.1209"
    code, message = refusal(prices[:2], input_tokens=105, output_tokens=6_039, **searched)
    assert (code, "web_searches" in message) == (DeadLetterCode.UNKNOWN_PRICE, True)


TIERS = [
    price("input_tokens", "0.05"),
    price("output_tokens", "0.40"),
    price("input_tokens", "0.025", service_tier="flex"),
    price("output_tokens", "0.20", service_tier="flex"),
]


@pytest.mark.parametrize(("service_tier", "expected"), [(None, "0.0003"), ("standard", "0.0003"), ("flex", "0.00015")])
def test_a_service_tier_has_its_price(service_tier: str | None, expected: str) -> None:
    assert cost(TIERS, input_tokens=2_000, output_tokens=500, service_tier=service_tier) == expected


def test_a_service_tier_nobody_priced_is_never_the_standard_one() -> None:
    code, message = refusal(TIERS, input_tokens=2_000, output_tokens=500, service_tier="fleks")
    assert (code, "service tier fleks" in message) == (DeadLetterCode.UNKNOWN_PRICE, True)
    of_any_tier = [each("web_searches", "0.01", service_tier="*")]
    searched: dict[str, Any] = {"input_tokens": 2_000, "quantities": {"web_searches": NANOS}}
    assert cost(TIERS + of_any_tier, service_tier="flex", **searched) == "0.01005"
    assert refusal(TIERS + of_any_tier, service_tier="fleks", **searched)[0] is DeadLetterCode.UNKNOWN_PRICE


def test_a_prefix_is_a_name() -> None:
    prices = [price(None, "1", "operation"), price(None, "5", "pattern", model="opus-5*")]
    rated = rate(prices, model="opus-5-20250930", input_tokens=10**6)
    assert (rated.cost, rated.components[0].price_id) == (5 * NANOS, "pattern")
    assert cost(prices, model="opus-4", input_tokens=10**6) == "1"


GRADUATED = each("images", "1.32", tiers=(PriceTier(10_000 * NANOS, parse_amount("1.40")),))


def test_graduated_prices_go_by_what_was_used_before() -> None:
    at_once = rate([GRADUATED], quantities={"images": 10_500 * NANOS})
    assert format_amount(at_once.cost) == "14660"
    assert [format_amount(part.amount_nanos) for part in at_once.components] == ["14000", "660"]
    used, total = 0, 0
    for _ in range(21):
        rated = rate([GRADUATED], quantities={"images": 500 * NANOS}, used={"images": used})
        total += rated.cost
        ((_, counted),) = rated.counted
        used += counted
    assert format_amount(total) == "14660"


# --- quantities -----------------------------------------------------------------------------------------------------


def test_a_part_without_a_price_is_charged_with_its_total() -> None:
    prices = [price("input_tokens", "2"), price("cache_write_tokens", "3")]
    rated = rate(prices, input_tokens=100, cache_write_tokens=60, cache_write_1h_tokens=50, cache_read_tokens=30)
    assert [(part.meter, part.quantity_nanos // NANOS) for part in rated.components] == [
        ("input_tokens", 40),
        ("cache_write_tokens", 60),
    ]


def test_meters_of_the_map_are_parts_as_well() -> None:
    prices = [price("input_tokens", "10"), price("input_audio_tokens", "100"), price("cache_read_tokens", "1")]
    joined = price("cache_audio_read_tokens", "20")
    said: dict[str, Any] = {"input_tokens": 100, "input_audio_tokens": 60, "cache_read_tokens": 50}
    said["quantities"] = {"cache_audio_read_tokens": 40 * NANOS}
    rated = rate([*prices, joined], **said)
    shares = {part.meter: part.quantity_nanos // NANOS for part in rated.components}
    assert shares == {
        "input_tokens": 30,
        "input_audio_tokens": 20,
        "cache_read_tokens": 10,
        "cache_audio_read_tokens": 40,
    }
    code, message = refusal(prices, **said)
    assert code is DeadLetterCode.UNKNOWN_PRICE
    assert "cache_audio_read_tokens is part of several meters" in message


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"input_tokens": 10, "cache_read_tokens": 11}, "cache_read_tokens (11) exceeds input_tokens (10)"),
        ({"cache_read_tokens": 5}, "cache_read_tokens (5) exceeds input_tokens (0)"),
        (
            {"input_tokens": 10, "cache_read_tokens": 6, "cache_write_tokens": 6},
            "cache_read_tokens (6) and cache_write_tokens (6) exceed input_tokens (10)",
        ),
        (
            {"input_tokens": 10, "input_audio_tokens": 3, "quantities": {"cache_audio_read_tokens": 4 * NANOS}},
            "cache_audio_read_tokens (4) exceeds input_audio_tokens (3)",
        ),
    ],
)
def test_parts_above_their_total_are_refused(said: dict[str, Any], named: str) -> None:
    prices = [price("input_tokens", "1"), price("cache_read_tokens", "1"), price("cache_write_tokens", "1")]
    code, message = refusal(prices, **said)
    assert (code, message.endswith(named)) == (DeadLetterCode.INVALID_FIELD, True), message


def test_what_is_for_information_says_a_free_price() -> None:
    prices = [price("input_tokens", "1"), each("sessions", "0", operation="*", free=True)]
    rated = rate(prices, input_tokens=10**6, quantities={"sessions": 2 * NANOS})
    assert [part.amount_nanos for part in rated.components] == [NANOS, 0]


def test_tokens_of_work_priced_as_a_whole_are_for_information() -> None:
    prices = [price(None, "0.5", billing_unit=BillingUnit.REQUEST)]
    said: dict[str, Any] = {"input_tokens": 100, "cache_read_tokens": 50}
    assert cost(prices, **said) == "0.5"
    assert refusal(prices, **said, quantities={"web_searches": NANOS})[0] is DeadLetterCode.UNKNOWN_PRICE


def test_each_usage_is_one_request() -> None:
    prices = [price("input_tokens", "1"), price("requests", "5", billing_unit=BillingUnit.THOUSAND_UNITS)]
    assert cost(prices, input_tokens=1_000) == "0.006"
    assert cost(prices, input_tokens=1_000, quantities={"requests": 3 * NANOS}) == "0.016"


def test_seconds_have_prices_per_hour() -> None:
    prices = [price("audio_seconds", "3.6", billing_unit=BillingUnit.HOUR)]
    assert cost(prices, quantities={"audio_seconds": 90 * NANOS}) == "0.09"


def test_a_price_finer_than_a_nano_per_token_is_exact() -> None:
    prices = [price("input_tokens", "0.00013"), price("output_tokens", "0.00013")]
    rated = rate(prices, input_tokens=2_000, output_tokens=1_846)
    assert rated.cost == 500  # 499.98
    assert sum(part.amount_nanos for part in rated.components) == 500


def test_a_quantity_in_another_wallet_is_refused() -> None:
    prices = [price("input_tokens", "1"), each("web_searches", "0.01", wallet="EUR")]
    assert cost(prices, input_tokens=10**6) == "1"
    code, message = refusal(prices, input_tokens=1, quantities={"web_searches": NANOS})
    assert (code, "another wallet" in message) == (DeadLetterCode.UNKNOWN_PRICE, True)


def test_nothing_that_has_a_price_was_said() -> None:
    code, message = refusal([each("web_searches", "0.01")])
    assert (code, "web_searches" in message) == (DeadLetterCode.INVALID_FIELD, True)


TREE = ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"]
TREE += ["output_reasoning_tokens"]


@given(st.data())
def test_every_token_is_charged_once_at_the_nearest_price(data: st.DataObject) -> None:
    """Counted out token by token: each token has a kind, and goes to the most specific priced meter of that kind."""
    priced = {"input_tokens", "output_tokens", *data.draw(st.sets(st.sampled_from(TREE)))}
    kinds = {meter: data.draw(st.integers(0, 20)) for meter in TREE}  # tokens of exactly that kind
    said = {total: sum(n for kind, n in kinds.items() if kind == total or is_part_of(kind, total)) for total in TREE}
    prices = [price(meter, str(number + 1)) for number, meter in enumerate(TREE) if meter in priced]
    expected = Decimal(0)
    for kind, count in kinds.items():
        nearest = max(
            (meter for meter in priced if meter == kind or is_part_of(kind, meter)),
            key=lambda meter: len(DIMENSIONS[meter]),
        )
        expected += count * Decimal(TREE.index(nearest) + 1) / 10**6
    assert Decimal(cost(prices, **said)) == expected


# --- conditions and names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "expected"), [(200_000, "0.25"), (200_001, "0.5000025")])
def test_a_threshold_changes_the_whole_request_and_is_itself_still_below(tokens: int, expected: str) -> None:
    prices = [price("input_tokens", "1.25"), price("input_tokens", "2.5", input_tokens_above=200_000)]
    assert cost(prices, input_tokens=tokens) == expected
    assert cost([*prices, price("output_tokens", "10")], input_tokens=tokens, output_tokens=0) == expected


def test_the_highest_threshold_that_is_passed_counts() -> None:
    prices = [price("input_tokens", str(n), input_tokens_above=n * 1_000 or None) for n in range(4)]
    costs = [cost(prices, input_tokens=n) for n in (1_000, 1_001, 2_001, 10**6)]
    assert costs == ["0", "0.001001", "0.004002", "3"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [("opus-5-x", "exact"), ("opus-5-y", "longer"), ("opus-4", "shorter"), ("fable", "alias"), ("fable-2", "prefix")],
)
def test_exact_beats_longer_prefix_beats_shorter(model: str, expected: str) -> None:
    prices = [
        price(None, "1", "shorter", model="opus*"),
        price(None, "1", "longer", model="opus-5*"),
        price(None, "1", "exact", model="opus-5-x"),
        price(None, "1", "alias", model="tale", aliases=("fable",)),
        price(None, "1", "prefix", model="story", aliases=("fab*",)),
    ]
    for order in (prices, prices[::-1]):
        assert rate(order, model=model, input_tokens=1).components[0].price_id == expected


# --- volume, packages, minimum --------------------------------------------------------------------------------------


def test_free_quantities_come_first_and_count() -> None:
    terms = {"free_quantity_nanos": 100 * NANOS, "tiers": (PriceTier(150 * NANOS, parse_amount("2")),)}
    prices = [each("images", "1", **terms)]
    rated = rate(prices, quantities={"images": 200 * NANOS})
    assert [(part.quantity_nanos // NANOS, format_amount(part.amount_nanos)) for part in rated.components] == [
        (100, "0"),
        (50, "100"),
        (50, "50"),
    ]
    assert cost(prices, quantities={"images": NANOS}, used={"images": 149 * NANOS}) == "2"
    assert cost(prices, quantities={"images": NANOS}, used={"images": 150 * NANOS}) == "1"


def test_packages_are_rounded_up() -> None:
    prices = [each("pages", "0.1", package_size_nanos=10 * NANOS)]
    assert [cost(prices, quantities={"pages": n * NANOS}) for n in (1, 10, 11)] == ["1", "1", "2"]
    assert cost(prices, quantities={"pages": 0}) == "0"


def test_a_minimum_lifts_the_request() -> None:
    prices = [price("input_tokens", "1", minimum_nanos=parse_amount("0.01")), price("output_tokens", "1")]
    rated = rate(prices, input_tokens=1_000, output_tokens=1_000)
    assert [(part.meter, format_amount(part.amount_nanos)) for part in rated.components] == [
        ("input_tokens", "0.001"),
        ("output_tokens", "0.001"),
        ("minimum", "0.008"),
    ]
    assert cost(prices, input_tokens=20_000) == "0.02"
    assert cost(prices, output_tokens=1_000) == "0.001"


# --- factors --------------------------------------------------------------------------------------------------------


def factor(value: str, price_id: str = "factor", **more: Any) -> Price:
    return price(None, "0", price_id, operation="*", factor_nanos=parse_amount(value), **more)


LIST = [price("input_tokens", "10", "list", model="opus"), price("input_tokens", "4", "pro", model="opus", tier="pro")]


@pytest.mark.parametrize(
    ("more", "tier", "org", "expected"),
    [
        ([factor("0.8", org_id="acme")], None, "acme", "8"),
        ([factor("0.8", org_id="acme")], None, "bolt", "10"),
        ([factor("1.25", tier="gold")], "gold", "acme", "12.5"),
        ([factor("1.25", tier="gold"), factor("0.5", "own", org_id="acme")], "gold", "acme", "5"),
        ([factor("0.5", tier="pro")], "pro", "acme", "4"),  # the tier's own price is the more specific
        ([factor("0.5", org_id="acme")], "pro", "acme", "2"),
        ([factor("0.5", org_id="acme", model="sonnet")], None, "acme", "10"),
        ([factor("0.5", org_id="acme", model="op*")], None, "acme", "5"),
        ([factor("0.5", org_id="acme"), factor("0.9", "closer", org_id="acme", model="opus")], None, "acme", "9"),
        ([factor("0.5", org_id="acme"), price("input_tokens", "7", "own", org_id="acme")], None, "acme", "7"),
    ],
)
def test_factors(more: list[Price], tier: str | None, org: str, expected: str) -> None:
    for prices in ([*LIST, *more], [*more, *LIST]):
        assert cost(prices, model="opus", tier=tier, org=org, input_tokens=10**6) == expected


def test_a_factor_of_the_org_by_setting() -> None:
    own = Overrides(1, {"factor": msgspec.structs.replace(factor("0.8"), org_id="acme")})
    rated = rate(LIST, model="opus", overrides=own, input_tokens=10**6)
    assert (rated.cost, rated.components[0].unit_price_nanos) == (8 * NANOS, 8 * NANOS)
    assert rated.components[0].price_id == "list"


# --- ties -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "tie"),
    [
        ({"meter": "cache_read_tokens"}, {"meter": "cache_read_tokens"}, True),
        ({"meter": "cache_read_tokens"}, {"meter": "cache_write_tokens"}, False),
        ({"meter": "input_tokens"}, {"meter": None}, False),
        ({"meter": "input_tokens"}, {"meter": None, "model": "x", "operation": "*", "direction": "input"}, True),
        ({"meter": "input_tokens", "service_tier": "flex"}, {"meter": "input_tokens"}, False),
        ({"meter": "input_tokens", "service_tier": "standard"}, {"meter": "input_tokens"}, True),
        ({"meter": "input_tokens", "input_tokens_above": 5}, {"meter": "input_tokens"}, False),
        ({"meter": "input_tokens", "model": "a*"}, {"meter": "input_tokens", "model": "ab"}, False),
        ({"meter": "input_tokens", "model": "a*"}, {"meter": "input_tokens", "model": "a*"}, True),
        ({"meter": "input_tokens", "model": "a", "aliases": ("b",)}, {"meter": "input_tokens", "model": "b"}, True),
        ({"meter": None, "tier": "pro", "factor_nanos": NANOS}, {"meter": None, "tier": "pro"}, False),
        ({"meter": None, "tier": "p", "factor_nanos": 1}, {"meter": None, "tier": "p", "factor_nanos": 2}, True),
    ],
)
def test_ties(one: dict[str, Any], other: dict[str, Any], tie: bool) -> None:
    def made(price_id: str, terms: dict[str, Any]) -> Price:
        return msgspec.convert(
            {**msgspec.to_builtins(price(None, "1", price_id)), "aliases": (), "direction": "any", **terms}, Price
        )

    assert could_tie(made("one", one), made("other", other)) is could_tie(made("o", other), made("p", one)) is tie


def test_the_named_meters_are_those_of_the_table() -> None:
    assert set(NAMED_METERS) <= DIMENSIONS.keys()
