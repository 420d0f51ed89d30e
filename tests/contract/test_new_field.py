"""A field that is added to `usage` and `entry` reaches entries, corrections and ClickHouse rows without further code.

The released files cannot be changed for a test, so a process of its own gets further versions of both records, and the
model of the usage. What comes out of the ledger is compared here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.tidy.source import ROOT

SCRIPT = """
import json
from schemas import records

ADDED = [
    {"name": "region", "type": ["null", "string"], "default": None},
    {"name": "frame_count", "type": ["null", "long"], "default": None},
]
files, ids = dict(records._files()), dict(records.bundled_ids())
for number, record in enumerate(("usage", "entry")):
    following = records.versions(record)[-1] + 1
    schema = records.avro_schema(record)
    schema["fields"] += ADDED
    files[record, following] = json.dumps(schema)
    ids[record, following] = 900 + number
records.versions.cache_clear()
records._files = lambda: files
records.bundled_ids = lambda: ids

from schemas import events
from schemas.fields import Count, Name

class Usage(events.Usage):
    region: Name | None = None
    frame_count: Count | None = None

events.INPUTS = {**events.INPUTS, events.InputKind.USAGE: Usage}

import numpy as np
from projections.rows import ledger_rows
from schemas.codec import batch_of
from schemas.facts import FACTS
from tests.model.memory import FixedPrices, MemoryLedger, sent

def usage(event_id, tier="batch", **more):
    fields = {"event_id": event_id, "org_id": "acme", "operation": "chat", "cost_nanos": 5, "wallet": "USD"}
    return sent("usage", {**fields, "region": tier, "frame_count": 7, **more})

held = {"hold_id": "h1", "org_id": "acme", "wallet": "USD", "action": "place", "amount_nanos": 9}
book = MemoryLedger(FixedPrices(()))
book.feed([sent("purchase", {"purchase_id": "p", "org_id": "acme", "wallet": "USD", "amount_nanos": 10**12})])
book.feed([sent("hold", held)])
book.feed([usage("columns"), usage("captures", hold_id="h1"), usage("long", tier="x" * 300)])
book.feed([usage("columns", tier="flex", revision=1)])
refund = {"refund_id": "r", "org_id": "acme", "target": "usage", "target_id": "columns", "amount_nanos": 2}
book.feed([sent("refund", refund)])
book.feed([usage("new", org_id="bolt", wallet=None)])
rows = book.rows("ledger")
for row in rows:
    FACTS["entry"].from_record(row)
table = ledger_rows(batch_of("entry", rows), 0, np.arange(len(rows)))
print(json.dumps({
    "entries": [[row["kind"], row["region"], row["frame_count"]] for row in rows],
    "refused": [str(code) for code, _ in book.dead_letters()],
    "tiers": table.column("region").to_pylist(),
    "tokens": table.column("frame_count").to_pylist(),
}))
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_entries_and_corrections_carry_it(seen: dict[str, Any]) -> None:
    assert [entry for entry in seen["entries"] if entry[0] not in ("purchase", "hold", "hold_release")] == [
        ["usage", "batch", 7],
        ["usage", "batch", 7],
        ["correction", "batch", 7],
        ["usage", "flex", 7],
        ["refund", "flex", None],
        ["usage", "batch", 7],
    ]


def test_its_limit_is_the_models(seen: dict[str, Any]) -> None:
    assert seen["refused"] == ["invalid_field"]


def test_a_row_for_clickhouse_has_it(seen: dict[str, Any]) -> None:
    of_usage = [number for number, entry in enumerate(seen["entries"]) if entry[0] == "usage"]
    assert [seen["tiers"][number] for number in of_usage] == ["batch", "batch", "flex", "batch"]
    assert [seen["tokens"][number] for number in of_usage] == [7, 7, 7, 7]
