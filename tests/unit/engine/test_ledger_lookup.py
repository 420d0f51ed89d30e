"""The place in the ledger of a time: found by halving, wherever it lies and whatever gaps the log has."""

from __future__ import annotations

from collections.abc import Generator

from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.ledger_lookup import place_of

NEAR = 3


class Log:
    """A partition in memory: times by offset, with gaps, as transactions leave them."""

    def __init__(self, times: dict[int, int], end: int) -> None:
        self.times = times
        self.end = end
        self.reads = 0

    def ends(self, topic: str, partition: int) -> tuple[int, int]:
        return min(self.times, default=self.end), self.end

    def read(self, topic: str, partition: int, start: int, end: int) -> Generator[list[Message], None, None]:
        self.reads += 1
        for offset in sorted(self.times):  # as from Kafka, a list may go beyond `end`
            if offset >= start:
                yield [Message(topic, partition, offset, value=b"%d" % self.times[offset])]


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2)), max_size=200),
    st.integers(0, 3),
    st.integers(0, 400),
)
def test_the_place_is_at_or_shortly_before_the_first_record_of_that_time(
    steps: list[tuple[int, int]], left_over: int, at: int
) -> None:
    times, offset, clock = {}, 0, 0
    for gap, passed in steps:
        offset, clock = offset + gap, clock + passed
        times[offset] = clock
    log = Log(times, offset + 1 + left_over)
    place = place_of(log, "ledger", 0, at, int, near=NEAR)
    first = min((offset for offset, time in times.items() if time >= at), default=log.end)
    assert place <= first
    assert all(time < at for offset, time in times.items() if offset < place)
    assert sum(place <= offset < first for offset in times) <= NEAR
    assert log.reads <= 12  # log2(1,000) and a bit
