"""How fast the sink is: `python -m tests.unit.projections.measure_sink [entries]`; no test.

Entries of 500 orgs into in-process ClickHouse, in writes of 50,000: once where buckets are shared by several entries
(two users each, two hours), once where nearly every entry is a bucket of its own at every level.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

from projections.clickhouse import connect, migrate
from projections.sink import Sink
from schemas.records import BundledSchemas
from tests.brokers import test_settings
from tests.unit.projections.entries import LEDGER, NOON, TOPICS, Row, entry, inbound

WRITE = 50_000
HOUR = 3_600 * 10**6


def usage(count: int, users: int, hours: int) -> list[Row]:
    """The same entries in every run."""
    chance = random.Random(1)
    seqs: dict[str, int] = {}
    rows = []
    for number in range(count):
        org_id = f"org-{chance.randrange(500)}"
        seqs[org_id] = seqs.get(org_id, 0) + 1
        row = entry(
            org_id,
            seqs[org_id],
            -chance.randrange(10**9),
            occurred_at=NOON + chance.randrange(hours * HOUR),
            event_id=f"event-{number}",
            operation="chat.completion",
            category="llm",
            user_id=f"user-{chance.randrange(users)}",
            project_id=f"project-{chance.randrange(5)}",
            model=chance.choice(["gpt-4o", "gpt-4o-mini", "llama-3", "mistral"]),
            provider="azure",
            input_tokens=chance.randrange(5_000),
            output_tokens=chance.randrange(500),
            unit_price_nanos=150,
            billing_unit="1000000_tokens",
            slices=[{"grant_id": "purchase/p1", "kind": "purchased", "amount_nanos": 1}],
        )
        rows.append(row)
    return rows


def main(count: int) -> None:
    """Print entries per second of wall time, and processor time per entry."""
    for label, users, hours in (("shared buckets", 2, 2), ("a bucket per entry", 50, 72)):
        rows = usage(count, users, hours)
        batches = [inbound(rows[first : first + WRITE], 2 * first) for first in range(0, count, WRITE)]
        with tempfile.TemporaryDirectory() as folder:
            client = connect(test_settings(Path(folder)))
            migrate(client)
            sink = Sink(client, TOPICS, BundledSchemas())
            sink.restore([(LEDGER, 0)])
            wall, processor = time.perf_counter(), time.process_time()
            for batch in batches:
                sink.apply([batch])
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            client.close()
        print(f"{label}: {count / wall:,.0f} entries/s, {processor / count * 1e6:.1f} µs of processor time each")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
