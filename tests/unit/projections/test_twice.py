"""Every view, and what is audited, over tables in which every row is there twice and no merge has run.

A replay, or a second writer, inserts rows again; ClickHouse merges them at some time, or never. What people read must
not show it (product rule 34: aggregates may lag, they may not be wrong).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from projections.sink import Sink
from projections.verify import TABLES, clickhouse_audit
from schemas.records import BundledSchemas
from streams.kafka.inbound import Inbound
from tests.unit.projections.conftest import Engine
from tests.unit.projections.entries import NOON, TOPICS, entry, inbound
from tests.unit.projections.test_statements import org_setting
from tests.unit.projections.test_views import STORY, with_balances

VERSIONED = {
    "usage_hourly": ("cost + 1 AS cost", "requests + 1 AS requests"),
    "usage_daily": ("cost + 1 AS cost", "requests + 1 AS requests"),
    "usage_monthly": ("cost + 1 AS cost", "requests + 1 AS requests"),
    "balances": ("settled + 1 AS settled", "'red' AS health"),
    "prices": ("unit_price + 1 AS unit_price", "NOT deleted AS deleted"),
}
"""Tables with a version, and what an older version of each row may say otherwise."""

LOT = {"grant_id": "g", "kind": "promotional", "amount_nanos": 5, "priority": 50, "price_paid_nanos": None}
PART = {"unit_price_nanos": 10**6, "billing_unit": "token", "price_id": "p"}
PARTS = [
    PART | {"meter": "input_tokens", "quantity_nanos": 600 * 10**9, "amount_nanos": 6 * 10**8},
    PART | {"meter": "cache_read_tokens", "quantity_nanos": 400 * 10**9, "amount_nanos": 4 * 10**8},
]
LIMITS = '{"kind":"month_limits","body":{"unit":"USD","alert_threshold":"8","allowed_limit":"9"},"before":null}'
MORE = [
    org_setting(1, "Asia/Tokyo", NOON, org="zone"),
    entry("zone", 2, 5 * 10**9, kind="purchase", grants=[LOT | {"currency": None, "expires_at": None}]),
    entry("zone", 3, 0, kind="setting", details=LIMITS, source_topic=TOPICS.name("settings")),
    entry("zone", 4, -(10**9), operation="chat", model="m", recorded_at=NOON + 40 * 24 * 3_600 * 10**6,
          input_tokens=1_000, cache_read_tokens=400, components=PARTS),
    entry("zone", 5, -(10**9), kind="transfer_out", counterparty_org_id="acme", actor="ann", event_id="on-the-way"),
]  # fmt: skip


@pytest.fixture
def filled(client: Client) -> Client:
    """Something in every table and every view, each row once."""
    rows = [*STORY, *with_balances([dict(row) for row in MORE])]
    names = ("settled", "held", "available", "allocation", "month_spent", "lifetime_added", "lifetime_spent")
    wallet = {"unit": "USD", "status": "ok", "health": "green", **{f"{name}_nanos": 7 for name in names}}
    alert = {"alert_id": "a1", "org_id": "acme", "wallet": "USD", "kind": "credit_balance_low", "rule_version": 0,
             "balance_nanos": 0, "available_nanos": 0, "occurred_at": NOON, "entry_seq": 5}  # fmt: skip
    price = {"operation": "chat", "unit_price_nanos": 150, "billing_unit": "token", "wallet": "USD", "valid_from": NOON}
    prices = [{"price_id": name, **price} for name in ("p1", "p2")]
    taken_off = Inbound(TOPICS.name("prices"), 0, 4, 5, [4], [NOON // 1_000], [b"p2"], [None])
    headers: list[list[tuple[str, bytes]]] = [
        [("__streams.errors.offset", b"41"), ("credits.error.code", b"undecodable")]
    ]
    letter = Inbound(TOPICS.name("dead_letters"), 0, 0, 1, [0], [NOON // 1_000], [b"acme"], [b"\x00"])
    letter.headers.extend(headers)
    Sink(client, TOPICS, BundledSchemas()).apply(
        [
            inbound(rows, 0),
            inbound([{"org_id": "acme", "seq": 16, "as_of": NOON, "wallets": [wallet]}], 0,
                    topic=TOPICS.name("balances"), record="balance"),
            inbound([alert], 0, topic=TOPICS.name("alerts_threshold"), record="alert"),
            inbound(prices, 0, topic=TOPICS.name("prices"), record="price"),
            taken_off,
            letter,
        ]
    )  # fmt: skip
    for table in (*TABLES, "positions"):
        client.command(f"SYSTEM STOP MERGES {table}")
    return client


def views(client: Client) -> list[str]:
    return [row[0] for row in client.query("SHOW TABLES LIKE 'v_%'").result_rows]


def shown(client: Client) -> dict[str, Counter[str]]:
    """What each view shows, lines in any order."""
    return {view: Counter(map(repr, client.query(f"SELECT * FROM {view}").result_rows)) for view in views(client)}


def audited(client: Client) -> dict[str, Any]:
    return {name: figures for name, figures in clickhouse_audit(client).items() if name != "tables"}


def test_rows_that_are_there_twice_are_shown_once(filled: Client) -> None:
    before, audit = shown(filled), audited(filled)
    assert all(before.values()), f"nothing to compare in {[view for view, lines in before.items() if not lines]}"
    for table in (*TABLES, "positions"):
        rows = filled.command(f"SELECT count() FROM {table}")
        assert rows, f"nothing in {table}"
        filled.command(f"INSERT INTO {table} SELECT * FROM {table}", settings={"optimize_on_insert": 0})
        assert filled.command(f"SELECT count() FROM {table}") == 2 * int(rows)  # type: ignore[arg-type]
    assert shown(filled) == before
    assert audited(filled) == audit


def test_an_older_version_that_comes_again_is_not_shown(filled: Client) -> None:
    """An owner that was replaced writes the bucket as it was; a replay, an older balance."""
    before, audit = shown(filled), audited(filled)
    for table, changes in VERSIONED.items():
        older = ", ".join(("version - 1 AS version", *changes))
        filled.command(f"INSERT INTO {table} SELECT * REPLACE({older}) FROM {table}")
    filled.command("INSERT INTO positions SELECT * REPLACE(position - 1 AS position) FROM positions")
    assert shown(filled) == before
    assert audited(filled) == audit


def test_a_merge_changes_nothing(filled: Client) -> None:
    for table in (*TABLES, "positions"):
        filled.command(f"INSERT INTO {table} SELECT * FROM {table}")
    before, audit = shown(filled), audited(filled)
    for table in (*TABLES, "positions"):
        filled.command(f"SYSTEM START MERGES {table}")
        filled.command(f"OPTIMIZE TABLE {table} FINAL")
    assert shown(filled) == before
    assert audited(filled) == audit


@pytest.mark.slow
@pytest.mark.parametrize(
    "question",
    [
        "SELECT sum(entries) FROM v_entries_hourly",
        "SELECT count() FROM v_ledger",
        "SELECT sum(entries) FROM v_statement_monthly",
        "SELECT count() FROM v_movements",
    ],
)
def test_what_is_there_twice_is_left_out_in_bounded_memory(millions: Client, question: str) -> None:
    """Not by a set of all entries that were seen: that was 700 MB for these, and 100 GB for a year."""
    assert int(millions.query(question, settings={"max_memory_usage": MEMORY_BYTES_MAX}).result_rows[0][0]) == ENTRIES


@pytest.mark.slow
@pytest.mark.parametrize(
    "question",
    [
        "SELECT sum(entries) FROM v_entries_hourly WHERE hour >= '2026-04-01' AND hour < '2026-04-02'",
        "SELECT count() FROM v_ledger WHERE recorded_at >= '2026-04-01' AND recorded_at < '2026-04-02'",
        "SELECT count() FROM v_movements WHERE recorded_at >= '2026-04-01' AND recorded_at < '2026-04-02'",
    ],
)
def test_a_span_of_time_reads_its_months_alone(millions: Client, question: str) -> None:
    plan = "\n".join(row[0] for row in millions.query(f"EXPLAIN indexes = 1 {question}").result_rows)
    read, there = map(int, re.findall(r"Parts: (\d+)/(\d+)", plan)[0])
    assert read < there, plan


ENTRIES = 1_000_000
MEMORY_BYTES_MAX = 150_000_000


@pytest.fixture(scope="module")
def millions(engine: Engine) -> Iterator[Client]:
    """Many entries of 1,000 orgs over two months, each of them twice."""
    from projections.clickhouse import connect, migrate
    from tests.brokers import test_settings

    client = connect(test_settings(engine.data_dir, namespace="millions."))
    try:
        migrate(client)
        for _ in range(2):
            client.command(
                "INSERT INTO ledger (org_id, seq, kind, wallet, amount, recorded_at, ledger_offset)"
                " SELECT concat('org-', toString(number % 1000)), intDiv(number, 1000) + 1, 'usage', 'USD', -1,"
                " toDateTime64('2026-04-01 00:00:00', 6, 'UTC') + number * 4, number"
                f" FROM numbers({ENTRIES})"
            )
        yield client
    finally:
        client.close()
