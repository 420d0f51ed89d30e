"""The public price file: what each field is a price of, decimals, thresholds, tiers, and what it cannot say."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from streams.price_files.litellm import read_litellm
from streams.price_files.offers import Offer, OfferedModel, PriceFileError, Reason


def read(**entries: dict[str, Any]) -> list[OfferedModel]:
    return read_litellm(json.dumps({"sample_spec": {"input_cost_per_token": 0.0}, **entries}))


def offers(entry: dict[str, Any]) -> set[Offer]:
    (model,) = read(m=entry)
    assert not model.problems
    return set(model.offers)


def test_a_price_is_the_decimal_that_is_written() -> None:
    (model,) = read_litellm('{"m": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1.3e-10}}')
    assert (model.name, model.provider, model.names_provider) == ("m", "openai", False)
    assert model.offers == [Offer("input_tokens", Decimal("1.3e-10"))]


@pytest.mark.parametrize(
    ("field", "meter"),
    [
        ("input_cost_per_token", "input_tokens"),
        ("output_cost_per_token", "output_tokens"),
        ("cache_read_input_token_cost", "cache_read_tokens"),
        ("cache_creation_input_token_cost", "cache_write_tokens"),
        ("cache_creation_input_token_cost_above_1hr", "cache_write_1h_tokens"),
        ("output_cost_per_reasoning_token", "output_reasoning_tokens"),
        ("cache_read_input_audio_token_cost", "cache_audio_read_tokens"),
        ("output_cost_per_image", "output_images"),
        ("output_cost_per_image_1K", "output_images_1k"),
        ("output_cost_per_image_0.5K", "output_images_0.5k"),
        ("ocr_cost_per_page", "input_document_pages"),
        ("input_cost_per_request", "requests"),
    ],
)
def test_a_field_is_a_price_of_a_meter(field: str, meter: str) -> None:
    assert offers({"mode": "chat", field: 0.25}) == {Offer(meter, Decimal("0.25"))}


@pytest.mark.parametrize(
    ("mode", "field", "meter"),
    [
        ("audio_transcription", "input_cost_per_second", "input_audio_seconds"),
        ("chat", "input_cost_per_second", "seconds"),
        ("chat", "cost_per_second", "seconds"),
        ("video_generation", "output_cost_per_second", "output_video_seconds"),
        ("video_generation", "output_cost_per_second_1080p", "output_video_seconds_1080p"),
        ("rerank", "input_cost_per_query", "rerank_searches"),
        ("search", "input_cost_per_query", "web_searches"),
        ("embedding", "input_cost_per_query", "queries"),
    ],
)
def test_some_fields_depend_on_what_the_model_is_for(mode: str, field: str, meter: str) -> None:
    assert offers({"mode": mode, field: 0.5}) == {Offer(meter, Decimal("0.5"))}


def test_a_suffix_is_a_threshold_or_a_tier() -> None:
    entry = {
        "mode": "chat",
        "input_cost_per_token": 3e-6,
        "input_cost_per_token_above_272k_tokens": 6e-6,
        "input_cost_per_token_batches": 1.5e-6,
        "input_cost_per_token_above_272k_tokens_priority": 12e-6,
        "cache_creation_input_token_cost_above_1hr_above_200k_tokens": 9e-6,
    }
    assert offers(entry) >= {
        Offer("input_tokens", Decimal("0.000003")),
        Offer("input_tokens", Decimal("0.000006"), input_tokens_above=272_000),
        Offer("input_tokens", Decimal("0.0000015"), service_tier="batch"),
        Offer("input_tokens", Decimal("0.000012"), service_tier="priority", input_tokens_above=272_000),
        Offer("cache_write_1h_tokens", Decimal("0.000009"), input_tokens_above=200_000),
    }


def test_a_tier_has_the_standard_price_of_what_it_does_not_name() -> None:
    entry = {
        "mode": "chat",
        "input_cost_per_token": 3e-6,
        "input_cost_per_token_flex": 1.5e-6,
        "output_cost_per_token": 15e-6,
        "output_cost_per_token_above_200k_tokens": 22e-6,
    }
    flex = {offer for offer in offers(entry) if offer.service_tier == "flex"}
    assert flex == {
        Offer("input_tokens", Decimal("0.0000015"), service_tier="flex"),
        Offer("output_tokens", Decimal("0.000015"), service_tier="flex"),
        Offer("output_tokens", Decimal("0.000022"), service_tier="flex", input_tokens_above=200_000),
    }


def test_ranges_are_thresholds_of_the_whole_request() -> None:
    entry = {
        "mode": "chat",
        "input_cost_per_token": 1e-7,  # repeats the first range
        "tiered_pricing": [
            {"range": [0, 256e3], "input_cost_per_token": 1e-7, "output_cost_per_token": 4e-7},
            {"range": [256e3, 1e6], "input_cost_per_token": 2.5e-7, "output_cost_per_token": 2e-6},
        ],
    }
    assert offers(entry) == {
        Offer("input_tokens", Decimal("1e-7")),
        Offer("output_tokens", Decimal("4e-7")),
        Offer("input_tokens", Decimal("2.5e-7"), input_tokens_above=256_000),
        Offer("output_tokens", Decimal("0.000002"), input_tokens_above=256_000),
    }


def test_searches_have_one_price_or_one_by_size() -> None:
    same = {"mode": "chat", "search_context_cost_per_query": dict.fromkeys(SIZES, 0.01)}
    assert offers(same) == {Offer("web_searches", Decimal("0.01"))}
    by_size = {"mode": "chat", "search_context_cost_per_query": dict(zip(SIZES, (0.005, 0.008, 0.012), strict=True))}
    assert offers(by_size) == {
        Offer("web_searches_low", Decimal("0.005")),
        Offer("web_searches_medium", Decimal("0.008")),
        Offer("web_searches_high", Decimal("0.012")),
    }


SIZES = ("search_context_size_low", "search_context_size_medium", "search_context_size_high")


def test_a_price_by_the_thousand_stays_one() -> None:
    assert offers({"mode": "chat", "file_search_cost_per_1k_calls": 2.5}) == {
        Offer("storage_searches", Decimal("2.5"), per=1_000)
    }


@pytest.mark.parametrize(
    ("entry", "reason", "whole"),
    [
        ({"input_dbu_cost_per_token": 1.4e-6}, Reason.OTHER_CURRENCY, True),
        ({"cache_creation_input_token_cost_above_12hr_flex": 2e-6}, Reason.NO_METER, False),
        ({"input_cost_per_video_per_second_above_15s_interval": 0.002}, Reason.LENGTH_OF_CLIP, False),
        (
            {"tiered_pricing": [{"input_cost_per_query": 0.1, "max_results_range": [0, 25]}]},
            Reason.NUMBER_OF_RESULTS,
            False,
        ),
        ({"cost_of_something_new": 0.002}, Reason.UNKNOWN_FIELD, False),
        ({"input_cost_per_token": "3e-6"}, Reason.NOT_A_PRICE, False),
        ({"input_cost_per_token": -1}, Reason.NOT_A_PRICE, False),
        ({"cost_per_second": 0.1, "input_cost_per_second": 0.2}, Reason.TWO_PRICES, False),
    ],
)
def test_what_it_cannot_say_is_listed_with_its_reason(entry: dict[str, Any], reason: Reason, whole: bool) -> None:
    (model,) = read(m={"mode": "chat", **entry})
    assert [problem.reason for problem in model.problems] == [reason]
    assert model.whole == whole


@pytest.mark.parametrize("text", ["[]", "{", '{"m": 1}', '{"m": {"mode": "chat"}}'])
def test_another_file_is_refused(text: str) -> None:
    with pytest.raises(PriceFileError):
        read_litellm(text)
