"""A background task never dies silently: its error goes to the owner of the process, which stops it (fault 6).

Rules of this file:
1. A task or future that is not awaited is given to `watched`. A pool whose results are not awaited is a `WatchedPool`.
2. Threads need not be given: `watched_threads` hears of every thread of the process that ends with an exception, also
   of those that are added later. So a thread catches only what it can go on after.
3. What is away for a while is waited for, by `retry_until_available`, and the log says so once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

log = logging.getLogger(__name__)

Tell = Callable[[BaseException], None]
"""Stops the process for this error. Called on the event loop."""

Answer = TypeVar("Answer")
AnyTask = TypeVar("AnyTask", bound=asyncio.Task[Any])


def watched(task: AnyTask, tell: Tell) -> AnyTask:
    """The task; `tell` is called with what ends it, unless it is cancelled."""

    def ended(task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            tell(error)

    task.add_done_callback(ended)
    return task


async def retry_until_available(
    ask: Callable[[], Awaitable[Answer]],
    unavailable: type[Exception] | tuple[type[Exception], ...],
    name: str,
    pause_s: float,
    wanted: Callable[[], bool] = lambda: True,
) -> Answer:
    """The answer of `ask`, asked again after each pause for as long as it raises that something is unavailable.

    `name`: who waits, for the log. Raises what `ask` raised last when the answer is no longer `wanted`.
    """
    warned = False
    while True:
        try:
            return await ask()
        except unavailable as missing:
            if not wanted():
                raise
            if not warned:
                log.warning("%s waits: %s", name, missing)
                warned = True
        await asyncio.sleep(pause_s)


@contextlib.contextmanager
def watched_threads(tell: Tell) -> Iterator[None]:
    """While this lasts, `tell` is called on the running loop with whatever ends a thread of this process."""
    loop = asyncio.get_running_loop()
    before = threading.excepthook

    def ended(death: threading.ExceptHookArgs) -> None:
        error = death.exc_value or death.exc_type()
        log.error("Thread %s has ended: %r", death.thread.name if death.thread is not None else "?", error)
        _tell_on(loop, tell, error)

    threading.excepthook = ended
    try:
        yield
    finally:
        threading.excepthook = before


class WatchedPool(ThreadPoolExecutor):
    """Threads for work whose end is not awaited. Make it on the event loop that failures are reported to."""

    def __init__(self, tell: Tell, name: str, threads: int) -> None:
        super().__init__(max_workers=threads, thread_name_prefix=name)
        self._tell = tell
        self._loop = asyncio.get_running_loop()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `Executor.submit`."""
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, future: Future[Any]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            _tell_on(self._loop, self._tell, error)


def _tell_on(loop: asyncio.AbstractEventLoop, tell: Tell, error: BaseException) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended already, and the process with it
        loop.call_soon_threadsafe(tell, error)
