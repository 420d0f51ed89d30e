"""The log of used idempotency keys: one topic that every process which serves HTTP writes and follows.

The rules of this file:
1. A record is written under the key's name, so that the records of a key have one order. `write` returns when this
   process has read its own record: then it knows everything that came before it.
2. The broker stamps the records, so that all processes count the same time. The topic keeps them for two days, and they
   count for one (`streams.api.idempotency`). A process reads it from the beginning before it answers.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from confluent_kafka import Message

from streams.api.idempotency import Uses
from streams.errors import KafkaUnavailableError
from streams.kafka.latest import ASK_TIMEOUT_S, LatestRecords

if TYPE_CHECKING:
    from streams.api.intake import Intake
    from streams.settings import Settings

FETCH_WAIT_MS: Final = 500
"""A record is handed on at once; this is only how often the broker answers that there is none."""


class IdempotencyLog(LatestRecords):
    """A `streams.api.idempotency.KeyLog`. Start it, wait until it is current, close it."""

    def __init__(self, settings: Settings, intake: Intake) -> None:
        super().__init__(settings, "used_keys", fetch_wait_ms=FETCH_WAIT_MS)
        self._intake = intake
        self.uses = Uses()

    async def write(self, name: str, value: bytes) -> None:
        """See `KeyLog.write`."""
        partition, offset = await self._intake.append(self._topic, name.encode(), value)
        reached = {(self._topic, partition): offset + 1}
        if not await asyncio.to_thread(self._live.wait_for, reached, time.monotonic() + ASK_TIMEOUT_S):
            raise KafkaUnavailableError(f"{self._topic} could not be read to its end in time", "try again")

    def offer(self, name: str, value: bytes) -> None:
        """See `KeyLog.offer`."""
        self._intake.offer(self._topic, name.encode(), value)

    def _keep(self, message: Message) -> None:
        _, at_ms = message.timestamp()
        self.uses.fold((message.key() or b"").decode("utf-8", "replace"), message.value() or b"", at_ms)
