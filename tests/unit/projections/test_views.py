"""What people read: each view on rows that are there twice and in several versions, before any merge."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

import projections
from projections.sink import Sink
from schemas.records import BundledSchemas
from tests.unit.projections.entries import LEDGER, NOON, TOPICS, Row, entry, inbound

README = Path(projections.__file__).parent / "README.md"
D = Decimal
PURCHASES, SETTINGS, REFUNDS = TOPICS.name("purchases"), TOPICS.name("settings"), TOPICS.name("refunds")
BUYING = {"grant_id": "purchase/p1", "kind": "purchased", "amount_nanos": 50 * 10**9, "priority": 50}


def setting(kind: str, body: dict[str, Any], before: dict[str, Any] | None = None) -> str:
    return json.dumps({"kind": kind, "body": body, "before": before}, separators=(",", ":"))


def with_balances(rows: list[Row]) -> list[Row]:
    """The rows with running balances, as the ledger writes them."""
    balances: dict[tuple[str, str], int] = {}
    for row in rows:
        wallet = (row["org_id"], row["wallet"])
        balances[wallet] = row["balance_nanos"] = balances.get(wallet, 0) + row["amount_nanos"]
        row["available_nanos"] = row["balance_nanos"]
    return rows


STORY = with_balances(
    [
        entry("acme", 1, 0, kind="setting", wallet="USD", source_topic=SETTINGS, actor="ann",
              details=setting("wallet", {"unit": "USD", "allowance": "100"})),
        entry("acme", 2, 100 * 10**9, kind="allowance", wallet="USD", source_topic="", recorded_at=NOON - 10**12),
        entry("acme", 3, 50 * 10**9, kind="purchase", event_id="p1", source_topic=PURCHASES, actor="ann",
              correlation_id="topup-1", details='{"kind":"purchased","status":"completed","amount_nanos":50000000000}',
              grants=[BUYING | {"price_paid_nanos": 49 * 10**9, "currency": "USD", "expires_at": NOON + 1}]),
        entry("acme", 4, 0, kind="purchase", event_id="p2", source_topic=PURCHASES, reason="purchase_failed",
              details='{"kind":"purchased","status":"failed","amount_nanos":7,"failure_reason":"card declined"}'),
        entry("acme", 5, 0, kind="rejected", event_id="p3", source_topic=PURCHASES, reason="not_authorized",
              actor="eve", details='{"kind":"purchased","status":"completed","amount_nanos":9}'),
        entry("acme", 6, -10 * 10**9, operation="chat", model="gpt-4o", user_id="u1", input_tokens=100),
        entry("acme", 7, 10 * 10**9, kind="correction", operation="chat", model="gpt-4o", user_id="u1",
              input_tokens=100),
        entry("acme", 8, -4 * 10**9, operation="chat", model="gpt-4o", user_id="u1", input_tokens=40, revision=1),
        entry("acme", 9, 10**9, kind="refund", reason="usage_refunded", operation="chat", model="gpt-4o", user_id="u1",
              source_topic=REFUNDS, correlation_id="event-acme-8"),
        entry("acme", 10, -20 * 10**9, kind="refund", reason="purchase_refunded", source_topic=REFUNDS,
              correlation_id="p1", actor="ann"),
        entry("acme", 11, -5 * 10**9, kind="transfer_out", counterparty_org_id="bolt", actor="ann",
              source_topic=TOPICS.name("transfers"), event_id="t1"),
        entry("acme", 12, 0, kind="transfer_out", counterparty_org_id="bolt", event_id="t1",
              source_topic=TOPICS.name("transfer_legs"), details='{"acknowledged":true}'),
        entry("acme", 13, 0, kind="setting", wallet="USD", source_topic=SETTINGS, actor="ann",
              details=setting("wallet", {"unit": "USD", "allowance": "10"}, {"unit": "USD", "allowance": "100"})),
        entry("acme", 14, 0, kind="setting", wallet="", source_topic=SETTINGS, actor="ann",
              details=setting("member", {"user_id": "bob", "role": "owner"})),
        entry("acme", 15, 0, kind="rejected", wallet="", source_topic=SETTINGS, actor="eve", reason="not_authorized",
              details='{"kind":"member","message":"no","body":"{\\"user_id\\":\\"bob\\"}"}'),
        entry("acme", 16, 0, kind="rejected", source_topic=TOPICS.name("holds"), reason="limit_reached"),
        entry("bolt", 1, 5 * 10**9, kind="transfer_in", counterparty_org_id="acme"),
        entry("bolt", 2, -5 * 10**9, wallet="EUR", operation="image", billing_unit="request"),
    ]
)  # fmt: skip


@pytest.fixture
def story(client: Client) -> Client:
    """The story, projected three times over, in other batches, with the tables' own protection taken away."""
    for cuts in ([len(STORY)], [3, 7, len(STORY)], list(range(1, len(STORY) + 1))):
        sink = Sink(client, TOPICS, BundledSchemas())
        start = 0
        for cut in cuts:
            sink.apply([inbound(STORY[start:cut], 2 * start)])
            start = cut
        for table in ("ledger", "activity", "purchases"):
            client.command(f"INSERT INTO {table} SELECT * FROM {table}")
        client.command("TRUNCATE TABLE positions")
    assert client.command("SELECT count() > 18 FROM ledger") == 1
    return client


