"""A topic whose latest records count, followed in a thread (`streams.kafka.live`). What is kept, each reader says.

The rules of this file:
1. A record counts in the partition that is its key's. Records of a key come in the order of that partition.
2. `wait_until_current` returns when everything that was committed at the call has been read: it asks where the log
   ends, and waits until it has read so far. The end is the one with open transactions, since a commit is decided before
   its markers are written; a transaction that stays open longer than `OPEN_WAIT_S` (its worker died) is not waited for:
   it has not been committed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from confluent_kafka import IsolationLevel, Message

from schemas.partitioner import partitions_of
from schemas.topics import BY_KEY, Topics
from streams.errors import KafkaUnavailableError
from streams.kafka.live import LiveTopics

if TYPE_CHECKING:
    from streams.settings import Settings

ASK_TIMEOUT_S = 5.0
OPEN_WAIT_S = 0.5
# A commit marker alone does not end the broker's waiting for records, and an answer waits for the marker: with
# librdkafka's 500 ms every second answer took half a second, with 20 ms a few milliseconds.
FETCH_WAIT_MS = 20


class LatestRecords:
    """Follows a topic in a thread of its own. Start it, ask it from any thread, close it."""

    def __init__(
        self, settings: Settings, topic_key: str, *, fetch_wait_ms: int = FETCH_WAIT_MS, newest: int | None = None
    ) -> None:
        """`fetch_wait_ms`: how long the broker may wait for records; short where answers wait for commit markers.

        `newest`: begin so many offsets before the end of the topic, spread over its partitions; None: at the beginning.
        """
        self._settings = settings
        self._topic = Topics(settings.namespace).name(topic_key)
        self._partitions = 1 if BY_KEY[topic_key].single_partition else settings.partitions
        self._live = LiveTopics(
            settings,
            [self._topic],
            self._take,
            name=topic_key,
            fetch_wait_ms=fetch_wait_ms,
            partitions=self._partitions,
        )
        if newest is not None:
            self._live.begin_before_end(-(-newest // self._partitions))
        self.idle_s = self._live.idle_s

    def start(self) -> None:
        """Begin to read."""
        self._live.start()

    def close(self) -> None:
        """Stop reading, and wait for the thread."""
        self._live.close()

    def wait_until_current(self, timeout_s: float = ASK_TIMEOUT_S) -> None:
        """Return when everything that is committed now has been read. Raises `KafkaUnavailableError`."""
        live, deadline_s = self._live, time.monotonic() + timeout_s
        ends = live.ends(deadline_s, IsolationLevel.READ_UNCOMMITTED)
        if live.wait_for(ends, min(deadline_s, time.monotonic() + OPEN_WAIT_S)):
            return
        if not live.wait_for(live.ends(deadline_s), deadline_s):
            raise KafkaUnavailableError(
                f"{self._topic} could not be read to its end within {timeout_s:g} s", "try again in a moment"
            )

    def _take(self, messages: Sequence[Message]) -> None:
        """Take records, in the reading thread; they count as read when this returns."""
        homes = partitions_of([message.key() or b"" for message in messages], self._partitions)
        for message, home in zip(messages, homes, strict=True):
            # Elsewhere: of a second account, which an older version opened in a partition that is not the org's.
            if message.partition() == home:
                self._keep(message)

    def _keep(self, message: Message) -> None:
        """Take the latest record of a key. Its value is None where the record deletes it."""
        raise NotImplementedError
