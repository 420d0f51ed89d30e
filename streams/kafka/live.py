"""Topics that are followed live in a thread, and known to be read up to a moment.

The rules of this file:
1. Committed records only, every partition, from the beginning or from the end on, without a trace in Kafka.
2. `ends` asks where the logs end now, `wait_for` waits until everything before has been taken. Together they make an
   answer that contains everything that was committed before the question.
3. A broker that is away is waited for: what was taken stays, and reading goes on behind it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, IsolationLevel, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.errors import KafkaUnavailableError
from streams.kafka.clients import admin_config, consumer_config, offsets_answered
from streams.kafka.consume import Offsets, Polled, TopicAndPartition, poll

if TYPE_CHECKING:
    from streams.settings import Settings

log = logging.getLogger(__name__)

POLL_S = 0.1
RETRY_S = 1.0
STOP_TIMEOUT_S = 10.0
OFFSET_TAIL_BASE = -2000
"""librdkafka's `RD_KAFKA_OFFSET_TAIL`: so many offsets before the end are this number less so many."""
END_TIMEOUT_S = 10.0


class LiveTopics:
    """Follows all partitions of some topics, and hands each list of records to `take`, in that one thread.

    `take` may block for as long as it needs, but must look at `stopping`. `name` is that of the thread.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Sequence[str],
        take: Callable[[Sequence[Message]], None],
        *,
        name: str,
        fetch_wait_ms: int = 500,
        partitions: int | None = None,
    ) -> None:
        """`partitions`: of each topic; None: as the settings say."""
        self._settings = settings
        self._begin = 0
        self._places = [(topic, number) for topic in topics for number in range(partitions or settings.partitions)]
        self._take = take
        self._from_end = False
        self._config = {
            **consumer_config(settings, f"{settings.app_id}-{name}-reader", enable_partition_eof=True),
            "fetch.wait.max.ms": fetch_wait_ms,
            "log_level": 0,
        }
        self._reached: Offsets = {}
        self._moved = threading.Condition()
        self._asking = threading.Lock()
        self._asker: AdminClient | None = None
        self._progress_at_s = time.monotonic()
        self._thread = threading.Thread(target=self._follow, name=name, daemon=True)
        self.stopping = threading.Event()

    def begin_before_end(self, newest: int) -> None:
        """Begin so many offsets before the end of each partition. Before `start`; else reading begins at the start."""
        self._begin = OFFSET_TAIL_BASE - newest

    def start(self, *, from_end: bool = False) -> None:
        """Begin to read, unless that has begun. `from_end`: only what comes after the start."""
        self._from_end = from_end
        if self._thread.ident is None:
            self._thread.start()

    def close(self) -> None:
        """Stop reading, and wait for the thread."""
        self.stopping.set()
        with self._moved:
            self._moved.notify_all()
        if self._thread.ident is not None:
            self._thread.join(STOP_TIMEOUT_S)

    def idle_s(self) -> float:
        """Seconds since the reading thread last came round; it is stuck or dead when this grows."""
        return time.monotonic() - self._progress_at_s

    def ends(self, deadline_s: float, isolation: Any = IsolationLevel.READ_COMMITTED) -> Offsets:
        """Where each partition ends now. Raises `KafkaUnavailableError` at the monotonic time `deadline_s`."""
        where = {TopicPartition(*place): OffsetSpec.latest() for place in self._places}
        while True:
            try:
                with self._asking:
                    if self._asker is None:
                        self._asker = AdminClient({**admin_config(self._settings), "log_level": 0})
                    left_s = max(deadline_s - time.monotonic(), POLL_S)
                    asked = self._asker.list_offsets(where, isolation_level=isolation, request_timeout=left_s)
                return offsets_answered(asked, left_s)
            except (KafkaException, TimeoutError) as error:
                # A new leader is being chosen, or the broker is coming back. Only a new client asks who leads now.
                self._asker = None
                if time.monotonic() + POLL_S > deadline_s or self.stopping.wait(POLL_S):
                    raise KafkaUnavailableError(f"Kafka does not answer ({error})", "see `credits doctor`") from error

    def reached(self) -> Offsets:
        """How far each partition has been taken; empty while it is not known where to begin."""
        with self._moved:
            return dict(self._reached)

    def wait_for(self, ends: Mapping[TopicAndPartition, int], deadline_s: float) -> bool:
        """Wait until everything before `ends` has been taken; False when the deadline came first, or the end."""

        def arrived() -> bool:
            return all(self._reached.get(place, 0) >= end for place, end in ends.items())

        with self._moved:
            self._moved.wait_for(lambda: arrived() or self.stopping.is_set(), max(0.0, deadline_s - time.monotonic()))
            return arrived()

    def _follow(self) -> None:
        while not self.stopping.is_set():
            try:
                self._read()
            except (KafkaException, KafkaUnavailableError) as error:
                log.warning("The %s cannot be read now: %s", self._thread.name, error)
                self._progress_at_s = time.monotonic()
                self.stopping.wait(RETRY_S)

    def _read(self) -> None:
        if self._from_end and not self._reached:
            ends = self.ends(time.monotonic() + END_TIMEOUT_S)
            with self._moved:
                self._reached = ends
        consumer = Consumer(self._config)
        try:
            consumer.assign([TopicPartition(*place, self._reached.get(place, self._begin)) for place in self._places])
            while not self.stopping.is_set():
                polled = poll(consumer, POLL_S)
                self._progress_at_s = time.monotonic()
                self._note(polled)
                polled.check()
        finally:
            consumer.close()

    def _note(self, polled: Polled) -> None:
        if polled.records:
            self._take(polled.records)
        if self.stopping.is_set():
            return  # what is broken off must not count as taken
        with self._moved:
            polled.advance(self._reached)
            self._moved.notify_all()
