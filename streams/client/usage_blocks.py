"""From what a provider answers to the quantities of a usage event (product rule 35).

Rules of this file:
- Pure. Each function takes a decoded response with its usage block, as the provider documents it, and returns fields
  of a usage record: `Usage(event_id=..., org_id=..., occurred_at=..., operation=..., **openai_chat(response))`. Pass
  `{"usage": block}` where the block is all there is.
- Totals include their parts, whatever the provider does. OpenAI counts cached tokens in its prompt tokens. Anthropic
  and Bedrock count cache reads and writes on top of their input tokens. Gemini counts thoughts on top of its
  candidates.
- The two totals are always there, parts only when they are above 0. Meters without a field of their own are in
  `quantities`, in nano-units. Text has no part: it is what is left of a total. Nor have cache writes of 5 minutes,
  which are what is left of all writes.
- `model` and `service_tier` are there when the response names them; the provider's usual tier is called `standard`.
- What is not a whole number from 0, is missing, or adds up to more than its total is a `UsageBlockError`, which names
  the field. Nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import ROUND_HALF_UP, Context, Decimal
from types import MappingProxyType
from typing import Any, Final

from schemas.amounts import AMOUNT_MAX, NANOS
from schemas.meters import NAMED_METERS, nearest_totals_of

INPUT_TOKENS: Final = "input_tokens"
OUTPUT_TOKENS: Final = "output_tokens"

PART_FIELDS: Final = frozenset(NAMED_METERS) - {INPUT_TOKENS, OUTPUT_TOKENS}
"""Parts that are fields of a usage record; every other meter is an entry of `quantities`."""

DISJOINT: Final = (
    (INPUT_TOKENS, ("cache_read_tokens", "cache_write_tokens")),
    (INPUT_TOKENS, ("input_audio_tokens", "input_image_tokens", "input_video_tokens")),
    (OUTPUT_TOKENS, ("output_audio_tokens", "output_image_tokens", "output_video_tokens")),
)
"""Parts of one total that no token is two of."""

STANDARD: Final = "standard"
_TIERS: Final = {
    "default": STANDARD,
    "on_demand": STANDARD,
    "on_demand_priority": "priority",
    "on_demand_flex": "flex",
    "traffic_type_unspecified": None,
    "auto": None,  # what a request asks for: it does not say by which tier it was served
}

_GEMINI_MODALITIES: Final = {"AUDIO": "audio", "IMAGE": "image", "DOCUMENT": "image", "VIDEO": "video"}

_EXACT: Final = Context(prec=40, rounding=ROUND_HALF_UP)


class UsageBlockError(ValueError):
    """A usage block that is not as its provider documents it; the message names the field."""


class _Block:
    """A JSON object of a response, and the path to it."""

    __slots__ = ("_fields", "_path")

    def __init__(self, value: object, path: str = "") -> None:
        if not isinstance(value, Mapping):
            raise UsageBlockError(f"{path or 'the response'}: expected an object, got {_shown(value)}")
        self._fields: Mapping[str, object] = value
        self._path = path

    def _at(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def has(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def block(self, name: str) -> _Block:
        """The object of that name, which must be there."""
        value = self._fields.get(name)
        if value is None:
            raise UsageBlockError(f"{self._at(name)}: is missing")
        return _Block(value, self._at(name))

    def details(self, name: str) -> _Block:
        """The object of that name; an empty one where there is none."""
        value = self._fields.get(name)
        return _Block({} if value is None else value, self._at(name))

    def blocks(self, name: str) -> Iterable[_Block]:
        """The objects in the list of that name; none where there is none."""
        value = self._fields.get(name)
        if value is None:
            return
        if not isinstance(value, list | tuple):
            raise UsageBlockError(f"{self._at(name)}: expected a list, got {_shown(value)}")
        for number, each in enumerate(value):
            yield _Block(each, f"{self._at(name)}[{number}]")

    def text(self, name: str) -> str | None:
        value = self._fields.get(name)
        if value is None or isinstance(value, str):
            return value or None
        raise UsageBlockError(f"{self._at(name)}: expected a text, got {_shown(value)}")

    def count(self, name: str) -> int:
        """The number of that name, which must be there."""
        if not self.has(name):
            raise UsageBlockError(f"{self._at(name)}: is missing")
        return self.part(name)

    def part(self, name: str) -> int:
        """The number of that name; 0 where there is none."""
        value = self._fields.get(name)
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= AMOUNT_MAX:
            raise UsageBlockError(f"{self._at(name)}: expected a whole number from 0, got {_shown(value)}")
        return value

    def nanos(self, name: str) -> int:
        """The number of that name in nano-units, rounded half up; it may have a fraction, and must be there."""
        value = self._fields.get(name)
        if value is None:
            raise UsageBlockError(f"{self._at(name)}: is missing")
        # A float is taken for the decimal that it is written as, never for its binary fraction.
        number = Decimal(repr(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value
        if not isinstance(number, Decimal) or not number.is_finite() or not 0 <= number * NANOS <= AMOUNT_MAX:
            raise UsageBlockError(f"{self._at(name)}: expected a number from 0, got {_shown(value)}")
        return int((number * NANOS).quantize(Decimal(1), context=_EXACT))


def openai_chat(response: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's chat completions, and the many services that answer in the same form. Raises `UsageBlockError`.

    A service that counts reasoning on top of its completion tokens breaks the form; its reasoning may then exceed its
    completion tokens, which is refused.
    """
    body = _Block(response)
    usage = body.block("usage")
    return _fields(body, _openai_quantities(usage), tier=body.text("service_tier"))


