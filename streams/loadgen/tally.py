"""What the rules have done, counted from committed ledger entries, in the words of the verdict. Pure.

Rules of this file: an entry counts by what it says of itself (kind, reason, hold, amounts); no state but what was
granted to each hold, which tells a capture for less from one for more.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.enums import AlertKind, EntryKind, EntryReason, RejectReason

HOLDS, REFUSED_HOLDS = "holds", "holds refused"
TOPUPS, LIMITS, CORRECTIONS, EXPIRIES = "top-ups", "limits", "corrections", "expiries"

COUNTED_KINDS = pa.array([EntryKind.HOLD_RELEASE.value, EntryKind.CORRECTION.value, EntryKind.EXPIRY.value])

READ = ("kind", "reason", "hold_id", "amount_nanos", "correlation_id", "details")

RELEASES = {EntryReason.HOLD_RELEASED.value: "released", EntryReason.HOLD_TIMED_OUT.value: "timed out"}
CORRECTED = {EntryReason.USAGE_AMENDED.value: "amended", EntryReason.USAGE_VOIDED.value: "voided"}
REFUSED = {
    RejectReason.CREDITS_HELD.value: "held by other work",
    RejectReason.INSUFFICIENT_CREDITS.value: "out of credits",
}
ALERTS = {
    AlertKind.AUTO_RECHARGE_TRIGGERED.value: (TOPUPS, "charged"),
    AlertKind.AUTO_RECHARGE_CAPPED.value: (TOPUPS, "stopped by the cap"),
    AlertKind.BUDGET_REACHED.value: (LIMITS, AlertKind.BUDGET_REACHED.value),
    AlertKind.LIMIT_ALERT.value: (LIMITS, AlertKind.LIMIT_ALERT.value),
    AlertKind.LIMIT_REACHED.value: (LIMITS, AlertKind.LIMIT_REACHED.value),
    AlertKind.NEGATIVE_LIMIT_CROSSED.value: (LIMITS, AlertKind.NEGATIVE_LIMIT_CROSSED.value),
}


def refusal_words(reason: str) -> str:
    """How the verdict names the refusal of a hold."""
    return REFUSED.get(reason, reason)


class Tally:
    """Counts entries as they come; those of one organisation in their order."""

    def __init__(self) -> None:
        self.rows: dict[str, Counter[str]] = {}
        self._granted_nanos: dict[str, int] = {}

    def take(self, entries: pa.RecordBatch) -> None:
        """Count a batch of ledger entries."""
        needed_by_kind = pc.is_in(entries.column("kind"), value_set=COUNTED_KINDS)
        failed = pc.equal(entries.column("reason"), EntryReason.PURCHASE_FAILED.value)
        wanted = pc.or_(pc.or_(needed_by_kind, pc.is_valid(entries.column("hold_id"))), pc.fill_null(failed, False))
        few = entries.select(list(READ)).filter(wanted)
        for entry in few.to_pylist():
            for line, words in self._words(entry):
                self.count(line, words)

    def count(self, line: str, words: str, count: int = 1) -> None:
        """Count something that no entry says."""
        self.rows.setdefault(line, Counter())[words] += count

    def with_alerts(self, alerts: Mapping[str, int]) -> dict[str, Counter[str]]:
        """All lines; `alerts`: how many of each kind there are."""
        rows = {line: Counter(counts) for line, counts in self.rows.items()}
        for kind, (line, words) in ALERTS.items():
            if alerts.get(kind):
                rows.setdefault(line, Counter())[words] += alerts[kind]
        return rows

    def _words(self, entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
        reason = entry["reason"] or ""
        match entry["kind"]:
            case EntryKind.HOLD:
                terms = json.loads(entry["details"])
                self._granted_nanos[entry["hold_id"]] = terms["amount_nanos"]
                yield HOLDS, "placed"
                if terms["amount_nanos"] < terms["asked_nanos"]:
                    yield HOLDS, "placed for less"
            case EntryKind.HOLD_RELEASE:
                if reason in RELEASES:
                    yield HOLDS, RELEASES[reason]
            case EntryKind.USAGE:
                over_nanos = -entry["amount_nanos"] - self._granted_nanos.get(entry["hold_id"], 0)
                how = "for less" if over_nanos < 0 else "for more" if over_nanos else "as held"
                yield HOLDS, f"captured {how}"
            case EntryKind.REJECTED:
                yield REFUSED_HOLDS, refusal_words(reason)
            case EntryKind.PURCHASE:
                if entry["correlation_id"] is not None:
                    yield TOPUPS, "failed"
            case EntryKind.CORRECTION:
                yield CORRECTIONS, CORRECTED.get(reason, reason)
            case EntryKind.EXPIRY:
                yield EXPIRIES, reason
