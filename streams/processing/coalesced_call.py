"""One call to the broker on behalf of many threads, rate limited.

Rules of this file: a caller gets a result that was requested after its own call, so it is as fresh as the caller needs.
All callers that wait meanwhile share the next call. Calls begin at least `interval_s` apart.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class CoalescedCall:
    """One blocking call, shared by the threads that need its result."""

    def __init__(self, call: Callable[[], None], sleep: Callable[[float], object], clock: Callable[[], float]) -> None:
        """`call` blocks until the answer is there and may raise; `sleep` waits so many seconds; `clock` in seconds."""
        self._call = call
        self._sleep = sleep
        self._clock = clock
        self._changed = threading.Condition()
        self.waiting = 0
        """How many callers wait for the question that is open, to ask or share the next one."""
        self._started = 0
        self._finished = 0
        """Number of the latest question that has an answer."""
        self._calling = False
        self._started_at: float | None = None

    def refresh(self, interval_s: float) -> None:
        """Return when a call that began after this one has finished. Raises what `call` raises."""
        with self._changed:
            enough = self._started + 1
            self.waiting += 1
            while self._calling and self._finished < enough:
                self._changed.wait()
            self.waiting -= 1
            if self._finished >= enough:
                return
            self._calling = True
        try:
            if self._started_at is not None:
                wait_s = self._started_at + interval_s - self._clock()
                if wait_s > 0:
                    self._sleep(wait_s)
            with self._changed:
                self._started += 1
                number = self._started
            self._started_at = self._clock()
            self._call()
            with self._changed:
                self._finished = number
        finally:
            with self._changed:
                self._calling = False
                self._changed.notify_all()