def openai_responses(response: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's responses API. Raises `UsageBlockError`.

    Searches and other tools are items of the response's `output`, and counted there: `quantities` has what was called.
    """
    body = _Block(response)
    usage = body.block("usage")
    read, written = usage.details("input_tokens_details"), usage.details("output_tokens_details")
    quantities = {
        INPUT_TOKENS: usage.count("input_tokens"),
        OUTPUT_TOKENS: usage.count("output_tokens"),
        "cache_read_tokens": read.part("cached_tokens"),
        "cache_write_tokens": read.part("cache_write_tokens"),
        "output_reasoning_tokens": written.part("reasoning_tokens"),
    }
    calls = [item.text("type") for item in body.blocks("output")]
    return _fields(
        body,
        quantities,
        {
            "web_searches": calls.count("web_search_call") * NANOS,
            "storage_searches": calls.count("file_search_call") * NANOS,
        },
        tier=body.text("service_tier"),
    )


def openai_embeddings(response: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's embeddings: input tokens alone. Raises `UsageBlockError`."""
    body = _Block(response)
    return _fields(body, {INPUT_TOKENS: body.block("usage").count("prompt_tokens"), OUTPUT_TOKENS: 0})


def openai_images(response: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's image generation and editing. Raises `UsageBlockError`.

    All output is image tokens, unless its details say otherwise.
    """
    body = _Block(response)
    usage = body.block("usage")
    read, written = usage.block("input_tokens_details"), usage.details("output_tokens_details")
    output = usage.count("output_tokens")
    quantities = {
        INPUT_TOKENS: usage.count("input_tokens"),
        OUTPUT_TOKENS: output,
        "cache_read_tokens": read.part("cached_tokens"),
        "input_image_tokens": read.part("image_tokens"),
        "output_image_tokens": written.part("image_tokens") if usage.has("output_tokens_details") else output,
    }
    return _fields(body, quantities)


def openai_transcription(response: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's audio transcription, billed by tokens or by the seconds of audio. Raises `UsageBlockError`."""
    body = _Block(response)
    usage = body.block("usage")
    if usage.text("type") == "duration":
        return _fields(body, {}, {"input_audio_seconds": usage.nanos("seconds")})
    read = usage.details("input_token_details")
    quantities = {
        INPUT_TOKENS: usage.count("input_tokens"),
        OUTPUT_TOKENS: usage.count("output_tokens"),
        "input_audio_tokens": read.part("audio_tokens"),
    }
    return _fields(body, quantities)


def openai_realtime(event: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's realtime API: an event `response.done`. Raises `UsageBlockError`."""
    body = _Block(event).block("response")
    usage = body.block("usage")
    read, written = usage.details("input_token_details"), usage.details("output_token_details")
    cached = read.details("cached_tokens_details")
    quantities = {
        INPUT_TOKENS: usage.count("input_tokens"),
        OUTPUT_TOKENS: usage.count("output_tokens"),
        "cache_read_tokens": read.part("cached_tokens"),
        "input_audio_tokens": read.part("audio_tokens"),
        "input_image_tokens": read.part("image_tokens"),
        "output_audio_tokens": written.part("audio_tokens"),
        "cache_audio_read_tokens": cached.part("audio_tokens"),
        "cache_image_read_tokens": cached.part("image_tokens"),
    }
    return _fields(body, quantities)


def anthropic_messages(response: Mapping[str, Any]) -> dict[str, Any]:
    """Anthropic's messages. Of a stream, the last `message_delta` has the numbers. Raises `UsageBlockError`."""
    body = _Block(response)
    usage = body.block("usage")
    by_time = usage.details("cache_creation")
    written_1h = by_time.part("ephemeral_1h_input_tokens")
    written_5m = by_time.part("ephemeral_5m_input_tokens")
    has_total = usage.has("cache_creation_input_tokens")
    written = usage.part("cache_creation_input_tokens") if has_total else written_1h + written_5m
    read = usage.part("cache_read_input_tokens")
    tools = usage.details("server_tool_use")
    quantities = {
        INPUT_TOKENS: usage.count("input_tokens") + read + written,
        OUTPUT_TOKENS: usage.count("output_tokens"),
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "cache_write_1h_tokens": written_1h,
        "output_reasoning_tokens": usage.details("output_tokens_details").part("thinking_tokens"),
    }
    others = {
        "web_searches": tools.part("web_search_requests") * NANOS,
        "web_fetches": tools.part("web_fetch_requests") * NANOS,
    }
    tier = "fast" if usage.text("speed") == "fast" else usage.text("service_tier")
    return _fields(body, quantities, others, tier=tier)


def gemini(response: Mapping[str, Any]) -> dict[str, Any]:
    """Gemini's generateContent and Live API, at Google AI and Vertex AI. Raises `UsageBlockError`.

    Documents are image tokens. What tools gave back to the model comes on top of the prompt.
    """
    body = _Block(response)
    usage = body.block("usageMetadata")
    answered = "candidates" if usage.has("candidatesTokenCount") else "response"
    thoughts, tool = usage.part("thoughtsTokenCount"), usage.part("toolUsePromptTokenCount")
    quantities = {
        INPUT_TOKENS: usage.count("promptTokenCount") + tool,
        OUTPUT_TOKENS: usage.part(f"{answered}TokenCount") + thoughts,
        "cache_read_tokens": usage.part("cachedContentTokenCount"),
        "output_reasoning_tokens": thoughts,
        "input_tool_tokens": tool,
    }
    of_tools = _modalities(usage, "toolUsePromptTokensDetails")
    for modality, tokens in _modalities(usage, "promptTokensDetails").items():
        quantities[f"input_{modality}_tokens"] = tokens
    for modality, tokens in of_tools.items():
        total = f"input_{modality}_tokens"
        quantities[total] = quantities.get(total, 0) + tokens
        quantities[f"input_{modality}_tool_tokens"] = tokens
    for modality, tokens in _modalities(usage, "cacheTokensDetails").items():
        quantities[f"cache_{modality}_read_tokens"] = tokens
    for modality, tokens in _modalities(usage, f"{answered}TokensDetails").items():
        quantities[f"output_{modality}_tokens"] = tokens
    traffic = usage.text("serviceTier") or usage.text("trafficType")
    return _fields(body, quantities, model=body.text("modelVersion"), tier=traffic)


def bedrock_converse(response: Mapping[str, Any]) -> dict[str, Any]:
    """Bedrock's Converse. The response does not name the model. Raises `UsageBlockError`."""
    body = _Block(response)
    usage = body.block("usage")
    read, written = usage.part("cacheReadInputTokens"), usage.part("cacheWriteInputTokens")
    written_1h = sum(each.count("inputTokens") for each in usage.blocks("cacheDetails") if each.text("ttl") == "1h")
    quantities = {
        INPUT_TOKENS: usage.count("inputTokens") + read + written,
        OUTPUT_TOKENS: usage.count("outputTokens"),
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "cache_write_1h_tokens": written_1h,
    }
    return _fields(body, quantities, tier=body.details("serviceTier").text("type"))


def openrouter(response: Mapping[str, Any], *, with_cost: bool = False) -> dict[str, Any]:
    """OpenRouter's chat completions. Raises `UsageBlockError`.

    `with_cost`: also `cost_nanos`, what OpenRouter charges for the request. The usage is then booked at that, and the
    price list is not asked (product rule 8). Costs of a provider's own key (`cost_details`) are not in it.
    """
    body = _Block(response)
    usage = body.block("usage")
    others = {"web_searches": usage.details("server_tool_use").part("web_search_requests") * NANOS}
    quantities = _openai_quantities(usage)
    fields = _fields(body, quantities, others, tier=body.text("service_tier") or usage.text("service_tier"))
    if with_cost:
        fields["cost_nanos"] = usage.nanos("cost")
    return fields


def otel_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes `gen_ai.*` of a span, by the OpenTelemetry conventions for generative AI. Raises `UsageBlockError`.

    The conventions count cache reads, cache writes and reasoning in the totals. Older names of the totals are read too.
    Also returned where the span names it: `provider`.
    """
    span = _Block(attributes)

    def first(*names: str) -> str:
        return next((name for name in names if span.has(name)), names[0])

    quantities = {
        INPUT_TOKENS: span.count(first("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")),
        OUTPUT_TOKENS: span.part(first("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")),
        "cache_read_tokens": span.part("gen_ai.usage.cache_read.input_tokens"),
        "cache_write_tokens": span.part(
            first("gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.cache_write.input_tokens")
        ),
        "output_reasoning_tokens": span.part("gen_ai.usage.reasoning.output_tokens"),
    }
    for modality in ("audio", "image", "video"):
        quantities[f"input_{modality}_tokens"] = span.part(f"gen_ai.usage.{modality}.input_tokens")
        quantities[f"output_{modality}_tokens"] = span.part(f"gen_ai.usage.{modality}.output_tokens")
        quantities[f"cache_{modality}_read_tokens"] = span.part(f"gen_ai.usage.{modality}.cache_read.input_tokens")
    model = span.text(first("gen_ai.response.model", "gen_ai.request.model"))
    tier = span.text(first("openai.response.service_tier", "gen_ai.openai.response.service_tier"))
    fields = _fields(span, quantities, model=model, tier=tier)
    provider = span.text(first("gen_ai.provider.name", "gen_ai.system"))
    return fields if provider is None else {**fields, "provider": provider}


READERS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = MappingProxyType(
    {
        "openai.chat": openai_chat,
        "openai.responses": openai_responses,
        "openai.embeddings": openai_embeddings,
        "openai.images": openai_images,
        "openai.transcription": openai_transcription,
        "openai.realtime": openai_realtime,
        "anthropic.messages": anthropic_messages,
        "gemini": gemini,
        "bedrock.converse": bedrock_converse,
        "openrouter": openrouter,
        "otel": otel_attributes,
    }
)
"""The functions above by the name of the API that they read, for a gateway that chooses by name."""


def _openai_quantities(usage: _Block) -> dict[str, int]:
    read, written = usage.details("prompt_tokens_details"), usage.details("completion_tokens_details")
    return {
        INPUT_TOKENS: usage.count("prompt_tokens"),
        OUTPUT_TOKENS: usage.count("completion_tokens"),
        "cache_read_tokens": read.part("cached_tokens"),
        "cache_write_tokens": read.part("cache_write_tokens"),
        "input_audio_tokens": read.part("audio_tokens"),
        "output_audio_tokens": written.part("audio_tokens"),
        "output_reasoning_tokens": written.part("reasoning_tokens"),
    }


def _modalities(usage: _Block, name: str) -> dict[str, int]:
    """Tokens by modality, of those that are not text."""
    found: dict[str, int] = {}
    for each in usage.blocks(name):
        modality = _GEMINI_MODALITIES.get(each.text("modality") or "")
        if modality is not None:
            found[modality] = found.get(modality, 0) + each.part("tokenCount")
    return found


def _fields(
    body: _Block,
    tokens: Mapping[str, int],
    others: Mapping[str, int] | None = None,
    *,
    model: str | None = None,
    tier: str | None = None,
) -> dict[str, Any]:
    """The fields of a usage record: `tokens` in tokens, `others` in nano-units. Raises when parts exceed totals."""
    _check_parts(tokens)
    fields: dict[str, Any] = {}
    quantities = {name: nanos for name, nanos in (others or {}).items() if nanos}
    for name, count in tokens.items():
        if name in (INPUT_TOKENS, OUTPUT_TOKENS) or (count and name in PART_FIELDS):
            fields[name] = count
        elif count:
            if count > AMOUNT_MAX // NANOS:
                raise UsageBlockError(f"{name}: {count} is more than a usage can hold")
            quantities[name] = count * NANOS
    if quantities:
        fields["quantities"] = quantities
    model = model or body.text("model")
    if model is not None:
        fields["model"] = model
    if tier is not None:
        tier = tier.lower()
        named = _TIERS.get(tier, tier)
        if named is not None:
            fields["service_tier"] = named
    return fields


def _check_parts(tokens: Mapping[str, int]) -> None:
    for name, count in tokens.items():
        for total in nearest_totals_of(name):
            if count > tokens.get(total, 0):
                raise UsageBlockError(f"{name}: {count} exceeds {total}, {tokens.get(total, 0)}")
    for total, parts in DISJOINT:
        together = sum(tokens.get(part, 0) for part in parts)
        if together > tokens.get(total, 0):
            raise UsageBlockError(f"{' and '.join(parts)}: {together} together exceed {total}, {tokens.get(total, 0)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
