"""The latest balances, read from the compacted balances topic into memory.

The rules of this file:
1. Committed records only, every partition, from the beginning: what is in memory is what the ledger said last.
2. An answer contains everything that was committed when the question came: the reader looks where the log ends, and
   waits until it has read so far. The balance does not lag behind the ledger (product rule 34). The end is the one
   with open transactions, since a commit is decided before its markers are written; a transaction that stays open
   longer than `OPEN_WAIT_S` (its worker died) is not waited for: it has not been committed.
3. Values stay bytes until somebody asks; 100,000 orgs are a few dozen megabytes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.amounts import format_amount
from schemas.codec import UndecodableError, WriterSchemas, decode_one
from schemas.facts import BALANCE_AMOUNTS
from schemas.partitioner import partitions_of
from schemas.topics import Topics
from streams.errors import KafkaUnavailableError
from streams.kafka.clients import admin_config, consumer_config, offsets_answered

if TYPE_CHECKING:
    from streams.settings import Settings

ASK_TIMEOUT_S = 5.0
OPEN_WAIT_S = 0.5
POLL_S = 0.1
# A commit marker alone does not end the broker's waiting for records, and an answer waits for the marker: with
# librdkafka's 500 ms every second answer took half a second, with 20 ms a few milliseconds.
FETCH_WAIT_MS = 20
POLL_RECORDS_MAX = 5_000
RETRY_S = 1.0


def balance_document(balance: Mapping[str, Any]) -> dict[str, Any]:
    """What `GET /v1/orgs/{org}/balance` and `credits balance` answer, from a decoded balance record."""
    return {
        "org_id": balance["org_id"],
        "seq": balance["seq"],
        "as_of": iso_time(balance["as_of"]),
        "wallets": [
            {
                "unit": wallet["unit"],
                **{name: format_amount(wallet[f"{name}_nanos"]) for name in BALANCE_AMOUNTS},
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
        self._partitions = range(settings.partitions)
        self._latest: dict[bytes, bytes] = {}
        self._reached: dict[int, int] = {}
        self._changed = threading.Condition()
        self._asking = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="balances", daemon=True)
        self._asker: AdminClient | None = None
        self._progress_at = time.monotonic()

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading, and wait for the thread."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=10)

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
        ends = self._ends(IsolationLevel.READ_UNCOMMITTED, deadline)
        if self._wait_for(ends, min(deadline, time.monotonic() + OPEN_WAIT_S)):
            return
        if not self._wait_for(self._ends(IsolationLevel.READ_COMMITTED, deadline), deadline):
            raise KafkaUnavailableError(
                f"the balances could not be read to their end within {timeout_s:g} s", "try again in a moment"
            )

    @property
    def orgs(self) -> int:
        """How many orgs have a balance."""
        return len(self._latest)

    def idle_s(self) -> float:
        """Seconds since the reading thread last came round; it is stuck or dead when this grows."""
        return time.monotonic() - self._progress_at

    def _wait_for(self, ends: Mapping[int, int], deadline: float) -> bool:
        """Wait until everything before `ends` has been read; False when `deadline` came first."""

        def behind() -> bool:
            return any(self._reached.get(partition, 0) < end for partition, end in ends.items())

        with self._changed:
            while behind() and not self._stopping.is_set():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return not behind()

    def _ends(self, isolation: IsolationLevel, deadline: float) -> dict[int, int]:
        """Where each partition ends now."""
        while True:
            try:
                with self._asking:
                    if self._asker is None:
                        self._asker = AdminClient({**admin_config(self._settings), "log_level": 0})
                    left_s = max(deadline - time.monotonic(), 0.1)
                    where = {TopicPartition(self._topic, each): OffsetSpec.latest() for each in self._partitions}
                    asked = self._asker.list_offsets(where, isolation_level=isolation, request_timeout=left_s)
                return {partition: offset for (_, partition), offset in offsets_answered(asked, left_s).items()}
            except (KafkaException, TimeoutError) as error:
                if time.monotonic() + POLL_S > deadline:
                    raise KafkaUnavailableError(f"Kafka does not answer ({error})", "see `credits doctor`") from error
                # A new leader is being chosen, or the broker is coming back. Only a new client asks who leads now.
                self._asker = None
                time.sleep(POLL_S)

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
            reached = self._reached
            consumer.assign([TopicPartition(self._topic, each, reached.get(each, 0)) for each in self._partitions])
            while not self._stopping.is_set():
                # consume() waits for as many as are asked for: one to wait for, then what is there already.
                messages = consumer.consume(1, timeout=POLL_S)
                if messages:
                    messages += consumer.consume(POLL_RECORDS_MAX, timeout=0)
                self._progress_at = time.monotonic()
                if messages:
                    self._take(messages)
        finally:
            consumer.close()

    def _take(self, messages: Sequence[Any]) -> None:
        with self._changed:
            homes = partitions_of([message.key() or b"" for message in messages], len(self._partitions))
            for message, home in zip(messages, homes, strict=True):
                error = message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    # The end may lie behind commit markers, which are no messages.
                    self._reached[message.partition()] = max(
                        message.offset(), self._reached.get(message.partition(), 0)
                    )
                    continue
                if message.partition() != home:
                    pass  # of a second account, which an older version opened in a partition that is not the org's
                elif message.value() is None:
                    self._latest.pop(message.key(), None)
                else:
                    self._latest[message.key()] = message.value()
                self._reached[message.partition()] = message.offset() + 1
            self._changed.notify_all()

    def _consumer(self) -> Consumer:
        group = f"{self._settings.app_id}-balances-reader"
        own = {"enable_partition_eof": True, "fetch_wait_max_ms": FETCH_WAIT_MS, "log_level": 0}
        return Consumer(consumer_config(self._settings, group, **own))
