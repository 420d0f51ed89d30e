"""What time it is, as the broker says: it stamps the input records, so timers must go by the same clock.

The rules of this file:
1. The host's wall clock is never asked: one that is a day ahead would expire credits for good. A record to a topic
   whose timestamps are the broker's tells the time; the host's monotonic clock carries it on until the next one.
2. The clock's time is never ahead of the broker's by more than the monotonic clock drifts in `ASK_INTERVAL_S`.
3. While the broker does not answer, time goes on from the last answer. Before the first answer it is 0, and no timer is
   due.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaException, Producer

from streams.engine.internal_topics import clock_topic
from streams.kafka.clients import producer_config
from streams.settings import Settings

log = logging.getLogger(__name__)

ASK_INTERVAL_S = 60.0
ANSWER_TIMEOUT_S = 5.0


class BrokerClock:
    """The broker's time in microseconds. `ask` blocks and is for one thread at a time; `now` is for any."""

    def __init__(self, settings: Settings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._topic = clock_topic(settings.app_id)
        self._monotonic = monotonic
        config = producer_config(settings, linger_ms=0, message_timeout_ms=int(ANSWER_TIMEOUT_S * 1000), log_level=0)
        self._producer = Producer(config)
        self._answer: tuple[int, float] | None = None

    def now(self) -> int:
        """Microseconds since the epoch; 0 until a broker has answered."""
        if self._answer is None:
            return 0
        answered_at, at_s = self._answer
        return answered_at + int((self._monotonic() - at_s) * 1_000_000)

    def ask(self) -> None:
        """Set the clock by the broker's. Waits `ANSWER_TIMEOUT_S` at most; without an answer nothing changes."""
        try:
            self._producer.produce(self._topic, b"", on_delivery=self._answered)
        except (KafkaException, BufferError) as error:
            log.warning("The broker's time cannot be refreshed: %s", error)
            return
        self._producer.flush(ANSWER_TIMEOUT_S)

    def _answered(self, error: Any, message: Any) -> None:
        if error is not None:
            log.warning("The broker's time cannot be refreshed: %s", error.str())
            return
        kind, answered_ms = message.timestamp()
        if kind != TIMESTAMP_LOG_APPEND_TIME:
            log.warning("Timers rest: set message.timestamp.type=LogAppendTime on %s", self._topic)
            self._answer = None
            return
        self.set(answered_ms * 1_000)

    def set(self, answered_at: int) -> None:
        """The broker's time was `answered_at`, just now or a moment ago."""
        self._answer = (answered_at, self._monotonic())
