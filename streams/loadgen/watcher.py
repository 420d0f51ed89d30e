"""Watching the ledger work, from outside: what is committed, how far it has read, how long it took.

Rules of this file: a thread reads committed records only, of the ledger, the alerts, the dead letters and the positions
that the ledger commits with its state. A latency is the time from when a record was meant to be sent to when its entry
was in our hands.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_BEGINNING

from schemas.codec import decode_columns
from schemas.topics import Topics
from streams.client.follower import Fetch, Follower
from streams.kafka.reader import committed_ends
from streams.loadgen.tally import Tally
from streams.verify.sources import POSITION_KEY, positions_of

if TYPE_CHECKING:
    from streams.kafka.registry import Registry
    from streams.settings import Settings

POLL_S = 0.05
FETCH_WAIT_MS = 5
FETCH_BYTES_MIN = 64 * 1024
"""A reader that asks for every record by itself takes a core's time from what is watched."""
STALL_S = 30.0
"""So long without any progress, and waiting is given up."""


class StalledError(Exception):
    """The ledger has made no progress for `STALL_S` seconds; the message says what is missing."""


class ReadOfPhase:
    """How many records of a phase the ledger has read: never more than there are.

    Others write to the same topics: a payment service's answers come between a phase's own purchases.
    """

    def __init__(self, base: int, total: int) -> None:
        """`base`: how many records of the phase's topics were read before it; `total`: how many it has."""
        self._base = base
        self._total = total
        self.records = 0

    def further(self, read: int) -> int:
        """How many more are read than at the last call, when `read` records of the topics are."""
        before, self.records = self.records, min(read - self._base, self._total)
        return self.records - before


class Watcher:
    """Follows the ledger's outputs in a thread. Use as a context manager."""

    def __init__(self, settings: Settings, registry: Registry, *, from_beginning: bool = False) -> None:
        topics = Topics(settings.namespace)
        self._registry = registry
        self._ledger = topics.name("ledger")
        self._accounts = topics.name("accounts")
        self._dead_letters = topics.name("dead_letters")
        self._moved = threading.Condition()
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(1, "watcher")
        self._progress_at = time.monotonic()
        self._next_offsets: dict[tuple[str, int], int] = {}
        self._arrived: dict[str, float] = {}
        self.kinds: Counter[str] = Counter()
        self.tally = Tally()
        self.dead_letters = 0
        self.keep_arrivals = False
        """Whether to remember when the entry of each event arrived (for latencies)."""
        read = [self._ledger, self._accounts, self._dead_letters]
        begin = OFFSET_BEGINNING if from_beginning else committed_ends(settings, read)
        fetch = Fetch(wait_ms=FETCH_WAIT_MS, bytes_min=FETCH_BYTES_MIN)
        self._follower = Follower(settings, read, begin=begin, fetch=fetch)

    def __enter__(self) -> Watcher:
        self._following = self._pool.submit(self._follow)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._pool.shutdown()

    @property
    def entries(self) -> int:
        """Entries seen so far."""
        return self.kinds.total()

    def read_of(self, topics: Collection[str]) -> int:
        """How many records of these topics the ledger has read, if they began at offset 0."""
        return sum(offset for (topic, _), offset in list(self._next_offsets.items()) if topic in topics)

    def wait_until_read(self, ends: Mapping[tuple[str, int], int], tick: Callable[[], None] = lambda: None) -> None:
        """Return when the ledger has committed what everything before `ends` caused. Raises `StalledError`."""

        def behind() -> dict[tuple[str, int], int]:
            return {
                topic_partition: end
                for topic_partition, end in ends.items()
                if self._next_offsets.get(topic_partition, 0) < end
            }

        def missing() -> str:
            left = sum(end - self._next_offsets.get(topic_partition, 0) for topic_partition, end in behind().items())
            return f"{left:,} records of {', '.join(sorted({topic for topic, _ in behind()}))} are not read"

        self._wait(lambda: not behind(), missing, tick)

    def wait_for_kinds(self, enough: Callable[[Counter[str]], bool], what: str) -> None:
        """Return when the entries seen satisfy `enough`. Raises `StalledError` naming `what`."""
        self._wait(lambda: enough(self.kinds), lambda: f"{what} are missing; entries so far: {dict(self.kinds)}")

    def _wait(
        self, reached: Callable[[], bool], missing: Callable[[], str], tick: Callable[[], None] = lambda: None
    ) -> None:
        self._progress_at = time.monotonic()
        with self._moved:
            while not reached():
                if self._following.done():
                    self._following.result()  # raises what ended it
                if time.monotonic() - self._progress_at > STALL_S:
                    raise StalledError(missing())
                self._moved.wait(POLL_S)
                tick()

    def latencies_ms(self, ids: Sequence[str], meant: Sequence[float]) -> array[float]:
        """Milliseconds from the meant time to the arrival of the entry, of those events that have one."""
        found = array("d")
        for event_id, at in zip(ids, meant, strict=True):
            arrived = self._arrived.pop(event_id, None)
            if arrived is not None:  # a second record of the same id has no entry of its own
                found.append((arrived - at) * 1_000)
        return found

    def _follow(self) -> None:
        with self._follower as follower:
            while not self._stopping.is_set():
                messages = follower.next(POLL_S)
                if messages:
                    self._take(messages, time.monotonic())

    def _take(self, messages: Sequence[Any], now: float) -> None:
        values = [message.value() for message in messages if message.topic() == self._ledger]
        if values:
            batch = decode_columns("entry", values, self._registry).batch
            if self.keep_arrivals:
                for event_id in batch.column("event_id").to_pylist():
                    self._arrived.setdefault(event_id, now)
            self.kinds.update(batch.column("kind").to_pylist())
            self.tally.take(batch)
        positions = {
            message.partition(): message.value()
            for message in messages
            if message.topic() == self._accounts and message.key() == POSITION_KEY
        }
        self.dead_letters += sum(1 for message in messages if message.topic() == self._dead_letters)
        with self._moved:
            for partition, value in positions.items():
                for topic, offset in positions_of(value).next_offsets.items():
                    self._next_offsets[topic, partition] = offset
            self._progress_at = now
            self._moved.notify_all()


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of the values lie (nearest rank); 0 when there are none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
