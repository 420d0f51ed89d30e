"""Corrections of the demonstration: usage that was reported wrongly, amended or voided by revision.

Rules of this file: pure. An amended event carries its new cost, half of the old one, so that sums are known by
multiplication alone. The history stays: every correction is two entries or, for a void, one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from schemas.enums import EntryKind, RejectReason
from streams.demo.usage import Booked
from streams.loadgen.price_list import USD
from streams.loadgen.tally import CORRECTIONS
from streams.loadgen.waves import Expected


def corrected(sample: Sequence[Booked], expected: Expected) -> list[dict[str, Any]]:
    """A third voided, a third amended, a third amended and then voided; and a void of an unknown event."""
    records = []
    for turn, booked in enumerate(sample):
        half_nanos = booked.cost_nanos // 2
        if turn % 3:
            records.append(_amended(booked, half_nanos))
            expected.usage_cost_nanos[USD] += half_nanos
            expected.corrected_nanos[USD] += booked.cost_nanos
            expected.works(CORRECTIONS, amended=1)
        if turn % 3 != 1:
            records.append({**booked.row, "revision": 2, "voided": True})
            expected.corrected_nanos[USD] += half_nanos if turn % 3 else booked.cost_nanos
            expected.works(CORRECTIONS, voided=1)
    expected.entries[EntryKind.CORRECTION.value] += len(records)
    if sample:
        never = f"{sample[0].event_id}-never"
        records.append({**sample[0].row, "event_id": never, "revision": 1, "voided": True})
        expected.rejected[RejectReason.UNKNOWN_USAGE.value] += 1
    expected.records += len(records)
    return records


def _amended(booked: Booked, cost_nanos: int) -> dict[str, Any]:
    return {**booked.row, "revision": 1, "voided": False, "cost_nanos": cost_nanos, "wallet": USD}
