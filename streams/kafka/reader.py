"""Reading a range of offsets of topics to its end. Committed records only. `streams.client.follower` goes on and on.

Rules of this file: offsets are asked for with `read_committed`, so that "the end" is the last stable offset and a range
up to it can always be read whole. No consumer group is joined and no offset is committed: reading leaves no trace.
Nothing waits without an end: a broker that goes away in the middle raises nothing by itself (`streams.kafka.silence`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.kafka.clients import admin_config, consumer_config, offsets_answered
from streams.kafka.silence import SilenceLimit, missing_records

if TYPE_CHECKING:
    from streams.settings import Settings

ANSWER_TIMEOUT_S = 15.0
BATCH_RECORDS_MAX = 10_000
WAIT_S = 0.5
FETCH_BYTES_MAX = 16 * 1024 * 1024

Offsets = dict[tuple[str, int], int]
"""An offset by topic and partition."""


def committed_ends(settings: Settings, topics: Sequence[str]) -> Offsets:
    """The end of every partition of these topics: one beyond the last record that a committed reader can get."""
    return _offsets(settings, topics, OffsetSpec.latest())


def committed_starts(settings: Settings, topics: Sequence[str]) -> Offsets:
    """The first offset that each partition still has."""
    return _offsets(settings, topics, OffsetSpec.earliest())


def _offsets(settings: Settings, topics: Sequence[str], which: Any) -> Offsets:
    timeout_s = min(ANSWER_TIMEOUT_S, settings.read_timeout_s)
    admin = AdminClient({**admin_config(settings), "log_level": 0})
    wanted = [
        TopicPartition(name, partition)
        for name, metadata in admin.list_topics(timeout=timeout_s).topics.items()
        if name in set(topics)
        for partition in metadata.partitions
    ]
    missing = set(topics) - {each.topic for each in wanted}
    if missing:
        raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, f"no topic {', '.join(sorted(missing))}"))
    answers = admin.list_offsets(
        dict.fromkeys(wanted, which),
        isolation_level=IsolationLevel.READ_COMMITTED,
        request_timeout=timeout_s,
    )
    return offsets_answered(answers, ANSWER_TIMEOUT_S + timeout_s)


def _consumer(settings: Settings, **overrides: Any) -> Consumer:
    group = f"{settings.namespace}credits-reader-{uuid.uuid4().hex[:12]}"
    config = consumer_config(
        settings,
        group,
        enable_partition_eof=True,
        fetch_max_bytes=2 * FETCH_BYTES_MAX,
        max_partition_fetch_bytes=FETCH_BYTES_MAX,
        queued_max_messages_kbytes=8 * FETCH_BYTES_MAX // 1024,
        fetch_wait_max_ms=100,
        **overrides,
    )
    return Consumer({**config, "log_level": 0})


def read_range(settings: Settings, starts: Mapping[tuple[str, int], int], ends: Offsets) -> Iterator[list[Message]]:
    """The records of each partition from its start (default: the beginning) up to its end, in batches.

    A batch mixes partitions; within a partition records come in order. Raises KafkaException when the broker answers
    with an error that is not temporary, `NoProgressError` when nothing new comes for `CREDITS_READ_TIMEOUT_S`.
    """
    reached = dict(starts)
    left = {place: end for place, end in ends.items() if end > max(0, starts.get(place, 0))}
    if not left:
        return
    consumer = _consumer(settings)
    try:
        consumer.assign(
            [
                TopicPartition(topic, partition, starts.get((topic, partition), OFFSET_BEGINNING))
                for topic, partition in left
            ]
        )
        silence = SilenceLimit(settings.read_timeout_s)
        while left:
            batch = next_records(consumer, WAIT_S, BATCH_RECORDS_MAX)
            records = []
            waiting = len(left)
            for message in batch:
                place = (message.topic(), message.partition())
                error = message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    if message.offset() >= left.get(place, 0):
                        left.pop(place, None)
                    continue
                end = left.get(place)
                if end is None or message.offset() >= end:
                    left.pop(place, None)
                    continue
                records.append(message)
                reached[place] = message.offset() + 1
                if message.offset() == end - 1:
                    del left[place]
            if records:
                yield records
            if records or len(left) < waiting:
                silence.heard()  # after the reader has done its part, which may take long
            silence.check(lambda: missing_records(left, reached))
    finally:
        consumer.close()


def next_records(consumer: Consumer, wait_s: float, records_max: int) -> list[Message]:
    """What is there, at once; else the first that comes within `wait_s`. (`consume` alone waits for all it may get.)"""
    batch: list[Message] = consumer.consume(records_max, 0)
    return batch or consumer.consume(1, wait_s)
