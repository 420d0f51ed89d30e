"""Usage by meter: every component of every usage once, net of corrections, whatever the batches; and cache savings."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from clickhouse_connect.driver.client import Client
from hypothesis import given
from hypothesis import strategies as st

from projections.buckets import DAILY, METERS, Buckets, additions, meter_rows, usage_rows
from projections.sink import Sink
from schemas.amounts import NANOS
from schemas.codec import batch_of
from schemas.records import BundledSchemas
from tests.unit.projections.entries import LEDGER, TOPICS, Row, entry, inbound

MILLION = "1000000_tokens"


def component(meter: str, quantity: int, amount: int, **more: Any) -> Row:
    return {
        "meter": meter,
        "quantity_nanos": quantity * NANOS,
        "unit_price_nanos": 0,
        "billing_unit": MILLION,
        "price_id": meter,
        "amount_nanos": amount,
        **more,
    }


def usage(seq: int, parts: Sequence[Row], **more: Any) -> Row:
    amount = -sum(part["amount_nanos"] for part in parts)
    prices = {"unit_price_nanos": 2 * NANOS, "output_unit_price_nanos": 8 * NANOS, "billing_unit": MILLION}
    return entry("acme", seq, amount, operation="chat", components=list(parts), **{**prices, **more})


PARTS = st.builds(
    component, st.sampled_from(["input_tokens", "cache_read_tokens", "images"]), st.integers(1, 50), st.integers(0, 99)
)
ENTRIES = st.lists(
    st.tuples(st.lists(PARTS, max_size=3), st.sampled_from(["opus", "fable"]), st.booleans()), max_size=12
)


def entries_of(drawn: list[tuple[list[Row], str, bool]]) -> list[Row]:
    rows = []
    for seq, (parts, model, corrects) in enumerate(drawn, 1):
        if corrects:
            parts = [
                {**part, "quantity_nanos": -part["quantity_nanos"], "amount_nanos": -part["amount_nanos"]}
                for part in parts
            ]
        rows.append(usage(seq, parts, model=model, kind="correction" if corrects else "usage"))
    return rows


@given(ENTRIES, st.data())
def test_any_batches_give_the_sums(drawn: list[tuple[list[Row], str, bool]], data: st.DataObject) -> None:
    rows = entries_of(drawn)
    expected: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        for part in row["components"]:
            for name in ("quantity", "amount"):
                expected[row["model"], part["meter"], name] += part[f"{name}_nanos"]
    buckets, found = Buckets(METERS, 1_000), {}
    cuts = sorted({*data.draw(st.lists(st.integers(0, len(rows)), max_size=4)), len(rows)})
    for begin, end in itertools.pairwise([0, *cuts]):
        begin -= data.draw(st.integers(0, begin))  # some of it again
        if begin == end:
            continue
        batch = meter_rows(batch_of("entry", rows[begin:end]), 0, np.arange(begin, end))
        table = None if batch is None else buckets.add(additions(METERS, batch))
        for row in [] if table is None else table.to_pylist():
            found[row["model"], row["meter"]] = row["quantity"], row["cost"]
    sums = {key: value for key, value in expected.items() if value}
    told = {
        (*key, name): int(value.scaleb(9))
        for key, values in found.items()
        for name, value in zip(("quantity", "amount"), values, strict=True)
        if value
    }
    assert told == sums


def test_buckets_of_usage_have_the_named_parts() -> None:
    rows = [
        entry("acme", 1, -5, operation="chat", input_tokens=9, cache_read_tokens=7, output_reasoning_tokens=3),
        entry("acme", 2, 5, operation="chat", kind="correction", input_tokens=9, cache_read_tokens=7),
        entry("acme", 3, -5, operation="chat", input_tokens=4, cache_write_1h_tokens=2),
    ]
    counted = usage_rows(batch_of("entry", rows), 0, np.arange(3))
    assert counted is not None
    (row,) = Buckets(DAILY, 10).add(additions(DAILY, counted)).to_pylist()  # type: ignore[union-attr]
    shown = {name: int(row[name]) for name in row if name.endswith("tokens")}
    assert {name: count for name, count in shown.items() if count} == {
        "input_tokens": 4,
        "output_reasoning_tokens": 3,
        "cache_write_1h_tokens": 2,
    }


def test_what_the_cache_has_saved(client: Client) -> None:
    """1,000,000 tokens read from a cache at 0.2 instead of 2, 3 of them in a usage that was taken back."""
    sink = Sink(client, TOPICS, BundledSchemas())
    rows = [
        usage(1, [component("input_tokens", 10, 20), component("cache_read_tokens", 10**6, NANOS // 5)], model="opus"),
        usage(2, [component("cache_read_tokens", 3, 1)], model="opus"),
        usage(3, [component("cache_read_tokens", -3, -1)], model="opus", kind="correction"),
        usage(4, [component("images", 3, 1)], model="fable"),
    ]
    sink.restore([(LEDGER, 0)])
    sink.apply([inbound(rows, 0)])
    saved = client.query("SELECT model, cached_tokens, cached_cost, cost_without_cache, saved FROM v_cache_savings")
    assert saved.result_rows == [("opus", 10**6, Decimal("0.2"), Decimal("2"), Decimal("1.8"))]
    meters = client.query("SELECT meter, quantity, requests FROM v_usage_meters_daily ORDER BY meter")
    assert meters.result_rows == [("cache_read_tokens", 10**6, 1), ("images", 3, 1), ("input_tokens", 10, 1)]
    shown = client.query("SELECT components[1].meter, cache_read_tokens FROM v_ledger WHERE seq = 1").result_rows
    assert shown == [("input_tokens", 0)]
