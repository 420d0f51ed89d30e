"""A broker that asks for a login: the settings reach every client, and a refused login is told in one line."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka import Consumer, KafkaException, Producer

from schemas.codec import encode_one
from schemas.records import BundledSchemas, bundled_id
from schemas.topics import Topics
from streams.app import build_app
from streams.errors import KafkaUnavailableError
from streams.kafka import topics_admin
from streams.kafka.balances import BalanceReader
from streams.kafka.clients import aiokafka_config, consumer_config, producer_config
from streams.kafka.registry_topic import TopicRegistry
from streams.settings import Settings
from tests.brokers import free_port, local_broker, test_settings

JAAS = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    'username="admin" password="admin-pw" user_admin="admin-pw" user_credits="credits-pw";'
)


@pytest.fixture(scope="module")
def sasl_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker with a listener that asks for SASL/PLAIN, beside the plain one by which its start is watched."""
    sasl_port, controller_port = free_port(), free_port()
    broker = local_broker(tmp_path_factory.mktemp("sasl"))
    plain = f"PLAINTEXT://127.0.0.1:{broker.port}"
    sasl = f"SASL_PLAINTEXT://127.0.0.1:{sasl_port}"
    broker.properties |= {
        "listeners": f"{plain},{sasl},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"{plain},{sasl}",
        "listener.security.protocol.map": ("PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT"),
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": JAAS,
    }
    broker.start()
    yield f"127.0.0.1:{sasl_port}"
    broker.kill()


def settings_of(data_dir: Path, address: str, namespace: str, password: str = "credits-pw") -> Settings:
    return test_settings(
        data_dir,
        kafka_bootstrap_servers=address,
        namespace=namespace,
        partitions=2,
        kafka_security_protocol="SASL_PLAINTEXT",
        kafka_sasl_mechanism="PLAIN",
        kafka_sasl_username="credits",
        kafka_sasl_password=password,
    )


def test_every_client_logs_in(sasl_address: str, namespace: str, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, sasl_address, namespace)
    topics_admin.apply(settings)
    topic = Topics(namespace).name("balances")
    fields = {"org_id": "acme", "seq": 1, "as_of": 1, "wallets": []}
    producer = Producer(producer_config(settings))
    producer.produce(topic, key=b"acme", value=encode_one("balance", fields, bundled_id("balance")))
    assert producer.flush(20) == 0

    consumer = Consumer(consumer_config(settings, f"{namespace}group"))
    assert topic in consumer.list_topics(timeout=10).topics
    consumer.close()

    registry = TopicRegistry(settings)
    assert registry.register("mine", '"string"').version == 1
    registry.close()

    reader = BalanceReader(settings, BundledSchemas())
    reader.start()
    found = reader.balance("acme", timeout_s=20)
    reader.close()
    assert found is not None
    assert found["seq"] == 1


def test_aiokafka_and_faust_log_in(sasl_address: str, namespace: str, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, sasl_address, namespace)

    async def names_by_aiokafka() -> set[str]:
        consumer = AIOKafkaConsumer(**aiokafka_config(settings))
        await consumer.start()
        try:
            topics: set[str] = await consumer.topics()
            return topics
        finally:
            await consumer.stop()

    async def created_by_faust() -> None:
        app = build_app(settings)
        producer = await app.maybe_start_producer()
        await producer.create_topic(f"{namespace}faust", 1, 1)
        await producer.stop()

    asyncio.run(created_by_faust())
    assert f"{namespace}faust" in asyncio.run(names_by_aiokafka())


def test_a_refused_login_is_told(sasl_address: str, namespace: str, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, sasl_address, namespace, password="wrong")
    with pytest.raises(KafkaUnavailableError) as raised:
        topics_admin.connect(settings, timeout_s=3)
    assert "login" in str(raised.value)
    with pytest.raises(KafkaException):
        Consumer(consumer_config(settings, "g")).list_topics(timeout=1)
