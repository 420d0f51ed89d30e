"""How fast the codec is: `python -m tests.contract.measure_codec` prints the table of schemas/README.md.

5,000 realistic usage records (half with an attribute) and the entries that the ledger would make of them; the best of
several rounds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from schemas.checks import invalid_rows
from schemas.codec import batch_of, decode_columns, decode_one, encode_columns, encode_one, rows_of
from schemas.records import BundledSchemas, bundled_id

RECORDS = 5_000
ROUNDS = 15
SINGLE_RECORDS = 1_000


def usage_rows(seed: int = 1) -> list[dict[str, Any]]:
    """Usage as a gateway of language models reports it."""
    chance = random.Random(seed)
    return [
        {
            "event_id": f"evt-{chance.getrandbits(64):016x}-{number}",
            "org_id": f"org-{chance.randrange(500):04d}",
            "occurred_at": 1_790_000_000_000_000 + number * 1_000,
            "operation": "chat.completion",
            "source": "gateway-1",
            "category": "llm",
            "project_id": f"proj-{chance.randrange(20)}",
            "user_id": f"user-{chance.randrange(300)}",
            "team": "search",
            "model": chance.choice(["gpt-4o", "claude-sonnet-4", "mistral-large"]),
            "provider": "openai",
            "endpoint": "/v1/chat/completions",
            "input_tokens": chance.randrange(5_000),
            "output_tokens": chance.randrange(900),
            "wallet": "USD",
            "attributes": {"request_id": f"{chance.getrandbits(64):016x}"} if number % 2 else {},
        }
        for number in range(RECORDS)
    ]


def entry_rows(seed: int = 1) -> list[dict[str, Any]]:
    """The entries of that usage, one slice each."""
    entries = []
    for number, usage in enumerate(usage_rows(seed)):
        cost = usage["input_tokens"] * 2_500 + usage["output_tokens"] * 10_000
        entry = {name: value for name, value in usage.items() if name not in {"event_id", "occurred_at"}}
        entry |= {
            "seq": number // 500 + 1,
            "entry_id": f"{usage['org_id']}:{number // 500 + 1}",
            "kind": "usage",
            "amount_nanos": -cost,
            "balance_nanos": 10**12 - cost,
            "available_nanos": 10**12 - cost,
            "held_nanos": 0,
            "occurred_at": usage["occurred_at"],
            "recorded_at": usage["occurred_at"] + 5_000,
            "event_id": usage["event_id"],
            "source_topic": "credits.usage.v1",
            "source_partition": number % 8,
            "source_offset": 1_000_000 + number,
            "slices": [{"grant_id": "grant-1", "kind": "purchased", "amount_nanos": cost, "expires_at": None}],
            "unit_price_nanos": 2_500_000,
            "output_unit_price_nanos": 10_000_000,
            "billing_unit": "1000_tokens",
        }
        entries.append(entry)
    return entries


def best_micros(records: int, step: Callable[[], object]) -> float:
    """Microseconds a record, in the best of the rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - started)
    return best / records * 1e6


def measure(record: str, rows: list[dict[str, Any]]) -> dict[str, str]:
    """The cells of one record, by the name of the line."""
    writers = BundledSchemas()
    schema_id, batch = bundled_id(record), batch_of(record, rows)
    values = encode_columns(record, batch, schema_id)
    single, whole = values[:SINGLE_RECORDS], rows_of(batch)[:SINGLE_RECORDS]
    spoilt = [value[:50] if number % 100 == 0 else value for number, value in enumerate(values)]
    micros = {
        "decode in columns": best_micros(RECORDS, lambda: decode_columns(record, values, writers)),
        "the same, one record in a hundred spoilt": best_micros(
            RECORDS, lambda: decode_columns(record, spoilt, writers)
        ),
        "check the limits of the columns": best_micros(RECORDS, lambda: invalid_rows(record, batch)),
        "encode columns": best_micros(RECORDS, lambda: encode_columns(record, batch, schema_id)),
        "decode one (fastavro)": best_micros(
            SINGLE_RECORDS, lambda: [decode_one(record, value, writers) for value in single]
        ),
        "encode one (fastavro)": best_micros(
            SINGLE_RECORDS, lambda: [encode_one(record, fields, schema_id) for fields in whole]
        ),
    }
    return {"bytes a record": f"{sum(map(len, values)) / RECORDS:.0f}"} | {k: f"{v:.2f}" for k, v in micros.items()}


def main() -> None:
    """Measure, and print a Markdown table."""
    usage, entry = measure("usage", usage_rows()), measure("entry", entry_rows())
    print("| | usage, µs | entry, µs |\n|---|---|---|")
    for name, text in usage.items():
        print(f"| {name} | {text} | {entry[name]} |")


if __name__ == "__main__":
    main()
