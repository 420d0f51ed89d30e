"""What arrived for one partition and is not decided yet, from all its input topics, in order of arrival.

The rules of this file:
1. What is taken continues exactly where the last taken batch of that topic ended: an overlap is cut off, a gap is
   refused. So whatever Faust drops, repeats or mixes at a rebalance, the pump sees each record once and in order.
2. Records and their bytes are counted, so that fetching can pause before memory grows (back-pressure): a record may
   be anything from some bytes to megabytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from streams.kafka.inbound import Inbound, after, joined, split


class Intake:
    """The queue between the fetching and the deciding of one partition."""

    def __init__(self, next_offsets: Mapping[str, int]) -> None:
        """`next_offsets`: per topic, where to go on."""
        self._queue: deque[Inbound] = deque()
        self._sizes: deque[int] = deque()
        self._next = dict(next_offsets)
        self.records = 0
        self.bytes = 0

    def next_offset(self, topic: str) -> int:
        """Where the next batch of this topic must begin."""
        return self._next[topic]

    @property
    def next_offsets(self) -> dict[str, int]:
        """Per topic, where the next batch must begin."""
        return dict(self._next)

    def __bool__(self) -> bool:
        return bool(self._queue)

    def offer(self, inbound: Inbound) -> bool:
        """Queue a batch. False when it does not continue what is here: somebody must seek to `next_offset`."""
        wanted = self._next[inbound.topic]
        if inbound.first_offset > wanted:
            return False
        if inbound.next_offset <= wanted:
            return True
        fresh = inbound if inbound.first_offset == wanted else after(inbound, wanted)
        self._next[inbound.topic] = fresh.next_offset
        size = fresh.size_bytes()
        self._queue.append(fresh)
        self._sizes.append(size)
        self.records += len(fresh)
        self.bytes += size
        return True

    def take(self, records_max: int) -> list[Inbound]:
        """The oldest batches, one per topic, together at most `records_max` records; the last one may be cut."""
        taken: dict[str, list[Inbound]] = {}
        room = records_max
        while self._queue and (room > 0 or not len(self._queue[0])):
            inbound, size = self._queue.popleft(), self._sizes.popleft()
            if len(inbound) > room:
                inbound, rest = split(inbound, room)
                self._queue.appendleft(rest)
                self._sizes.appendleft(rest.size_bytes())
                size -= self._sizes[0]
            room -= len(inbound)
            self.records -= len(inbound)
            self.bytes -= size
            taken.setdefault(inbound.topic, []).append(inbound)
        return [parts[0] if len(parts) == 1 else joined(parts) for parts in taken.values()]

    def drop(self, topic: str, next_offset: int) -> None:
        """Forget what is queued of one topic; its next batch must begin at this offset."""
        kept = [each for each in zip(self._queue, self._sizes, strict=True) if each[0].topic != topic]
        self._queue = deque(inbound for inbound, _ in kept)
        self._sizes = deque(size for _, size in kept)
        self._next[topic] = next_offset
        self.records = sum(len(inbound) for inbound in self._queue)
        self.bytes = sum(self._sizes)

    def restart(self, next_offsets: Mapping[str, int]) -> None:
        """Forget what is queued and go on at these offsets."""
        self._queue.clear()
        self._sizes.clear()
        self._next = dict(next_offsets)
        self.records = 0
        self.bytes = 0
