"""The queue before ClickHouse counts whole records: values, keys and headers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any, cast

import faust
import pytest
from faust.types import TP

from projections.projector import Pace, Projector
from projections.sink import Sink
from streams.kafka.inbound import Headers, Inbound
from tests.unit.projections.entries import TOPICS

LETTERS = TP(TOPICS.name("dead_letters"), 0)
LARGE = b"x" * 600


class Fetching:
    """The consumer, as far as the queue asks it."""

    def __init__(self) -> None:
        self.paused: set[TP] = set()
        self.thread = self

    def pause(self, tps: Collection[TP]) -> None:
        self.paused |= set(tps)

    def resume(self, tps: Collection[TP]) -> None:
        self.paused -= set(tps)


def letter(offset: int, key: bytes | None, value: bytes | None, headers: Headers) -> Inbound:
    of_record = [headers] if headers else []
    return Inbound(LETTERS.topic, LETTERS.partition, offset, offset + 1, [offset], [0], [key], [value], of_record)


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [(None, LARGE, ()), (LARGE, None, ()), (b"k", None, [("h", LARGE)])],
    ids=["value", "key", "headers"],
)
def test_fetching_pauses_when_the_queue_has_its_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> None:
    async def run() -> None:
        fetching = Fetching()
        app: Any = SimpleNamespace(consumer=fetching)
        projector = Projector(cast(faust.App, app), cast(Sink, None), TOPICS, Pace(rows_max=1, queue_bytes_max=1_000))
        projector._intake.restart({LETTERS: 0})
        await projector._offer(letter(0, key, value, headers))
        assert not fetching.paused
        await projector._offer(letter(1, key, value, headers))
        assert fetching.paused == {LETTERS}
        projector._take()
        assert fetching.paused, "more than half of the bytes are left"
        projector._take()
        assert not fetching.paused
        assert projector._intake.bytes == 0

    asyncio.run(run())
