"""The one loop in which records are consumed: poll, tell records from ends and failures, stop at the end of a range.

The rules of this file:
1. A poll hands over at once what is there, and else waits for the first record only. `consume` alone waits until it
   has all the records that it may get.
2. An event announces the end of a partition. What follows the last record are markers, which are no records: so an
   end may be beyond the last record, and only the event says that it was reached.
3. What passes by itself (a connection lost) is no failure: librdkafka connects again. How long nothing may come is for
   `streams.kafka.silence`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from streams.kafka.silence import SilenceLimit, missing_records

TopicAndPartition = tuple[str, int]
"""A topic and the number of a partition."""

Offsets = dict[TopicAndPartition, int]
"""An offset by topic and partition."""

PASSING = (
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._MAX_POLL_EXCEEDED,
)
RECORDS_MAX = 10_000
WAIT_S = 0.5


@dataclass(slots=True)
class Polled:
    """What one poll brought. `ends`: where partitions end whose end was reached. `failed`: what does not pass."""

    records: list[Message] = field(default_factory=list)
    ends: Offsets = field(default_factory=dict)
    failed: list[Message] = field(default_factory=list)

    def check(self) -> None:
        """Raise `KafkaException` when something has failed."""
        for message in self.failed:
            raise KafkaException(message.error())

    def advance(self, reached: Offsets) -> None:
        """Note how far each partition has been read."""
        for message in self.records:
            reached[place_of(message)] = next_offset(message)
        for place, end in self.ends.items():
            reached[place] = max(end, reached.get(place, 0))


def place_of(message: Message) -> TopicAndPartition:
    """Topic and partition of a message."""
    return str(message.topic()), int(message.partition() or 0)


def next_offset(message: Message) -> int:
    """The offset to read after this record."""
    return int(message.offset() or 0) + 1


def poll(consumer: Consumer, wait_s: float = WAIT_S, records_max: int = RECORDS_MAX) -> Polled:
    """What has arrived: at once when there is something, else after at most `wait_s`."""
    polled = Polled()
    for message in consumer.consume(records_max, 0) or consumer.consume(1, wait_s):
        error = message.error()
        if error is None:
            polled.records.append(message)
        elif error.code() == KafkaError._PARTITION_EOF:
            polled.ends[place_of(message)] = int(message.offset() or 0)
        elif not error.retriable() and error.code() not in PASSING:
            polled.failed.append(message)
    return polled


def read_to(
    consumer: Consumer,
    reached: Offsets,
    ends: Mapping[TopicAndPartition, int],
    silence: SilenceLimit,
    records_max: int = RECORDS_MAX,
) -> Iterator[list[Message]]:
    """What the consumer, assigned by the caller, brings up to these ends: a list for each poll, which may be empty.

    `reached`: where each partition was begun, or left out for the beginning; it moves with what was read, and is at
    the end of a partition at last, whatever comes before it. The consumer must report ends (`enable.partition.eof`).
    Raises `KafkaException`, and `NoProgressError` when nothing new comes for too long.
    """
    left = {place: end for place, end in ends.items() if end > max(0, reached.get(place, 0))}
    while left:
        polled = poll(consumer, records_max=records_max)
        polled.check()
        waiting = len(left)
        records = []
        for message in polled.records:
            place, after = place_of(message), next_offset(message)
            end = left.get(place)
            if end is not None:
                if after <= end:
                    records.append(message)
                    reached[place] = after
                if after >= end:
                    reached[place] = left.pop(place)
        for place, offset in polled.ends.items():
            if place in left and offset >= left[place]:
                reached[place] = left.pop(place)
        yield records
        if records or len(left) < waiting:
            silence.progressed()  # after the reader has done its part, which may take long
        silence.check(lambda: missing_records(left, reached))
