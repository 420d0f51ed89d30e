"""Alerts as they come, handed on to many readers; and those that a reader missed while it was away.

The rules of this file:
1. One thread reads the alert topics from their end on, for all readers of this process. A reader has a bounded queue;
   one that does not keep up is dropped, and comes back with the position of the last alert that it was given.
2. A position is the next offset of each partition that a reader follows (`t3=120,d3=8,u3=1`: the topics of thresholds,
   depletion and top-ups). Kafka keeps the alerts, so a position is good in every process, and after a restart.
3. A reader that comes with a position first gets what lies between it and where this process is, read from Kafka, and
   then what comes. An alert at or behind its position is never given: none is lost, none comes twice.
4. The order of alerts is kept within a topic's partition, so for an organisation within a topic.
5. Readers belong to the event loop; the reading thread waits until the loop has taken what it read.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import structlog
from confluent_kafka import KafkaException, Message

from schemas.amounts import format_amount
from schemas.codec import UndecodableError, WriterSchemas, decode_one
from schemas.partitioner import partitions_of
from schemas.times import format_time
from schemas.topics import Topics
from streams.errors import KafkaUnavailableError, OperatorError
from streams.kafka.consume import Offsets, TopicAndPartition, next_offset, place_of
from streams.kafka.live import LiveTopics
from streams.kafka.reader import committed_ends, committed_starts, read_range

if TYPE_CHECKING:
    from streams.settings import Settings

log = structlog.get_logger(__name__)

READERS_MAX: Final = 200
WAITING_MAX: Final = 1_000
"""Alerts that wait for one reader: about 1 MB."""
CATCHING_UP_MAX: Final = 4
"""Readers that are given what they missed at once: each has a Kafka consumer of its own meanwhile."""
TAKE_WAIT_S: Final = 0.2

LETTERS: Final[Mapping[str, str]] = MappingProxyType(
    {"t": "alerts_threshold", "d": "alerts_depletion", "u": "alerts_topup"}
)
"""How a position names the topics."""

_POSITION = re.compile(r"([tdu])(0|[1-9]\d{0,5})=(0|[1-9]\d{0,18})", re.ASCII)


class PositionError(ValueError):
    """What was given as a position is none of this stream."""


class PositionLostError(OperatorError):
    """Alerts behind a position are no longer in Kafka, or the topics are not those it was of."""

    code = "position_lost"


class TooManyReadersError(OperatorError):
    """As many readers as may be."""

    code = "too_many_streams"


@dataclass(frozen=True, slots=True)
class FeedAlert:
    """An alert as it is handed on, and where it lies. `document`: as JSON has it."""

    place: TopicAndPartition
    offset: int
    org_id: str
    document: Mapping[str, Any]


class Reader:
    """One follower of the feed. Of the event loop."""

    def __init__(self, wants: Callable[[str], bool], positions: Offsets) -> None:
        self._wants = wants
        self.positions = positions
        """Everything before has been given, or was not wanted."""
        self.waiting: asyncio.Queue[FeedAlert | None] = asyncio.Queue(WAITING_MAX)
        self.end_reason: str | None = None
        """Why no more alerts come; None while they do."""

    def offer(self, alert: FeedAlert) -> None:
        """Take an alert that has come; a full queue ends the reader."""
        if self.end_reason is None and self.is_due(alert):
            try:
                self.waiting.put_nowait(alert)
            except asyncio.QueueFull:
                self.end("too_slow")

    def is_due(self, alert: FeedAlert) -> bool:
        """Whether it is of this reader's organisations and partitions, and behind no position."""
        known = self.positions.get(alert.place)
        return known is not None and alert.offset >= known and self._wants(alert.org_id)

    def given(self, alert: FeedAlert) -> None:
        """The alert was handed out."""
        self.positions[alert.place] = alert.offset + 1

    def end(self, reason: str) -> None:
        """Give no more. What still waits is dropped, and not counted as given."""
        if self.end_reason is None:
            self.end_reason = reason
            while not self.waiting.empty():
                self.waiting.get_nowait()
            self.waiting.put_nowait(None)


