"""The price list as workers have it, followed for questions that are to be priced.

The rules of this file: an outdated list answers nothing (503). It is looked at once a second whether the list is
current, as in a worker; a question that comes before the first look waits for it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from streams.engine.ports import UnavailableError
from streams.errors import KafkaUnavailableError
from streams.processing.prices import PriceReader

if TYPE_CHECKING:
    from schemas.codec import WriterSchemas
    from streams.ledger.rating import PriceList
    from streams.settings import Settings


class FollowedPrices:
    """Start it, ask it, close it."""

    def __init__(self, settings: Settings, writers: WriterSchemas) -> None:
        self._reader = PriceReader(settings, writers)

    def start(self) -> None:
        """Begin to read; waits for nothing."""
        self._reader.begin()

    def close(self) -> None:
        """Stop reading."""
        self._reader.stop()

    @property
    def in_force(self) -> PriceList:
        """The list; raises `KafkaUnavailableError` while it may be outdated."""
        if not self._reader.current():
            raise KafkaUnavailableError("the price list in memory may be outdated: Kafka does not answer", "try again")
        return self._reader.records.log.prices

    async def require_current(self) -> None:
        """Return when the list is current. Raises `KafkaUnavailableError` when that cannot be had."""
        if self._reader.current():
            return
        try:
            await asyncio.to_thread(self._reader.catch_up)
        except UnavailableError as error:
            raise KafkaUnavailableError(f"the price list cannot be read: {error}", "try again") from error
