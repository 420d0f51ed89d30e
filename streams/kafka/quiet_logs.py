"""Rate limits for the Kafka clients' logs: while a broker is away they repeat a message twenty times a second."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from streams.logging import OncePerInterval

REPEAT_INTERVAL_S = 10.0
LOGGERS = (
    "aiokafka",
    "aiokafka.conn",
    "aiokafka.cluster",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
)


class RateLimitedLog(logging.Filter):
    """Lets each message (its text before the values are filled in) through once per interval and logger."""

    def __init__(self, interval_s: float = REPEAT_INTERVAL_S, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._written = OncePerInterval(interval_s)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log the record."""
        return self._written.is_due((record.name, str(record.msg)), self._now_s())


def silence_repeats() -> None:
    """Apply a `RateLimitedLog` to the Kafka clients' loggers."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(RateLimitedLog())
