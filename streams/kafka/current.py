"""Latest records that are answered from memory, without asking Kafka.

The rules of this file:
1. An answer lags behind the ledger by the milliseconds that reading takes (product rule 34). Who has written waits for
   an entry by its number.
2. A thread looks each second whether everything committed has been read, and when that cannot be said for
   `CURRENT_WITHIN_S`, there is no answer: an outdated one is worse than none.
3. `require_current` and `wait_for` belong to one event loop; records are kept by the reading thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from streams.errors import KafkaUnavailableError, OperatorError
from streams.kafka.latest import LatestRecords

if TYPE_CHECKING:
    from streams.settings import Settings

CHECK_INTERVAL_S = 1.0
CURRENT_WITHIN_S = 5.0
MIN_SEQ_WAIT_S = 1.0


class NotYetError(OperatorError):
    """The entry that an answer was to include has not been read in time."""

    code = "not_yet"

    def __init__(self, org_id: str, seq: int) -> None:
        super().__init__(f"entry {seq} of {org_id!r} has not been read yet", "try again")


class CurrentRecords(LatestRecords):
    """Start it, start its checking, ask it, close it."""

    def __init__(self, settings: Settings, topic_key: str) -> None:
        super().__init__(settings, topic_key)
        self._waiting: dict[bytes, set[asyncio.Event]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._current_at: float | None = None

    def start_checking(self) -> None:
        """Begin to look, each second, whether everything committed has been read: answers need it."""
        threading.Thread(target=self._check, name=f"{self._topic} is current", daemon=True).start()

    async def require_current(self) -> None:
        """Raise `KafkaUnavailableError` when it cannot be said that memory was current `CURRENT_WITHIN_S` ago."""
        if self._current_at is None:  # at the start, reading takes a moment
            await asyncio.to_thread(self._check_once)
        elif not self.is_current:
            raise KafkaUnavailableError(
                f"what is in memory of {self._topic} may be outdated: Kafka does not answer", "try again"
            )

    @property
    def is_current(self) -> bool:
        """Whether memory was current within `CURRENT_WITHIN_S`."""
        return self._current_at is not None and time.monotonic() - self._current_at <= CURRENT_WITHIN_S

    async def wait_for(self, org_id: str, seq: int, arrived: Callable[[], bool], timeout_s: float) -> None:
        """Return when `arrived`, which is asked again after each record of the org. Raises `NotYetError`."""
        key = org_id.encode()
        self._loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        self._waiting.setdefault(key, set()).add(changed)
        try:
            async with asyncio.timeout(timeout_s):
                while not arrived():
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            raise NotYetError(org_id, seq) from None
        finally:
            waiting = self._waiting[key]
            waiting.discard(changed)
            if not waiting:
                del self._waiting[key]

    def _changed(self, key: bytes) -> None:
        """Tell who waits for it that a record of the key was kept. In the reading thread."""
        if key in self._waiting and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                self._loop.call_soon_threadsafe(self._wake, key)

    def _wake(self, key: bytes) -> None:
        for changed in self._waiting.get(key, ()):
            changed.set()

    def _check(self) -> None:
        while not self._live.stopping.wait(CHECK_INTERVAL_S):
            with contextlib.suppress(KafkaUnavailableError):
                self._check_once()

    def _check_once(self) -> None:
        asked_at = time.monotonic()
        self.wait_until_current()
        self._current_at = asked_at
