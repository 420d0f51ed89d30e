"""Asking something of the broker for many callers at once, and not too often.

Rules of this file: who asks gets an answer that was asked for after the call, so it is as new as the caller needs. All
who wait meanwhile share the next question; questions begin at least `interval_s` apart.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class SharedAsk:
    """One question, shared by the threads that want its answer."""

    def __init__(self, ask: Callable[[], None], pause: Callable[[float], object], clock: Callable[[], float]) -> None:
        """`ask` blocks until the answer is there and may raise; `pause` waits so many seconds; `clock` in seconds."""
        self._ask = ask
        self._pause = pause
        self._clock = clock
        self._changed = threading.Condition()
        self.waiting = 0
        """How many callers wait for the question that is open, to ask or share the next one."""
        self._begun = 0
        self._answered = 0
        """Number of the latest question that has an answer."""
        self._asking = False
        self._began_at: float | None = None

    def after_now(self, interval_s: float) -> None:
        """Return when a question that began after this call has been answered. Raises what `ask` raises."""
        with self._changed:
            enough = self._begun + 1
            self.waiting += 1
            while self._asking and self._answered < enough:
                self._changed.wait()
            self.waiting -= 1
            if self._answered >= enough:
                return
            self._asking = True
        try:
            if self._began_at is not None:
                wait_s = self._began_at + interval_s - self._clock()
                if wait_s > 0:
                    self._pause(wait_s)
            with self._changed:
                self._begun += 1
                number = self._begun
            self._began_at = self._clock()
            self._ask()
            with self._changed:
                self._answered = number
        finally:
            with self._changed:
                self._asking = False
                self._changed.notify_all()
