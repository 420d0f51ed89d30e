"""Responses of providers with their usage blocks, in the shapes that they document, and what each comes to.

`reference`: how the open data set genai-prices names the shape (provider, flavour of the API); None where it reads
none like it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from schemas.amounts import NANOS


class Shape(NamedTuple):
    """A response, and the fields of a usage record that it comes to."""

    reader: str
    response: dict[str, Any]
    fields: dict[str, Any]
    reference: tuple[str, str] | None = None


SHAPES: dict[str, Shape] = {
    "openai chat: cached tokens are in the prompt, reasoning is in the completion": Shape(
        "openai.chat",
        {
            "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
            "object": "chat.completion",
            "model": "gpt-5.4-2026-03-05",
            "usage": {
                "prompt_tokens": 2_006,
                "completion_tokens": 300,
                "total_tokens": 2_306,
                "prompt_tokens_details": {"cached_tokens": 1_920, "audio_tokens": 0},
                "completion_tokens_details": {
                    "reasoning_tokens": 128,
                    "audio_tokens": 0,
                    "accepted_prediction_tokens": 0,
                    "rejected_prediction_tokens": 0,
                },
            },
            "service_tier": "default",
        },
        {
            "model": "gpt-5.4-2026-03-05",
            "service_tier": "standard",
            "input_tokens": 2_006,
            "output_tokens": 300,
            "cache_read_tokens": 1_920,
            "output_reasoning_tokens": 128,
        },
        ("openai", "chat"),
    ),
    "openai chat: audio in and out, flex": Shape(
        "openai.chat",
        {
            "model": "gpt-audio",
            "usage": {
                "prompt_tokens": 117,
                "completion_tokens": 592,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 100},
                "completion_tokens_details": {"audio_tokens": 482},
            },
            "service_tier": "flex",
        },
        {
            "model": "gpt-audio",
            "service_tier": "flex",
            "input_tokens": 117,
            "output_tokens": 592,
            "input_audio_tokens": 100,
            "output_audio_tokens": 482,
        },
        ("openai", "chat"),
    ),
    "openai chat: the two totals alone, details null": Shape(
        "openai.chat",
        {
            "model": "gpt-3.5-turbo",
            "usage": {"prompt_tokens": 9, "completion_tokens": 0, "prompt_tokens_details": None},
            "service_tier": None,
        },
        {"model": "gpt-3.5-turbo", "input_tokens": 9, "output_tokens": 0},
        ("openai", "chat"),
    ),
    "openai responses: cache, cache writes, reasoning": Shape(
        "openai.responses",
        {
            "model": "gpt-5.5",
            "service_tier": "priority",
            "usage": {
                "input_tokens": 1_328,
                "input_tokens_details": {"cached_tokens": 1_024, "cache_write_tokens": 256},
                "output_tokens": 820,
                "output_tokens_details": {"reasoning_tokens": 640},
                "total_tokens": 2_148,
            },
            "output": [{"type": "reasoning"}, {"type": "message", "role": "assistant"}],
        },
        {
            "model": "gpt-5.5",
            "service_tier": "priority",
            "input_tokens": 1_328,
            "output_tokens": 820,
            "cache_read_tokens": 1_024,
            "cache_write_tokens": 256,
            "output_reasoning_tokens": 640,
        },
        ("openai", "responses"),
    ),
    "openai responses: searches are items of the output": Shape(
        "openai.responses",
        {
            "model": "gpt-5.5",
            "usage": {"input_tokens": 328, "output_tokens": 356},
            "output": [
                {"type": "web_search_call", "status": "completed"},
                {"type": "web_search_call", "status": "completed"},
                {"type": "file_search_call", "status": "completed"},
                {"type": "message"},
            ],
        },
        {
            "model": "gpt-5.5",
            "input_tokens": 328,
            "output_tokens": 356,
            "quantities": {"web_searches": 2 * NANOS, "storage_searches": NANOS},
        },
    ),
    "openai embeddings": Shape(
        "openai.embeddings",
        {"object": "list", "model": "text-embedding-3-small", "usage": {"prompt_tokens": 8, "total_tokens": 8}},
        {"model": "text-embedding-3-small", "input_tokens": 8, "output_tokens": 0},
        ("openai", "embeddings"),
    ),
    "openai images: details of both sides": Shape(
        "openai.images",
        {
            "created": 1_713_833_628,
            "model": "gpt-image-2",
            "usage": {
                "total_tokens": 4_308,
                "input_tokens": 148,
                "output_tokens": 4_160,
                "input_tokens_details": {"text_tokens": 20, "image_tokens": 128},
                "output_tokens_details": {"text_tokens": 10, "image_tokens": 4_150},
            },
        },
        {
            "model": "gpt-image-2",
            "input_tokens": 148,
            "output_tokens": 4_160,
            "input_image_tokens": 128,
            "output_image_tokens": 4_150,
        },
        ("openai", "images"),
    ),
    "openai images: without details of the output, all of it is images": Shape(
        "openai.images",
        {
            "usage": {
                "input_tokens": 50,
                "output_tokens": 50,
                "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            }
        },
        {"input_tokens": 50, "output_tokens": 50, "input_image_tokens": 40, "output_image_tokens": 50},
    ),
    "openai transcription by tokens": Shape(
        "openai.transcription",
        {
            "text": "Imagine the wildest idea that you've ever had",
            "usage": {
                "type": "tokens",
                "input_tokens": 14,
                "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
                "output_tokens": 45,
                "total_tokens": 59,
            },
        },
        {"input_tokens": 14, "output_tokens": 45, "input_audio_tokens": 10},
    ),
    "openai transcription by seconds, with a fraction": Shape(
        "openai.transcription",
        {"text": "Hello", "usage": {"type": "duration", "seconds": 8.47}},
        {"quantities": {"input_audio_seconds": 8_470_000_000}},
    ),
    "openai realtime: cached audio is a part of the cache and of the audio": Shape(
        "openai.realtime",
        {
            "type": "response.done",
            "response": {
                "usage": {
                    "total_tokens": 453,
                    "input_tokens": 332,
                    "output_tokens": 121,
                    "input_token_details": {
                        "text_tokens": 119,
                        "audio_tokens": 213,
                        "cached_tokens": 192,
                        "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 128},
                    },
                    "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
                }
            },
        },
        {
            "input_tokens": 332,
            "output_tokens": 121,
            "cache_read_tokens": 192,
            "input_audio_tokens": 213,
            "output_audio_tokens": 91,
            "quantities": {"cache_audio_read_tokens": 128 * NANOS},
        },
        ("openai", "realtime"),
    ),
    "anthropic: input tokens are what neither was read nor written": Shape(
        "anthropic.messages",
        {
            "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
            "type": "message",
            "model": "claude-opus-4-8",
            "usage": {
                "input_tokens": 2_048,
                "cache_read_input_tokens": 1_800,
                "cache_creation_input_tokens": 248,
                "output_tokens": 503,
                "cache_creation": {"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100},
                "service_tier": "standard",
            },
        },
        {
            "model": "claude-opus-4-8",
            "service_tier": "standard",
            "input_tokens": 4_096,
            "output_tokens": 503,
            "cache_read_tokens": 1_800,
            "cache_write_tokens": 248,
            "cache_write_1h_tokens": 100,
        },
        ("anthropic", "default"),
    ),
    "anthropic: searches of the server, in a batch": Shape(
        "anthropic.messages",
        {
            "model": "claude-opus-4-8",
            "usage": {
                "input_tokens": 105,
                "output_tokens": 6_039,
                "cache_read_input_tokens": 7_123,
                "cache_creation_input_tokens": 7_345,
                "cache_creation": None,
                "output_tokens_details": {"thinking_tokens": 4_000},
                "server_tool_use": {"web_search_requests": 3},
                "service_tier": "batch",
            },
        },
        {
            "model": "claude-opus-4-8",
            "service_tier": "batch",
            "input_tokens": 14_573,
            "output_tokens": 6_039,
            "cache_read_tokens": 7_123,
            "cache_write_tokens": 7_345,
            "output_reasoning_tokens": 4_000,
            "quantities": {"web_searches": 3 * NANOS},
        },
        ("anthropic", "default"),
    ),
    "anthropic: the fast mode is a tier of its own": Shape(
        "anthropic.messages",
        {
            "model": "claude-opus-5",
            "usage": {
                "input_tokens": 5,
                "cache_creation_input_tokens": None,
                "output_tokens": 7,
                "service_tier": "standard",
                "speed": "fast",
            },
        },
        {"model": "claude-opus-5", "service_tier": "fast", "input_tokens": 5, "output_tokens": 7},
        ("anthropic", "default"),
    ),
    "gemini: thoughts come on top, documents are images": Shape(
        "gemini",
        {
            "modelVersion": "gemini-3.5-flash",
            "usageMetadata": {
                "promptTokenCount": 1_500,
                "cachedContentTokenCount": 1_024,
                "candidatesTokenCount": 225,
                "thoughtsTokenCount": 998,
                "totalTokenCount": 2_723,
                "trafficType": "ON_DEMAND",
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 200},
                    {"modality": "AUDIO", "tokenCount": 700},
                    {"modality": "IMAGE", "tokenCount": 258},
                    {"modality": "DOCUMENT", "tokenCount": 42},
                    {"modality": "VIDEO", "tokenCount": 300},
                ],
                "cacheTokensDetails": [
                    {"modality": "AUDIO", "tokenCount": 600},
                    {"modality": "TEXT", "tokenCount": 124},
                    {"modality": "VIDEO", "tokenCount": 300},
                ],
                "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 225}],
            },
        },
        {
            "model": "gemini-3.5-flash",
            "service_tier": "standard",
            "input_tokens": 1_500,
            "output_tokens": 1_223,
            "cache_read_tokens": 1_024,
            "output_reasoning_tokens": 998,
            "input_audio_tokens": 700,
            "input_image_tokens": 300,
            "quantities": {
                "input_video_tokens": 300 * NANOS,
                "cache_audio_read_tokens": 600 * NANOS,
                "cache_video_read_tokens": 300 * NANOS,
            },
        },
        ("google", "default"),
    ),
    "gemini: what tools gave back comes on top of the prompt": Shape(
        "gemini",
        {
            "modelVersion": "gemini-3-pro-image",
            "usageMetadata": {
                "promptTokenCount": 12,
                "toolUsePromptTokenCount": 5_000,
                "toolUsePromptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 4_000},
                    {"modality": "IMAGE", "tokenCount": 1_000},
                ],
                "candidatesTokenCount": 1_290,
                "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1_290}],
                "totalTokenCount": 6_302,
            },
        },
        {
            "model": "gemini-3-pro-image",
            "input_tokens": 5_012,
            "output_tokens": 1_290,
            "input_image_tokens": 1_000,
            "output_image_tokens": 1_290,
            "quantities": {"input_tool_tokens": 5_000 * NANOS, "input_image_tool_tokens": 1_000 * NANOS},
        },
        ("google", "default"),
    ),
    "gemini: an answer without candidates": Shape(
        "gemini",
        {"usageMetadata": {"promptTokenCount": 8, "totalTokenCount": 8}, "modelVersion": "gemini-2.5-flash"},
        {"model": "gemini-2.5-flash", "input_tokens": 8, "output_tokens": 0},
        ("google", "default"),
    ),
    "gemini live: the answer has another name": Shape(
        "gemini",
        {
            "usageMetadata": {
                "promptTokenCount": 50,
                "responseTokenCount": 100,
                "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 90}],
            }
        },
        {"input_tokens": 50, "output_tokens": 100, "output_audio_tokens": 90},
    ),
    "bedrock: input tokens are what neither was read nor written": Shape(
        "bedrock.converse",
        {
            "usage": {
                "inputTokens": 30,
                "outputTokens": 628,
                "totalTokens": 3_458,
                "cacheReadInputTokens": 2_000,
                "cacheWriteInputTokens": 800,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 500}, {"ttl": "5m", "inputTokens": 300}],
            },
            "serviceTier": {"type": "default"},
        },
        {
            "service_tier": "standard",
            "input_tokens": 2_830,
            "output_tokens": 628,
            "cache_read_tokens": 2_000,
            "cache_write_tokens": 800,
            "cache_write_1h_tokens": 500,
        },
        ("aws", "default"),
    ),
    "openrouter": Shape(
        "openrouter",
        {
            "object": "chat.completion.chunk",
            "model": "anthropic/claude-opus-4.8",
            "usage": {
                "completion_tokens": 2,
                "completion_tokens_details": {"reasoning_tokens": 1},
                "cost": 0.95,
                "cost_details": {"upstream_inference_cost": 19},
                "prompt_tokens": 194,
                "prompt_tokens_details": {"cached_tokens": 50, "cache_write_tokens": 100, "audio_tokens": 0},
                "total_tokens": 196,
            },
        },
        {
            "model": "anthropic/claude-opus-4.8",
            "input_tokens": 194,
            "output_tokens": 2,
            "cache_read_tokens": 50,
            "cache_write_tokens": 100,
            "output_reasoning_tokens": 1,
        },
        ("openrouter", "chat"),
    ),
    "opentelemetry": Shape(
        "otel",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-5.4",
            "gen_ai.response.model": "gpt-5.4-2026-03-05",
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 180,
            "gen_ai.usage.cache_read.input_tokens": 50,
            "gen_ai.usage.cache_creation.input_tokens": 25,
            "gen_ai.usage.reasoning.output_tokens": 50,
            "gen_ai.usage.audio.input_tokens": 10,
            "gen_ai.usage.video.input_tokens": 20,
            "openai.response.service_tier": "scale",
        },
        {
            "provider": "openai",
            "model": "gpt-5.4-2026-03-05",
            "service_tier": "scale",
            "input_tokens": 100,
            "output_tokens": 180,
            "cache_read_tokens": 50,
            "cache_write_tokens": 25,
            "output_reasoning_tokens": 50,
            "input_audio_tokens": 10,
            "quantities": {"input_video_tokens": 20 * NANOS},
        },
    ),
    "opentelemetry: names of before, and the model that was asked for": Shape(
        "otel",
        {
            "gen_ai.system": "anthropic",
            "gen_ai.request.model": "claude-3",
            "gen_ai.usage.prompt_tokens": 7,
            "gen_ai.usage.completion_tokens": 8,
        },
        {"provider": "anthropic", "model": "claude-3", "input_tokens": 7, "output_tokens": 8},
    ),
}
