"""From a wave to bytes, and onto its topic: encoded in columns, damaged as the wave says, sent in order.

Rules of this file: `messages` is pure. A wave is encoded whole before any of it is sent, so that the pace of sending is
not that of encoding. What was delivered, and up to which offset, is known from Kafka's acknowledgements.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from confluent_kafka import Producer

from schemas.codec import arrow_schema, encode_columns
from schemas.enums import InputKind
from schemas.topics import INPUT_TOPICS, Topics
from streams.client.producer import DeliveryError
from streams.kafka.clients import producer_config
from streams.loadgen.waves import Damage, Wave

if TYPE_CHECKING:
    from streams.kafka.registry import Registry
    from streams.settings import Settings

UNKNOWN_SCHEMA_ID = 2_000_000_000
WRONG_KEY = b"org-000"
QUEUE_RECORDS_MAX = 500_000
CHUNK_RECORDS = 500
FLUSH_TIMEOUT_S = 60.0
TICK_S = 0.002
"""Paced records that fall due within a tick leave together."""

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Messages:
    """A wave as it goes over the wire; `ids` are the records' own, for those who look for them later."""

    kind: InputKind
    keys: list[bytes]
    values: list[bytes | None]
    ids: list[str]

    def __len__(self) -> int:
        return len(self.values)


def messages(wave: Wave, schema_id: int) -> Messages:
    """Encode a wave, then repeat and damage what it says."""
    record = wave.kind.value
    schema = arrow_schema(record)
    arrays = {}
    for name, column in wave.columns.items():
        kind = schema.field(name).type
        if pa.types.is_map(kind):
            arrays[name] = pa.array([list((each or {}).items()) for each in column], kind)
        else:
            arrays[name] = pa.array(column, kind)
    batch = pa.RecordBatch.from_arrays(list(arrays.values()), schema=pa.schema([schema.field(name) for name in arrays]))
    values: list[bytes | None] = list(encode_columns(record, batch, schema_id))
    keys = [name.encode() for name in wave.columns["price_id" if wave.kind is InputKind.PRICE else "org_id"]]
    for position, earlier in wave.repeats.items():
        values[position], keys[position] = values[earlier], keys[earlier]
    for position, damage in wave.damage.items():
        value = values[position]
        assert value is not None
        values[position], keys[position] = _damaged(damage, value, keys[position])
    return Messages(wave.kind, keys, values, next(iter(wave.columns.values())))


def _damaged(damage: Damage, value: bytes, key: bytes) -> tuple[bytes | None, bytes]:
    match damage:
        case Damage.WRONG_MAGIC:
            return b"\x07" + value[1:], key
        case Damage.TRUNCATED:
            return value[: 5 + (len(value) - 5) // 2], key
        case Damage.LEFT_OVER:
            return value + b"\x00", key
        case Damage.UNKNOWN_SCHEMA:
            return b"\x00" + UNKNOWN_SCHEMA_ID.to_bytes(4, "big") + value[5:], key
        case Damage.NULL_VALUE:
            return None, key
        case Damage.WRONG_KEY:
            return value, WRONG_KEY


class Sender:
    """Sends messages, and knows how far each partition of each topic has been filled by them."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._topics = Topics(settings.namespace)
        self._registry = registry
        self._failures: list[str] = []
        self.next_offsets: dict[tuple[str, int], int] = {}
        """One beyond the last delivered record, by topic and partition."""
        self.sent = 0
        config = producer_config(settings, queue_buffering_max_messages=QUEUE_RECORDS_MAX)
        self._producer = Producer({**config, "log_level": 0})

    def encode(self, wave: Wave) -> Messages:
        """The wave's messages, with the registry's id of its schema."""
        return messages(wave, self._registry.schema_id(INPUT_TOPICS[wave.kind]))

    def topic(self, batch: Messages) -> str:
        """Physical name of the topic that they go to."""
        return self._topics.name(INPUT_TOPICS[batch.kind])

    def send(self, batch: Messages, advance: Advance) -> None:
        """As fast as it goes; returns when Kafka has all of it. Raises `DeliveryError`."""
        for start in range(0, len(batch), CHUNK_RECORDS):
            self._hand_over(batch, start, min(start + CHUNK_RECORDS, len(batch)))
            advance(min(CHUNK_RECORDS, len(batch) - start))
        self.flush()

    def send_paced(self, batch: Messages, per_second: int, advance: Advance) -> list[float]:
        """At a steady rate, whatever becomes of them; returns the time at which each was meant to leave.

        Times are of `time.monotonic`. A sender that falls behind does not stretch the schedule: the delay counts as
        latency of what waited (open loop).
        """
        begun = time.monotonic()
        meant = [begun + number / per_second for number in range(len(batch))]
        sent = 0
        while sent < len(batch):
            due = min(len(batch), int((time.monotonic() - begun) * per_second) + 1)
            if due > sent:
                self._hand_over(batch, sent, due)
                advance(due - sent)
                sent = due
            self._producer.poll(0)
            time.sleep(TICK_S)
        self.flush()
        return meant

    def flush(self) -> None:
        """Wait for every acknowledgement; raises `DeliveryError` when one says no or none comes."""
        left = self._producer.flush(FLUSH_TIMEOUT_S)
        if self._failures or left:
            reason = self._failures[0] if self._failures else "no answer"
            raise DeliveryError(f"Kafka did not take {len(self._failures) + left} records ({reason})", "")

    def _hand_over(self, batch: Messages, start: int, end: int) -> None:
        topic = self.topic(batch)
        produce = self._producer.produce
        for position in range(start, end):
            while True:
                try:
                    produce(topic, batch.values[position], batch.keys[position], on_delivery=self._delivered)
                    break
                except BufferError:
                    self._producer.poll(0.05)
        self.sent += end - start
        self._producer.poll(0)

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failures.append(error.str())
            return
        topic_partition = (message.topic(), message.partition())
        offset = message.offset() + 1
        if offset > self.next_offsets.get(topic_partition, 0):
            self.next_offsets[topic_partition] = offset
