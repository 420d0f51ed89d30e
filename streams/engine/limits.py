"""Limits that stop a worker rather than let a flood do damage."""

from __future__ import annotations

from collections import deque

from streams.engine.failures import TooManyDeadLettersError

MINUTE_S = 60.0


class DeadLetterLimit:
    """At most so many dead letters in any minute, over all partitions of a worker."""

    def __init__(self, per_minute_max: int) -> None:
        self._max = per_minute_max
        self._recent: deque[tuple[float, int]] = deque()
        self._sum = 0

    def check(self, dead_letters: int, now_s: float) -> None:
        """Raises `TooManyDeadLettersError` when so many more, at the monotonic time `now_s`, are too many.

        Before they are committed. What is not committed in the end does not count: it is decided once more.
        """
        while self._recent and self._recent[0][0] <= now_s - MINUTE_S:
            self._sum -= self._recent.popleft()[1]
        if dead_letters and self._sum + dead_letters > self._max:
            raise TooManyDeadLettersError(
                f"{self._sum + dead_letters} dead letters within a minute, the limit is {self._max}",
                "look at `credits dead-letters list`; raise CREDITS_DEAD_LETTERS_PER_MINUTE_MAX to go on regardless",
            )

    def count(self, dead_letters: int, now_s: float) -> None:
        """These were committed at the monotonic time `now_s`."""
        if dead_letters:
            self._recent.append((now_s, dead_letters))
            self._sum += dead_letters