def rows(client: Client, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in client.query(sql).result_rows]


def test_ledger(story: Client) -> None:
    """Product rule 30: every item, with what it cost and the balance after it."""
    shown = rows(story, "SELECT org_id, seq, kind, amount, balance FROM v_ledger WHERE org_id = 'acme' ORDER BY seq")
    assert [row[:3] for row in shown] == [("acme", row["seq"], row["kind"]) for row in STORY if row["org_id"] == "acme"]
    assert [row[4] for row in shown][-1] == D(122)
    grants = rows(story, "SELECT grants FROM v_ledger WHERE event_id = 'p1'")[0][0]
    assert grants[0]["price_paid"] == D(49)


@pytest.mark.parametrize("level", ["hourly", "daily", "monthly"])
def test_usage(story: Client, level: str) -> None:
    """Product rule 31: requests, tokens and cost by dimension, net of corrections, refunds beside them."""
    columns = "org_id, model, requests, input_tokens, cost, refunded, net_cost, quantity"
    assert rows(story, f"SELECT {columns} FROM v_usage_{level} ORDER BY org_id") == [
        ("acme", "gpt-4o", 1, D(40), D(4), D(1), D(3), D(0)),
        ("bolt", "", 1, D(0), D(5), D(0), D(5), D(1)),
    ]


def test_purchases(story: Client) -> None:
    """Product rule 30: payments, and the tries that brought nothing."""
    columns = "purchase_id, status, amount, refunded, price_paid, currency, failure_reason, actor, topup_request_id"
    assert rows(story, f"SELECT {columns} FROM v_purchases ORDER BY seq") == [
        ("p1", "completed", D(50), D(20), D(49), "USD", "", "ann", "topup-1"),
        ("p2", "failed", D("0.000000007"), D(0), None, "", "card declined", "", ""),
        ("p3", "refused", D("0.000000009"), D(0), None, "", "", "eve", ""),
    ]


def test_activity(story: Client) -> None:
    """Product rule 32: who, what, when, before and after; refused tries included, machines' work not."""
    columns = "seq, actor, action, subject, before, after, refused"
    assert rows(story, f"SELECT {columns} FROM v_activity WHERE org_id = 'acme' ORDER BY seq") == [
        (1, "ann", "wallet", "USD", "", '{"unit":"USD","allowance":"100"}', False),
        (3, "ann", "purchase", "", "100", "150", False),
        (4, "", "purchase", "", "150", "150", False),
        (5, "eve", "purchase", "", "", "", True),
        (9, "", "refund", "", "146", "147", False),
        (10, "ann", "refund", "", "147", "127", False),
        (11, "ann", "transfer_out", "", "127", "122", False),
        (13, "ann", "wallet", "USD", '{"unit":"USD","allowance":"100"}', '{"unit":"USD","allowance":"10"}', False),
        (14, "ann", "member", "bob", "", '{"user_id":"bob","role":"owner"}', False),
        (15, "eve", "member", "bob", "", "", True),
    ]


def test_settings_in_force(story: Client) -> None:
    assert rows(story, "SELECT kind, subject, body FROM v_settings ORDER BY kind") == [
        ("member", "bob", '{"user_id":"bob","role":"owner"}'),
        ("wallet", "USD", '{"unit":"USD","allowance":"10"}'),
    ]


def test_statement(story: Client) -> None:
    """Product rule 24: opening, movements by kind, closing; they add up, in every month and from month to month."""
    columns = "month, opening, purchased, allowance, transferred, used, refunded, expired, movement, closing"
    where = "WHERE org_id = 'acme' AND wallet = 'USD'"
    shown = rows(story, f"SELECT {columns} FROM v_statement_monthly {where} ORDER BY month")
    assert [row[1:] for row in shown] == [
        (D(0), D(50), D(100), D(-5), D(-4), D(-19), D(0), D(122), D(122)),
    ]


def test_entries_by_hour(story: Client) -> None:
    shown = rows(
        story, "SELECT kind, sum(entries), sum(amount) FROM v_entries_hourly WHERE wallet = 'EUR' GROUP BY kind"
    )
    assert shown == [("usage", 1, D(-5))]
    assert story.command("SELECT sum(entries) FROM v_entries_hourly") == len(STORY)


