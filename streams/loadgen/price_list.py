"""The price list of the demonstration: what an AI platform charges, in the units that it charges in.

Rules of this file: every price of a token is a whole number of nano-dollars, so that no cost is ever rounded and the
expected sums can be computed by multiplication alone; no two prices match the same usage equally well; all are valid
from 2024 on, so that nothing depends on the day of the run. The prices are of the size that vendors published in 2025,
not theirs to the cent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.amounts import NANOS, format_amount
from schemas.enums import BillingUnit, Direction

VALID_FROM_AT = 1_704_067_200_000_000
"""2024-01-01T00:00:00Z, in microseconds."""

TOKENS_PER_MILLION = 10**6

USD = "USD"
TOOL_RUNS = "tool_runs"
MODEL_CREDITS = "model_credits"

FREE_MODEL = "llama-3.1-8b-free"
UNPRICED_MODEL = "gpt-9-preview"
"""It has no price: its usage must end in the dead letters."""


@dataclass(frozen=True, slots=True)
class Model:
    """A language model with what a token costs, in nano-dollars. `share` is its part of the traffic, in per mille."""

    name: str
    provider: str
    input_token_nanos: int
    output_token_nanos: int
    share: int
    free: bool = False


# Dollars per million tokens = thousands of nano-dollars per token.
MODELS: tuple[Model, ...] = (
    Model("gpt-4o", "openai", 2_500, 10_000, 190),
    Model("gpt-4o-mini", "openai", 150, 600, 210),
    Model("o3-mini", "openai", 1_100, 4_400, 60),
    Model("claude-sonnet-4", "anthropic", 3_000, 15_000, 150),
    Model("claude-3-5-haiku", "anthropic", 800, 4_000, 90),
    Model("gemini-1.5-pro", "google", 1_250, 5_000, 50),
    Model("gemini-2.0-flash", "google", 100, 400, 90),
    Model("llama-3.1-70b", "together", 880, 880, 50),
    Model("mistral-large", "mistral", 2_000, 6_000, 30),
    Model("deepseek-chat", "deepseek", 270, 1_100, 40),
    Model(FREE_MODEL, "together", 0, 0, 40, free=True),
)

EMBEDDING = Model("text-embedding-3-small", "openai", 20, 0, 0)


@dataclass(frozen=True, slots=True)
class Item:
    """Something that is not paid by the token. `unit_price_nanos` is of one billing unit."""

    operation: str
    category: str
    wallet: str
    unit_price_nanos: int
    billing_unit: BillingUnit


API_CALL = Item("api.call", "api", USD, 1_000_000, BillingUnit.REQUEST)  # 0.001
IMAGE = Item("image.generation", "image", USD, 40_000_000, BillingUnit.UNIT)  # 0.04
AUDIO = Item("audio.transcription", "audio", USD, 6_000_000, BillingUnit.MINUTE)  # 0.006
HOSTING = Item("deployment", "hosting", USD, 2_490_000_000, BillingUnit.GPU_HOUR)  # 2.49
TOOL_RUN = Item("tool.run", "tool", TOOL_RUNS, NANOS, BillingUnit.REQUEST)
GUARDRAIL = Item("guardrail.check", "guardrail", MODEL_CREDITS, NANOS // 4, BillingUnit.REQUEST)

ITEMS = (API_CALL, IMAGE, AUDIO, HOSTING, TOOL_RUN, GUARDRAIL)


def price_list() -> Iterator[dict[str, Any]]:
    """Every price as a record of the `prices` topic (fields that are not named are null)."""
    for model in MODELS:
        if model.free:
            yield _token_price(model, "chat.completion", Direction.ANY, 0)
        else:
            yield _token_price(model, "chat.completion", Direction.INPUT, model.input_token_nanos)
            yield _token_price(model, "chat.completion", Direction.OUTPUT, model.output_token_nanos)
    yield _token_price(EMBEDDING, "embedding", Direction.ANY, EMBEDDING.input_token_nanos)
    for item in ITEMS:
        yield {
            "price_id": item.operation,
            "operation": item.operation,
            "category": item.category,
            "unit_price_nanos": item.unit_price_nanos,
            "billing_unit": item.billing_unit.value,
            "wallet": item.wallet,
            "valid_from": VALID_FROM_AT,
            "free": False,
            "display_name": item.operation.replace(".", " "),
        }


OWN_PRICE_PERCENT = 80
OWN_PRICE_MODEL = MODELS[0]


def has_own_price(number: int) -> bool:
    """Whether the active organisation with this number has agreed on prices of its own, for one model."""
    return number % 10 == 1


def own_prices() -> Iterator[dict[str, Any]]:
    """Bodies of settings: the prices of those who have their own, a fifth below the list."""
    model = OWN_PRICE_MODEL
    sides = ((Direction.INPUT, model.input_token_nanos), (Direction.OUTPUT, model.output_token_nanos))
    for direction, token_nanos in sides:
        own_nanos = token_nanos * OWN_PRICE_PERCENT // 100
        yield {
            "price_id": f"own-{model.name}-{direction.value}",
            "operation": "chat.completion",
            "model": model.name,
            "direction": direction.value,
            "unit_price": format_amount(own_nanos * TOKENS_PER_MILLION),
            "billing_unit": BillingUnit.MILLION_TOKENS.value,
            "wallet": USD,
            "valid_from": "2024-01-01T00:00:00Z",
        }


def own_cost_nanos(number: int, row: Mapping[str, Any], listed_nanos: int) -> int | None:
    """What a usage costs at the organisation's own price; None where the list's holds. Exact: see the token prices."""
    if not has_own_price(number) or row.get("model") != OWN_PRICE_MODEL.name:
        return None
    return listed_nanos * OWN_PRICE_PERCENT // 100


def _token_price(model: Model, operation: str, direction: Direction, token_nanos: int) -> dict[str, Any]:
    return {
        "price_id": f"{model.name}-{direction.value}",
        "operation": operation,
        "category": "llm",
        "model": model.name,
        "provider": model.provider,
        "direction": direction.value,
        "unit_price_nanos": token_nanos * TOKENS_PER_MILLION,
        "billing_unit": BillingUnit.MILLION_TOKENS.value,
        "wallet": USD,
        "valid_from": VALID_FROM_AT,
        "free": model.free,
        "display_name": f"{model.name}, {direction.value} tokens",
    }
