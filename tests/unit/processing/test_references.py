"""What makes a usage one is the same for a batch as for a single usage (product rule 23)."""

from __future__ import annotations

import pyarrow as pa
import pytest

from streams.processing.references import usage_id, usage_ids

USAGES = [("acme", "e1", 0), ("bolt", "e1", 0), ("acme", "e\N{SNOWMAN}", 2), ("acme", "e1", 11)]


@pytest.mark.parametrize("usages", [USAGES, USAGES[:2], []])
def test_a_batch_and_a_single_usage_are_known_by_the_same_bytes(usages: list[tuple[str, str, int]]) -> None:
    columns = {
        "event_id": pa.array([event_id for _, event_id, _ in usages], pa.string()),
        "revision": pa.array([revision for _, _, revision in usages], pa.int32()),
    }
    ids = usage_ids([org.encode() for org, _, _ in usages], pa.RecordBatch.from_pydict(columns))
    assert ids == [usage_id(*usage) for usage in usages]
