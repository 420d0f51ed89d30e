"""What one batch needs that is not in the state of its partition."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.codec import DecodedBatch
from streams.ledger.price_log import PriceLog
from streams.ledger.rating import PriceList
from streams.ledger.usage_batch_rating import Kinds
from streams.processing.references import References


@dataclass(slots=True)
class Gathered:
    """Made by `LedgerProcessor.gather`, used by `step`."""

    decoded: list[DecodedBatch]
    """Of each inbound batch, in order."""
    kinds: list[Kinds | None]
    """Of each inbound batch of usage the kinds in it."""
    price_log: PriceLog
    references: References

    @property
    def prices(self) -> PriceList:
        """The prices in force."""
        return self.price_log.prices
