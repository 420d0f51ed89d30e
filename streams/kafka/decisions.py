"""The ledger's decisions on holds, followed in memory: for requests that wait for one, and for those that come again.

The rules of this file:
1. Every process follows all decisions, whichever process sent the hold. So a request that comes again is answered by
   any of them, as long as the decision is among the last `DECISIONS_MAX`. A process that starts reads so many back.
2. A decision that allowed something is kept when a refusal follows it: a hold that is captured twice was captured.
3. What waits is bounded in number (`WAITING_MAX`), and each wait in time, by the one that waits.
4. A decision that is no longer remembered may be searched in the topic: the newest `SEARCH_RECORDS_MAX` records of the
   organisation's partition, one search at a time, and at most one in `SEARCH_PAUSE_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog
from confluent_kafka import KafkaException, Message

from schemas.codec import UndecodableError, WriterSchemas, decode_one
from schemas.enums import HoldAction
from schemas.partitioner import partition_of
from streams.errors import OperatorError
from streams.kafka.latest import LatestRecords
from streams.kafka.reader import committed_ends, read_range
from streams.recent import remember

if TYPE_CHECKING:
    from streams.settings import Settings

log = structlog.get_logger(__name__)

DECISIONS_MAX: Final = 100_000
"""About 600 bytes each: 60 MB. At 500 holds a second, placed and captured, the last 100 seconds."""
WAITING_MAX: Final = 10_000
SEARCH_RECORDS_MAX: Final = 200_000
"""About a second of reading."""
SEARCH_PAUSE_S: Final = 2.0
FETCH_WAIT_MS: Final = 5
"""A reader of committed records hears of a commit with the answer to its next fetch, so this adds to every wait."""
ARRIVED_MAX: Final = 16
"""Decisions on one hold and action that one wait looks at."""

Decision = dict[str, Any]


class DecisionKey(NamedTuple):
    """What a decision is about."""

    org_id: str
    hold_id: str
    action: HoldAction


class TooManyWaitingError(OperatorError):
    """More requests wait for decisions than may."""

    code = "busy"

    def __init__(self) -> None:
        super().__init__("too many requests wait for the ledger's decisions", "try again")


class DecisionReader(LatestRecords):
    """Follows the decisions. Start it, ask from any thread, `expect` from one event loop, close it."""

    def __init__(self, settings: Settings, writers: WriterSchemas, *, decisions_max: int = DECISIONS_MAX) -> None:
        super().__init__(settings, "decisions", fetch_wait_ms=FETCH_WAIT_MS, newest=decisions_max)
        self._writers = writers
        self._decisions_max = decisions_max
        self._recent: OrderedDict[DecisionKey, bytes] = OrderedDict()
        self._waiting: dict[DecisionKey, list[asyncio.Queue[Decision]]] = {}
        self._waits = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._searching = threading.Lock()
        self._searched_at_s = -SEARCH_PAUSE_S

    @contextlib.contextmanager
    def expect(self, key: DecisionKey) -> Iterator[asyncio.Queue[Decision]]:
        """A queue that gets the decisions on `key` that are read while this lasts. Raises `TooManyWaitingError`."""
        if self._waits >= WAITING_MAX:
            raise TooManyWaitingError
        self._loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Decision] = asyncio.Queue(ARRIVED_MAX)
        self._waits += 1
        self._waiting.setdefault(key, []).append(arrived)
        try:
            yield arrived
        finally:
            self._waits -= 1
            waiting = self._waiting[key]
            waiting.remove(arrived)
            if not waiting:
                del self._waiting[key]

    def known(self, key: DecisionKey) -> Decision | None:
        """The decision on `key`, as far as it is remembered: the one that allowed it, else the last one."""
        value = self._recent.get(key)
        return None if value is None else decode_one("decision", value, self._writers)

    def search(self, key: DecisionKey) -> Decision | None:
        """As `known`, from the topic. Blocks for a second or so. None, too, while others search, or did just now."""
        if not self._searching.acquire(blocking=False):
            return None
        try:
            if time.monotonic() - self._searched_at_s < SEARCH_PAUSE_S:
                return None
            return self._search(key)
        except KafkaException as error:
            log.warning("decisions could not be searched", error=str(error))
            return None
        finally:
            self._searched_at_s = time.monotonic()
            self._searching.release()

    def _search(self, key: DecisionKey) -> Decision | None:
        place = (self._topic, partition_of(key.org_id.encode(), self._partitions))
        end = committed_ends(self._settings, [self._topic])[place]
        named, found = key.hold_id.encode(), None
        for messages in read_range(self._settings, {place: max(0, end - SEARCH_RECORDS_MAX)}, {place: end}):
            for message in messages:
                value = message.value()
                if value is None or named not in value:
                    continue
                decision = self._decoded(message)
                if decision is not None and key_of(decision) == key and (found is None or not found["allowed"]):
                    found = decision
                    self._remember(key, value, allowed=found["allowed"])
        return found

    def _keep(self, message: Message) -> None:
        decision = self._decoded(message)
        if decision is None:
            return
        key = key_of(decision)
        self._remember(key, message.value() or b"", allowed=decision["allowed"])
        if key in self._waiting and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and its requests with it
                self._loop.call_soon_threadsafe(self._hand_over, key, decision)

    def _hand_over(self, key: DecisionKey, decision: Decision) -> None:
        for arrived in self._waiting.get(key, ()):
            with contextlib.suppress(asyncio.QueueFull):
                arrived.put_nowait(decision)

    def _remember(self, key: DecisionKey, value: bytes, *, allowed: bool) -> None:
        before = None if allowed else self.known(key)
        if before is not None and before["allowed"]:
            return
        remember(self._recent, key, value, self._decisions_max)

    def _decoded(self, message: Message) -> Decision | None:
        try:
            return decode_one("decision", message.value(), self._writers)
        except UndecodableError as error:
            log.warning("a record of the decisions' topic is no decision", error=str(error), offset=message.offset())
            return None


def key_of(decision: Decision) -> DecisionKey:
    """What a decision is about."""
    return DecisionKey(decision["org_id"], decision["hold_id"], HoldAction(decision["action"]))
