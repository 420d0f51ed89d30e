"""What runs in the background tells of its end when it ends by an error, and of no other end."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from streams.background import WatchedPool, retry_until_available, watched, watched_threads


class BrokenError(Exception):
    """What the background dies of."""


def broken() -> None:
    raise BrokenError


async def first(failures: asyncio.Queue[BaseException]) -> BaseException:
    return await asyncio.wait_for(failures.get(), 10)


def test_a_thread_that_nobody_has_registered() -> None:
    async def run() -> None:
        failures: asyncio.Queue[BaseException] = asyncio.Queue()
        with watched_threads(failures.put_nowait):
            threading.Thread(target=broken).start()
            assert isinstance(await first(failures), BrokenError)
            well = threading.Thread(target=lambda: None)
            well.start()
            await asyncio.to_thread(well.join)
        assert failures.empty()

    before = threading.excepthook
    asyncio.run(run())
    assert threading.excepthook is before


def test_a_task_that_nobody_awaits() -> None:
    async def fails() -> None:
        broken()

    async def run() -> None:
        failures: asyncio.Queue[BaseException] = asyncio.Queue()
        failing = watched(asyncio.create_task(fails()), failures.put_nowait)
        assert isinstance(await first(failures), BrokenError)
        assert failing.done()
        cancelled = watched(asyncio.create_task(asyncio.Event().wait()), failures.put_nowait)
        ended = watched(asyncio.create_task(asyncio.sleep(0)), failures.put_nowait)
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled, ended])
        await asyncio.sleep(0)
        assert failures.empty()

    asyncio.run(run())


def test_work_that_was_handed_to_a_pool() -> None:
    async def run() -> None:
        failures: asyncio.Queue[BaseException] = asyncio.Queue()
        pool = WatchedPool(failures.put_nowait, "test", threads=1)
        pool.submit(int, "7")
        pool.submit(broken)
        assert isinstance(await first(failures), BrokenError)
        assert failures.empty()
        pool.shutdown()

    asyncio.run(run())


def test_a_death_after_the_loop_has_ended_is_no_second_error() -> None:
    failures: list[BaseException] = []
    released = threading.Event()

    def late() -> None:
        assert released.wait(10)
        broken()

    thread = threading.Thread(target=late)

    async def run() -> contextlib.AbstractContextManager[None]:
        watching = watched_threads(failures.append)
        watching.__enter__()
        thread.start()
        return watching

    watching = asyncio.run(run())
    released.set()
    thread.join(10)
    watching.__exit__(None, None, None)
    assert failures == []


class AwayError(Exception):
    """Not there now."""


def test_what_is_away_is_asked_again_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[int] = []

    async def ask() -> int:
        asked.append(len(asked))
        if len(asked) < 4:
            raise AwayError("no broker")
        return asked[-1]

    assert asyncio.run(retry_until_available(ask, AwayError, "Partition 3", 0.0)) == 3
    assert [record.getMessage() for record in caplog.records] == ["Partition 3 waits: no broker"]


def test_what_is_no_longer_wanted_is_not_asked_again() -> None:
    asked: list[int] = []

    async def ask() -> int:
        asked.append(len(asked))
        raise AwayError

    with pytest.raises(AwayError):
        asyncio.run(retry_until_available(ask, AwayError, "Partition 3", 0.0, lambda: len(asked) < 3))
    assert len(asked) == 3


def test_what_does_not_pass_is_raised_at_once() -> None:
    async def ask() -> int:
        raise BrokenError

    with pytest.raises(BrokenError):
        asyncio.run(retry_until_available(ask, AwayError, "Partition 3", 0.0))
