"""How every Kafka client of this project is configured: security, partitioner, isolation.

The rules of this file:
1. Every client takes its configuration from here, so that SASL and TLS settings reach all of them.
2. A producer always partitions by murmur2, as Faust and Java do. librdkafka's own default is another function: with
   it the events of one org would land in another partition than its settings, and co-partitioning would be broken.
3. A reader reads committed records only. What an aborted transaction wrote does not exist.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from streams.errors import SettingRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import ListOffsetsResultInfo
    from faust.types.auth import CredentialsT

    from streams.settings import Settings

PARTITIONER = "murmur2_random"
SECURITY_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

# librdkafka answers within the time-out of each request; this is for the case that it does not.
OFFSETS_TIMEOUT_S = 120.0

KafkaConfig = dict[str, Any]


def security_protocol(settings: Settings) -> str:
    """The security protocol in capitals; raises `SettingRefusedError` when unknown or without its credentials."""
    protocol = settings.kafka_security_protocol.upper()
    if protocol not in SECURITY_PROTOCOLS:
        raise SettingRefusedError(
            f"unknown security protocol {settings.kafka_security_protocol!r}",
            f"set CREDITS_KAFKA_SECURITY_PROTOCOL to one of {', '.join(SECURITY_PROTOCOLS)}",
        )
    if protocol.startswith("SASL"):
        if (settings.kafka_sasl_mechanism or "PLAIN").upper() not in MECHANISMS:
            raise SettingRefusedError(
                f"unknown SASL mechanism {settings.kafka_sasl_mechanism!r}",
                f"set CREDITS_KAFKA_SASL_MECHANISM to one of {', '.join(MECHANISMS)}",
            )
        if not settings.kafka_sasl_username or settings.kafka_sasl_password is None:
            raise SettingRefusedError(
                f"{protocol} needs a user and a password",
                "set CREDITS_KAFKA_SASL_USERNAME and CREDITS_KAFKA_SASL_PASSWORD",
            )
    return protocol


def kafka_config(settings: Settings) -> KafkaConfig:
    """What every librdkafka client shares: where the brokers are and how to log in to them."""
    protocol = security_protocol(settings)
    config: KafkaConfig = {
        "bootstrap.servers": settings.bootstrap_servers,
        "security.protocol": protocol,
        "client.id": "credits",
        # librdkafka backs off to 10 s; a broker that returns after a restart should be noticed sooner.
        "reconnect.backoff.max.ms": 2_000,
        # While a broker is away librdkafka writes twenty lines a second to standard error. What matters reaches the
        # caller as an exception; 2 leaves what makes a client unusable.
        "log_level": 2,
    }
    if protocol.startswith("SASL"):
        assert settings.kafka_sasl_password is not None
        config["sasl.mechanism"] = (settings.kafka_sasl_mechanism or "PLAIN").upper()
        config["sasl.username"] = settings.kafka_sasl_username
        config["sasl.password"] = settings.kafka_sasl_password.get_secret_value()
    if protocol.endswith("SSL"):
        for key, path in (
            ("ssl.ca.location", settings.kafka_ssl_ca_location),
            ("ssl.certificate.location", settings.kafka_ssl_certificate_location),
            ("ssl.key.location", settings.kafka_ssl_key_location),
        ):
            if path is not None:
                config[key] = str(path)
    return config


def producer_config(settings: Settings, **overrides: Any) -> KafkaConfig:
    """A producer that loses and doubles nothing by itself. Keyword names use `_` for `.`: `linger_ms=5`."""
    return {
        **kafka_config(settings),
        "partitioner": PARTITIONER,
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "lz4",
        "linger.ms": 5,
        **_dotted(overrides),
    }


def consumer_config(settings: Settings, group_id: str, **overrides: Any) -> KafkaConfig:
    """A consumer of committed records that commits no offset by itself and starts at the log's beginning."""
    return {
        **kafka_config(settings),
        "group.id": group_id,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        **_dotted(overrides),
    }


def admin_config(settings: Settings) -> KafkaConfig:
    """A client that creates and describes topics."""
    return kafka_config(settings)


def offsets_answered(
    asked: Mapping[TopicPartition, Future[ListOffsetsResultInfo]], timeout_s: float = OFFSETS_TIMEOUT_S
) -> dict[tuple[str, int], int]:
    """The answers to `AdminClient.list_offsets`, by topic and partition. Blocks; raises `KafkaException`.

    When no broker answers in time librdkafka answers itself, without an error and with an offset below 0: taken for an
    end, it would say that everything has been read.
    """
    from confluent_kafka import KafkaError, KafkaException

    try:
        offsets = {(each.topic, each.partition): int(answer.result(timeout_s).offset) for each, answer in asked.items()}
    except TimeoutError:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer to a question for offsets")) from None
    if any(offset < 0 for offset in offsets.values()):
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer to a question for offsets"))
    return offsets


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """The TLS context for aiokafka, or None when the protocol has no TLS."""
    if not security_protocol(settings).endswith("SSL"):
        return None
    ca = settings.kafka_ssl_ca_location
    context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    if settings.kafka_ssl_certificate_location is not None:
        key = settings.kafka_ssl_key_location
        context.load_cert_chain(str(settings.kafka_ssl_certificate_location), None if key is None else str(key))
    return context


def aiokafka_config(settings: Settings) -> KafkaConfig:
    """The arguments of an aiokafka client that say where the brokers are and how to log in to them."""
    protocol = security_protocol(settings)
    config: KafkaConfig = {"bootstrap_servers": settings.bootstrap_servers, "security_protocol": protocol}
    if protocol.endswith("SSL"):
        config["ssl_context"] = ssl_context(settings)
    if protocol.startswith("SASL"):
        assert settings.kafka_sasl_password is not None
        config["sasl_mechanism"] = (settings.kafka_sasl_mechanism or "PLAIN").upper()
        config["sasl_plain_username"] = settings.kafka_sasl_username
        config["sasl_plain_password"] = settings.kafka_sasl_password.get_secret_value()
    return config


def faust_broker_urls(settings: Settings) -> list[str]:
    """The brokers as Faust wants them: `kafka://host:port` each."""
    return [f"kafka://{address.strip()}" for address in settings.bootstrap_servers.split(",") if address.strip()]


def faust_credentials(settings: Settings) -> CredentialsT | None:
    """The credentials for `faust.App(broker_credentials=…)`; None without SASL and TLS."""
    import faust

    protocol = security_protocol(settings)
    if protocol == "SSL":
        return faust.SSLCredentials(ssl_context(settings))
    if protocol.startswith("SASL"):
        assert settings.kafka_sasl_password is not None
        return faust.SASLCredentials(
            username=settings.kafka_sasl_username,
            password=settings.kafka_sasl_password.get_secret_value(),
            ssl_context=ssl_context(settings),
            mechanism=(settings.kafka_sasl_mechanism or "PLAIN").upper(),
        )
    return None


def _dotted(overrides: dict[str, Any]) -> KafkaConfig:
    return {name if name == "log_level" else name.replace("_", "."): value for name, value in overrides.items()}
