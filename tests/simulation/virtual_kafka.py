"""Kafka in memory, as far as the ledger uses it: logs, transactions, fencing, readers of what is committed.

Stands in for confluent-kafka's `Producer` and `Consumer`, so that everything of ours runs as it is. What it keeps:
- A transaction is visible as a whole or not at all; offsets of aborted records and of markers are used up (None here).
- `init_transactions` fences every earlier producer of the same transactional id, and aborts what that one left open.
- Input topics are stamped with the broker's time, which never goes back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, TopicPartition

from schemas.partitioner import partition_of
from tests.simulation.crashes import Faults

Headers = tuple[tuple[str, bytes], ...]
TopicAndPartition = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class Record:
    """One committed record; `at`: when the broker took it, microseconds."""

    key: bytes | None
    value: bytes | None
    at: int
    headers: Headers = ()


@dataclass(slots=True)
class Transaction:
    """What a producer has handed over. `cause`: what the world was deciding when it began."""

    cause: object
    records: list[tuple[TopicAndPartition, Record]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction that went through: whose partition it was of, its cause, and its records by topic."""

    partition: int
    cause: object
    records: Mapping[str, Sequence[Record]]


class VirtualKafka:
    """All logs, and who may write what."""

    def __init__(self, partitions: int, at: int, faults: Faults) -> None:
        self.partitions = partitions
        self.at = at
        self.faults = faults
        self.logs: dict[TopicAndPartition, list[Record | None]] = defaultdict(list)
        self.firsts: dict[TopicAndPartition, int] = defaultdict(int)
        """Where a log begins that something was deleted from."""
        self.epochs: dict[str, int] = {}
        self.commits: list[Commit] = []
        self.deciding: object = None
        self._open: dict[str, Transaction] = {}

    def partition_of(self, key: bytes | None) -> int:
        """Where records of a key lie."""
        return partition_of(key or b"", self.partitions)

    def append(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """A record of a producer that uses no transactions."""
        self.logs[topic, self.partition_of(key)].append(Record(key, value, self.at))

    def committed(self, topic: str) -> list[Record]:
        """All records of a topic, partition by partition."""
        logs = (self.logs[topic, number] for number in range(self.partitions))
        return [record for log in logs for record in log if record is not None]

    def admin(self, _config: Mapping[str, Any]) -> VirtualAdmin:
        """Stands in for `confluent_kafka.admin.AdminClient`."""
        return VirtualAdmin(self)

    def producer(self, config: Mapping[str, Any]) -> VirtualProducer:
        """Stands in for `confluent_kafka.Producer`."""
        return VirtualProducer(self, config["transactional.id"])

    def consumer(self, config: Mapping[str, Any]) -> VirtualConsumer:
        """Stands in for `confluent_kafka.Consumer`."""
        return VirtualConsumer(self)

    # What producers do.

    def fence(self, name: str) -> int:
        """The next epoch of a transactional id; what the one before left open is aborted."""
        self.abort(name)
        self.epochs[name] = self.epochs.get(name, 0) + 1
        return self.epochs[name]

    def begin(self, name: str) -> Transaction:
        """A new transaction."""
        self._open[name] = Transaction(self.deciding)
        return self._open[name]

    def abort(self, name: str) -> None:
        """End the open transaction, if there is one, without effect."""
        transaction = self._open.pop(name, None)
        if transaction is not None:
            for topic_partition, _ in transaction.records:
                self.logs[topic_partition].append(None)
            self._mark(transaction)

    def commit(self, name: str) -> None:
        """End the open transaction: all of it is visible at once."""
        transaction = self._open.pop(name)
        own = int(name.rpartition("-")[2])
        by_topic: dict[str, list[Record]] = defaultdict(list)
        for topic_partition, record in transaction.records:
            stamped = Record(record.key, record.value, self.at, record.headers)
            self.logs[topic_partition].append(stamped)
            by_topic[topic_partition[0]].append(stamped)
        self._mark(transaction)
        self.commits.append(Commit(own, transaction.cause, by_topic))

    def _mark(self, transaction: Transaction) -> None:
        for topic_partition in dict.fromkeys(topic_partition for topic_partition, _ in transaction.records):
            self.logs[topic_partition].append(None)


class VirtualProducer:
    """A transactional producer."""

    def __init__(self, kafka: VirtualKafka, name: str) -> None:
        self._kafka = kafka
        self._name = name
        self._epoch = 0
        self._transaction: Transaction | None = None

    def init_transactions(self, _timeout: float) -> None:
        """Fence the previous owner."""
        self._kafka.faults.at("open")
        self._epoch = self._kafka.fence(self._name)

    def begin_transaction(self) -> None:
        """Nothing of it is visible yet."""
        self._kafka.faults.at("begin")
        self._check()
        self._transaction = self._kafka.begin(self._name)

    def produce_batch(self, topic: str, messages: list[dict[str, Any]], *, partition: int, on_delivery: object) -> int:
        """Hand records of one partition over."""
        for message in messages:
            self._add((topic, partition), message.get("key"), message["value"])
        return len(messages)

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: list[tuple[str, bytes]],
        timestamp: int,
        on_delivery: object,
        partition: int | None = None,
    ) -> None:
        """Hand one record over, by its key where no partition is named."""
        number = self._kafka.partition_of(key) if partition is None else partition
        self._add((topic, number), key, value, tuple(headers))

    def _add(
        self, topic_partition: TopicAndPartition, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> None:
        self._kafka.faults.at("produce")
        self._check()
        assert self._transaction is not None, "a record outside a transaction"
        self._transaction.records.append((topic_partition, Record(key, value, 0, headers)))

    def commit_transaction(self, _timeout: float) -> None:
        """All or nothing; what is lost may be lost before or after it was decided."""
        self._check()
        if self._kafka.faults.at("before commit") == "lost":
            self._kafka.abort(self._name)
            raise _failure(KafkaError._STATE)
        self._check()
        self._kafka.commit(self._name)
        if self._kafka.faults.at("after commit") == "lost":
            raise _failure(KafkaError._STATE)

    def poll(self, _timeout: float) -> int:
        """Nothing is to be called back."""
        return 0

    def purge(self) -> None:
        """Let go."""

    def _check(self) -> None:
        if self._epoch != self._kafka.epochs[self._name]:
            self._kafka.faults.note("fenced")
            raise _failure(KafkaError._FENCED)


class VirtualConsumer:
    """Reads the committed records of one partition at a time."""

    def __init__(self, kafka: VirtualKafka) -> None:
        self._kafka = kafka
        self._topic_partition: TopicAndPartition | None = None
        self._next = 0

    def get_watermark_offsets(self, topic_partition: TopicPartition, _timeout: float) -> tuple[int, int]:
        """Where the log begins and ends."""
        if self._kafka.faults.away():
            raise _failure(KafkaError._DESTROY)
        here = topic_partition.topic, topic_partition.partition
        return self._kafka.firsts[here], len(self._kafka.logs[here])

    def assign(self, topic_partitions: list[TopicPartition]) -> None:
        """Read on from there."""
        (topic_partition,) = topic_partitions
        self._topic_partition, self._next = (topic_partition.topic, topic_partition.partition), topic_partition.offset

    def unassign(self) -> None:
        """Read no more."""
        self._topic_partition = None

    def consume(self, _records: int, _timeout: float) -> list[Message]:
        """All that is left, and that it was all."""
        assert self._topic_partition is not None
        log = self._kafka.logs[self._topic_partition]
        found = messages(log, max(self._next, self._kafka.firsts[self._topic_partition]), self._topic_partition)
        self._next = len(log)
        return [*found, Message(len(log), None, self._topic_partition)]

    def close(self) -> None:
        """Leave."""


class VirtualAdmin:
    """Deletes records."""

    def __init__(self, kafka: VirtualKafka) -> None:
        self._kafka = kafka

    def delete_records(self, topic_partitions: list[TopicPartition]) -> dict[TopicPartition, Future[None]]:
        """The logs begin at these offsets."""
        deleted: dict[TopicPartition, Future[None]] = {}
        for topic_partition in topic_partitions:
            self._kafka.faults.at("delete")
            self._kafka.firsts[topic_partition.topic, topic_partition.partition] = topic_partition.offset
            deleted[topic_partition] = Future()
            deleted[topic_partition].set_result(None)
        return deleted


@dataclass(frozen=True, slots=True)
class Message:
    """A record as a reader gets it; without one it says that the log ends here."""

    at: int
    record: Record | None
    topic_partition: TopicAndPartition

    def topic(self) -> str:
        """Of the record."""
        return self.topic_partition[0]

    def key(self) -> bytes | None:
        """Of the record."""
        return None if self.record is None else self.record.key

    def value(self) -> bytes | None:
        """Of the record."""
        return None if self.record is None else self.record.value

    def offset(self) -> int:
        """Of the record, or the log's end."""
        return self.at

    def partition(self) -> int:
        """Of the record."""
        return self.topic_partition[1]

    def headers(self) -> Headers:
        """Of the record."""
        return () if self.record is None else self.record.headers

    def timestamp(self) -> tuple[int, int]:
        """When the broker took it: (kind of time, milliseconds)."""
        return TIMESTAMP_LOG_APPEND_TIME, 0 if self.record is None else self.record.at // 1_000

    def error(self) -> KafkaError | None:
        """None for a record."""
        return KafkaError(KafkaError._PARTITION_EOF) if self.record is None else None


def messages(log: Sequence[Record | None], start: int, topic_partition: TopicAndPartition) -> list[Message]:
    """The committed records of a partition's log from `start` on."""
    return [
        Message(start + index, record, topic_partition)
        for index, record in enumerate(log[start:])
        if record is not None
    ]


def _failure(code: int) -> KafkaException:
    return KafkaException(KafkaError(code, "drawn by the seed"))
