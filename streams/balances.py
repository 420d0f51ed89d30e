"""The latest balances, read from the compacted balances topic into memory.

The rules of this file:
1. Committed records only, every partition, from the beginning: what is in memory is what the ledger said last.
2. An answer contains everything that was committed when the question came: the reader looks where the log ends, and
   waits until it has read so far. The balance does not lag behind the ledger (product rule 34).
3. Values stay bytes until somebody asks; 100,000 orgs are a few dozen megabytes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.amounts import format_amount
from schemas.codec import UndecodableError, WriterSchemas, decode_one
from schemas.topics import Topics
from streams.errors import KafkaUnavailableError
from streams.kafka_clients import consumer_config

if TYPE_CHECKING:
    from streams.settings import Settings

ASK_TIMEOUT_S = 5.0
POLL_S = 0.1
POLL_RECORDS_MAX = 5_000
RETRY_S = 1.0

# Wallet fields of the balance record that are amounts, and their names in the answer.
AMOUNTS = (
    "settled",
    "held",
    "available",
    "allocation",
    "month_spent",
    "lifetime_added",
    "lifetime_spent",
)


def balance_document(balance: Mapping[str, Any]) -> dict[str, Any]:
    """What `GET /v1/orgs/{org}/balance` and `credits balance` answer, from a decoded balance record."""
    return {
        "org_id": balance["org_id"],
        "seq": balance["seq"],
        "as_of": iso_time(balance["as_of"]),
        "wallets": [
            {
                "unit": wallet["unit"],
                **{name: format_amount(wallet[f"{name}_nanos"]) for name in AMOUNTS},
                "status": wallet["status"],
                "health": wallet["health"],
            }
            for wallet in balance["wallets"]
        ],
    }


def iso_time(micros: int) -> str:
    """ISO 8601 in UTC, of microseconds since the epoch."""
    return datetime.fromtimestamp(micros // 1_000_000, UTC).replace(microsecond=micros % 1_000_000).isoformat()


class BalanceReader:
    """Follows the balances topic in a thread of its own. Start it, ask it from any thread, close it."""

    def __init__(self, settings: Settings, writers: WriterSchemas) -> None:
        self._settings = settings
        self._writers = writers
        self._topic = Topics(settings.namespace).name("balances")
        self._latest: dict[bytes, bytes] = {}
        self._reached: dict[int, int] = {}
        self._changed = threading.Condition()
        self._asking = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="balances", daemon=True)
        self._asker: Consumer | None = None
        self._progress_at = time.monotonic()

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading, and wait for the thread."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=10)
        with self._asking:
            if self._asker is not None:
                self._asker.close()
                self._asker = None

    def balance(self, org_id: str, timeout_s: float = ASK_TIMEOUT_S) -> dict[str, Any] | None:
        """The org's balance record as of now; None when the ledger knows no such org.

        Raises `KafkaUnavailableError` when it cannot be known in time, for an outdated balance is worse than none.
        """
        self.wait_until_current(timeout_s)
        value = self._latest.get(org_id.encode())
        if value is None:
            return None
        try:
            return decode_one("balance", value, self._writers)
        except UndecodableError as error:
            raise KafkaUnavailableError(
                f"the balance record of {org_id!r} cannot be read ({error})", f"see who else writes to {self._topic}"
            ) from error

    def wait_until_current(self, timeout_s: float = ASK_TIMEOUT_S) -> None:
        """Return when everything that is committed now has been read. Raises `KafkaUnavailableError`."""
        deadline = time.monotonic() + timeout_s
        ends = self._ends(timeout_s)
        with self._changed:
            while any(self._reached.get(partition, 0) < end for partition, end in ends.items()):
                left = deadline - time.monotonic()
                if left <= 0 or self._stopping.is_set():
                    raise KafkaUnavailableError("the balances are not read to their end yet", "try again in a moment")
                self._changed.wait(left)

    @property
    def orgs(self) -> int:
        """How many orgs have a balance."""
        return len(self._latest)

    def idle_s(self) -> float:
        """Seconds since the reading thread last came round; it is stuck or dead when this grows."""
        return time.monotonic() - self._progress_at

    def _ends(self, timeout_s: float) -> dict[int, int]:
        """Where each partition ends now, for a reader of committed records."""
        with self._asking:
            try:
                if self._asker is None:
                    self._asker = self._consumer()
                found = {}
                for partition in self._partitions(self._asker, timeout_s):
                    where = TopicPartition(self._topic, partition)
                    found[partition] = self._asker.get_watermark_offsets(where, timeout=timeout_s)[1]
                return found
            except KafkaException as error:
                raise KafkaUnavailableError(
                    f"Kafka does not answer ({error.args[0].str()})", "see `credits doctor`"
                ) from error

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                self._read()
            except KafkaException:  # the broker is away: what was read stays true up to where it was read
                self._progress_at = time.monotonic()
                self._stopping.wait(RETRY_S)

    def _read(self) -> None:
        consumer = self._consumer()
        try:
            partitions = self._partitions(consumer, ASK_TIMEOUT_S)
            consumer.assign([TopicPartition(self._topic, each, self._reached.get(each, 0)) for each in partitions])
            while not self._stopping.is_set():
                messages = consumer.consume(POLL_RECORDS_MAX, timeout=POLL_S)
                self._progress_at = time.monotonic()
                if messages:
                    self._take(messages)
        finally:
            consumer.close()

    def _take(self, messages: Sequence[Any]) -> None:
        with self._changed:
            for message in messages:
                error = message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    # The end may lie behind commit markers, which are no messages.
                    self._reached[message.partition()] = max(
                        message.offset(), self._reached.get(message.partition(), 0)
                    )
                    continue
                if message.value() is None:
                    self._latest.pop(message.key(), None)
                else:
                    self._latest[message.key()] = message.value()
                self._reached[message.partition()] = message.offset() + 1
            self._changed.notify_all()

    def _partitions(self, consumer: Consumer, timeout_s: float) -> list[int]:
        topic = consumer.list_topics(self._topic, timeout=timeout_s).topics[self._topic]
        if topic.error is not None:
            raise KafkaException(topic.error)
        return sorted(topic.partitions)

    def _consumer(self) -> Consumer:
        group = f"{self._settings.app_id}-balances-reader"
        return Consumer(consumer_config(self._settings, group, enable_partition_eof=True, log_level=0))
