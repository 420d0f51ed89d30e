"""Garbage under the key of a good price, then compaction, then a restart: the good price is in force (fault 34)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from schemas.amounts import NANOS
from schemas.enums import InputKind
from streams.kafka.clients import admin_config
from streams.kafka.reader import committed_ends, read_range
from streams.local.broker import LocalBroker
from tests.brokers import test_settings
from tests.integration.engine.workers import until
from tests.integration.ledger.events import PRICE_LIST, usage
from tests.integration.ledger.installation import LedgerInstallation

AT_ONCE = {
    "segment.ms": "1",
    "min.cleanable.dirty.ratio": "0.001",
    "min.compaction.lag.ms": "0",
    "delete.retention.ms": "0",
}
"""Kafka drops what it may as soon as another record comes."""
GARBAGE = b"not a price"


def compact_at_once(installation: LedgerInstallation, *topics: str) -> None:
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in AT_ONCE.items()]
    names = [installation.topics.name(topic) for topic in topics]
    resources = [ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries) for name in names]
    admin = AdminClient(admin_config(installation.settings))
    for future in admin.incremental_alter_configs(resources).values():
        future.result(30)


def values(installation: LedgerInstallation) -> list[bytes | None]:
    """What is left of the price topic."""
    ends = committed_ends(installation.settings, [installation.topics.name("prices")])
    return [message.value() for batch in read_range(installation.settings, {}, ends) for message in batch]


@pytest.mark.slow
@pytest.mark.fault(
    "garbage-under-a-price",
    title="A record that is no price, under the key of a good one; Kafka compacts; the worker starts again",
    provoked="bytes that are no price under the good price's key; the price topic compacted at once; worker killed",
    holds="the good price stays in force; the dead letter is written once",
    faults_row=34,
)
def test_a_good_price_stays_in_force(
    own_broker: Callable[..., LocalBroker], tmp_path: Path, seen: Callable[[str], None]
) -> None:
    broker = own_broker(log_cleaner_backoff_ms=100)
    broker.start()
    settings = test_settings(
        tmp_path, kafka_bootstrap_servers=broker.bootstrap_servers, partitions=1, session_timeout_ms=6_000
    )
    installation = LedgerInstallation(settings, tmp_path)
    try:
        compact_at_once(installation, "prices", "kept_prices")
        good = {**PRICE_LIST[2], "price_id": "good", "unit_price_nanos": 3 * NANOS, "billing_unit": "token"}
        worker = installation.ready_worker()
        installation.send(InputKind.PRICE, [good])
        (published,) = values(installation)
        installation.send(InputKind.USAGE, [usage("before", "acme", model="m2", input_tokens=1)])
        installation.wait_until_booked()
        installation.send_bytes("prices", b"good", GARBAGE)
        installation.sent -= 1  # prices are not counted
        until(lambda: installation.codes() == {"undecodable": 1}, 60, "the dead letter")

        def gone() -> bool:
            installation.send(InputKind.PRICE, [{**good, "price_id": "other", "model": "other"}])
            return published not in values(installation)

        until(gone, 60, "compaction")
        assert GARBAGE in values(installation)
        worker.kill()
        installation.ready_worker()
        installation.send(InputKind.USAGE, [usage("after", "acme", model="m2", input_tokens=2)])
        installation.wait_until_booked()
        assert [row["amount_nanos"] for row in installation.rows("ledger")] == [-3 * NANOS, -6 * NANOS]
        assert installation.codes() == {"undecodable": 1}, "the dead letter is written once"
        assert not installation.report().differences
        seen("Kafka had dropped the good price; usage after the restart was rated by it; one dead letter")
    finally:
        installation.stop()
