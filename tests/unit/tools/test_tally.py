"""The demo's count of what the rules did: each entry counts for what it says, and ordinary usage for nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from schemas.codec import arrow_schema
from streams.loadgen.tally import READ, Tally


def entries(*rows: dict[str, Any]) -> pa.RecordBatch:
    """A batch of entries with what the tally reads."""
    schema = pa.schema([arrow_schema("entry").field(name) for name in READ])
    nothing: dict[str, Any] = dict.fromkeys(READ) | {"amount_nanos": 0}
    return pa.RecordBatch.from_pylist([nothing | row for row in rows], schema=schema)


def hold(hold_id: str, granted: int, asked: int) -> dict[str, Any]:
    return {
        "kind": "hold",
        "hold_id": hold_id,
        "details": f'{{"amount_nanos":{granted},"asked_nanos":{asked}}}',
    }


def usage(cost: int, hold_id: str | None = None) -> dict[str, Any]:
    return {"kind": "usage", "amount_nanos": -cost, "hold_id": hold_id}


def test_a_capture_is_compared_with_what_was_granted() -> None:
    tally = Tally()
    tally.take(entries(hold("a", 10, 10), hold("b", 10, 30), hold("c", 10, 10)))
    tally.take(entries(usage(9, "a"), usage(10, "b"), usage(11, "c"), usage(99)))
    assert tally.rows["holds"] == Counter(
        {"placed": 3, "placed for less": 1, "captured for less": 1, "captured as held": 1, "captured for more": 1}
    )


def test_ends_and_refusals_of_holds() -> None:
    tally = Tally()
    release = {"kind": "hold_release", "hold_id": "a"}
    reasons = ("hold_released", "hold_timed_out", "hold_captured")
    refused = ("credits_held", "insufficient_credits", "blocked")
    tally.take(entries(*({**release, "reason": reason} for reason in reasons)))
    tally.take(entries(*({"kind": "rejected", "hold_id": "a", "reason": reason} for reason in refused)))
    assert tally.rows["holds"] == Counter(
        {
            "released": 1,
            "timed out": 1,
        }
    )
    assert tally.rows["holds refused"] == Counter({"held by other work": 1, "out of credits": 1, "blocked": 1})


def test_what_is_no_hold() -> None:
    tally = Tally()
    tally.take(
        entries(
            {"kind": "correction", "reason": "usage_amended"},
            {"kind": "correction", "reason": "usage_voided"},
            {"kind": "expiry", "reason": "grant_expired"},
            {"kind": "purchase", "reason": "purchase_failed"},
            {"kind": "purchase", "reason": "purchase_failed", "correlation_id": "topup-1"},
            {"kind": "purchase"},
            {"kind": "rejected", "reason": "same_org"},
            usage(5),
        )
    )
    assert tally.rows == {
        "corrections": Counter(amended=1, voided=1),
        "expiries": Counter(grant_expired=1),
        "top-ups": Counter(failed=1),
    }


def test_alerts_are_counted_beside_entries() -> None:
    tally = Tally()
    tally.count("top-ups", "asked for")
    alerts = {"credit_auto_recharge_triggered": 2, "budget_reached": 3, "credit_balance_low": 9}
    rows = tally.with_alerts(alerts)
    assert rows == {"top-ups": Counter({"asked for": 1, "charged": 2}), "limits": Counter(budget_reached=3)}
    assert tally.rows == {"top-ups": Counter({"asked for": 1})}
