"""The usage of the demonstration: LLM requests for the most part, and what goes wrong with events in real life.

Rules of this file: a pure function of (seed, number of events, base time). The last event has happened at the base
time and the first a window earlier, so that the records are young on any day; counts and sums do not depend on the
time. Flaws are rare and of every kind that a topic sees: events sent twice, ids used twice, broken bytes, wrong keys,
unknown prices, clocks that are wrong by days.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Any

from schemas.amounts import NANOS
from schemas.enums import DeadLetterCode, InputKind
from streams.demo.chance import Chance, Weighted
from streams.demo.limits import Limit, has_limits, limits_of
from streams.demo.organisations import ACTIVE, org_id, traffic_weight
from streams.loadgen.price_list import (
    API_CALL,
    AUDIO,
    EMBEDDING,
    GUARDRAIL,
    HOSTING,
    IMAGE,
    MODELS,
    TOOL_RUN,
    UNPRICED_MODEL,
    USD,
    Item,
    Model,
    own_cost_nanos,
)
from streams.loadgen.waves import Damage, Expected, Wave

TEXT_COLUMNS = (
    "event_id",
    "org_id",
    "operation",
    "source",
    "category",
    "project_id",
    "user_id",
    "team",
    "department",
    "model",
    "tool",
    "provider",
    "endpoint",
    "deployment",
    "unit_of_measure",
    "wallet",
)
NUMBER_COLUMNS = ("occurred_at", "input_tokens", "output_tokens", "quantity_nanos", "replicas", "cost_nanos")
COLUMNS = (*TEXT_COLUMNS, *NUMBER_COLUMNS, "attributes")

TEAMS = ("search", "support", "growth", "data", "platform", "research")
DEPARTMENTS = {"search": "product", "support": "operations", "growth": "marketing"}
TOOLS = ("web_search", "code_interpreter", "sql_query", "browser", "calendar")
GUARDRAILS = ("pii_filter", "toxicity", "jailbreak")
SOURCES = ("gateway-1", "gateway-2", "gateway-3")
AGENT_PAGES = ("/v1/chat/completions", "/v1/responses")

# Tokens of a request: (weight, lowest, highest). The shape of a public trace: a long tail, a median near 1,000.
CONTEXT_TOKENS = Weighted(
    [(20, 200), (200, 700), (700, 1_500), (1_500, 4_000), (4_000, 12_000)], [150, 250, 300, 220, 80]
)
GENERATED_TOKENS = Weighted([(5, 60), (60, 150), (150, 350), (350, 900), (900, 2_000)], [200, 250, 300, 200, 50])

DAY_US = 24 * 3600 * 1_000_000
TOO_OLD_US = 5 * DAY_US
TOO_FAR_US = 2 * DAY_US


class Flaw(Enum):
    """What is wrong with an event; most have none."""

    NONE = None
    SENT_TWICE = "sent_twice"
    ID_REUSED = "id_reused"
    UNPRICED = DeadLetterCode.UNKNOWN_PRICE
    TOO_OLD = DeadLetterCode.TOO_OLD
    TOO_FAR = DeadLetterCode.TOO_FAR_IN_FUTURE
    NEGATIVE_TOKENS = DeadLetterCode.INVALID_FIELD
    WRONG_MAGIC = Damage.WRONG_MAGIC
    TRUNCATED = Damage.TRUNCATED
    LEFT_OVER = Damage.LEFT_OVER
    UNKNOWN_SCHEMA = Damage.UNKNOWN_SCHEMA
    NULL_VALUE = Damage.NULL_VALUE
    WRONG_KEY = Damage.WRONG_KEY


DAMAGE_CODES = {
    Damage.WRONG_MAGIC: DeadLetterCode.UNDECODABLE,
    Damage.TRUNCATED: DeadLetterCode.UNDECODABLE,
    Damage.LEFT_OVER: DeadLetterCode.UNDECODABLE,
    Damage.UNKNOWN_SCHEMA: DeadLetterCode.UNKNOWN_SCHEMA,
    Damage.NULL_VALUE: DeadLetterCode.NULL_VALUE,
    Damage.WRONG_KEY: DeadLetterCode.KEY_MISMATCH,
}

# In 100,000ths; the rest of the events has no flaw.
FLAW_WEIGHTS = {
    Flaw.SENT_TWICE: 1_200,
    Flaw.ID_REUSED: 30,
    Flaw.UNPRICED: 40,
    Flaw.TOO_OLD: 30,
    Flaw.TOO_FAR: 20,
    Flaw.NEGATIVE_TOKENS: 20,
    Flaw.WRONG_MAGIC: 20,
    Flaw.TRUNCATED: 20,
    Flaw.LEFT_OVER: 10,
    Flaw.UNKNOWN_SCHEMA: 15,
    Flaw.NULL_VALUE: 10,
    Flaw.WRONG_KEY: 20,
}
FLAWS = Weighted([Flaw.NONE, *FLAW_WEIGHTS], [100_000 - sum(FLAW_WEIGHTS.values()), *FLAW_WEIGHTS.values()])

KINDS = Weighted(
    ["chat", "embedding", "api", "tool", "image", "audio", "hosting", "guardrail", "upstream"],
    [780, 60, 60, 50, 12, 10, 3, 10, 15],
)
MODEL_CHOICE = Weighted(MODELS, [model.share for model in MODELS])
ORG_CHOICE = Weighted(range(1, ACTIVE + 1), [traffic_weight(number) for number in range(1, ACTIVE + 1)])


@dataclass(frozen=True, slots=True)
class Booked:
    """A usage event that must have been booked, for refunds and corrections later."""

    row: dict[str, Any]
    number: int
    cost_nanos: int

    @property
    def event_id(self) -> str:
        """The event's id."""
        return str(self.row["event_id"])