def test_burn_rate(client: Client) -> None:
    """Product rule 31: 7 credits a day for the last days, 70 left: ten days. Older usage does not count."""
    day = 24 * 3_600 * 10**6
    used = [
        entry("acme", seq, -7 * 10**9, operation="chat", occurred_at=NOON - (seq - 1) * day + 1, recorded_at=NOON)
        for seq in range(1, 12)
    ]
    amount_fields = ("held", "allocation", "month_spent", "lifetime_added", "lifetime_spent")
    wallets = [
        {"unit": unit, "settled_nanos": 70 * 10**9, "available_nanos": 70 * 10**9, "status": "ok", "health": "green"}
        | {f"{name}_nanos": 0 for name in amount_fields}
        for unit in ("USD", "EUR")
    ]
    balance = {"org_id": "acme", "seq": 11, "as_of": NOON, "wallets": wallets}
    sink = Sink(client, TOPICS, BundledSchemas())
    sink.apply([inbound(used, 0), inbound([balance], 0, topic=TOPICS.name("balances"), record="balance")])
    columns = "wallet, available, spent_last_day, spent_last_week, spent_per_day, days_left"
    assert rows(client, f"SELECT {columns} FROM v_burn_rate ORDER BY wallet") == [
        ("EUR", D(70), D(0), D(0), D(0), None),
        ("USD", D(70), D(7), D(49), D(7), 10.0),
    ]


def balance_of(wallets: dict[str, str], **amounts: int) -> Row:
    """A published balance of acme: unit → status, amounts in credits."""
    names = ("settled", "held", "available", "allocation", "month_spent", "lifetime_added", "lifetime_spent")
    nanos = {f"{name}_nanos": amounts.get(name, 0) * 10**9 for name in names}
    units = [{"unit": unit, "status": status, "health": "green", **nanos} for unit, status in wallets.items()]
    return {"org_id": "acme", "seq": 16, "as_of": NOON, "wallets": units}


def publish(client: Client, *balances: Row) -> None:
    sink = Sink(client, TOPICS, BundledSchemas())
    sink.apply([inbound(balances, 0, topic=TOPICS.name("balances"), record="balance")])


def test_balance_card(story: Client) -> None:
    """Product rule 29: balance, low badge, lifetime added and spent, the five latest movements with running balance."""
    publish(story, balance_of({"USD": "low", "EUR": "ok"}, settled=122, available=120, lifetime_added=50))
    columns = "wallet, settled, available, low, lifetime_added, movements.amount, movements.balance"
    assert rows(story, f"SELECT {columns} FROM v_balance_cards WHERE org_id = 'acme' ORDER BY wallet") == [
        ("EUR", D(122), D(120), False, D(50), [], []),
        ("USD", D(122), D(120), True, D(50), [D(-5), D(-20), D(1), D(-4), D(10)],
         [D(122), D(127), D(147), D(146), D(150)]),
    ]  # fmt: skip


WORSE: dict[str, tuple[list[tuple[str, dict[str, Any]]], int, bool]] = {
    "nobody set a line: 10": ([], 10, True),
    "above it": ([], 11, False),
    "the wallet's line": ([("wallet", {"low_balance_threshold": "20.5"})], 20, True),
    "above the wallet's line": ([("wallet", {"low_balance_threshold": "20.5"})], 21, False),
    "the newest wallet's line": (
        [("wallet", {"low_balance_threshold": "20"}), ("wallet", {"low_balance_threshold": "0"})],
        1,
        False,
    ),
    "the threshold of auto top-up": ([("auto_topup", {"enabled": True, "threshold": "30"})], 30, True),
    "not the wallet's line while top-up is on": (
        [("wallet", {"low_balance_threshold": "20"}), ("auto_topup", {"enabled": True, "threshold": "5"})],
        6,
        False,
    ),
    "a top-up with no threshold asks at 0": ([("auto_topup", {"enabled": True})], 1, False),
    "the wallet's line while top-up is off": (
        [("auto_topup", {"enabled": False, "threshold": "5"}), ("wallet", {"low_balance_threshold": "20"})],
        20,
        True,
    ),
    "another wallet's line": ([("wallet", {"unit": "EUR", "low_balance_threshold": "50"})], 20, False),
}
"""What was set, the available balance, and whether that is low though the status says something worse."""


