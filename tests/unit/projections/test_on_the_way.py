"""What left for another org and has neither arrived nor come back (product rule 22), on rows that are there twice."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from projections.sink import Sink
from schemas.records import BundledSchemas
from schemas.times import to_datetime
from tests.unit.projections.entries import NOON, TOPICS, Row, entry, inbound

NANOS = 10**9
SENT, LEGS = TOPICS.name("transfers"), TOPICS.name("transfer_legs")
COLUMNS = "org_id, target_org_id, wallet, amount, transfer_id, actor, seq"


def out(seq: int, name: str, amount: int, org: str = "acme", to: str = "bolt", **more: Any) -> Row:
    words = {"kind": "transfer_out", "event_id": name, "counterparty_org_id": to, "actor": "ann", "source_topic": SENT}
    return entry(org, seq, -amount * NANOS, **words | more)


def arrived(seq: int, name: str, **more: Any) -> Row:
    return out(seq, name, 0, source_topic=LEGS, details='{"acknowledged":true}', **more)


def back(seq: int, name: str, amount: int, **more: Any) -> Row:
    return out(seq, name, -amount, kind="transfer_return", source_topic=LEGS, reason="org_closed", **more)


STORY = [
    entry("acme", 1, 100 * NANOS, kind="purchase"),
    out(2, "open", 5),
    out(3, "there", 7),
    out(4, "again", 1),
    arrived(5, "there"),
    out(6, "home", 9),
    arrived(7, "again"),
    back(8, "home", 9),
    out(9, "euros", 3, to="coil", wallet="EUR"),
    out(10, "again", 2),  # the same id, more than 35 days later
    out(11, "refused", 0, kind="rejected", reason="insufficient_credits"),
    out(1, "open", 4, org="bolt", to="acme"),  # ids are of one org
    entry("bolt", 2, 7 * NANOS, kind="transfer_in", event_id="there", counterparty_org_id="acme", source_topic=LEGS),
]
ON_THE_WAY = [
    ("acme", "bolt", "USD", Decimal(5), "open", "ann", 2),
    ("acme", "coil", "EUR", Decimal(3), "euros", "ann", 9),
    ("acme", "bolt", "USD", Decimal(2), "again", "ann", 10),
    ("bolt", "acme", "USD", Decimal(4), "open", "ann", 1),
]


@pytest.fixture
def story(client: Client) -> Client:
    """The story, projected twice in other batches; every row is there twice at least."""
    for cuts in ([len(STORY)], list(range(1, len(STORY) + 1))):
        sink = Sink(client, TOPICS, BundledSchemas())
        start = 0
        for cut in cuts:
            sink.apply([inbound(STORY[start:cut], 2 * start)])
            start = cut
        client.command("INSERT INTO ledger SELECT * FROM ledger")
        client.command("TRUNCATE TABLE positions")
    assert client.command(f"SELECT count() > {len(STORY)} FROM ledger") == 1
    return client


def test_what_left_and_was_not_answered_is_on_the_way(story: Client) -> None:
    found = story.query(f"SELECT {COLUMNS} FROM v_on_the_way ORDER BY org_id, seq").result_rows
    assert [tuple(row) for row in found] == ON_THE_WAY


def test_since_is_when_it_left(story: Client) -> None:
    ((since,),) = story.query("SELECT since FROM v_on_the_way WHERE transfer_id = 'euros'").result_rows
    assert abs(since - to_datetime(NOON + 9)) < timedelta(microseconds=1)


def test_an_answer_that_comes_later_takes_it_off(client: Client) -> None:
    sink = Sink(client, TOPICS, BundledSchemas())
    sink.apply([inbound(STORY, 0)])
    sink.apply([inbound([back(12, "open", 5), arrived(13, "euros")], 2 * len(STORY))])
    found = client.query("SELECT transfer_id FROM v_on_the_way WHERE org_id = 'acme'").result_rows
    assert [row[0] for row in found] == ["again"]


def test_one_org_is_read_by_the_index(story: Client) -> None:
    plan = "\n".join(
        row[0]
        for row in story.query("EXPLAIN indexes = 1 SELECT * FROM v_on_the_way WHERE org_id = 'acme'").result_rows
    )
    assert plan.count("(org_id in ['acme', 'acme'])") == plan.count("ReadFromMergeTree") > 0, plan
