"""The public price file that gateways share: litellm's model_prices_and_context_window.json.

Rules of this file:
- Pure; numbers are read as decimals (`parse_float`), so a price is what is written.
- The key of an entry is the model's name, in the form that gateways send: `gpt-4o`, `azure/gpt-4o`. It is unique in the
  file, so its prices name no provider.
- A field is a price of a meter (`METERS`), a threshold (`_above_272k_tokens`) and a tier (`_priority`). Every field
  that has `cost` in its name is read, or listed.
- Thresholds and the ranges of `tiered_pricing` hold for the whole request; a threshold itself is still below it.
- A price by image, second or query comes under a meter of its own, named like the field. Where the same work is priced
  by tokens too, usage says either of them, not both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from streams.price_files.offers import Offer, OfferedModel, PriceFileError, Reason, fill_tiers

SAMPLE: Final = "sample_spec"
"""The entry that documents the file's fields."""

METERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "input_cost_per_token": "input_tokens",
        "output_cost_per_token": "output_tokens",
        "cache_read_input_token_cost": "cache_read_tokens",
        "input_cost_per_token_cache_hit": "cache_read_tokens",
        "cache_creation_input_token_cost": "cache_write_tokens",
        "cache_creation_input_token_cost_above_1hr": "cache_write_1h_tokens",
        "output_cost_per_reasoning_token": "output_reasoning_tokens",
        "citation_cost_per_token": "output_citation_tokens",
        "input_cost_per_audio_token": "input_audio_tokens",
        "output_cost_per_audio_token": "output_audio_tokens",
        "cache_read_input_audio_token_cost": "cache_audio_read_tokens",
        "cache_creation_input_audio_token_cost": "cache_audio_write_tokens",
        "input_cost_per_image_token": "input_image_tokens",
        "output_cost_per_image_token": "output_image_tokens",
        "cache_read_input_image_token_cost": "cache_image_read_tokens",
        "input_cost_per_video_token": "input_video_tokens",
        "output_cost_per_video_token": "output_video_tokens",
        "input_cost_per_character": "input_characters",
        "output_cost_per_character": "output_characters",
        "input_cost_per_image": "input_images",
        "output_cost_per_image": "output_images",
        "input_cost_per_pixel": "input_pixels",
        "output_cost_per_pixel": "output_pixels",
        "input_cost_per_audio_per_second": "input_audio_seconds",
        "input_cost_per_video_per_second": "input_video_seconds",
        "output_cost_per_video_per_second": "output_video_seconds",
        "cost_per_second": "seconds",
        "input_cost_per_request": "requests",
        "input_cost_per_text_message": "input_text_messages",
        "google_maps_grounding_cost_per_query": "maps_searches",
        "ocr_cost_per_page": "input_document_pages",
        "annotation_cost_per_page": "input_annotated_document_pages",
        "ocr_cost_per_credit": "ocr_credits",
        "code_interpreter_cost_per_session": "code_interpreter_sessions",
        "file_search_cost_per_gb_per_day": "file_search_gb_days",
        "vector_store_cost_per_gb_per_day": "vector_store_gb_days",
    }
)

BY_MODE: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("input_cost_per_second", "audio_transcription"): "input_audio_seconds",
        ("input_cost_per_second", "realtime"): "input_audio_seconds",
        ("input_cost_per_second", "chat"): "seconds",
        ("output_cost_per_second", "audio_transcription"): "output_audio_seconds",
        ("output_cost_per_second", "audio_speech"): "output_audio_seconds",
        ("output_cost_per_second", "video_generation"): "output_video_seconds",
        ("input_cost_per_query", "rerank"): "rerank_searches",
        ("input_cost_per_query", "search"): "web_searches",
    }
)
"""Fields whose meter depends on what the model is for."""

BY_MODE_ELSE: Final = {
    "input_cost_per_second": "input_seconds",
    "output_cost_per_second": "output_seconds",
    "input_cost_per_query": "queries",
}

PER_THOUSAND: Final = {
    "computer_use_input_cost_per_1k_tokens": "computer_use_input_tokens",
    "computer_use_output_cost_per_1k_tokens": "computer_use_output_tokens",
    "file_search_cost_per_1k_calls": "storage_searches",
}

TIERS: Final = {"batches": "batch"}
"""Suffixes that are called otherwise in the price list; every other one is the tier's name."""

_NO_METER: Final = re.compile(r"^(cache_creation_input_token_cost_above_12hr|explicit_cache_read_input_token_cost)")
_SUFFIXED: Final = re.compile(r"^(?P<field>.+?)(_above_(?P<above>\d+)(?P<kilo>k?)_tokens)?(_(?P<tier>[a-z]+))?$")
_SIZED: Final = re.compile(r"^(?P<field>output_cost_per_(image|second|video_per_second))_(?P<size>[0-9.]+[kKp]?)$")
_CLIP: Final = re.compile(r"_above_\d+s_interval$")
_SEARCH_SIZES: Final = "search_context_size_"


