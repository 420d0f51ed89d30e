"""A blocking call that requests share: as fresh as each needs, one thread, and its failure for all."""

from __future__ import annotations

import asyncio
import threading

import pytest

from streams.api.shared_wait import SharedWait


class Call:
    """Blocks until the test lets it go on, then raises what the test says."""

    def __init__(self) -> None:
        self.begun = 0
        self.error: Exception | None = None
        self.go_on = threading.Semaphore(0)
        self.wait = SharedWait(self._call)

    def _call(self) -> None:
        self.begun += 1
        assert self.go_on.acquire(timeout=30)
        if self.error is not None:
            raise self.error

    async def begins(self, count: int) -> None:
        """Wait until the call was begun so often."""
        while self.begun < count:
            await asyncio.sleep(0.001)


def test_who_comes_during_a_call_shares_the_next_one() -> None:
    async def scenario() -> None:
        call = Call()
        first = asyncio.create_task(call.wait())
        await call.begins(1)
        late = [asyncio.create_task(call.wait()) for _ in range(100)]
        call.go_on.release()
        await first
        await call.begins(2)
        assert not any(each.done() for each in late)
        call.go_on.release()
        await asyncio.gather(*late)
        assert call.begun == 2

    asyncio.run(scenario())


def test_a_failure_is_for_all_and_the_next_call_is_another() -> None:
    async def scenario() -> None:
        call = Call()
        call.error = RuntimeError("away")
        waiting = [asyncio.create_task(call.wait()) for _ in range(3)]
        waiting[0].cancel()  # its client has gone: the others get their answer
        call.go_on.release()
        for each in waiting[1:]:
            with pytest.raises(RuntimeError, match="away"):
                await each
        call.error = None
        call.go_on.release()
        await call.wait()
        assert call.begun == 2

    asyncio.run(scenario())
