"""Reading a range of offsets of topics to its end. Committed records only. `streams.client.follower` goes on and on.

`read_range` is for many partitions at once, `CommittedReader` for one after the other.

Rules of this file: offsets are asked for with `read_committed`, so that "the end" is the last stable offset and a range
up to it can always be read whole. No consumer group is joined and no offset is committed: reading leaves no trace.
Nothing waits without an end: a broker that goes away in the middle raises nothing by itself (`streams.kafka.silence`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
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

from streams.errors import KafkaUnavailableError
from streams.kafka.clients import admin_config, consumer_config, offsets_answered
from streams.kafka.consume import PASSING, Offsets, TopicAndPartition, read_to
from streams.kafka.silence import SilenceLimit

if TYPE_CHECKING:
    from streams.settings import Settings

ANSWER_TIMEOUT_S = 15.0
ASK_TIMEOUT_S = 1.0
FETCH_BYTES_MAX = 16 * 1024 * 1024
READ_AHEAD_KIB = 48 * 1024


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


def read_range(
    settings: Settings, starts: Mapping[TopicAndPartition, int], ends: Mapping[TopicAndPartition, int]
) -> Iterator[list[Message]]:
    """The records of each partition from its start (default: the beginning) up to its end, in batches.

    A batch mixes partitions; within a partition records come in order. Raises KafkaException when the broker answers
    with an error that is not temporary, `NoProgressError` when nothing new comes for `CREDITS_READ_TIMEOUT_S`.
    """
    left = [topic_partition for topic_partition, end in ends.items() if end > max(0, starts.get(topic_partition, 0))]
    if not left:
        return
    consumer = _consumer(settings)
    try:
        consumer.assign(
            [
                TopicPartition(*topic_partition, starts.get(topic_partition, OFFSET_BEGINNING))
                for topic_partition in left
            ]
        )
        yield from filter(None, read_to(consumer, dict(starts), ends, SilenceLimit(settings.read_timeout_s)))
    finally:
        consumer.close()


class CommittedReader:
    """Reads committed records of single partitions from here to the end. Not for two threads at once."""

    def __init__(self, settings: Settings, purpose: str, wanted: Callable[[], bool] = lambda: True) -> None:
        """`purpose` names the client in the broker's logs. What is no longer `wanted` is given up within a second."""
        self._wanted = wanted
        self._timeout_s = settings.read_timeout_s
        self._consumer = Consumer(
            consumer_config(
                settings,
                f"{settings.app_id}-{purpose}",
                enable_partition_eof=True,
                fetch_message_max_bytes=8 * 1024 * 1024,
                queued_max_messages_kbytes=READ_AHEAD_KIB,
                # An empty fetch must not keep the reader of a short topic waiting.
                fetch_wait_max_ms=50,
                log_level=2,
            )
        )

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def ends(self, topic: str, partition: int) -> tuple[int, int]:
        """(first offset, offset after the last one) of a partition; raises `KafkaUnavailableError`."""
        silence = SilenceLimit(self._timeout_s)
        while True:
            self._check_wanted(topic, partition)
            try:
                low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), ASK_TIMEOUT_S)
            except KafkaException as failure:
                if failure.args[0].code() in PASSING and not silence.passed:
                    continue
                raise _unreadable(topic, partition, failure) from failure
            return low, high

    def read(self, topic: str, partition: int, start: int, end: int) -> Generator[list[Message], None, None]:
        """The committed records from `start` up to `end`, in lists. Raises `KafkaUnavailableError` on silence."""
        if start >= end:
            return
        topic_partition = (topic, partition)
        self._consumer.assign([TopicPartition(*topic_partition, start)])
        try:
            for records in read_to(
                self._consumer, {topic_partition: start}, {topic_partition: end}, SilenceLimit(self._timeout_s)
            ):
                self._check_wanted(topic, partition)
                if records:
                    yield records
        except KafkaException as failure:
            raise _unreadable(topic, partition, failure) from failure
        finally:
            self._consumer.unassign()

    def _check_wanted(self, topic: str, partition: int) -> None:
        if not self._wanted():
            raise KafkaUnavailableError(f"{topic}/{partition} is no longer to be read")


def _unreadable(topic: str, partition: int, failure: KafkaException) -> KafkaUnavailableError:
    return KafkaUnavailableError(f"{topic}/{partition} cannot be read: {failure.args[0].str()}")
