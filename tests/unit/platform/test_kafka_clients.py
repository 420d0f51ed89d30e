"""Security settings reach every kind of client, and every producer partitions as Faust and Java do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streams.errors import SettingRefusedError
from streams.kafka.clients import (
    admin_config,
    aiokafka_config,
    consumer_config,
    faust_broker_urls,
    faust_credentials,
    kafka_config,
    producer_config,
)
from tests.brokers import test_settings

SASL = {
    "kafka_bootstrap_servers": "a:1,b:2",
    "kafka_security_protocol": "sasl_plaintext",
    "kafka_sasl_mechanism": "scram-sha-512",
    "kafka_sasl_username": "credits",
    "kafka_sasl_password": "secret",
}


def settings(**values: Any) -> Any:
    return test_settings(Path("unused"), **values)


def test_a_login_reaches_every_librdkafka_client() -> None:
    given = settings(**SASL)
    for config in (kafka_config(given), producer_config(given), consumer_config(given, "g"), admin_config(given)):
        assert config["bootstrap.servers"] == "a:1,b:2"
        assert config["security.protocol"] == "SASL_PLAINTEXT"
        assert config["sasl.mechanism"] == "SCRAM-SHA-512"
        assert (config["sasl.username"], config["sasl.password"]) == ("credits", "secret")


def test_a_login_reaches_aiokafka_and_faust() -> None:
    given = settings(**SASL)
    config = aiokafka_config(given)
    assert config["security_protocol"] == "SASL_PLAINTEXT"
    assert (config["sasl_plain_username"], config["sasl_plain_password"]) == ("credits", "secret")
    credentials: Any = faust_credentials(given)
    assert credentials.protocol.value == "SASL_PLAINTEXT"
    assert credentials.mechanism.value == "SCRAM-SHA-512"
    assert (credentials.username, credentials.password) == ("credits", "secret")
    assert faust_broker_urls(given) == ["kafka://a:1", "kafka://b:2"]


def test_tls_paths_reach_librdkafka() -> None:
    given = settings(kafka_security_protocol="SSL", kafka_ssl_ca_location="/ca.pem", kafka_ssl_key_location="/key.pem")
    config = producer_config(given)
    assert (config["ssl.ca.location"], config["ssl.key.location"]) == ("/ca.pem", "/key.pem")


def test_without_security_nothing_logs_in() -> None:
    assert faust_credentials(settings()) is None
    assert not [key for key in kafka_config(settings()) if key.startswith(("sasl", "ssl"))]


def test_every_producer_partitions_by_murmur2_and_loses_nothing() -> None:
    config = producer_config(settings(), linger_ms=0, log_level=0)
    assert config["partitioner"] == "murmur2_random"
    assert config["enable.idempotence"] is True
    assert config["acks"] == "all"
    assert (config["linger.ms"], config["log_level"]) == (0, 0)


def test_every_consumer_reads_what_was_committed_and_commits_nothing_by_itself() -> None:
    config = consumer_config(settings(), "g")
    assert config["isolation.level"] == "read_committed"
    assert config["enable.auto.commit"] is False
    assert config["auto.offset.reset"] == "earliest"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"kafka_security_protocol": "TLS"}, "CREDITS_KAFKA_SECURITY_PROTOCOL"),
        ({**SASL, "kafka_sasl_mechanism": "GSSAPI"}, "CREDITS_KAFKA_SASL_MECHANISM"),
        ({**SASL, "kafka_sasl_username": None}, "CREDITS_KAFKA_SASL_USERNAME"),
        ({**SASL, "kafka_sasl_password": None}, "CREDITS_KAFKA_SASL_PASSWORD"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingRefusedError, match=named):
        kafka_config(settings(**values))
