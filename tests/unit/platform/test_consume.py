"""The one consume loop: what is a record of the range, what is its end, what fails, and when it waits too long."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from streams.kafka.consume import Offsets, poll, read_to
from streams.kafka.silence import NoProgressError, SilenceLimit

A, B = ("a", 0), ("b", 1)


@dataclass(frozen=True)
class Message:
    """A record; with an error, what the client tells in the place of one."""

    place: tuple[str, int]
    at: int
    code: int | None = None

    def topic(self) -> str:
        return self.place[0]

    def partition(self) -> int:
        return self.place[1]

    def offset(self) -> int:
        return self.at

    def error(self) -> KafkaError | None:
        return None if self.code is None else KafkaError(self.code)


def end(place: tuple[str, int], at: int) -> Message:
    return Message(place, at, KafkaError._PARTITION_EOF)


@dataclass
class Lists:
    """A consumer that brings one list after the other, then nothing."""

    lists: list[list[Message]]
    asked: list[tuple[int, float]] = field(default_factory=list)

    def consume(self, records_max: int, wait_s: float) -> list[Message]:
        self.asked.append((records_max, wait_s))
        return self.lists.pop(0) if self.lists else []


class Clock:
    """Ten seconds pass at each look."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 10
        return self.now_s


def read(lists: list[list[Message]], reached: Offsets, ends: Offsets, limit_s: float = 60.0) -> list[tuple[str, int]]:
    consumer = cast(Consumer, Lists(lists))
    silence = SilenceLimit(limit_s, Clock())
    found: list[Any] = [record for records in read_to(consumer, reached, ends, silence) for record in records]
    return [(record.topic(), record.offset()) for record in found]


def test_partitions_are_read_to_their_ends_and_no_further() -> None:
    reached = {A: 3}
    lists = [[Message(A, 3), Message(B, 0)], [Message(A, 5), Message(B, 1), Message(A, 6)], [Message(A, 7)]]
    assert read(lists, reached, {A: 6, B: 2}) == [("a", 3), ("b", 0), ("a", 5), ("b", 1)]
    assert reached == {A: 6, B: 2}


def test_an_end_of_markers_is_reached_by_its_event_alone() -> None:
    reached: Offsets = {}
    lists = [[Message(A, 0), end(A, 2)], [], [end(A, 4)]]
    assert read(lists, reached, {A: 3}) == [("a", 0)]
    assert reached == {A: 3}


def test_a_record_beyond_the_end_tells_that_it_was_reached() -> None:
    """Compaction took the last records of the range."""
    reached: Offsets = {}
    assert read([[Message(A, 0), Message(A, 9)]], reached, {A: 3}) == [("a", 0)]
    assert reached == {A: 3}


def test_nothing_is_asked_for_where_nothing_is_missing() -> None:
    lists = Lists([])
    assert list(read_to(cast(Consumer, lists), {A: 3}, {A: 3}, SilenceLimit(1.0))) == []
    assert lists.asked == []


def test_what_does_not_pass_is_raised_and_what_passes_is_not() -> None:
    passing = Message(A, 0, KafkaError._TRANSPORT)
    assert read([[passing, Message(A, 0)]], {}, {A: 1}) == [("a", 0)]
    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        read([[Message(A, 0, KafkaError.TOPIC_AUTHORIZATION_FAILED)]], {}, {A: 1})


def test_silence_ends_the_read_and_says_what_is_missing() -> None:
    with pytest.raises(NoProgressError, match="missing: 2 offsets of 1 partition of a"):
        read([[Message(A, 0)]], {}, {A: 3})


def test_only_an_empty_poll_waits() -> None:
    full, empty = Lists([[Message(A, 0)]]), Lists([[], [Message(A, 1)]])
    assert len(poll(cast(Consumer, full), 0.7, 9).records) == len(poll(cast(Consumer, empty), 0.7, 9).records) == 1
    assert full.asked == [(9, 0)]
    assert empty.asked == [(9, 0), (1, 0.7)]


def test_a_poll_moves_what_was_reached() -> None:
    reached = {B: 9}
    poll(cast(Consumer, Lists([[Message(A, 4), end(A, 6), end(B, 8)]]))).advance(reached)
    assert reached == {A: 6, B: 9}
