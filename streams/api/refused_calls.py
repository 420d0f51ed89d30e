"""Calls that a key had no right to, on their way into the activity log (product rule 33).

The rules of this file:
1. What is refused with `not_authorized` becomes a record of the topic `refused_calls`, under the organisation that the
   call named (none: an empty key). The projection makes rows of the activity log of it. The ledger has no part in it.
2. A hostile caller cannot flood it. The same call of the same key for the same organisation is recorded once in
   `REPEAT_S`, with how often it came since, and a key has `PER_HOUR` records an hour. What is beyond is counted and in
   the log of the process only (`streams.api.refusals`).
3. The answer does not wait for Kafka, and does not fail without it: what cannot be handed over is counted as lost.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from streams.api.refusals import refusals
from streams.recent import remember

if TYPE_CHECKING:
    from fastapi import Request

REPEAT_S: Final = 600.0
PER_HOUR: Final = 100
HOUR_S: Final = 3_600.0
CALLS_MAX: Final = 10_000
"""Calls remembered, some 300 bytes each."""
KEYS_MAX: Final = 10_000
"""Keys whose hour is counted."""
PATH_CHARACTERS_MAX: Final = 300

HandOver = Callable[[bytes, bytes], bool]
"""Takes key and value of a record, without waiting; False when it cannot."""


@dataclass(slots=True)
class _Repeated:
    recorded_at_s: float
    since: int = 0


@dataclass(slots=True)
class _Hour:
    began_at_s: float
    records: int = 0


class RefusedCalls:
    """Records refused calls, within limits. `clock_s` and `wall_us` are the time, for tests. Safe for several threads.

    `hand_over` None: nothing is recorded.
    """

    def __init__(
        self,
        hand_over: HandOver | None,
        clock_s: Callable[[], float] = time.monotonic,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        self._hand_over = hand_over
        self._clock_s = clock_s
        self._wall_us = wall_us
        self._calls: OrderedDict[tuple[str, str, str], _Repeated] = OrderedDict()
        self._hours: OrderedDict[str, _Hour] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, actor: str, org_id: str, action: str, path: str, detail: str) -> None:
        """One refused call. `actor`: as `Caller.name` has it; `action`: the call without its values."""
        if self._hand_over is None:
            return
        with self._lock:
            repeated = self._due(actor, org_id, action)
        if repeated is None:
            return
        fields = {
            "occurred_at": self._wall_us(),
            "org_id": org_id,
            "actor": actor,
            "action": action,
            "path": path[:PATH_CHARACTERS_MAX],
            "reason": "not_authorized",
            "detail": detail,
            "repeated": repeated,
        }
        value = json.dumps(fields, separators=(",", ":")).encode("ascii")
        if not self._hand_over(org_id.encode("utf-8", "replace"), value):
            refusals.add("not_in_activity", actor, path)

    def _due(self, actor: str, org_id: str, action: str) -> int | None:
        """How often the call came since it was recorded last, where it is to be recorded now; else None."""
        now_s, call = self._clock_s(), (actor, org_id, action)
        known = self._calls.get(call)
        if known is not None and now_s - known.recorded_at_s < REPEAT_S:
            known.since += 1
            return None
        hour = self._hours.get(actor)
        if hour is None or now_s - hour.began_at_s >= HOUR_S:
            hour = remember(self._hours, actor, _Hour(now_s), KEYS_MAX)
        if hour.records >= PER_HOUR:
            return None
        hour.records += 1
        remember(self._calls, call, _Repeated(now_s), CALLS_MAX)
        return 0 if known is None else known.since


def add_refused(request: Request, actor: str, org_id: str, detail: str) -> None:
    """Record a request that its caller had no right to; it is counted and logged here too."""
    refusals.add("not_authorized", actor, request.url.path)
    route = request.scope.get("route")
    action = f"{request.method} {getattr(route, 'path_format', request.url.path)}"
    found: RefusedCalls = request.app.state.refused_calls
    found.add(actor, org_id, action, request.url.path, detail)
