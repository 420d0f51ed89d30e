"""How old the broker's word on the end of a partition is: as old as the request, not as the answer."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.structs import TopicPartition
from faust.types import TP

from streams.kafka import transport
from streams.kafka.transport import FETCH_RECENT_S, BatchConsumerThread, time_requests

HOLDS = TopicPartition("holds", 0)


class Fetcher:
    """aiokafka's fetcher, as far as it sends requests; the test answers."""

    def __init__(self) -> None:
        self.state = SimpleNamespace(lso=None, highwater=None, timestamp=None)
        self.assignment = SimpleNamespace(tps={HOLDS}, state_value=lambda tp: self.state)
        self._subscriptions = SimpleNamespace(subscription=SimpleNamespace(assignment=self.assignment))
        self.answers = asyncio.Queue[int | None]()

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: Any) -> bool:
        end = await self.answers.get()
        if end is not None:
            self.state.lso = self.state.highwater = end
            self.state.timestamp = time.time_ns()
        return False

    def send(self) -> asyncio.Task[bool]:
        """A request for the partition leaves."""
        request = SimpleNamespace(topics=[(HOLDS.topic, [(HOLDS.partition, 0, 1)])])
        return asyncio.ensure_future(self._proc_fetch_request(self.assignment, 1, request))


class Thread(BatchConsumerThread):
    """The consumer's thread without a consumer."""

    def __init__(self, fetcher: Fetcher) -> None:
        self.fetcher = fetcher
        self.asked_at_s = {}

    def _ensure_consumer(self) -> Any:
        return SimpleNamespace(_fetcher=self.fetcher)


def test_an_end_is_as_old_as_the_request_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(transport, "time", SimpleNamespace(monotonic=lambda: now_s))

    async def main() -> None:
        nonlocal now_s
        fetcher = Fetcher()
        thread = Thread(fetcher)
        time_requests(fetcher, thread.asked_at_s)
        time_requests(fetcher, thread.asked_at_s)  # once for each fetcher, however often
        holds = cast(TP, TP(*HOLDS))
        assert thread.caught_up_at_s(holds, 1) is None
        first = fetcher.send()
        await asyncio.sleep(0)
        now_s = 101.0
        fetcher.answers.put_nowait(1)
        await first
        assert thread.caught_up_at_s(holds, 1) == 100.0
        assert thread.caught_up_at_s(holds, 0) is None, "there is a record at 0"
        lost = fetcher.send()
        await asyncio.sleep(0)
        fetcher.answers.put_nowait(None)
        await lost
        assert thread.caught_up_at_s(holds, 1) == 100.0, "a request without an answer says nothing"
        now_s = 100.0 + FETCH_RECENT_S
        assert thread.caught_up_at_s(holds, 1) is None

    asyncio.run(main())
