"""The price list as this worker knows it: every record of the compacted price topic, followed live.

Rules of this file:
- Every worker reads all partitions of the topic, from the start, committed records only; the newest record of a key
  wins, no value takes the price away; which of them are in force `streams.ledger.price_log` says (product rule 7).
- A record that is no price changes nothing here. The worker that owns its partition dead-letters it (`streams.agents.
  judgement`), exactly once; here it is only passed over.
- Nobody waits for prices in the hot path. The end of the topic is asked for once a second beside it, so it is known up
  to which time everything has been read. A batch of usage waits for the reader when that is more than
  `STALE_SECONDS_MAX` ago: so long, and no longer, may usage still be rated as if a change had not been published.
  Whoever needs a change to hold from an instant publishes it before, with that `valid_from`.
- When a usage matches none, the worker reads on to the end of the topic as it
  is at that moment, and looks again, before it says `unknown_price`: a price published before the usage is found. The
  end is asked for at most once in `ASK_INTERVAL_SECONDS`, for all partitions that wait.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Final, Protocol

import structlog
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
from pydantic import ValidationError

from schemas.codec import RegistryUnavailableError, UndecodableError, WriterSchemas, decode_one
from schemas.events import Price as PriceRecord
from streams.agents.shared_ask import SharedAsk
from streams.engine.ports import UnavailableError
from streams.kafka_clients import admin_config, consumer_config, offsets_answered
from streams.ledger.price_log import PriceLog, Published
from streams.ledger.rating import Price
from streams.settings import Settings

log = structlog.get_logger(__name__)

POLL_SECONDS: Final = 0.2
BATCH_RECORDS: Final = 1_000
REGISTRY_RETRY_SECONDS: Final = 1.0
CATCH_UP_SECONDS_MAX: Final = 10.0
"""Longer than this without reaching the end of the topic, and the broker counts as away."""

CURRENT_INTERVAL_SECONDS: Final = 1.0
STALE_SECONDS_MAX: Final = 5.0
"""A few times the interval above: what is merely slow keeps nobody waiting."""

ASK_INTERVAL_SECONDS: Final = 0.05
"""Usage that nobody has priced, in every batch, then costs a worker 20 questions a second and its partition 50 ms."""


class PriceSource(Protocol):
    """Where a worker's price list comes from. The methods block; they are called in a thread."""

    log: PriceLog

    def start(self) -> None:
        """Return when everything published so far is in `log`. Raises `UnavailableError`."""
        ...

    def catch_up(self) -> None:
        """Return when everything published before this call is in `log`. Raises `UnavailableError`."""
        ...

    def current(self) -> bool:
        """Whether everything published until `STALE_SECONDS_MAX` ago is in `log`. Asks nobody."""
        ...

    def stop(self) -> None:
        """Let go of it."""
        ...


