"""An event loop whose time is virtual: nothing waits, and the same program runs in the same order every time.

Rules of this file: the loop's clock jumps to the next thing that is to happen; what the engine would do in threads is
done in the loop itself, at a time that the caller chooses. So a run depends on its seed and on nothing else.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class DeadlockError(AssertionError):
    """Everything waits, and nothing is to come."""


class _Selector(selectors.SelectSelector):
    """Never waits: asked to wait, it moves the loop's time on."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise DeadlockError("every task waits, and no timer is set")
        self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop. What is given to its default executor (`asyncio.to_thread`) is done at once."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self.set_default_executor(Inline())

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._virtual.now_s


class VirtualTime:
    """Stands in for the module `time` where a module measures pauses."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.monotonic = loop.time
        self.perf_counter = loop.time


class Inline(ThreadPoolExecutor):
    """Does everything at once, in the thread that asks."""

    def submit(self, act: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        """Do it now."""
        future: Future[Any] = Future()
        _do(future, act, *args, **named)
        return future


class Later(Inline):
    """Does everything in the loop after a delay, which `delay_s` draws."""

    def __init__(self, loop: VirtualLoop, delay_s: Callable[[], float]) -> None:
        super().__init__()
        self._loop = loop
        self._delay_s = delay_s

    def submit(self, act: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        """Do it then, unless it is cancelled before."""
        future: Future[Any] = Future()
        self._loop.call_later(self._delay_s(), lambda: _do(future, act, *args, **named))
        return future


class Never(Inline):
    """Does nothing: for what may be left undone."""

    def submit(self, act: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        """Forget it."""
        return Future()


def _do(future: Future[Any], act: Callable[..., Any], *args: Any, **named: Any) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(act(*args, **named))
    except Exception as error:  # noqa: BLE001 - the waiter of the future gets it
        future.set_exception(error)
