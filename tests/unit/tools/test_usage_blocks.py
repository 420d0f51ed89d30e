"""From a response to the quantities of a usage: recorded shapes, the open data set's extractors, what is malformed."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from genai_prices import extract_usage
from genai_prices.data_units import unit_data

from schemas.amounts import NANOS
from schemas.meters import DIMENSIONS, nearest_totals_of
from streams.client.usage_blocks import DISJOINT, PART_FIELDS, READERS, UsageBlockError, openrouter
from tests.unit.tools.responses import SHAPES, Shape

NOT_TOLD = ("text_", "_5m_")
"""What the reference tells and a usage need not: text, and cache writes of 5 minutes, are what is left of their totals,
and no price of either data set names them."""


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_response_comes_to_the_fields_of_a_usage(shape: Shape) -> None:
    assert READERS[shape.reader](shape.response) == shape.fields


def test_every_reader_has_a_shape() -> None:
    assert {shape.reader for shape in SHAPES.values()} == set(READERS)


@pytest.mark.parametrize(
    "shape", [each for each in SHAPES.values() if each.reference], ids=[n for n, s in SHAPES.items() if s.reference]
)
def test_the_open_data_set_extracts_the_same(shape: Shape) -> None:
    assert shape.reference is not None
    provider, flavour = shape.reference
    extracted = extract_usage(shape.response, provider_id=provider, api_flavor=flavour).usage
    theirs = {name: value for name in unit_data if name != "requests" and (value := extracted.reported_value(name))}
    assert {name: value for name, value in theirs.items() if not any(each in name for each in NOT_TOLD)} == {
        name: count for name, count in counts(READERS[shape.reader](shape.response)).items() if count
    }


def counts(fields: dict[str, Any]) -> dict[str, int]:
    """Each quantity of the fields in its own unit."""
    named = {name: value for name, value in fields.items() if name.endswith("_tokens")}
    return named | {name: nanos // NANOS for name, nanos in fields.get("quantities", {}).items()}


def test_parts_are_parts_as_the_open_data_set_has_them() -> None:
    """A unit with more dimensions is a part of one with fewer: `nearest_totals_of` names the nearest of them."""
    sides = {name: set(unit["dimensions"].items()) for name, unit in unit_data.items()}
    totals_of = {part: nearest_totals_of(part) for part in DIMENSIONS if nearest_totals_of(part)}
    for part, totals in totals_of.items():
        for total in totals:
            assert sides[total] < sides[part], f"{part} is no part of {total}"
    for total, parts in DISJOINT:
        assert all(sides[total] < sides[part] for part in parts)
    assert set(totals_of) >= PART_FIELDS


@pytest.mark.parametrize(
    ("reader", "response", "message"),
    [
        ("openai.chat", [], "the response: expected an object, got []"),
        ("openai.chat", {}, "usage: is missing"),
        ("openai.chat", {"usage": None}, "usage: is missing"),
        ("openai.chat", {"usage": 5}, "usage: expected an object, got 5"),
        ("openai.chat", {"usage": {"completion_tokens": 1}}, "usage.prompt_tokens: is missing"),
        (
            "openai.chat",
            {"usage": {"prompt_tokens": "7", "completion_tokens": 1}},
            "usage.prompt_tokens: expected a whole number from 0, got '7'",
        ),
        (
            "openai.chat",
            {"usage": {"prompt_tokens": True, "completion_tokens": 1}},
            "usage.prompt_tokens: expected a whole number from 0, got True",
        ),
        (
            "openai.chat",
            {"usage": {"prompt_tokens": 7, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": -1}}},
            "usage.prompt_tokens_details.cached_tokens: expected a whole number from 0, got -1",
        ),
        (
            "openai.chat",
            {"usage": {"prompt_tokens": 7, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 8}}},
            "cache_read_tokens: 8 exceeds input_tokens, 7",
        ),
        (
            "openai.responses",
            {
                "usage": {
                    "input_tokens": 7,
                    "output_tokens": 1,
                    "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 5},
                }
            },
            "cache_read_tokens and cache_write_tokens: 10 together exceed input_tokens, 7",
        ),
        ("openai.images", {"usage": {"input_tokens": 7, "output_tokens": 1}}, "usage.input_tokens_details: is missing"),
        ("openai.transcription", {"usage": {"type": "duration"}}, "usage.seconds: is missing"),
        (
            "openai.transcription",
            {"usage": {"type": "duration", "seconds": float("nan")}},
            "usage.seconds: expected a number from 0, got nan",
        ),
        (
            "anthropic.messages",
            {
                "usage": {
                    "input_tokens": 1,
                    "output_tokens": 1,
                    "cache_creation_input_tokens": 1,
                    "cache_creation": {"ephemeral_1h_input_tokens": 2},
                }
            },
            "cache_write_1h_tokens: 2 exceeds cache_write_tokens, 1",
        ),
        ("anthropic.messages", {"usage": {"output_tokens": 1}}, "usage.input_tokens: is missing"),
        ("gemini", {"usage": {}}, "usageMetadata: is missing"),
        (
            "gemini",
            {"usageMetadata": {"promptTokenCount": 1, "promptTokensDetails": {"modality": "TEXT"}}},
            "usageMetadata.promptTokensDetails: expected a list, got {'modality': 'TEXT'}",
        ),
        (
            "gemini",
            {
                "usageMetadata": {
                    "promptTokenCount": 1,
                    "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": "1"}],
                }
            },
            "usageMetadata.promptTokensDetails[0].tokenCount: expected a whole number from 0, got '1'",
        ),
        ("bedrock.converse", {"usage": {"inputTokens": 1}}, "usage.outputTokens: is missing"),
        ("otel", {"gen_ai.usage.output_tokens": 1}, "gen_ai.usage.input_tokens: is missing"),
        (
            "otel",
            {"gen_ai.usage.input_tokens": 1.5},
            "gen_ai.usage.input_tokens: expected a whole number from 0, got 1.5",
        ),
    ],
)
def test_a_malformed_block_is_an_error_that_names_the_field(reader: str, response: Any, message: str) -> None:
    with pytest.raises(UsageBlockError) as raised:
        READERS[reader](response)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("cost", "nanos"), [(0.95, 950_000_000), (Decimal("0.0000000005"), 1), (1e-10, 0), (19, 19 * NANOS)]
)
def test_openrouters_cost_is_taken_as_the_decimal_it_is_written_as(cost: object, nanos: int) -> None:
    usage = {"prompt_tokens": 194, "completion_tokens": 2, "cost": cost}
    assert openrouter({"usage": usage}, with_cost=True)["cost_nanos"] == nanos
    assert "cost_nanos" not in openrouter({"usage": usage})


def test_a_cost_that_was_asked_for_must_be_there() -> None:
    with pytest.raises(UsageBlockError, match=r"usage\.cost: is missing"):
        openrouter({"usage": {"prompt_tokens": 1, "completion_tokens": 1}}, with_cost=True)
