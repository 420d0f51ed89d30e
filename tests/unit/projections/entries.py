"""Ledger entries for the tests of the projection, and what ClickHouse must say of them, folded in plain Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from hypothesis import strategies as st

from projections.buckets import DIMENSIONS
from schemas.codec import batch_of, encode_columns
from schemas.records import bundled_id
from schemas.topics import Topics
from streams.kafka.inbound import Inbound

TOPICS = Topics()
LEDGER = TOPICS.name("ledger")
NOON = 1_780_056_000_000_000
"""2026-05-29 12:00 UTC."""
HOUR = 3_600 * 10**6

Row = dict[str, Any]
Totals = tuple[int, int, int, int, int, int]
"""requests, input tokens, output tokens, quantity, cost, refunded"""


def entry(org_id: str, seq: int, amount_nanos: int, **fields: Any) -> Row:
    """An entry with what every entry has; usage unless said otherwise."""
    return {
        "org_id": org_id,
        "seq": seq,
        "entry_id": f"{org_id}:{seq}",
        "kind": "usage",
        "wallet": "USD",
        "amount_nanos": amount_nanos,
        "balance_nanos": 0,
        "available_nanos": 0,
        "held_nanos": 0,
        "occurred_at": NOON,
        "recorded_at": NOON + seq,
        "event_id": f"event-{org_id}-{seq}",
        "source_topic": TOPICS.name("usage"),
        "source_partition": 0,
        "source_offset": seq,
        **fields,
    }


@st.composite
def entry_lists(draw: st.DrawFn, rows_max: int = 40) -> list[Row]:
    """Entries of a partition in ledger order: several orgs, kinds, dimensions and hours, big amounts among them."""
    amounts = st.one_of(st.integers(0, 10**9), st.sampled_from([9 * 10**18, 9 * 10**18 - 1]))
    kinds = st.sampled_from(["usage", "usage", "usage", "correction", "refund", "purchase", "setting"])
    seqs: dict[str, int] = defaultdict(int)
    rows = []
    for _ in range(draw(st.integers(0, rows_max))):
        org_id = draw(st.sampled_from(["acme", "bolt", "côté"]))
        seqs[org_id] += 1
        kind = draw(kinds)
        amount = draw(amounts)
        row = entry(
            org_id,
            seqs[org_id],
            -amount if kind == "usage" else amount,
            kind=kind,
            wallet=draw(st.sampled_from(["USD", "EUR"])),
            occurred_at=NOON + draw(st.sampled_from([0, 1, HOUR - 1, HOUR, -HOUR, 20 * HOUR, -31 * 24 * HOUR])),
        )
        if kind in {"usage", "correction"} or draw(st.booleans()):
            row["operation"] = draw(st.sampled_from(["chat.completion", "image"]))
            row["model"] = draw(st.sampled_from([None, "gpt-4o", ""]))
            row["user_id"] = draw(st.sampled_from([None, "u1", "u2"]))
            row["input_tokens"] = draw(st.sampled_from([None, 0, 7, 2**63 - 1]))
            row["output_tokens"] = draw(st.sampled_from([None, 3]))
            row["quantity_nanos"] = draw(st.sampled_from([None, 0, 5 * 10**8]))
            row["billing_unit"] = draw(st.sampled_from([None, "token", "request"]))
        if kind == "refund":
            row["reason"] = draw(st.sampled_from(["usage_refunded", "purchase_refunded"]))
        rows.append(row)
    return rows


def inbound(rows: Sequence[Row], first_offset: int, *, topic: str = LEDGER, record: str = "entry") -> Inbound:
    """The rows as one batch of the topic: row i at `first_offset` + 2 x i, as if each had its own transaction."""
    offsets = [first_offset + 2 * index for index in range(len(rows))]
    values: list[bytes | None] = []
    if rows:
        values.extend(encode_columns(record, batch_of(record, rows), bundled_id(record)))
    return Inbound(
        topic=topic,
        partition=0,
        first_offset=first_offset,
        next_offset=first_offset + 2 * len(rows),
        offsets=offsets,
        timestamps_ms=[row.get("recorded_at", NOON) // 1_000 for row in rows],
        keys=[str(row.get("org_id", "")).encode() for row in rows],
        values=values,
    )


def folded(rows: Iterable[Row], column: str) -> dict[tuple[Any, ...], Totals]:
    """The usage by `column` (hour, day or month) and dimensions, added up one entry at a time."""
    buckets: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * 6)
    for row in rows:
        added = _added(row)
        if added is not None:
            key = (_start(row["occurred_at"], column), *(row.get(name) or "" for name in DIMENSIONS))
            buckets[key] = [old + new for old, new in zip(buckets[key], added, strict=True)]
    return {key: (v[0], v[1], v[2], v[3], v[4], v[5]) for key, v in buckets.items()}


def _added(row: Mapping[str, Any]) -> Totals | None:
    amount = row["amount_nanos"]
    quantity = row.get("quantity_nanos")
    if quantity is None:
        quantity = 10**9 if row.get("billing_unit") not in {None, "token"} else 0
    used = (row.get("input_tokens") or 0, row.get("output_tokens") or 0, quantity)
    match row["kind"]:
        case "usage":
            return (1, *used, -amount, 0)
        case "correction":
            return (-1, -used[0], -used[1], -used[2], -amount, 0)
        case "refund" if row.get("reason") == "usage_refunded":
            return (0, 0, 0, 0, 0, amount)
    return None


def _start(micros: int, column: str) -> datetime | date:
    at = datetime.fromtimestamp(micros // 10**6, UTC)
    if column == "hour":
        return at.replace(minute=0, second=0)
    return at.date() if column == "day" else at.date().replace(day=1)