class AlertFeed:
    """Follows the alert topics for readers. Start it, `join` from an event loop, close it."""

    def __init__(self, settings: Settings, writers: WriterSchemas) -> None:
        self._settings = settings
        self._writers = writers
        names = Topics(settings.namespace)
        self._topics = {letter: names.name(key) for letter, key in LETTERS.items()}
        self._live = LiveTopics(settings, list(self._topics.values()), self._take, name="alerts", fetch_wait_ms=100)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._dispatched: Offsets = {}
        self._is_reading = False
        self._readers: set[Reader] = set()
        self._catching_up = asyncio.Semaphore(CATCHING_UP_MAX)

    def start(self) -> None:
        """Begin to read; on the event loop that readers will join from."""
        self._loop = asyncio.get_running_loop()
        self._live.start(from_end=True)

    def close(self) -> None:
        """Stop reading, and wait for the thread."""
        self._live.close()

    def end_readers(self, reason: str) -> None:
        """End every reader: the process shuts down."""
        for reader in list(self._readers):
            reader.end(reason)

    @property
    def readers(self) -> int:
        """How many readers there are."""
        return len(self._readers)

    async def join(self, wants: Callable[[str], bool], org_id: str | None, position: str | None) -> Reader:
        """A new reader, from a position on or from now; leave it in the end.

        `wants`: whether an organisation's alerts are its own; `org_id`: where they are of one only. Raises
        `PositionError`, `PositionLostError`, `TooManyReadersError`, `KafkaUnavailableError`.
        """
        if len(self._readers) >= READERS_MAX:
            raise TooManyReadersError(f"{READERS_MAX} streams are open here", "try again later, or at another process")
        places = self._places(org_id)
        given = None if position is None else self._parse(position, places)
        await self._wait_until_reading()
        reader = Reader(wants, {place: self._dispatched[place] for place in places})
        now = dict(reader.positions)
        if given is not None:
            reader.positions = given
        self._readers.add(reader)
        try:
            if given is not None and given != now:
                await asyncio.to_thread(self._check, given)
        except BaseException:
            self.leave(reader)
            raise
        return reader

    def leave(self, reader: Reader) -> None:
        """Forget a reader."""
        self._readers.discard(reader)

    def follow(self, reader: Reader) -> None:
        """Nothing waits: what was read meanwhile was not of this reader, and its position moves on."""
        if reader.end_reason is None and reader.waiting.empty():
            for place, known in reader.positions.items():
                reader.positions[place] = max(known, self._dispatched[place])

    async def missed(self, reader: Reader) -> AsyncIterator[list[FeedAlert]]:
        """What lies between a reader's position and where this process is, from Kafka, a list at a time.

        What comes meanwhile waits for the reader; look at `is_due` when it is given. Raises `KafkaUnavailableError`
        where Kafka does not answer.
        """
        until = {place: self._dispatched[place] for place in reader.positions}
        starts = {place: at for place, at in reader.positions.items() if at < until[place]}
        if not starts:
            return
        async with self._catching_up:
            # A thread of its own: a consumer is closed by the thread that reads, also when the client has gone.
            thread = ThreadPoolExecutor(1, thread_name_prefix="missed alerts")
            batches = read_range(self._settings, starts, {place: until[place] for place in starts})
            loop = asyncio.get_running_loop()
            try:
                while (batch := await loop.run_in_executor(thread, next, batches, None)) is not None:
                    found = await loop.run_in_executor(thread, self._decoded, batch)
                    yield [alert for alert in found if reader.is_due(alert)]
            except (KafkaException, OperatorError) as error:
                raise KafkaUnavailableError(f"missed alerts cannot be read ({error})", "come back later") from error
            finally:
                thread.submit(batches.close)  # type: ignore[attr-defined]  # it is a generator
                thread.shutdown(wait=False)

    def text_of(self, positions: Offsets) -> str:
        """A position as text."""
        letters = {name: letter for letter, name in self._topics.items()}
        return ",".join(f"{letters[topic]}{number}={at}" for (topic, number), at in sorted(positions.items()))

    def _places(self, org_id: str | None) -> list[TopicAndPartition]:
        partitions = self._settings.partitions
        numbers = range(partitions) if org_id is None else partitions_of([org_id.encode()], partitions)
        return [(topic, int(number)) for topic in self._topics.values() for number in numbers]

    def _parse(self, position: str, places: Sequence[TopicAndPartition]) -> Offsets:
        """The offsets of these partitions in a position; raises `PositionError` where one is missing."""
        found: Offsets = {}
        for part in position.split(","):
            match = _POSITION.fullmatch(part.strip())
            if match is None:
                raise PositionError("Last-Event-ID: send the id of the last event of this stream")
            found[self._topics[match[1]], int(match[2])] = int(match[3])
        missing = [place for place in places if place not in found]
        if missing:
            raise PositionError("Last-Event-ID: it is of another stream; send the id of the last event of this one")
        return {place: found[place] for place in places}

    async def _wait_until_reading(self, timeout_s: float = 5.0) -> None:
        """Return when it is known where the topics end."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not self._is_reading:
            reached = self._live.reached()
            if reached:
                # What was dispatched already may not count as reached yet: the thread says so a moment later.
                self._dispatched = {place: max(at, self._dispatched.get(place, 0)) for place, at in reached.items()}
                self._is_reading = True
            elif asyncio.get_running_loop().time() > deadline:
                raise KafkaUnavailableError("the alerts cannot be read now: Kafka does not answer", "try again")
            else:
                await asyncio.sleep(0.02)

    def _check(self, given: Offsets) -> None:
        """Raise `PositionLostError` where Kafka has not all that follows a position."""
        topics = list(self._topics.values())
        try:
            starts, ends = committed_starts(self._settings, topics), committed_ends(self._settings, topics)
        except (KafkaException, TimeoutError) as error:
            raise KafkaUnavailableError(f"Kafka does not answer ({error})", "try again") from error
        for place, at in given.items():
            if at < starts[place]:
                problem = "alerts that follow this position are no longer in Kafka (it keeps them for 90 days)"
                raise PositionLostError(problem, "begin without Last-Event-ID, and read the list of alerts")
            if at > ends[place]:
                problem = "this position is beyond the end of the alerts: they are not those it was of"
                raise PositionLostError(problem, "begin without Last-Event-ID")

    def _take(self, messages: Sequence[Message]) -> None:
        """In the reading thread: decode, hand over to the loop, wait until it has taken them."""
        assert self._loop is not None
        alerts = self._decoded(messages)
        ends = {place_of(message): next_offset(message) for message in messages}
        taken = asyncio.run_coroutine_threadsafe(self._dispatch(alerts, ends), self._loop)
        while not self._live.stopping.is_set():
            try:
                taken.result(TAKE_WAIT_S)
            except FutureTimeoutError:
                continue
            return

    async def _dispatch(self, alerts: Sequence[FeedAlert], ends: Offsets) -> None:
        for alert in alerts:
            for reader in list(self._readers):
                reader.offer(alert)
        self._dispatched.update(ends)

    def _decoded(self, messages: Sequence[Message]) -> list[FeedAlert]:
        """The alerts of these records; what an older version wrote into another partition is left out."""
        homes = partitions_of([message.key() or b"" for message in messages], self._settings.partitions)
        found = []
        for message, home in zip(messages, homes, strict=True):
            if message.partition() != home:
                continue
            try:
                fields = decode_one("alert", message.value() or b"", self._writers)
            except UndecodableError as error:
                log.warning(
                    "an alert cannot be read", place=place_of(message), offset=message.offset(), error=str(error)
                )
                continue
            found.append(FeedAlert(place_of(message), int(message.offset() or 0), fields["org_id"], document(fields)))
        return found


def document(fields: Mapping[str, Any]) -> dict[str, Any]:
    """An alert as `GET /v1/orgs/{org}/alerts` shows it, with its organisation."""
    names = ("org_id", "alert_id", "wallet", "kind", "rule_id", "rule_version", "epoch", "level")
    more = ("used_percent", "previous_percent", "entry_seq", "channels", "dismissable", "message", "thresholds_left")
    return {
        "occurred_at": format_time(fields["occurred_at"]),
        **{name: fields[name] for name in names},
        "balance": format_amount(fields["balance_nanos"]),
        "available": format_amount(fields["available_nanos"]),
        **{name: fields[name] for name in more},
    }
