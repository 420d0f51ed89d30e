"""When the entries of events came into a reader's hands.

Rules of this file: while the ledger is being measured the reader only notes the time of what it gets; it is decoded
when all is over, so that watching takes next to nothing from the cores of what is watched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from schemas.codec import decode_columns
from schemas.topics import Topics
from streams.client.follower import Follower
from streams.errors import OperatorError
from streams.kafka.reader import committed_ends

if TYPE_CHECKING:
    from streams.kafka.registry import Registry
    from streams.settings import Settings

POLL_S = 0.05
STALL_S = 30.0
"""So long without an entry, and no more are expected."""


class Arrivals:
    """Reads the ledger's committed entries from now on, in a thread. Use as a context manager."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._registry = registry
        ledger = Topics(settings.namespace).name("ledger")
        self._follower = Follower(settings, [ledger], begin=committed_ends(settings, [ledger]))
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(1, "arrivals")
        self._batches: list[tuple[float, list[Any]]] = []
        self._entries = 0

    def __enter__(self) -> Arrivals:
        self._following = self._pool.submit(self._follow)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._pool.shutdown()

    def _follow(self) -> None:
        with self._follower as follower:
            while not self._stopping.is_set():
                messages = follower.next(POLL_S)
                if messages:
                    self._batches.append((time.monotonic(), messages))
                    self._entries += len(messages)

    def of(self, event_ids: Sequence[str]) -> dict[str, float]:
        """Wait for the entries of all these events; when each came, by `time.monotonic`.

        Raises `OperatorError` when some have not come and nothing more comes.
        """
        seen, at_s = -1, time.monotonic()
        while self._entries < len(event_ids):
            if self._following.done():
                self._following.result()  # raises what ended it
            if self._entries > seen:
                seen, at_s = self._entries, time.monotonic()
            elif time.monotonic() - at_s > STALL_S:
                break
            time.sleep(POLL_S)
        self._stopping.set()
        self._following.result()
        arrived: dict[str, float] = {}
        for at, messages in self._batches:
            batch = decode_columns("entry", [message.value() for message in messages], self._registry).batch
            for event_id in batch.column("event_id").to_pylist():
                arrived.setdefault(event_id, at)
        missing = sum(event_id not in arrived for event_id in event_ids)
        if missing:
            raise OperatorError(f"{missing:,} of {len(event_ids):,} events have no entry", "see the log")
        return arrived