@dataclass(slots=True)
class UsageWave:
    """The wave, what must come of it, a sample of the dollars it must have cost, and what it spent of
    each limit (`limits`)."""

    wave: Wave
    expected: Expected
    sample: list[Booked]
    spent: Counter[Limit]


SAMPLE_EVERY_MAX = 499
SAMPLES_MIN = 40
"""One of `SAMPLE_EVERY_MAX` events is sampled; more where a wave has too few events for `SAMPLES_MIN` samples."""

REPEAT_WITHIN = 5_000
"""A copy follows its original within this many events: in the same batch or a later one."""


def usage_wave(seed: int, prefix: str, count: int, first_at: int, last_at: int) -> UsageWave:
    """`count` usage records that happened between the two times (microseconds)."""
    return _Maker(seed, prefix, count, first_at, last_at).make()


class _Maker:
    """Fills the columns, one event at a time."""

    def __init__(self, seed: int, prefix: str, count: int, first_at: int, last_at: int) -> None:
        self.chance = Chance(seed)
        self.prefix = prefix
        self.count = count
        self.first_at = first_at
        self.sample_every = max(1, min(SAMPLE_EVERY_MAX, count // SAMPLES_MIN))
        self.step_us = max(0, (last_at - first_at) // max(1, count))
        self.columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        self.wave = Wave(InputKind.USAGE, self.columns)
        self.expected = Expected(records=count)
        self.costs: Counter[str] = self.expected.usage_cost_nanos
        self.sample: list[Booked] = []
        self.good: list[int] = []
        self.spent: Counter[Limit] = Counter()

    def make(self) -> UsageWave:
        names, columns = COLUMNS, self.columns
        appends = [columns[name].append for name in names]
        for position in range(self.count):
            row = self._event(position)
            for append, name in zip(appends, names, strict=True):
                append(row.get(name))
        return UsageWave(self.wave, self.expected, self.sample, self.spent)

    def _event(self, position: int) -> dict[str, Any]:
        flaw = FLAWS.draw(self.chance)
        if flaw in (Flaw.SENT_TWICE, Flaw.ID_REUSED) and self.good:
            return self._again(position, flaw)
        number = ORG_CHOICE.draw(self.chance)
        row = self._context(position, number)
        wallet, cost_nanos = self._content(row)
        own_nanos = own_cost_nanos(number, row, cost_nanos)
        self._spoil(position, flaw, row)
        if flaw in (Flaw.NONE, Flaw.SENT_TWICE, Flaw.ID_REUSED):
            self.good.append(position)
            if own_nanos is not None:
                cost_nanos = own_nanos
                self.expected.own_prices += 1
            self.costs[wallet] += cost_nanos
            if wallet == USD and has_limits(number):
                for limit in limits_of(number, row):
                    self.spent[limit] += cost_nanos
            elif position % self.sample_every == 0 and wallet == USD and cost_nanos:
                self.sample.append(Booked(row, number, cost_nanos))
        return row

    def _again(self, position: int, flaw: Flaw) -> dict[str, Any]:
        """An earlier event once more: the same bytes, or the same id with another content."""
        oldest = max(0, len(self.good) - REPEAT_WITHIN)
        earlier = self.good[self.chance.between(oldest, len(self.good) - 1)]
        row = {name: column[earlier] for name, column in self.columns.items()}
        if flaw is Flaw.SENT_TWICE:
            self.wave.repeats[position] = earlier
            self.expected.duplicates += 1
        else:
            row["input_tokens"] = (row["input_tokens"] or 0) + 1
            self.expected.dead_letters[DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT.value] += 1
        return row

    def _context(self, position: int, number: int) -> dict[str, Any]:
        """Who and where, without what."""
        chance = self.chance
        team = chance.one_of(TEAMS)
        return {
            "event_id": f"{self.prefix}-{position:07d}",
            "org_id": org_id(number),
            "occurred_at": self.first_at + position * self.step_us,
            "source": chance.one_of(SOURCES),
            "project_id": f"project-{chance.between(1, 4)}",
            "user_id": f"user-{chance.between(1, 25):02d}",
            "team": team,
            "department": DEPARTMENTS.get(team, "engineering"),
            "attributes": {"request": f"{chance.below(1 << 32):08x}"},
        }

    def _content(self, row: dict[str, Any]) -> tuple[str, int]:
        """What was used; returns the wallet it draws on, and its cost in nano-units."""
        match KINDS.draw(self.chance):
            case "chat":
                return self._tokens(row, MODEL_CHOICE.draw(self.chance), "chat.completion", generates=True)
            case "embedding":
                return self._tokens(row, EMBEDDING, "embedding", generates=False)
            case "api":
                return self._item(row, API_CALL, endpoint="/v1/files")
            case "tool":
                return self._item(row, TOOL_RUN, tool=self.chance.one_of(TOOLS))
            case "image":
                return self._item(row, IMAGE, self.chance.between(1, 4) * NANOS, provider="stability")
            case "audio":
                return self._item(row, AUDIO, self.chance.between(1, 40) * NANOS, provider="openai")
            case "hosting":
                replicas = self.chance.between(1, 2)
                return self._item(row, HOSTING, NANOS // 10, replicas=replicas, deployment="llama-prod")
            case "guardrail":
                return self._item(row, GUARDRAIL, tool=self.chance.one_of(GUARDRAILS))
            case _:
                cost_nanos = self.chance.between(1, 50) * 100_000
                row |= {"operation": "partner.call", "category": "partner", "cost_nanos": cost_nanos, "wallet": USD}
                return USD, cost_nanos

    def _tokens(self, row: dict[str, Any], model: Model, operation: str, *, generates: bool) -> tuple[str, int]:
        tokens_in = self.chance.between(*CONTEXT_TOKENS.draw(self.chance))
        tokens_out = self.chance.between(*GENERATED_TOKENS.draw(self.chance)) if generates else 0
        row |= {
            "operation": operation,
            "category": "llm",
            "model": model.name,
            "provider": model.provider,
            "endpoint": self.chance.one_of(AGENT_PAGES) if generates else "/v1/embeddings",
            "input_tokens": tokens_in,
            "output_tokens": tokens_out,
        }
        return USD, tokens_in * model.input_token_nanos + tokens_out * model.output_token_nanos

    def _item(
        self,
        row: dict[str, Any],
        item: Item,
        quantity_nanos: int = NANOS,
        *,
        replicas: int | None = None,
        **dimensions: str,
    ) -> tuple[str, int]:
        row |= {
            "operation": item.operation,
            "category": item.category,
            "quantity_nanos": quantity_nanos,
            "unit_of_measure": item.billing_unit.value,
            "replicas": replicas,
            **dimensions,
        }
        return item.wallet, item.unit_price_nanos * quantity_nanos // NANOS * (replicas or 1)

    def _spoil(self, position: int, flaw: Flaw, row: dict[str, Any]) -> None:
        """Do what the flaw says, and expect its dead letter."""
        if flaw in (Flaw.NONE, Flaw.SENT_TWICE, Flaw.ID_REUSED):
            return
        match flaw:
            case Flaw.UNPRICED:
                row |= {"operation": "chat.completion", "category": "llm", "model": UNPRICED_MODEL, "wallet": None}
                row |= {"cost_nanos": None, "input_tokens": 10, "provider": "openai", "tool": None}
            case Flaw.TOO_OLD:
                row["occurred_at"] -= TOO_OLD_US
            case Flaw.TOO_FAR:
                row["occurred_at"] += TOO_FAR_US
            case Flaw.NEGATIVE_TOKENS:
                row["input_tokens"] = -1
            case _:
                self.wave.damage[position] = Damage(flaw.value)
        code = DAMAGE_CODES[flaw.value] if isinstance(flaw.value, Damage) else flaw.value
        self.expected.dead_letters[code.value] += 1
