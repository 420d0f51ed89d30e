"""The input of the benchmark: usage records with every field of the contract filled, encoded before anything is timed.

Rules of this file: a pure function of (seed, counts, time). Organisations are drawn evenly; each has credits enough.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.amounts import NANOS
from schemas.codec import arrow_schema, encode_columns
from schemas.enums import InputKind, SettingKind
from streams.loadgen.price_list import MODELS, USD
from streams.loadgen.waves import Wave, wave_of

CHUNK_RECORDS = 50_000
PAID_MODELS = tuple(model for model in MODELS if not model.free)
CREDITS_NANOS = 10**6 * NANOS
BUDGETS_EVERY = 5
USERS = 50
TEAMS = ("search", "support", "growth", "data", "platform", "research")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of the input, ready to send."""

    keys: list[bytes]
    values: list[bytes]
    ids: list[str]


def org_name(number: int) -> str:
    """Id of an organisation, from 0."""
    return f"org-{number:06d}"


def purchases(orgs: int, at: int) -> Wave:
    """One purchase for each organisation, large enough for everything."""
    records = [
        {
            "purchase_id": f"bench-{number}",
            "org_id": org_name(number),
            "occurred_at": at,
            "wallet": USD,
            "amount_nanos": CREDITS_NANOS,
            "kind": "purchased",
        }
        for number in range(orgs)
    ]
    return wave_of(InputKind.PURCHASE, records)


def rules(orgs: int, at: int) -> Wave:
    """What organisations set: all of them ten alert rules, month limits and auto top-up, every fifth three budgets.

    Nothing of it is reached: what is measured is the cost of looking.
    """
    bodies = [(number, kind, body) for number in range(orgs) for kind, body in _bodies(number)]
    return wave_of(
        InputKind.SETTING,
        [
            {
                "setting_id": f"bench-{number}-{index}",
                "org_id": org_name(number),
                "occurred_at": at,
                "actor": "bench",
                "actor_role": "system",
                "kind": kind.value,
                "body": json.dumps({"unit": USD, **body}),
            }
            for index, (number, kind, body) in enumerate(bodies)
        ],
    )


def _bodies(number: int) -> Iterator[tuple[SettingKind, dict[str, Any]]]:
    percents = [
        {"rule_id": f"used-{level}", "type": "used_percent", "level": str(level)} for level in range(55, 100, 5)
    ]
    yield (
        SettingKind.THRESHOLDS,
        {"rules": [{"rule_id": "low", "type": "balance_at_or_below", "level": "100"}, *percents]},
    )
    yield SettingKind.MONTH_LIMITS, {"alert_threshold": "800000", "allowed_limit": "900000"}
    yield SettingKind.AUTO_TOPUP, {"enabled": True, "threshold": "10", "purchase_amount": "50", "monthly_cap": "500"}
    if number % BUDGETS_EVERY == 0:
        for index, scope in enumerate(({}, {"user_id": "user-007"}, {"model": PAID_MODELS[0].name})):
            yield (
                SettingKind.BUDGET,
                {"budget_id": f"b{index}", "scope": scope, "window": "month", "limit": "900000"},
            )


def usage(seed: int, prefix: str, count: int, orgs: int, at: int, schema_id: int) -> Iterator[Chunk]:
    """`count` usage records of `orgs` organisations, all fields filled, in chunks."""
    draw = np.random.Generator(np.random.PCG64(seed))
    names = pa.array([org_name(number) for number in range(orgs)])
    for start in range(0, count, CHUNK_RECORDS):
        size = min(CHUNK_RECORDS, count - start)
        yield _chunk(draw, prefix, start, size, names, at, schema_id)


def _chunk(
    draw: np.random.Generator, prefix: str, start: int, size: int, orgs: pa.Array, at: int, schema_id: int
) -> Chunk:
    def chosen(values: Sequence[Any]) -> pa.Array:
        return pa.array(values).take(pa.array(draw.integers(0, len(values), size)))

    def tokens(low: int, high: int) -> npt.NDArray[np.int64]:
        return draw.integers(low, high, size)

    ids = [f"{prefix}-{number:09d}" for number in range(start, start + size)]
    org_column = orgs.take(pa.array(draw.integers(0, len(orgs), size)))
    model_numbers = pa.array(draw.integers(0, len(PAID_MODELS), size))
    columns: dict[str, Any] = {
        "event_id": pa.array(ids),
        "org_id": org_column,
        "occurred_at": np.full(size, at) + np.arange(start, start + size),
        "operation": chosen(["chat.completion"]),
        "source": chosen(["gateway-1", "gateway-2"]),
        "category": chosen(["llm"]),
        "project_id": chosen([f"project-{number}" for number in range(10)]),
        "user_id": chosen([f"user-{number:03d}" for number in range(USERS)]),
        "team": chosen(TEAMS),
        "department": chosen(["product", "engineering", "operations"]),
        "model": pa.array([model.name for model in PAID_MODELS]).take(model_numbers),
        "tool": chosen(["none", "web_search"]),
        "provider": pa.array([model.provider for model in PAID_MODELS]).take(model_numbers),
        "endpoint": chosen(["/v1/chat/completions"]),
        "deployment": chosen(["production", "staging"]),
        "input_tokens": tokens(20, 12_000),
        "output_tokens": tokens(5, 2_000),
        "quantity_nanos": np.full(size, NANOS),
        "unit_of_measure": chosen(["token"]),
        "replicas": np.full(size, 1, np.int32),
        "attributes": [[("request", f"{number:016x}")] for number in draw.integers(0, 2**62, size).tolist()],
    }
    schema = arrow_schema("usage")
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, schema.field(name).type)
        for name, column in columns.items()
    ]
    batch = pa.RecordBatch.from_arrays(arrays, schema=pa.schema([schema.field(name) for name in columns]))
    return Chunk([name.encode() for name in org_column.to_pylist()], encode_columns("usage", batch, schema_id), ids)
