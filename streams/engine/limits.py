"""Limits on what a flood of dead letters may do: it stops the worker, or it pauses the topic that it comes in by.

The rules of this file:
1. Counted is what was committed in the last minute. What is not committed in the end is decided once more.
2. `stop`: over all partitions and topics of a worker, checked before a batch is written. Nothing beyond is booked.
3. `pause`: by input topic. A batch that passes the limit is still booked, for its dead letters are right; then its
   partition of the topic is read no further for a while, if it brought at least its share: the limit, divided by the
   number of partitions that brought any. A broken producer is slowed down to about the limit. Other topics go on, and
   so do partitions with a few dead letters while another has a flood of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from streams.engine.failures import TooManyDeadLettersError

MINUTE_S = 60.0
# One batch may hold many times the limit, where that is low: the pause is longer then, but not for hours.
PAUSE_MAX_S = 300.0


class DeadLetterLimit:
    """The limit of dead letters in any minute, over all partitions of a worker."""

    def __init__(self, per_minute_max: int, *, pauses: bool = False) -> None:
        self._max = per_minute_max
        self._pauses = pauses
        self._recent: deque[tuple[float, str, int, int]] = deque()
        self._sum = 0
        self._sums: dict[str, dict[int, int]] = {}
        """Of the last minute, by topic and partition."""

    def check(self, dead_letters: int, now_s: float) -> None:
        """Raises `TooManyDeadLettersError` when these, at the monotonic time `now_s`, are too many.

        Before they are committed; not where a flood pauses its topic.
        """
        if self._pauses:
            return
        self._forget(now_s)
        if dead_letters and self._sum + dead_letters > self._max:
            raise TooManyDeadLettersError(
                f"{self._sum + dead_letters} dead letters within a minute, the limit is {self._max}",
                "look at `credits dead-letters list`; raise CREDITS_DEAD_LETTERS_PER_MINUTE_MAX to go on regardless",
            )

    def count(self, partition: int, dead_letters: Mapping[str, int], now_s: float) -> dict[str, tuple[int, float]]:
        """These were committed for a partition at the monotonic time `now_s`, by input topic.

        Returns the topics to pause in this partition: how many dead letters came by them within a minute, and for how
        many seconds to pause.
        """
        self._forget(now_s)
        paused = {}
        for topic, records in dead_letters.items():
            if not records:
                continue
            self._recent.append((now_s, topic, partition, records))
            self._sum += records
            sums = self._sums.setdefault(topic, {})
            sums[partition] = sums.get(partition, 0) + records
            within = sum(sums.values())
            if self._pauses and within > self._max and sums[partition] * len(sums) >= self._max:
                paused[topic] = (within, min(PAUSE_MAX_S, MINUTE_S * within / self._max))
        return paused

    def _forget(self, now_s: float) -> None:
        while self._recent and self._recent[0][0] <= now_s - MINUTE_S:
            _, topic, partition, records = self._recent.popleft()
            sums = self._sums[topic]
            sums[partition] -= records
            if not sums[partition]:
                del sums[partition]
            self._sum -= records
