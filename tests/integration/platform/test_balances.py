"""The balances reader on a real broker: it answers with what was committed when it was asked."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from schemas.amounts import format_amount
from schemas.codec import encode_one
from schemas.records import BundledSchemas, bundled_id
from schemas.topics import Topics
from streams.errors import KafkaUnavailableError
from streams.kafka import topics_admin
from streams.kafka.balances import BalanceReader, balance_document
from streams.kafka.clients import producer_config
from streams.settings import Settings
from tests.brokers import free_port, test_settings


def balance(org_id: str, seq: int, settled_nanos: int = 0) -> bytes:
    """A framed balance record with one wallet."""
    names = ("settled", "held", "available", "allocation", "month_spent", "lifetime_added", "lifetime_spent")
    wallet: dict[str, Any] = {f"{name}_nanos": 0 for name in names}
    wallet |= {"unit": "USD", "settled_nanos": settled_nanos, "status": "ok", "health": "green"}
    fields = {"org_id": org_id, "seq": seq, "as_of": 1_700_000_000_000_001, "wallets": [wallet]}
    return encode_one("balance", fields, bundled_id("balance"))


@pytest.fixture
def topic(settings: Settings) -> str:
    topics_admin.apply(settings)
    return Topics(settings.namespace).name("balances")


@pytest.fixture
def reader(settings: Settings, topic: str) -> Iterator[BalanceReader]:
    reader = BalanceReader(settings, BundledSchemas())
    reader.start()
    yield reader
    reader.close()


@pytest.fixture
def producer(settings: Settings) -> Producer:
    """A producer in transactions, as the ledger is one."""
    producer = Producer(producer_config(settings, transactional_id=f"{settings.namespace}test"))
    producer.init_transactions(10)
    return producer


def test_an_empty_topic_knows_no_org(reader: BalanceReader) -> None:
    assert reader.balance("acme") is None


def test_every_answer_contains_the_last_commit(reader: BalanceReader, producer: Producer, topic: str) -> None:
    for seq in range(1, 21):
        producer.begin_transaction()
        producer.produce(topic, key=b"acme", value=balance("acme", seq, settled_nanos=seq))
        producer.commit_transaction(10)
        found = reader.balance("acme")
        assert found is not None
        assert found["seq"] == seq
        assert balance_document(found)["wallets"][0]["settled"] == format_amount(seq)
    assert reader.orgs == 1


def test_what_was_aborted_does_not_exist(reader: BalanceReader, producer: Producer, topic: str) -> None:
    producer.begin_transaction()
    producer.produce(topic, key=b"acme", value=balance("acme", 1))
    producer.commit_transaction(10)
    producer.begin_transaction()
    producer.produce(topic, key=b"acme", value=balance("acme", 2))
    producer.flush(10)
    open_found = reader.balance("acme")
    producer.abort_transaction(10)
    aborted_found = reader.balance("acme")
    assert open_found is not None
    assert aborted_found is not None
    assert (open_found["seq"], aborted_found["seq"]) == (1, 1)


def test_without_a_broker_it_says_so_in_time(tmp_path: Any) -> None:
    settings = test_settings(tmp_path, kafka_bootstrap_servers=f"127.0.0.1:{free_port()}")
    reader = BalanceReader(settings, BundledSchemas())
    reader.start()
    try:
        with pytest.raises(KafkaUnavailableError, match="Kafka does not answer"):
            reader.balance("acme", timeout_s=0.5)
    finally:
        reader.close()


def test_it_goes_on_after_the_broker_was_killed(own_broker: Any, tmp_path: Any) -> None:
    broker = own_broker()
    broker.start()
    settings = test_settings(tmp_path, kafka_bootstrap_servers=broker.bootstrap_servers, partitions=2)
    topics_admin.apply(settings)
    topic = Topics().name("balances")
    reader = BalanceReader(settings, BundledSchemas())
    reader.start()
    try:
        for seq in (1, 2):
            producer = Producer(producer_config(settings))
            producer.produce(topic, key=b"acme", value=balance("acme", seq))
            assert producer.flush(20) == 0
            found = reader.balance("acme", timeout_s=20)
            assert found is not None
            assert found["seq"] == seq
            if seq == 1:
                broker.kill()
                broker.start()
    finally:
        reader.close()


@pytest.mark.slow
def test_a_broker_that_does_not_answer_has_not_said_that_all_is_read(own_broker: Any, tmp_path: Any) -> None:
    """Then librdkafka itself answers the question for the end, with an offset below every other."""
    broker = own_broker()
    broker.start()
    settings = test_settings(tmp_path, kafka_bootstrap_servers=broker.bootstrap_servers, partitions=2)
    topics_admin.apply(settings)
    reader = BalanceReader(settings, BundledSchemas())
    reader.start()
    try:
        assert reader.balance("acme") is None
        os.kill(broker.pid, signal.SIGSTOP)
        with pytest.raises(KafkaUnavailableError):
            reader.balance("acme", timeout_s=2)
    finally:
        os.kill(broker.pid, signal.SIGCONT)
        reader.close()
