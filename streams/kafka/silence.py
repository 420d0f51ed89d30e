"""Every wait for Kafka has an end: a read that gets nothing new for too long says what it waits for, and stops.

A broker that goes away in the middle of a read raises nothing by itself: librdkafka tries to connect for as long as it
is let. So every reader of a range keeps a `SilenceLimit` and checks it when nothing came.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from streams.errors import KafkaUnavailableError

REMEDY = (
    "see whether the broker is well (`credits doctor`) and call again; CREDITS_READ_TIMEOUT_S sets how long to wait"
)


class NoProgressError(KafkaUnavailableError):
    """Nothing new has come from Kafka for too long."""

    code = "no_progress"


class SilenceLimit:
    """How long a read may go without progress. One thread."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._progress_s = clock()

    def progressed(self) -> None:
        """Something new came, or its consumer took its time: the limit begins again."""
        self._progress_s = self._clock()

    @property
    def passed(self) -> bool:
        """Whether there was no progress for too long."""
        return self._clock() - self._progress_s > self._limit_s

    def check(self, missing: Callable[[], str]) -> None:
        """Raises `NoProgressError` when the limit has passed; `missing` says what is waited for."""
        if self.passed:
            raise NoProgressError(f"Kafka sent nothing new for {self._limit_s:g} s; missing: {missing()}", REMEDY)


def missing_records(left: dict[tuple[str, int], int], reached: dict[tuple[str, int], int]) -> str:
    """What of a range was not read, for people: `left` are the ends that were not reached, by topic and partition."""
    topics = sorted({topic for topic, _ in left})
    offsets = sum(max(0, end - max(0, reached.get(topic_partition, 0))) for topic_partition, end in left.items())
    parts = "partition" if len(left) == 1 else "partitions"
    return f"{offsets:,} offsets of {len(left):,} {parts} of {', '.join(topics)}"
