"""A wait without progress ends, and says what it waited for."""

from __future__ import annotations

import pytest

from streams.kafka.silence import NoProgressError, SilenceLimit, missing_records


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_only_silence_counts() -> None:
    clock = Clock()
    silence = SilenceLimit(5.0, clock)
    for _ in range(10):
        clock.now_s += 5.0
        silence.check(lambda: "x")
        silence.progressed()
    clock.now_s += 5.1
    with pytest.raises(NoProgressError, match=r"nothing new for 5 s; missing: the rest.*CREDITS_READ_TIMEOUT_S"):
        silence.check(lambda: "the rest")


def test_what_is_missing_is_counted() -> None:
    left = {("a", 0): 10, ("b", 1): 5}
    assert missing_records(left, {("a", 0): 4}) == "11 offsets of 2 partitions of a, b"
