"""The local broker: durable, one a data folder, and plain about what is in its way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from streams.local.broker import BrokerError, LocalBroker, jars_dir, kafka_version
from streams.settings import Settings
from tests.brokers import HEAP_MIB, free_port, local_broker, test_settings

MakeBroker = Callable[..., LocalBroker]


def write(broker: LocalBroker, topic: str, values: list[str]) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "acks": "all"})
    for value in values:
        producer.produce(topic, value=value)
    assert producer.flush(30) == 0


def read(broker: LocalBroker, topic: str, count: int) -> list[str]:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "test"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        return [(message.value() or b"").decode() for message in consumer.consume(count, timeout=30)]
    finally:
        consumer.close()


def test_records_survive_stop_and_kill(own_broker: MakeBroker) -> None:
    broker = own_broker()
    assert broker.start() is True
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic("t", 1, 1)])["t"].result(30)
    expected: list[str] = []
    for end in (broker.kill, broker.stop):
        written = [f"{len(expected)}-{number}" for number in range(3)]
        write(broker, "t", written)
        expected += written
        end()
        assert broker.pid is None
        assert broker.start() is True
        assert read(broker, "t", len(expected)) == expected


def test_a_second_start_uses_the_running_broker(own_broker: MakeBroker, tmp_path: Path) -> None:
    broker = own_broker()
    broker.start()
    other_port = free_port()
    settings = test_settings(broker.home.parent, broker_port=other_port, broker_heap_mib=HEAP_MIB, broker_jit="quick")
    second = LocalBroker(settings)
    assert second.start() is False
    assert second.bootstrap_servers == broker.bootstrap_servers
    assert second.pid == broker.pid


def test_another_program_on_the_port_is_named(own_broker: MakeBroker) -> None:
    broker = own_broker()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", broker.port))
        taken.listen()
        with pytest.raises(BrokerError, match="CREDITS_BROKER_PORT"):
            broker.start()


def test_without_java_three_ways_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(BrokerError) as raised:
        local_broker(tmp_path).start()
    for way in ("Java 17", "CREDITS_KAFKA_BOOTSTRAP_SERVERS", "docker compose up"):
        assert way in str(raised.value)
    assert "\n" not in str(raised.value)


def test_without_maven_and_jars_three_ways_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = subprocess.run(["which", "java"], capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / "java").symlink_to(java)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(BrokerError, match=r"Maven.*CREDITS_KAFKA_BOOTSTRAP_SERVERS"):
        local_broker(tmp_path).start()


def test_a_broker_that_cannot_start_says_why(own_broker: MakeBroker) -> None:
    broker = own_broker(num_io_threads="none")
    with pytest.raises(BrokerError) as raised:
        broker.start()
    assert "num.io.threads" in str(raised.value)
    assert broker.pid is None


def test_jars_are_cached_by_version() -> None:
    assert kafka_version() in jars_dir().name


def test_the_command_runs_it_and_stops_it(tmp_path: Path) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "CREDITS_DATA_DIR": str(tmp_path),
        "CREDITS_BROKER_PORT": str(port),
        "CREDITS_BROKER_HEAP_MIB": str(HEAP_MIB),
    }
    command = [sys.executable, "-m", "streams", "broker"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if line.startswith("ready"):
                    break
            assert f"127.0.0.1:{port}" in line
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()
            local: LocalBroker = LocalBroker(_settings(tmp_path, port))
            stopped = local.pid is None
            local.kill()
    assert stopped


def _settings(data_dir: Path, port: int) -> Settings:
    return test_settings(data_dir, broker_port=port)
