"""Meters: what usage is counted in, and which counts are part of which (product rule 35).

Rules of this file:
- A meter is a name. The commonest have a field of their own in the usage record (`NAMED_METERS`); all others stand in
  its map `quantities`.
- A meter with dimensions is *part of* every meter whose dimensions are a subset of its own: the tokens read from a
  cache are part of the input tokens, audio tokens read from a cache are part of both the input audio tokens and the
  tokens read from a cache. A meter that the table does not know is part of none.
- `DIMENSIONS` is taken over as it is from the `units` of the open data set genai-prices
  (https://github.com/pydantic/genai-prices, MIT licence, version 0.2.3), so that its prices and ours mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from schemas.enums import BillingUnit

DIMENSIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "input_tokens": {"family": "tokens", "direction": "input"},
    "output_tokens": {"family": "tokens", "direction": "output"},
    "cache_read_tokens": {"family": "tokens", "direction": "input", "token_type": "cache_read"},
    "cache_write_tokens": {"family": "tokens", "direction": "input", "token_type": "cache_write"},
    "cache_write_5m_tokens": {"family": "tokens", "direction": "input", "token_type": "cache_write", "cache_ttl": "5m"},
    "cache_write_1h_tokens": {"family": "tokens", "direction": "input", "token_type": "cache_write", "cache_ttl": "1h"},
    "input_text_tokens": {"family": "tokens", "direction": "input", "modality": "text"},
    "output_text_tokens": {"family": "tokens", "direction": "output", "modality": "text"},
    "cache_text_read_tokens": {
        "family": "tokens",
        "direction": "input",
        "modality": "text",
        "token_type": "cache_read",
    },
    "cache_text_write_tokens": {
        "family": "tokens",
        "direction": "input",
        "modality": "text",
        "token_type": "cache_write",
    },
    "cache_text_write_5m_tokens": {
        "family": "tokens",
        "direction": "input",
        "modality": "text",
        "token_type": "cache_write",
        "cache_ttl": "5m",
    },
    "cache_text_write_1h_tokens": {
        "family": "tokens",
        "direction": "input",
        "modality": "text",
        "token_type": "cache_write",
        "cache_ttl": "1h",
    },
    "input_audio_tokens": {"family": "tokens", "direction": "input", "modality": "audio"},
    "output_audio_tokens": {"family": "tokens", "direction": "output", "modality": "audio"},
    "cache_audio_read_tokens": {
        "family": "tokens",
        "direction": "input",
        "modality": "audio",
        "token_type": "cache_read",
    },
    "cache_audio_write_tokens": {
        "family": "tokens",
        "direction": "input",
        "modality": "audio",
        "token_type": "cache_write",
    },
    "cache_audio_write_5m_tokens": {
        "family": "tokens",
        "direction": "input",
        "modality": "audio",
        "token_type": "cache_write",
        "cache_ttl": "5m",
    },
    "cache_audio_write_1h_tokens": {
        "family": "tokens",
        "direction": "input",
        "modality": "audio",
        "token_type": "cache_write",
        "cache_ttl": "1h",
    },
    "input_image_tokens": {"family": "tokens", "direction": "input", "modality": "image"},
    "output_image_tokens": {"family": "tokens", "direction": "output", "modality": "image"},
    "cache_image_read_tokens": {
        "family": "tokens",
        "direction": "input",
        "modality": "image",
        "token_type": "cache_read",
    },
    "cache_image_write_tokens": {
        "family": "tokens",
        "direction": "input",
        "modality": "image",
        "token_type": "cache_write",
    },
    "cache_image_write_5m_tokens": {
        "family": "tokens",
        "direction": "input",
        "modality": "image",
        "token_type": "cache_write",
        "cache_ttl": "5m",
    },
    "cache_image_write_1h_tokens": {
        "family": "tokens",
        "direction": "input",
        "modality": "image",
        "token_type": "cache_write",
        "cache_ttl": "1h",
    },
    "input_video_tokens": {"family": "tokens", "direction": "input", "modality": "video"},
    "output_video_tokens": {"family": "tokens", "direction": "output", "modality": "video"},
    "cache_video_read_tokens": {
        "family": "tokens",
        "direction": "input",
        "modality": "video",
        "token_type": "cache_read",
    },
    "cache_video_write_tokens": {
        "family": "tokens",
        "direction": "input",
        "modality": "video",
        "token_type": "cache_write",
    },
    "cache_video_write_5m_tokens": {
        "family": "tokens",
        "direction": "input",
        "modality": "video",
        "token_type": "cache_write",
        "cache_ttl": "5m",
    },
    "cache_video_write_1h_tokens": {
        "family": "tokens",
        "direction": "input",
        "modality": "video",
        "token_type": "cache_write",
        "cache_ttl": "1h",
    },
    "input_tool_tokens": {"family": "tokens", "direction": "input", "token_type": "tool"},
    "input_text_tool_tokens": {"family": "tokens", "direction": "input", "modality": "text", "token_type": "tool"},
    "input_audio_tool_tokens": {"family": "tokens", "direction": "input", "modality": "audio", "token_type": "tool"},
    "input_image_tool_tokens": {"family": "tokens", "direction": "input", "modality": "image", "token_type": "tool"},
    "input_video_tool_tokens": {"family": "tokens", "direction": "input", "modality": "video", "token_type": "tool"},
    "output_reasoning_tokens": {"family": "tokens", "direction": "output", "token_type": "reasoning"},
    "output_text_reasoning_tokens": {
        "family": "tokens",
        "direction": "output",
        "modality": "text",
        "token_type": "reasoning",
    },
    "output_audio_reasoning_tokens": {
        "family": "tokens",
        "direction": "output",
        "modality": "audio",
        "token_type": "reasoning",
    },
    "output_image_reasoning_tokens": {
        "family": "tokens",
        "direction": "output",
        "modality": "image",
        "token_type": "reasoning",
    },
    "output_video_reasoning_tokens": {
        "family": "tokens",
        "direction": "output",
        "modality": "video",
        "token_type": "reasoning",
    },
    "output_citation_tokens": {"family": "tokens", "direction": "output", "token_type": "citation"},
    "output_text_citation_tokens": {
        "family": "tokens",
        "direction": "output",
        "modality": "text",
        "token_type": "citation",
    },
    "output_audio_citation_tokens": {
        "family": "tokens",
        "direction": "output",
        "modality": "audio",
        "token_type": "citation",
    },
    "output_image_citation_tokens": {
        "family": "tokens",
        "direction": "output",
        "modality": "image",
        "token_type": "citation",
    },
    "output_video_citation_tokens": {
        "family": "tokens",
        "direction": "output",
        "modality": "video",
        "token_type": "citation",
    },
    "input_characters": {"family": "characters", "direction": "input"},
    "input_text_messages": {"family": "messages", "direction": "input", "modality": "text"},
    "audio_seconds": {"family": "durations", "modality": "audio"},
    "input_audio_seconds": {"family": "durations", "direction": "input", "modality": "audio"},
    "output_audio_seconds": {"family": "durations", "direction": "output", "modality": "audio"},
    "input_pixels": {"family": "pixels", "direction": "input"},
    "input_document_pages": {"family": "document_pages", "direction": "input"},
    "input_annotated_document_pages": {"family": "document_pages", "direction": "input", "page_type": "annotated"},
    "rerank_searches": {"family": "rerank"},
    "web_searches": {"family": "tool_calls", "tool_type": "web_search"},
    "social_searches": {"family": "tool_calls", "tool_type": "social_search"},
    "storage_searches": {"family": "tool_calls", "tool_type": "storage_search"},
    "code_executions": {"family": "tool_calls", "tool_type": "code_execution"},
    "requests": {"family": "requests"},
}
"""The dimensions of each meter of the data set."""

REQUESTS: Final = "requests"
"""Each usage is one request, unless `quantities` says another number."""

QUANTITY: Final = "quantity"
"""The meter of `quantity_nanos`: what a price without a meter is for, where its billing unit is not tokens."""

MINIMUM: Final = "minimum"
"""Not a quantity: the component that brings a usage up to its minimum charge."""

NAMED_METERS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "input_image_tokens",
    "output_image_tokens",
)
"""Meters with a field of their own in the usage record: totals first."""

RESERVED: Final = frozenset({*NAMED_METERS, QUANTITY, MINIMUM})
"""Names that `quantities` must not hold."""

TOKENS_PER_UNIT: Final[Mapping[BillingUnit, int]] = {
    BillingUnit.TOKEN: 1,
    BillingUnit.THOUSAND_TOKENS: 1_000,
    BillingUnit.MILLION_TOKENS: 1_000_000,
}
METER_UNITS: Final[Mapping[BillingUnit, int]] = {
    **TOKENS_PER_UNIT,
    BillingUnit.REQUEST: 1,
    BillingUnit.MINUTE: 60,
    BillingUnit.HOUR: 3_600,
    BillingUnit.GPU_HOUR: 3_600,
    BillingUnit.UNIT: 1,
    BillingUnit.THOUSAND_UNITS: 1_000,
    BillingUnit.MILLION_UNITS: 1_000_000,
    BillingUnit.BILLION_UNITS: 1_000_000_000,
}
"""How many of a meter a billing unit is; a time is so many seconds, which is what such meters count."""

_NONE: Final[Mapping[str, str]] = MappingProxyType({})


def dimensions_of(meter: str) -> Mapping[str, str]:
    """The dimensions of a meter; none where the table does not know it."""
    return DIMENSIONS.get(meter, _NONE)


def is_part_of(part: str, total: str) -> bool:
    """Whether every count of `part` is also a count of `total`, and they are not the same meter."""
    return total in totals_of(part)


def totals_of(part: str) -> tuple[str, ...]:
    """The meters that every count of `part` is also a count of."""
    return _TOTALS.get(part, ())


def nearest_totals_of(part: str) -> tuple[str, ...]:
    """Those of them that are no totals of one another: what is within them is within all others, too."""
    totals = totals_of(part)
    return tuple(total for total in totals if not any(is_part_of(other, total) for other in totals))


_TOTALS: Final[Mapping[str, tuple[str, ...]]] = {
    part: tuple(total for total, wider in DIMENSIONS.items() if wider.items() < narrower.items())
    for part, narrower in DIMENSIONS.items()
}


TOTALS: Final[Mapping[str, tuple[str, ...]]] = {
    part: tuple(total for total in NAMED_METERS if is_part_of(part, total)) for part in NAMED_METERS[2:]
}
"""Of each named part the named meters it is included in."""
