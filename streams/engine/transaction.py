"""One partition's transactional producer, and the one transaction that a batch becomes.

The rules of this file:
1. `transactional.id` is `<app id>-<partition>`: opening a producer fences every earlier one of the partition, here or
   elsewhere, and waits until what that one left open is aborted or committed.
2. A transaction is written by one thread at a time, and never while another of the same partition is open. Writing
   is for the event loop's thread, which has the interpreter anyway; a thread of its own would wait for it three times.
   Only the commit, which waits for the broker, is for another.
3. After any failure the producer is not used again: whether the transaction went through is read from Kafka, by
   restoring the partition.
4. The same after a commit that succeeded, but lost a connection meanwhile or was slow. librdkafka then repeats
   requests, and a copy may still be on the network. It does not speak the protocol of KIP-890 (its issue 5423), so the
   broker cannot tell that copy from a request of the next transaction, and would end that one halfway. The next
   producer has a higher epoch, by which the broker refuses the copy.
5. No transaction is aborted by us: an abort before the first acknowledgement can leave librdkafka's producer unusable
   (its issue 4849). Opening the next producer aborts what is open.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from streams.engine.failures import CommitRefusedError, FencedError, PartitionLostError
from streams.engine.ports import Keyed
from streams.errors import KafkaUnavailableError
from streams.kafka.clients import producer_config
from streams.settings import Settings

# Long enough for a slow broker, short enough that a worker which died does not hold back readers for long: their
# last stable offset stays before an open transaction until it ends or is timed out.
TRANSACTION_TIMEOUT_MS = 10_000
OPEN_TIMEOUT_S = 30.0
OPEN_TRY_S = 3.0
COMMIT_TIMEOUT_S = 10.0
# A commit takes milliseconds, a second on a broker that is short of CPU. Requests that time out inside librdkafka do so
# after `socket.timeout.ms`, 60 s; so whatever was repeated took longer than this, or lost its connection.
COMMIT_SLOW_S = 5.0
MESSAGE_BYTES_MAX = 8 * 1024 * 1024
# More than the messages of the largest batch: entries, alerts, states and marks of 100,000 records.
QUEUE_MESSAGES_MAX = 2_000_000
QUEUE_KIB_MAX = 1024 * 1024

_FENCED = {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}
_REFUSED = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.INVALID_TRANSACTION_TIMEOUT,
    KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
    KafkaError.POLICY_VIOLATION,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
}

Messages = list[dict[str, Any]]


@dataclass(slots=True)
class Writes:
    """Everything one transaction writes: (topic, messages) for the own partition, and single records.

    `keyed_at_ms`: the Kafka timestamp of the single records, which may be inputs again; 0: when they are written.
    """

    batches: list[tuple[str, Messages]]
    keyed: Sequence[Keyed]
    keyed_at_ms: int = 0


class PartitionProducer:
    """The producer of one owned partition."""

    def __init__(self, settings: Settings, partition: int, producer: Producer, lost: Sequence[str]) -> None:
        """`lost`: what librdkafka has logged of connections that were lost."""
        self._settings = settings
        self._partition = partition
        self._producer = producer
        self._lost = lost
        self._failed: KafkaError | None = None

    @staticmethod
    def open(settings: Settings, partition: int, wanted: Callable[[], bool]) -> PartitionProducer:
        """Fence the partition's earlier producers. Blocks; raises `KafkaUnavailableError` or `CommitRefusedError`.

        `wanted` is asked before each try, so that a slow take-over does not fence a newer owner of the partition.
        """
        connections = _ConnectionLog()
        config = producer_config(
            settings,
            logger=connections,
            transactional_id=f"{settings.app_id}-{partition}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            linger_ms=0,
            message_max_bytes=MESSAGE_BYTES_MAX,
            queue_buffering_max_messages=QUEUE_MESSAGES_MAX,
            queue_buffering_max_kbytes=QUEUE_KIB_MAX,
            batch_num_messages=10_000,
            batch_size=1_000_000,
            log_level=6,  # a lost connection
        )
        producer = Producer(config)
        deadline = time.monotonic() + OPEN_TIMEOUT_S
        while True:
            if not wanted():
                raise KafkaUnavailableError(f"partition {partition} is no longer to be taken over")
            try:
                producer.init_transactions(OPEN_TRY_S)
            except KafkaException as failure:
                error = failure.args[0]
                if error.code() in _REFUSED:
                    raise _refused(error, settings) from failure
                if not error.retriable() or time.monotonic() >= deadline:
                    raise KafkaUnavailableError(
                        f"partition {partition} cannot be taken over: {error.str()}"
                    ) from failure
            else:
                connections.lost.clear()  # nothing of the new epoch was on them
                return PartitionProducer(settings, partition, producer, connections.lost)

    def write(self, writes: Writes) -> None:
        """Begin a transaction and hand everything over. Does not block; `commit` must follow.

        1. Begin. 2. Hand over the records of the own partition. 3. Hand over keyed records. A crash after any of them
        has no effect: the next owner's `open` aborts what is there.

        The lists of messages are empty afterwards. Raises `FencedError` or `PartitionLostError` (restore the
        partition) or `CommitRefusedError` (stop).
        """
        self._attempt(self._producer.begin_transaction)
        for topic, messages in writes.batches:
            self._produce_batch(topic, messages)
            messages.clear()  # librdkafka has its copy; with several partitions in this state the other one is felt
        for record in writes.keyed:
            self._produce_keyed(record, writes.keyed_at_ms)

    def commit(self) -> None:
        """Commit, which waits for every record to be acknowledged. Blocks; raises as `write` does.

        A crash before its end has no effect; one after it has had its effect, positions included. Raises
        `PartitionLostError` also when all is committed, but the producer must not be used again.
        """
        began_s = time.monotonic()
        self._attempt(lambda: self._producer.commit_transaction(COMMIT_TIMEOUT_S))
        took_s = time.monotonic() - began_s
        self._producer.poll(0)  # hands over what librdkafka has logged
        if self._lost:
            raise PartitionLostError(f"a connection was lost during a transaction ({self._lost[0]})")
        if took_s > COMMIT_SLOW_S:
            raise PartitionLostError(f"a commit took {took_s:.1f} s")

    def close(self) -> None:
        """Give up what is open and free the memory. The broker aborts what was not committed."""
        self._producer.purge()

    def _produce_batch(self, topic: str, messages: Messages) -> None:
        if not messages:
            return
        taken = self._producer.produce_batch(topic, messages, partition=self._partition, on_delivery=None)
        if taken != len(messages):
            error = next(message["_error"] for message in messages if "_error" in message)
            if error.code() == KafkaError._QUEUE_FULL:
                raise _queue_full()
            raise self._failure(error)

    def _produce_keyed(self, record: Keyed, at_ms: int) -> None:
        options: dict[str, Any] = {}
        if record.partition is not None:
            options["partition"] = record.partition
        try:
            self._producer.produce(
                record.topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                timestamp=at_ms,
                on_delivery=self._delivered,
                **options,
            )
        except KafkaException as failure:
            raise self._failure(failure.args[0]) from failure
        except BufferError as failure:
            raise _queue_full() from failure

    def _delivered(self, error: KafkaError | None, _message: Any) -> None:
        if error is not None:
            self._failed = error

    def _attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except KafkaException as failure:
            raise self._failure(failure.args[0]) from failure

    def _failure(self, error: KafkaError) -> Exception:
        cause = self._failed or error
        for each in (error, cause):
            if each.code() in _FENCED:
                return FencedError(each.str())
            if each.code() in _REFUSED:
                return _refused(each, self._settings)
        return PartitionLostError(f"{error.name()}: {error.str()}")


class _ConnectionLog:
    """Librdkafka's log, of which the lost connections are kept.

    It repeats what was under way on them and reports that nowhere else: its error callback is not called for it. It is
    called by `poll` and `flush`, in their thread.
    """

    def __init__(self) -> None:
        self.lost: list[str] = []

    def log(self, _level: int, _format: str, facility: str, _client: str, message: str) -> None:
        """As of a `logging.Logger`."""
        if facility == "FAIL" and not any(f"in state {state}" in message for state in _STATES_BEFORE_UP):
            self.lost.append(message)


_STATES_BEFORE_UP = ("TRY_CONNECT", "CONNECT", "SSL_HANDSHAKE", "APIVERSION_QUERY", "AUTH")
"""A connection that fails in one of these has not carried a request of a transaction."""


def _queue_full() -> CommitRefusedError:
    return CommitRefusedError("a batch writes more than the producer's queue holds", "lower CREDITS_BATCH_RECORDS_MAX")


def _refused(error: KafkaError, settings: Settings) -> CommitRefusedError:
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        remedy = "raise max.message.bytes of the topic to 8 MiB, or message.max.bytes of the brokers"
    else:
        remedy = (
            f"give this Kafka user the role `worker` (`credits acl apply`): it must write the ledger's topics, with "
            f"transactional ids {settings.app_id}-*"
        )
    return CommitRefusedError(f"Kafka refuses the ledger's transaction ({error.name()}: {error.str()})", remedy)
