"""Records of the price list from what a file offers: exact units, noise, rounding, ids."""

from __future__ import annotations

from decimal import Decimal

import pytest

from schemas.enums import BillingUnit
from streams.price_files.offers import Offer, OfferedModel, Reason
from streams.price_files.price_records import Terms, billed, price_records

NOW = 1_764_331_200_000_000  # 2025-11-28 12:00 UTC
TERMS = Terms("litellm", "USD", NOW)


def model(*offers: Offer, name: str = "m", provider: str | None = None) -> OfferedModel:
    return OfferedModel(name, provider, names_provider=provider is not None, offers=list(offers))


@pytest.mark.parametrize(
    ("meter", "price", "per", "unit", "nanos", "reason"),
    [
        ("input_tokens", "0.0000025", 1, "1000000_tokens", 2_500_000_000, None),
        ("input_tokens", "1.3e-10", 1, "1000000_tokens", 130_000, None),
        ("input_tokens", "2.5", 1_000_000, "1000000_tokens", 2_500_000_000, None),
        ("input_tokens", "2.0000000000000002E-7", 1, "1000000_tokens", 200_000_000, Reason.NOISE),
        ("input_tokens", "0.0000011428571428571428", 1, "1000000_tokens", 1_142_857_143, Reason.TOO_FINE),
        ("web_searches", "10", 1_000, "unit", 10_000_000, None),
        ("input_pixels", "1.59263611E-7", 1, "1000000_units", 159_263_611, None),
        ("input_pixels", "2.0751953125E-9", 1, "1000000000_units", 2_075_195_313, Reason.TOO_FINE),
        ("audio_seconds", "0.04", 3_600, "hour", 40_000_000, None),
        ("input_audio_seconds", "0.0001", 1, "unit", 100_000, None),
        ("input_audio_seconds", "0.0005666666666666667", 1, "minute", 34_000_000, Reason.NOISE),
        ("input_audio_seconds", "0.001333333333333", 1, "1000000_units", 1_333_333_333_333, None),
    ],
)
def test_the_unit_is_the_first_in_which_a_price_is_whole(
    meter: str, price: str, per: int, unit: str, nanos: int, reason: Reason | None
) -> None:
    assert billed(Offer(meter, Decimal(price), per)) == (BillingUnit(unit), nanos, reason)


def test_a_factor_is_exact_as_well() -> None:
    assert billed(Offer("input_tokens", Decimal("0.000003")), Decimal("1.25"))[:2] == (
        BillingUnit.MILLION_TOKENS,
        3_750_000_000,
    )
    assert billed(Offer("input_tokens", Decimal("2.0000000000000002E-7")), Decimal("1.5")) == (
        BillingUnit.MILLION_TOKENS,
        300_000_000,
        Reason.NOISE,
    )


def test_what_is_rounded_is_listed_and_published() -> None:
    fine = model(Offer("input_tokens", Decimal("0.0000011428571428571428")))
    (price,) = price_records([fine], TERMS)
    assert (price.unit_price_nanos, fine.whole) == (1_142_857_143, False)
    nothing = model(Offer("input_tokens", Decimal("1e-17")))
    assert price_records([nothing], TERMS) == []
    assert [problem.reason for problem in nothing.problems] == [Reason.TOO_FINE]


def test_a_record_says_what_the_offer_says() -> None:
    offer = Offer("input_tokens", Decimal("0.000006"), 1, "priority", 272_000)
    (price,) = price_records([model(offer, name="gpt-5.5", provider="openai")], TERMS)
    assert price.price_id == "litellm:openai:gpt-5.5:input_tokens:priority:>272000@20251128T120000Z"
    assert (price.operation, price.model, price.provider, price.meter) == ("*", "gpt-5.5", "openai", "input_tokens")
    assert (price.service_tier, price.input_tokens_above, price.wallet) == ("priority", 272_000, "USD")
    assert (price.valid_from, price.valid_to, price.free) == (NOW, None, False)


def test_a_price_of_nothing_is_free() -> None:
    (price,) = price_records([model(Offer("output_tokens", Decimal(0)))], TERMS)
    assert (price.free, price.unit_price_nanos) == (True, 0)


def test_prices_of_the_past_are_left_out_and_later_ones_begin_later() -> None:
    day = 86_400_000_000
    old = Offer("input_tokens", Decimal("0.000001"), valid_to=NOW)
    now = Offer("input_tokens", Decimal("0.000002"), valid_from=NOW, valid_to=NOW + day)
    later = Offer("input_tokens", Decimal("0.000003"), valid_from=NOW + day)
    prices = price_records([model(old, now, later)], TERMS)
    assert [(price.valid_from, price.valid_to) for price in prices] == [(NOW, NOW + day), (NOW + day, None)]


def test_a_long_name_has_an_id_of_its_own_that_fits() -> None:
    names = ["x" * 200 + end for end in "ab"]
    ids = {price_records([model(Offer("input_tokens", Decimal(1)), name=name)], TERMS)[0].price_id for name in names}
    assert len(ids) == 2
    assert all(len(price_id) <= 128 for price_id in ids)


def test_a_name_with_a_star_inside_it_is_listed() -> None:
    starred = model(Offer("seconds", Decimal(1)), name="bedrock/*/commitment")
    assert price_records([starred], TERMS) == []
    assert [problem.reason for problem in starred.problems] == [Reason.NAME]