def test_the_low_badge_beside_a_worse_status(client: Client) -> None:
    """Product rule 29: the badge says that the balance is low (rule 28), whatever else stops the wallet."""
    wanted = {(label, status): low for label, (_, _, low) in WORSE.items() for status in ("limit_reached", "blocked")}
    balances = [
        balance_of({"USD": status}, settled=1_000, available=WORSE[label][1]) | {"org_id": f"{label}: {status}"}
        for label, status in wanted
    ]
    entries = [
        entry(balance["org_id"], seq, 0, kind="setting", source_topic=SETTINGS,
              details=setting(kind, {"unit": "USD", **body}))
        for balance, (label, _) in zip(balances, wanted, strict=True)
        for seq, (kind, body) in enumerate(WORSE[label][0], start=1)
    ]  # fmt: skip
    publish(client, *balances)
    Sink(client, TOPICS, BundledSchemas()).apply([inbound(entries, 0)])
    shown = dict(rows(client, "SELECT org_id, low FROM v_balance_cards"))
    assert shown == {f"{label}: {status}": low for (label, status), low in wanted.items()}


def test_the_low_badge_is_the_status_where_that_says_it(client: Client) -> None:
    """Settings and balances are projected each at its own speed: a line that is newer than the balance waits for it."""
    wanted = {"ok": False, "low": True, "depleted": True, "negative": True}
    publish(client, balance_of({status: status for status in wanted}, available=10))
    assert dict(rows(client, "SELECT status, low FROM v_balance_cards")) == wanted


def test_month_so_far(client: Client) -> None:
    """Product rule 30: used, alert threshold, allowed limit, remaining; the newest setting counts."""

    def limits(seq: int, alert: str | None, allowed: str | None) -> Row:
        body = {"unit": "USD", "alert_threshold": alert, "allowed_limit": allowed}
        return entry("acme", seq, 0, kind="setting", source_topic=SETTINGS, details=setting("month_limits", body))

    asked = "SELECT wallet, used, alert_threshold, allowed_limit, remaining FROM v_month_so_far ORDER BY wallet"
    publish(client, balance_of({"USD": "ok", "EUR": "ok"}, month_spent=85))
    Sink(client, TOPICS, BundledSchemas()).apply([inbound([limits(1, "10", "20"), limits(2, "80", "100.5")], 0)])
    none = ("EUR", D(85), None, None, None)
    assert rows(client, asked) == [none, ("USD", D(85), D(80), D("100.5"), D("15.5"))]
    Sink(client, TOPICS, BundledSchemas()).apply([inbound([limits(3, "80", None)], 4)])
    assert rows(client, asked) == [none, ("USD", D(85), D(80), None, None)]


def test_freshness(client: Client) -> None:
    """Product rule 34: as of when what is shown is true."""
    sink = Sink(client, TOPICS, BundledSchemas())
    for seq in (1, 2, 3):
        sink.apply([inbound([entry("acme", seq, -1)], 2 * (seq - 1))])
    assert rows(client, "SELECT topic, partition, position FROM v_freshness") == [(LEDGER, 0, 6)]
    assert client.command("SELECT toUnixTimestamp64Milli(as_of) FROM v_freshness") == NOON // 1_000


BLOCKS = re.findall(
    r"`(v_\w+)`: [^\n]+\n```sql\n(.*?);\n```\n```text\n([^\n]+)\n", README.read_text(encoding="utf-8"), re.DOTALL
)


@pytest.mark.parametrize(("view", "sql", "head"), BLOCKS, ids=[view for view, _, _ in BLOCKS])
def test_the_readmes_questions_run(client: Client, view: str, sql: str, head: str) -> None:
    assert f"FROM {view}" in sql
    assert [row[0] for row in client.query(f"DESCRIBE ({sql})").result_rows] == head.split()


def test_the_readme_asks_every_view(client: Client) -> None:
    assert {view for view, _, _ in BLOCKS} == {row[0] for row in client.query("SHOW TABLES LIKE 'v_%'").result_rows}


def test_a_filter_reaches_the_table(story: Client) -> None:
    """A view over all orgs must not be read whole for one of them: the org is in the index of the plan."""
    story.command("INSERT INTO alerts (org_id, alert_id) VALUES ('acme', '1')")
    story.command("INSERT INTO balances (org_id, wallet) VALUES ('acme', 'USD')")
    for view in (
        "v_ledger",
        "v_usage_hourly",
        "v_balances",
        "v_alerts",
        "v_activity",
        "v_purchases",
        "v_movements",
        "v_invoices",
        "v_credit_notes",
        "v_balance_cards",
        "v_month_so_far",
        "v_statement_monthly",
    ):
        plan = "\n".join(
            row[0] for row in rows(story, f"EXPLAIN indexes = 1 SELECT * FROM {view} WHERE org_id = 'acme'")
        )
        by_org = plan.count("(org_id in ['acme', 'acme'])")
        assert by_org == plan.count("ReadFromMergeTree"), f"{view}:\n{plan}"
