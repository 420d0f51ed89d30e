"""Sending input records: Avro in Confluent's framing, keyed by org, partitioned by murmur2, idempotent.

Rules of this file:
1. The key is the record's org id (a price's id for prices), so that an org's records stay in order in one partition.
2. Nothing counts as sent before `flush` returned: it waits for every acknowledgement and raises when one is missing.
3. Headers mirror CloudEvents; a record is complete without them (contract, "Conventions").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from confluent_kafka import KafkaException, Producer

from schemas.codec import encode_one
from schemas.enums import InputKind
from schemas.events import ID_FIELDS
from schemas.topics import BY_KEY, INPUT_TOPICS, Topics
from streams.errors import OperatorError
from streams.kafka.clients import producer_config
from streams.kafka.registry import Registry, connect_registry

if TYPE_CHECKING:
    from streams.settings import Settings

FLUSH_TIMEOUT_S = 60.0
QUEUE_RECORDS_MAX = 500_000
QUEUE_KIB_MAX = 512 * 1024
QUEUE_FULL_WAIT_S = 0.05
SOURCE = "credits-client"


class InputModel(Protocol):
    """A checked input record; the models of `schemas.events` are."""

    def to_record(self) -> dict[str, Any]:
        """The Avro record; times as int microseconds."""
        ...


class DeliveryError(OperatorError):
    """Records that Kafka did not take. What was sent before them may have been taken."""

    code = "not_delivered"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record as Kafka takes it."""

    topic: str
    """Physical name."""
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class RecordEncoder:
    """Makes records of models: topic, key, framed Avro, headers. Safe to use from several threads.

    Raises `RegistryUnavailableError` (schemas.codec) from the first record of a kind when the registry cannot be asked.
    """

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._registry = registry
        self._topics = Topics(settings.namespace)

    def topic(self, kind: InputKind) -> str:
        """Physical name of the topic that takes this kind."""
        return self._topics.name(INPUT_TOPICS[kind])

    def schema_id(self, kind: InputKind) -> int:
        """Id of the schema that this kind is written with."""
        return self._registry.schema_id(INPUT_TOPICS[kind])

    def encode(self, kind: InputKind, model: InputModel) -> Outgoing:
        """The record of one model."""
        record = model.to_record()
        topic = BY_KEY[INPUT_TOPICS[kind]]
        assert topic.record is not None
        value = encode_one(topic.record, record, self.schema_id(kind))
        key = record["price_id"] if kind is InputKind.PRICE else record["org_id"]
        return Outgoing(self.topic(kind), key.encode(), value, cloud_event_headers(kind, record))


class CreditsProducer:
    """Sends input records of every kind. Not safe for several threads at once; use it as a context manager.

    Raises `RegistryUnavailableError` (schemas.codec) from the first record of a kind when the registry cannot be asked.
    """

    def __init__(self, settings: Settings, *, registry: Registry | None = None, linger_ms: int = 5) -> None:
        self._encoder = RecordEncoder(settings, connect_registry(settings) if registry is None else registry)
        self._failures: list[str] = []
        self._failed = 0
        self._producer = Producer(
            producer_config(
                settings,
                linger_ms=linger_ms,
                queue_buffering_max_messages=QUEUE_RECORDS_MAX,
                queue_buffering_max_kbytes=QUEUE_KIB_MAX,
            )
        )

    def __enter__(self) -> CreditsProducer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.flush()
        else:
            self._producer.purge()

    def topic(self, kind: InputKind) -> str:
        """Physical name of the topic that takes this kind."""
        return self._encoder.topic(kind)

    def schema_id(self, kind: InputKind) -> int:
        """Id of the schema that this kind is written with."""
        return self._encoder.schema_id(kind)

    def produce(self, kind: InputKind, model: InputModel) -> None:
        """Hand one record over; `flush` says whether it arrived."""
        out = self._encoder.encode(kind, model)
        self._hand_over(out.topic, out.key, out.value, out.headers)

    def produce_raw(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]] | None = None,
        delivered: Callable[[int, int], None] | None = None,
    ) -> None:
        """Hand over bytes as they are, to the topic of that physical name: for what must go back unchanged.

        `delivered` gets partition and offset, from `poll` or `flush`, once Kafka has the record.
        """
        self._hand_over(topic, key, value, headers, delivered)

    def poll(self) -> None:
        """Let acknowledgements be counted; call it now and then between many records."""
        self._producer.poll(0)

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Wait until Kafka has everything; raises `DeliveryError` when it has not."""
        left = self._producer.flush(timeout_s)
        if self._failed or left:
            reason = self._failures[0] if self._failures else f"no answer within {timeout_s:.0f} s"
            failed, self._failed, self._failures = self._failed + left, 0, []
            self._producer.purge()
            raise DeliveryError(
                f"{failed:,} records were not taken by Kafka ({reason})",
                "send them again (ids make that safe); `credits doctor` checks the broker",
            )

    def _hand_over(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]] | None,
        delivered: Callable[[int, int], None] | None = None,
    ) -> None:
        acknowledged = self._delivered if delivered is None else partial(self._delivered_to, delivered)
        while True:
            try:
                self._producer.produce(topic, value=value, key=key, headers=headers, on_delivery=acknowledged)
                return
            except BufferError:  # the queue is full: wait until some of it is acknowledged
                self._producer.poll(QUEUE_FULL_WAIT_S)
            except KafkaException as error:
                raise DeliveryError(
                    f"Kafka does not take the record ({error.args[0].str()})", "see the limits"
                ) from error

    def _delivered_to(self, delivered: Callable[[int, int], None], error: Any, message: Any) -> None:
        self._delivered(error, message)
        if error is None:
            delivered(message.partition(), message.offset())

    def _delivered(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._failed += 1
            if not self._failures:
                self._failures.append(str(error.str()))


def cloud_event_headers(kind: InputKind, record: dict[str, Any]) -> list[tuple[str, bytes]]:
    """The headers that tell a CloudEvents reader what the record is."""
    at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=record.get("occurred_at", record.get("valid_from", 0)))
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(record[ID_FIELDS[kind]]).encode()),
        ("ce_source", str(record.get("source") or SOURCE).encode()),
        ("ce_type", f"credits.{kind.value}.v1".encode()),
        ("ce_time", at.isoformat().replace("+00:00", "Z").encode()),
        ("content-type", b"application/avro"),
    ]
