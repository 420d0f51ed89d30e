"""A rebuild reads the topics in bounded pieces, whatever the size of their records."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from confluent_kafka import Consumer

from projections import rebuild
from projections.sink import Sink
from streams.kafka.inbound import Inbound
from streams.kafka.silence import SilenceLimit

PLACE = ("credits.dead-letters.v1", 0)


@dataclass
class Letter:
    """A record as the client hands it over."""

    at: int
    size: int

    def __len__(self) -> int:
        return self.size

    def topic(self) -> str:
        return PLACE[0]

    def partition(self) -> int:
        return PLACE[1]

    def offset(self) -> int:
        return self.at

    def error(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return (1, 1_000)

    def key(self) -> bytes:
        return b"acme"

    def value(self) -> bytes:
        return b"\x00"

    def headers(self) -> None:
        return None


class Log:
    """A consumer of records of one size, a hundred at a time."""

    def __init__(self, records: int, size: int) -> None:
        self._letters: Iterator[Letter] = (Letter(at, size) for at in range(records))

    def consume(self, _count: int, _timeout_s: float) -> list[Letter]:
        return list(itertools.islice(self._letters, 100))


@dataclass
class Written:
    """A sink that keeps how much came at once."""

    pieces: list[int] = field(default_factory=list)

    def apply(self, batches: Sequence[Inbound]) -> None:
        self.pieces.append(sum(len(batch) for batch in batches))


def pieces(records: int, size: int) -> list[int]:
    sink = Written()
    advanced: list[int] = []
    done = rebuild._project(
        cast(Consumer, Log(records, size)),
        cast(Sink, sink),
        {PLACE: 0},
        {PLACE: records},
        advanced.append,
        SilenceLimit(5.0),
    )
    assert done == sum(sink.pieces) == sum(advanced) == records
    return sink.pieces


def test_small_records_are_written_by_number() -> None:
    assert pieces(records=140_000, size=100) == [65_600, 65_600, 8_800]


def test_large_records_are_written_by_size() -> None:
    """A MiB each: 64 of them are a piece, but a question brings a hundred here."""
    assert pieces(records=1_000, size=1024 * 1024) == [100] * 10


def test_a_piece_begins_where_the_last_one_ended() -> None:
    starts: dict[Any, int] = {PLACE: 0}
    first = rebuild._batches([cast(Any, Letter(0, 1)), cast(Any, Letter(2, 1))], {PLACE: 3}, starts)
    second = rebuild._batches([cast(Any, Letter(3, 1))], {PLACE: 4}, starts)
    assert [(batch.first_offset, batch.next_offset) for batch in (*first, *second)] == [(0, 3), (3, 4)]