class PriceReader:
    """Follows the price topic in a thread of its own; `log` is replaced whole, never changed in place."""

    def __init__(self, settings: Settings, topic: str, writers: WriterSchemas) -> None:
        self._settings = settings
        self._topic = topic
        self._writers = writers
        self._consumer = Consumer(consumer_config(settings, f"{settings.app_id}-prices", enable_partition_eof=True))
        self._admin = AdminClient(admin_config(settings))
        self._partitions: list[int] = []
        self._read_up_to: dict[int, int] = {}
        self._moved = threading.Condition()
        self._stopping = threading.Event()
        self._read_to_end_at = -STALE_SECONDS_MAX
        self._thread = threading.Thread(target=self._follow, name="prices", daemon=True)
        self._looking = threading.Thread(target=self._look_for_the_end, name="prices-end", daemon=True)
        self._end = SharedAsk(self._read_to_end, self._stopping.wait, time.monotonic)
        self.log = PriceLog()

    def start(self) -> None:
        """Begin to read, and return when everything that is there now has been read.

        Raises `UnavailableError`; called again it waits again.
        """
        if not self._thread.is_alive():
            try:
                described = self._consumer.list_topics(self._topic, timeout=CATCH_UP_SECONDS_MAX).topics[self._topic]
            except KafkaException as error:
                raise UnavailableError(f"the broker does not answer: {error}") from error
            self._partitions = sorted(described.partitions)
            beginning = [TopicPartition(self._topic, number, OFFSET_BEGINNING) for number in self._partitions]
            self._consumer.assign(beginning)
            self._thread.start()
            self._looking.start()
        self.catch_up()

    def stop(self) -> None:
        """End the threads and leave the broker. One that waits for the broker's answer is not waited for."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._consumer.close()

    def catch_up(self) -> None:
        """Return when every price that was committed before this call is in `log`. Raises `UnavailableError`."""
        self._end.after_now(ASK_INTERVAL_SECONDS)

    def current(self) -> bool:
        """See `PriceSource`."""
        return time.monotonic() - self._read_to_end_at <= STALE_SECONDS_MAX

    def _look_for_the_end(self) -> None:
        while not self._stopping.wait(CURRENT_INTERVAL_SECONDS):
            with contextlib.suppress(UnavailableError):  # a batch that needs the prices will say so
                self.catch_up()

    def _read_to_end(self) -> None:
        asked_at = time.monotonic()
        deadline = asked_at + CATCH_UP_SECONDS_MAX
        ends = self._ends()
        with self._moved:
            reached = self._moved.wait_for(
                lambda: all(self._read_up_to.get(number, 0) >= end for number, end in ends.items()),
                timeout=max(0.0, deadline - time.monotonic()),
            )
        if not reached:
            raise UnavailableError(f"{self._topic} could not be read to its end")
        self._read_to_end_at = asked_at

    def _ends(self) -> dict[int, int]:
        """End of each partition's committed records. Not asked of the consumer: it waits while that is polling."""
        partitions = {TopicPartition(self._topic, number): OffsetSpec.latest() for number in self._partitions}
        futures = self._admin.list_offsets(
            partitions, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=CATCH_UP_SECONDS_MAX
        )
        try:
            return {number: offset for (_, number), offset in offsets_answered(futures).items()}
        except KafkaException as error:
            self._admin = AdminClient(admin_config(self._settings))  # only a new client asks who leads now
            raise UnavailableError(f"the end of {self._topic} cannot be asked: {error}") from error

    def _follow(self) -> None:
        while not self._stopping.is_set():
            messages = self._consumer.consume(BATCH_RECORDS, timeout=POLL_SECONDS)
            self._take_when_possible([message for message in messages if message.error() is None])
            with self._moved:
                for message in messages:
                    self._note_progress(message)
                self._moved.notify_all()

    def _note_progress(self, message: Message) -> None:
        """How far the topic was read; its end is told by an event, also where only transaction markers are left."""
        error = message.error()
        if error is None:
            self._read_up_to[message.partition()] = message.offset() + 1
        elif error.code() == KafkaError._PARTITION_EOF:
            self._read_up_to[message.partition()] = message.offset()
        else:
            log.warning("prices_not_read", error=str(error))

    def _take_when_possible(self, messages: list[Message]) -> None:
        """Take the records; while the registry cannot be asked, wait: nothing is passed over for that."""
        while not self._stopping.is_set():
            try:
                self._take(messages)
            except RegistryUnavailableError as error:
                log.warning("prices_wait_for_registry", error=str(error))
                self._stopping.wait(REGISTRY_RETRY_SECONDS)
            else:
                return

    def _take(self, messages: list[Message]) -> None:
        if not messages:
            return
        changes: dict[str, tuple[Published, Price] | None] = {}
        for message in messages:
            price = self._read(message)
            if message.value() is None and message.key():
                changes[message.key().decode("utf-8", "replace")] = None
            elif price is not None:
                published = Published(message.timestamp()[1], message.partition(), message.offset())
                changes[price.price_id] = (published, price)
        if changes:
            self.log = self.log.with_changes(changes)

    def _read(self, message: Message) -> Price | None:
        if message.value() is None:
            return None
        try:
            record = PriceRecord.from_record(decode_one("price", message.value(), self._writers))
        except (UndecodableError, ValidationError) as error:
            log.warning("price_ignored", partition=message.partition(), offset=message.offset(), error=str(error))
            return None
        if message.key() != record.price_id.encode():  # a dead letter, as everywhere (`judgement.check_key`)
            log.warning("price_ignored", partition=message.partition(), offset=message.offset(), error="key mismatch")
            return None
        return Price.from_record(record.to_record())
