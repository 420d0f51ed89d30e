"""Costs against the open data set genai-prices: its prices as they are imported, rated by the ledger and by itself.

Usages are made by leaves. Each kind of token (input audio read from a cache, …) gets a count of its own, and a meter's
quantity is the sum of all leaves that are part of it. So every total includes its parts, as both sides ask for. The
request's input tokens lie on, just below and just above each threshold as often as anywhere.

Where the ledger differs on purpose:
- The data set keeps what costs exactly; the ledger rounds once, half up to a nano. So is its figure here.
- A model with a price that cannot be written exactly (`UNLIKE`) is not compared; the importer lists it.
- A tier that the model has no price for is refused; the data set takes the standard price (`test_a_tier_…`).
- A quantity that has no price and no priced total is refused; the data set leaves it out (`test_a_quantity_…`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal

import pytest
from genai_prices.data import providers
from genai_prices.data_units import unit_data
from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices
from genai_prices.types import Usage as TheirUsage

from schemas.amounts import NANOS
from schemas.enums import DeadLetterCode
from schemas.meters import NAMED_METERS, dimensions_of, is_part_of
from streams.ledger.account import new_account
from streams.ledger.commands import Usage
from streams.ledger.pricing import rate
from streams.ledger.rating import Price, PriceList
from streams.ledger.refusals import DeadLetter
from streams.price_files.offers import OfferedModel, Reason
from streams.price_files.open_data import read_open_data
from streams.price_files.price_records import Terms, price_records
from tests.laws import TIMEOUT_S

SEED = 20_261_128
CASES, CASES_LONG = 3_000, 100_000
LONG_AGO_US = 946_684_800_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW_US = 1_795_910_400_000_000  # 2026-11-28
UNLIKE = {Reason.TOO_FINE, Reason.NOISE, Reason.TIME_OF_DAY, Reason.SMALLEST_CHARGE, Reason.TWO_PRICES}
DAY_US = 86_400 * 10**6
EXACT = Context(prec=60, rounding=ROUND_HALF_UP)
ACCOUNT = new_account("acme")
NOTHING = {name: 0 for name in unit_data if name != "requests"}
"""The data set asks for a part that is 0 as well, where two meters overlap in it."""

WHOLES = {part: [name for name in NOTHING if name == part or is_part_of(part, name)] for part in NOTHING}
"""What each meter is part of, itself included."""


@pytest.fixture(scope="module")
def imported() -> tuple[PriceList, dict[tuple[str, str], OfferedModel]]:
    """The data set as a price list, and its models."""
    models = read_open_data()
    prices = price_records(models, Terms("genai-prices", "USD", LONG_AGO_US))
    by_name = {(model.provider or "", model.name): model for model in models}
    return PriceList(Price.from_record(price.to_record()) for price in prices), by_name


Imported = tuple[PriceList, dict[tuple[str, str], OfferedModel]]


def comparable(models: dict[tuple[str, str], OfferedModel]) -> list[tuple[Provider, ModelInfo, OfferedModel]]:
    """The models whose prices are exact on both sides."""
    found = []
    for provider in providers:
        for info in provider.models:
            model = models.get((provider.id, info.id))
            if model is not None and model.offers and not any(each.reason in UNLIKE for each in model.problems):
                found.append((provider, info, model))
    return found


def spans(model: OfferedModel) -> list[tuple[int, int, str | None]]:
    """When which tier of a model has prices: from, until, tier."""
    found = {
        (each.valid_from or LONG_AGO_US, each.valid_to or max(NOW_US, each.valid_from or 0) + DAY_US, each.service_tier)
        for each in model.offers
    }
    return sorted(found, key=str)


def context(info: ModelInfo, tier: str | None) -> dict[str, str]:
    """The data set's context of a tier: its value is the tier's name."""
    return next((each.when for each in info.price_variants or () if tier in each.when.values()), {})


def quantities(choice: random.Random, prices: ModelPrice) -> dict[str, int]:
    """Random quantities that the model has prices for, by meter: totals include their parts."""
    priced = {
        name: price for name, unit in unit_data.items() if (price := getattr(prices, unit["price_key"])) is not None
    }
    roots = [name for name in priced if name != "requests" and not any(is_part_of(name, other) for other in priced)]
    leaves: dict[str, int] = {}
    for root in roots:
        parts = [name for name in unit_data if is_part_of(name, root) or name == root]
        chosen = {root, *(name for name in parts if name in priced), *choice.sample(parts, min(2, len(parts)))}
        for name in chosen:
            if choice.random() < 0.8:
                leaves[name] = choice.choice((0, 1, 7, choice.randrange(1_000), choice.randrange(400_000)))
    found = totals(leaves)
    steps = [tier.start for price in priced.values() if isinstance(price, TieredPrices) for tier in price.tiers]
    if steps and "input_tokens" in priced:
        wanted = choice.choice(steps) + choice.choice((-1, 0, 1, 50_000))
        leaves["input_tokens"] = max(0, wanted - found.get("input_tokens", 0) + leaves.get("input_tokens", 0))
        found = totals(leaves)
    return found


def totals(leaves: dict[str, int]) -> dict[str, int]:
    """Each meter with the sum of the leaves that are part of it."""
    sums: Counter[str] = Counter()
    for leaf, count in leaves.items():
        for name in WHOLES[leaf]:
            sums[name] += count
    return {name: count for name, count in sums.items() if count}


def ours(prices: PriceList, provider: str, model: str, at: int, counts: dict[str, int], tier: str | None) -> int:
    named = {name: count for name, count in counts.items() if name in NAMED_METERS}
    others = {name: count * NANOS for name, count in counts.items() if name not in NAMED_METERS}
    usage = Usage(
        event_id="u", org_id="acme", occurred_at=at, operation="chat", provider=provider, model=model,
        quantities=others, service_tier=tier, **named,  # type: ignore[arg-type]
    )  # fmt: skip
    return rate(ACCOUNT, usage, prices, at).cost


def theirs(provider: Provider, info: ModelInfo, at: int, counts: dict[str, int], tier: str | None) -> int:
    """What the data set says it costs, rounded once."""
    moment = EPOCH + timedelta(microseconds=at)
    calculated = info.calc_price(
        TheirUsage(**{**NOTHING, **counts}), provider, genai_request_timestamp=moment, price_context=context(info, tier)
    )
    return int((calculated.total_price * NANOS).quantize(Decimal(1), context=EXACT))


def cases(
    models: dict[tuple[str, str], OfferedModel], number: int
) -> Iterator[tuple[Provider, ModelInfo, int, str | None, dict[str, int]]]:
    """Every model in turn, at random times, tiers and quantities."""
    choice = random.Random(SEED)
    every = comparable(models)
    choice.shuffle(every)
    for count in range(number):
        provider, info, model = every[count % len(every)]
        since, until, tier = choice.choice(spans(model))
        at = choice.choice((since, until - 1, choice.randrange(since, until)))
        prices = info.get_prices(EPOCH + timedelta(microseconds=at), context(info, tier))
        yield provider, info, at, tier, quantities(choice, prices)


@pytest.mark.parametrize(
    "number", [CASES, pytest.param(CASES_LONG, marks=[pytest.mark.slow, pytest.mark.timeout(TIMEOUT_S)])]
)
def test_the_open_data_set_comes_to_the_same_cost(imported: Imported, number: int) -> None:
    prices, models = imported
    compared = 0
    for provider, info, at, tier, counts in cases(models, number):
        if not any(counts.values()):
            continue
        wanted = theirs(provider, info, at, counts, tier)
        found = ours(prices, provider.id, info.id, at, counts, tier)
        assert found == wanted, f"{provider.id} {info.id} {tier} at {at}: {counts}"
        compared += 1
    assert compared > number * 0.9


def test_nearly_every_model_is_compared(imported: Imported) -> None:
    _, models = imported
    assert len(comparable(models)) >= 0.98 * len(models)


def test_a_tier_without_a_price_is_refused_and_not_taken_for_the_standard_one(imported: Imported) -> None:
    prices, _ = imported
    with pytest.raises(DeadLetter) as refused:
        ours(prices, "anthropic", "claude-3-haiku", NOW_US - 1, {"input_tokens": 10, "output_tokens": 1}, "flexx")
    assert refused.value.code is DeadLetterCode.UNKNOWN_PRICE
    assert "flexx" in str(refused.value)


def test_a_quantity_without_a_price_is_refused_and_not_left_out(imported: Imported) -> None:
    prices, _ = imported
    with pytest.raises(DeadLetter) as refused:
        ours(prices, "anthropic", "claude-3-haiku", NOW_US - 1, {"input_tokens": 10, "code_executions": 1}, None)
    assert refused.value.code is DeadLetterCode.UNKNOWN_PRICE
    assert "code_executions" in str(refused.value)


def test_the_meters_are_the_data_sets_units() -> None:
    for name, unit in unit_data.items():
        assert dimensions_of(name) == unit["dimensions"]
