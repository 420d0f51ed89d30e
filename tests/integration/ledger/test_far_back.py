"""Usage that is refunded weeks later (product rule 21): its id is forgotten, a million entries lie behind it."""

from __future__ import annotations

from confluent_kafka import Producer

from schemas.amounts import NANOS
from schemas.codec import decode_columns, encode_one, rows_of
from schemas.enums import InputKind
from schemas.records import bundled_id
from streams.engine.ledger_lookup import PASS_RECORDS_MAX
from streams.kafka.clients import producer_config
from streams.kafka.consume import Offsets
from streams.kafka.reader import committed_ends, read_range
from tests.integration.ledger.broker_port import BrokerPort
from tests.integration.ledger.installation import LedgerInstallation
from tests.products.scenario import Row

BOUGHT_AT = 1_780_000_000_000_000
HOUR_US = 3_600_000_000
USED_AT = BOUGHT_AT + HOUR_US
REFUNDED_AT = USED_AT + 30 * 24 * HOUR_US
BATCH_RECORDS = 20_000


def usage(name: str) -> Row:
    return {"event_id": name, "org_id": "acme", "occurred_at": USED_AT, "operation": "chat", "cost_nanos": NANOS}


def refund(name: str, target: str, recorded_at: int | None = None) -> Row:
    return {
        "refund_id": name,
        "org_id": "acme",
        "occurred_at": REFUNDED_AT,
        "target": "usage",
        "target_id": target,
        "amount_nanos": NANOS,
        "target_recorded_at": recorded_at,
    }


def fill(installation: LedgerInstallation, records: int) -> None:
    """So many entries of somebody else, recorded after the usage: as if they had been decided here."""
    fields = {
        "org_id": "busy",
        "seq": 1,
        "entry_id": "busy:1",
        "kind": "usage",
        "recorded_at": USED_AT + HOUR_US,
        "occurred_at": USED_AT + HOUR_US,
        "event_id": "b",
        "wallet": "USD",
        "amount_nanos": 0,
        "balance_nanos": 0,
        "available_nanos": 0,
        "held_nanos": 0,
    }
    message = {"key": b"busy", "value": encode_one("entry", fields, bundled_id("entry"))}
    producer = Producer(
        producer_config(installation.settings, queue_buffering_max_messages=2 * BATCH_RECORDS, linger_ms=5)
    )
    topic = installation.topics.name("ledger")
    for _ in range(0, records, BATCH_RECORDS):
        assert (
            producer.produce_batch(topic, [dict(message) for _ in range(BATCH_RECORDS)], partition=0) == BATCH_RECORDS
        )
        assert producer.flush(60) == 0


def entries_since(installation: LedgerInstallation, starts: Offsets) -> list[Row]:
    """What the ledger has gained, decoded; without the turn of the month."""
    ends = committed_ends(installation.settings, [installation.topics.name("ledger")])
    values = [message.value() for batch in read_range(installation.settings, starts, ends) for message in batch]
    rows = rows_of(decode_columns("entry", values, installation.registry).batch)
    return [row for row in rows if row["kind"] != "rollover"]


def test_usage_is_refunded_weeks_later_when_the_refund_names_the_time(port: BrokerPort) -> None:
    bought = {
        "purchase_id": "p",
        "org_id": "acme",
        "occurred_at": BOUGHT_AT,
        "wallet": "USD",
        "amount_nanos": 9 * NANOS,
    }
    port.send(InputKind.PURCHASE, bought, BOUGHT_AT)
    for name in ("u1", "u2"):
        port.send(InputKind.USAGE, usage(name), USED_AT)
    port.advance(USED_AT)
    fill(port.installation, PASS_RECORDS_MAX)
    port.advance(REFUNDED_AT)
    filled = committed_ends(port.installation.settings, [port.installation.topics.name("ledger")])

    port.send(InputKind.REFUND, refund("without", "u1"), REFUNDED_AT)
    port.advance(REFUNDED_AT)
    port.send(InputKind.REFUND, refund("with", "u1", USED_AT), REFUNDED_AT)
    port.advance(REFUNDED_AT)
    port.send(InputKind.REFUND, refund("whole", "u2", USED_AT), REFUNDED_AT)
    port.send(InputKind.REFUND, refund("more", "u2", USED_AT), REFUNDED_AT)
    port.advance(REFUNDED_AT)

    entries = entries_since(port.installation, filled)
    assert [(row["event_id"], row["kind"], row["reason"]) for row in entries] == [
        ("without", "rejected", "unknown_usage"),
        ("with", "refund", "usage_refunded"),
        ("whole", "refund", "usage_refunded"),
        ("more", "rejected", "exceeds_refundable"),
    ]
    assert entries[-1]["balance_nanos"] == 9 * NANOS
