"""What is refused for want of a key or of a right: counted by code, and in the log.

The rules of this file:
1. Every refusal is counted (`credits_http_refused_total`).
2. The log has at most one line in `LOG_INTERVAL_S` for each code and key, so that a client that tries on and on does
   not fill it. What was presented is never in it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog
from prometheus_client import Counter

from streams.logging import OncePerInterval

log = structlog.get_logger(__name__)

LOG_INTERVAL_S: Final = 60.0
PATH_CHARACTERS_MAX: Final = 200
REFUSED = Counter("credits_http_refused", "Requests refused for want of a key or a right, by code.", ["code"])


class RefusalLog:
    """Counts refusals and writes them down; safe to use from several threads."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._logged = OncePerInterval(LOG_INTERVAL_S)
        self._lock = threading.Lock()

    def add(self, code: str, caller: str, path: str) -> None:
        """One refusal. `caller`: as `Caller.name` has it, or `none`."""
        REFUSED.labels(code).inc()
        if self._is_due(code, caller):
            log.warning("a request was refused", code=code, caller=caller, path=path[:PATH_CHARACTERS_MAX])

    def _is_due(self, code: str, caller: str) -> bool:
        now_s = self._clock_s()
        with self._lock:
            return self._logged.is_due((code, caller), now_s)


refusals = RefusalLog()
"""Of this process."""