def read_litellm(text: str | bytes) -> list[OfferedModel]:
    """The priced models of the file, in its order. Raises `PriceFileError` for what is not this file."""
    try:
        entries = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    except ValueError as error:
        raise PriceFileError(f"this is no JSON: {error}") from error
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise PriceFileError("expected an object with an entry for each model")
    models = [_model(name, entry) for name, entry in entries.items() if name != SAMPLE]
    priced = [model for model in models if model.offers or model.problems]
    if not priced:
        raise PriceFileError("no entry has a price")
    return priced


def _model(name: str, entry: Mapping[str, Any]) -> OfferedModel:
    model = OfferedModel(name, entry.get("litellm_provider"))
    ranges = entry.get("tiered_pricing")
    if ranges is not None:
        _read_ranges(model, ranges)
    mode = str(entry.get("mode"))
    for field, value in entry.items():
        # An entry that has ranges repeats the first of them in fields of its own.
        if "cost" in field and value is not None and not (ranges and _is_taken(model, field, mode)):
            _read_field(model, field, value, mode)
    fill_tiers(model)
    return model


def _is_taken(model: OfferedModel, field: str, mode: str) -> bool:
    meter = meter_of(field, mode)
    return any(offer.meter == meter and offer.service_tier is None for offer in model.offers)


def _read_ranges(model: OfferedModel, ranges: object) -> None:
    for number, each in enumerate(ranges if isinstance(ranges, list) else []):
        where = f"tiered_pricing[{number}]"
        bounds = each.get("range")
        if "max_results_range" in each:
            model.note(where, each["max_results_range"], Reason.NUMBER_OF_RESULTS)
        elif not isinstance(bounds, list) or len(bounds) != 2 or bounds[0] != int(bounds[0]):
            model.note(where, each, Reason.UNKNOWN_FIELD)
        else:
            for field, value in each.items():
                if field != "range":
                    _add(model, f"{where}.{field}", value, _Priced(METERS.get(field), above=int(bounds[0]) or None))


def _read_field(model: OfferedModel, field: str, value: object, mode: str) -> None:
    if isinstance(value, dict):
        for meter, price in _parts(field, value):
            _add(model, field, price, _Priced(meter))
    elif "_dbu_" in field:
        model.note(field, value, Reason.OTHER_CURRENCY)
    elif _CLIP.search(field):
        model.note(field, value, Reason.LENGTH_OF_CLIP)
    elif _NO_METER.match(field):
        model.note(field, value, Reason.NO_METER)
    elif field in PER_THOUSAND:
        _add(model, field, value, _Priced(PER_THOUSAND[field], per=1_000))
    elif (meter := meter_of(field, mode)) is not None:
        _add(model, field, value, _Priced(meter))
    else:
        parts = _SUFFIXED.match(field)
        assert parts is not None
        above = None if parts["above"] is None else int(parts["above"]) * (1_000 if parts["kilo"] else 1)
        tier = None if parts["tier"] is None else TIERS.get(parts["tier"], parts["tier"])
        _add(model, field, value, _Priced(meter_of(parts["field"], mode), tier, above))


def meter_of(field: str, mode: str) -> str | None:
    """The meter that a field without threshold and tier prices; None where it is not known."""
    if field in BY_MODE_ELSE:
        return BY_MODE.get((field, mode), BY_MODE_ELSE[field])
    sized = _SIZED.match(field)
    if sized is not None:
        return f"{meter_of(sized['field'], mode)}_{sized['size'].lower()}"
    return METERS.get(field)


def _parts(field: str, prices: Mapping[str, object]) -> Iterator[tuple[str | None, object]]:
    """The meters in a field that has several: searches by how much they bring back, kinds of guardrails."""
    if all(name.startswith(_SEARCH_SIZES) for name in prices):
        if len(set(prices.values())) == 1:
            yield "web_searches", next(iter(prices.values()))
        else:
            for name, price in prices.items():
                yield f"web_searches_{name.removeprefix(_SEARCH_SIZES)}", price
    else:
        for name, price in prices.items():
            yield (f"guardrail_{name}" if field == "guardrail_cost_per_unit" else None), price


class _Priced(NamedTuple):
    """What a field is a price of; `meter` None: it is not known."""

    meter: str | None
    tier: str | None = None
    above: int | None = None
    per: int = 1


def _add(model: OfferedModel, field: str, value: object, priced: _Priced) -> None:
    if priced.meter is None:
        model.note(field, value, Reason.UNKNOWN_FIELD)
    elif not isinstance(value, Decimal) or not value.is_finite() or value < 0:
        model.note(field, value, Reason.NOT_A_PRICE)
    elif not model.add(Offer(priced.meter, value, priced.per, priced.tier, priced.above)):
        model.note(field, value, Reason.TWO_PRICES)
