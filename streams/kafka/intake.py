"""What was fetched and is not handled yet, in order of arrival: the queue of the engine and of the projection.

The rules of this file:
1. What is taken continues exactly where the last taken batch of its source ended: an overlap is cut off, a gap is
   refused. So whatever Faust drops, repeats or mixes at a rebalance, each record is handled once and in order.
2. Records and their bytes are counted, so that fetching can pause before memory grows (back-pressure): a record may
   be anything from some bytes to megabytes. Fetching pauses when the queue `is_full`, and goes on when it `has_room`
   for half of that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from streams.kafka.inbound import Inbound, join, split_at, start_at

Source = TypeVar("Source")
"""What batches continue each other in: a topic, or a topic's partition."""


class Intake(Generic[Source]):
    """The queue between fetching and handling."""

    def __init__(
        self,
        next_offsets: Mapping[Source, int],
        source_of: Callable[[Inbound], Source],
        records_max: int,
        bytes_max: int,
    ) -> None:
        """`next_offsets`: per source, where to go on. `records_max`, `bytes_max`: when it is full."""
        self._source_of = source_of
        self._records_max = records_max
        self._bytes_max = bytes_max
        self.restart(next_offsets)

    def restart(self, next_offsets: Mapping[Source, int]) -> None:
        """Forget what is queued and go on at these offsets."""
        self._queue: deque[tuple[Inbound, int]] = deque()
        """Batches, and how many bytes each takes."""
        self.next_offsets = dict(next_offsets)
        """Per source, where the next batch must begin."""
        self.records = 0
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._queue)

    @property
    def is_full(self) -> bool:
        """Whether fetching must pause."""
        return self._fill >= 1.0

    @property
    def has_room(self) -> bool:
        """Whether fetching may go on."""
        return self._fill <= 0.5

    @property
    def _fill(self) -> float:
        return max(self.records / self._records_max, self.bytes / self._bytes_max)

    def offer(self, inbound: Inbound) -> bool:
        """Queue a batch. False when it does not continue what is here: seek to its place in `next_offsets`."""
        source = self._source_of(inbound)
        wanted = self.next_offsets[source]
        if inbound.first_offset > wanted:
            return False
        if inbound.next_offset > wanted:
            fresh = inbound if inbound.first_offset == wanted else start_at(inbound, wanted)
            self.next_offsets[source] = fresh.next_offset
            self._queue.append((fresh, fresh.size_bytes()))
            self._count(fresh, self._queue[-1][1])
        return True

    def take(self, records_max: int) -> list[Inbound]:
        """The oldest batches, one per source, together at most `records_max` records; the last one may be cut."""
        taken: dict[Source, list[Inbound]] = {}
        room = records_max
        while self._queue and (room > 0 or not len(self._queue[0][0])):
            inbound, size = self._queue.popleft()
            if len(inbound) > room:
                inbound, rest = split_at(inbound, room)
                self._queue.appendleft((rest, rest.size_bytes()))
                size -= self._queue[0][1]
            room -= len(inbound)
            self._count(inbound, size, -1)
            taken.setdefault(self._source_of(inbound), []).append(inbound)
        return [parts[0] if len(parts) == 1 else join(parts) for parts in taken.values()]

    def drop(self, source: Source, next_offset: int) -> None:
        """Forget what is queued of one source; its next batch must begin at this offset."""
        kept = [each for each in self._queue if self._source_of(each[0]) != source]
        self.restart({**self.next_offsets, source: next_offset})
        self._queue.extend(kept)
        for each in kept:
            self._count(*each)

    def _count(self, inbound: Inbound, size: int, sign: int = 1) -> None:
        self.records += sign * len(inbound)
        self.bytes += sign * size
