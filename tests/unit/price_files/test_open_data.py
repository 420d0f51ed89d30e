"""The open data set: names, dates, thresholds, contexts as tiers, what it says and the price list cannot."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from genai_prices.types import (
    ClauseContains,
    ClauseEquals,
    ClauseOr,
    ClauseStartsWith,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from streams.price_files.offers import Offer, OfferedModel, Reason
from streams.price_files.open_data import read_open_data, read_provider

DAY = date(2026, 7, 1)
DAY_US = int(datetime(2026, 7, 1, tzinfo=UTC).timestamp()) * 10**6


def read(*infos: ModelInfo) -> list[OfferedModel]:
    return list(read_provider(Provider(id="acme-ai", name="Acme", api_pattern="", models=list(infos))))


def info(name: str = "m", match: Any = None, **fields: Any) -> ModelInfo:
    fields.setdefault("prices", ModelPrice(input_mtok=Decimal(3)))
    return ModelInfo(id=name, match=match or ClauseEquals(equals=name), **fields)


def test_names_are_aliases_and_prefixes_and_other_patterns_are_listed() -> None:
    match = ClauseOr(
        or_=[
            ClauseEquals(equals="M"),
            ClauseEquals(equals="m-1"),
            ClauseStartsWith(starts_with="m-2"),
            ClauseContains(contains="x"),
        ]
    )
    (model,) = read(info(match=match))
    assert (model.name, model.provider, model.names_provider) == ("m", "acme-ai", True)
    assert model.aliases == ("m-1", "m-2*")
    assert [problem.reason for problem in model.problems] == [Reason.PATTERN]
    assert model.whole


def test_a_name_is_the_first_models_that_has_it() -> None:
    first, second = read(
        info("a", ClauseOr(or_=[ClauseEquals(equals="a"), ClauseEquals(equals="both")])),
        info("b", ClauseOr(or_=[ClauseEquals(equals="both"), ClauseEquals(equals="a")])),
    )
    assert (first.aliases, second.aliases) == (("both",), ())
    assert [problem.value for problem in second.problems] == ["both", "a"]


def test_units_and_thresholds_are_the_data_sets() -> None:
    prices = ModelPrice(
        input_mtok=TieredPrices(base=Decimal("1.25"), tiers=[Tier(start=200_000, price=Decimal("2.5"))]),
        web_searches_kcount=Decimal(10),
        audio_hours=Decimal("0.04"),
    )
    (model,) = read(info(prices=prices))
    assert set(model.offers) == {
        Offer("input_tokens", Decimal("1.25"), 1_000_000),
        Offer("input_tokens", Decimal("2.5"), 1_000_000, input_tokens_above=200_000),
        Offer("web_searches", Decimal(10), 1_000),
        Offer("audio_seconds", Decimal("0.04"), 3_600),
    }


def test_dates_begin_and_end_prices() -> None:
    prices = [
        ConditionalPrice(prices=ModelPrice(input_mtok=Decimal(3))),
        ConditionalPrice(StartDateConstraint(start_date=DAY), prices=ModelPrice(input_mtok=Decimal(2))),
    ]
    (model,) = read(info(prices=prices))
    assert set(model.offers) == {
        Offer("input_tokens", Decimal(3), 1_000_000, valid_to=DAY_US),
        Offer("input_tokens", Decimal(2), 1_000_000, valid_from=DAY_US),
    }


def test_a_context_is_a_tier_with_every_price_of_the_model_from_its_date_on() -> None:
    standard = ModelPrice(input_mtok=Decimal(4), output_mtok=Decimal(8))
    variants = [
        PriceVariant({"processing": "batch"}, ModelPrice(input_mtok=Decimal(2)), StartDateConstraint(start_date=DAY)),
        PriceVariant({"service_tier": "default"}, ModelPrice(input_mtok=Decimal(4))),
    ]
    (model,) = read(info(prices=standard, price_variants=variants))
    assert {offer for offer in model.offers if offer.service_tier} == {
        Offer("input_tokens", Decimal(2), 1_000_000, "batch", valid_from=DAY_US),
        Offer("output_tokens", Decimal(8), 1_000_000, "batch", valid_from=DAY_US),
    }
    assert model.whole


def test_prices_by_the_hour_of_the_day_are_listed() -> None:
    night = TimeOfDateConstraint(start_time=time(16), end_time=time(0, 30))
    prices = [
        ConditionalPrice(prices=ModelPrice(input_mtok=Decimal(3))),
        ConditionalPrice(night, prices=ModelPrice(input_mtok=Decimal(1))),
    ]
    given = info(prices=prices)
    (model,) = read(given)
    assert model.offers == [Offer("input_tokens", Decimal(3), 1_000_000)]
    assert [problem.reason for problem in model.problems] == [Reason.TIME_OF_DAY]
    assert given.prices == prices, "the data set itself is left as it is"


def test_the_installed_data_set_is_read() -> None:
    models = read_open_data()
    whole = sum(model.whole for model in models)
    assert len(models) > 2_000
    assert whole / len(models) >= 0.99
    assert {(model.provider, model.name) for model in models} >= {("anthropic", "claude-3-haiku")}
