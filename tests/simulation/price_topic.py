"""The price topic as the workers read it, and how far each has read when it decides.

Rules of this file: what a worker makes of the records is the real reader's (`streams.processing.prices.PriceReader`).
What the reader does in threads, the world does at times of its own: it reads to the end now and then, and when it is
asked; while Kafka is away it cannot. Of every list it comes to it knows up to where it was read.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from itertools import chain

from streams.engine.ports import UnavailableError
from streams.kafka.registry import CachedRegistry
from streams.ledger.price_log import PriceLog
from streams.processing.prices import STALE_MAX_S, PriceReader, PriceRecords
from tests.model.memory import TOPICS
from tests.simulation.virtual_kafka import VirtualKafka, messages

TOPIC = TOPICS.name("prices")
KEPT = TOPICS.name("kept_prices")

Ends = tuple[int, ...]
"""Of each partition of the price topic, then of each of what the ledger keeps of it, how many offsets were read."""


class FollowedPrices(PriceReader):
    """One worker's reader of prices."""

    def __init__(self, kafka: VirtualKafka, schemas: CachedRegistry, loop: AbstractEventLoop) -> None:
        self._kafka = kafka
        self._loop = loop
        self._read_ends: Ends = (0,) * (2 * kafka.partitions)
        self._read_at_s = -STALE_MAX_S
        self.records = PriceRecords(kafka.partitions, schemas, TOPICS)
        self._read_up_to_of: dict[PriceLog, Ends] = {self.records.log: self._read_ends}

    def start(self) -> None:
        """See `PriceSource`."""
        self.catch_up()

    def catch_up(self) -> None:
        """See `PriceSource`."""
        if self._kafka.faults.away():
            raise UnavailableError("drawn by the seed")
        count = self._kafka.partitions
        places = [(topic, number) for topic in (TOPIC, KEPT) for number in range(count)]
        logs = [self._kafka.logs[place] for place in places]
        new = [messages(*each) for each in zip(logs, self._read_ends, places, strict=True)]
        self.records.take(*(list(chain.from_iterable(each)) for each in (new[:count], new[count:])))
        self._read_ends = tuple(map(len, logs))
        self._read_at_s = self._loop.time()
        self._read_up_to_of[self.records.log] = self._read_ends

    def current(self) -> bool:
        """See `PriceSource`."""
        return self._loop.time() - self._read_at_s <= STALE_MAX_S

    def stop(self) -> None:
        """See `PriceSource`."""

    def ends_of(self, log: PriceLog) -> Ends:
        """How far was read when the list was this one."""
        return self._read_up_to_of[log]
