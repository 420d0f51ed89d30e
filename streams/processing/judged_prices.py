"""What the owner of a partition of the price topic writes down of the prices that it judges (`schemas.kept_prices`).

Rules of this file:
- One record for each price id of a batch: what stands under it now, and up to where its records were judged.
- Records before the position may be missing in the copy: those of an installation that kept none yet. They are judged
  with the first batch of prices after them, as every worker judges them.
- What was judged already is not written again, except with another checksum: what is sealed with an older key, or not
  at all, is written again with the first batch of prices after the change.
"""

from __future__ import annotations

from typing import NamedTuple

from schemas.partitioner import PartitionKeys
from streams.ledger.price_log import PriceLog, Published
from streams.processing.prices import PriceRecords


class KeptPrice(NamedTuple):
    """One record of the ledger's own price topic. `value`: see `schemas.kept_prices`."""

    published: Published
    judged: Published
    value: bytes | None


class KeptPrices:
    """What one batch of a partition of the price topic comes to."""

    def __init__(self, known: PriceRecords, partition: int) -> None:
        self._known = known
        self._partition = partition
        self.changes: dict[str, KeptPrice] = {}

    def judge_earlier(self, first_offset: int, log: PriceLog) -> None:
        """Write down the records of this partition before `first_offset` that are missing in the copy."""
        for price_id, records in self._known.unjudged.items():
            for published, _, value in records:
                if published.partition == self._partition and published.offset < first_offset:
                    if published in log.refused:
                        self.refuse(price_id, published)
                    else:
                        self.accept(price_id, published, value)

    def accept(self, price_id: str, published: Published, value: bytes | None) -> None:
        """A price, or None: it is taken away."""
        if not self._judged(price_id, published):
            self.changes[price_id] = KeptPrice(published, published, value)

    def refuse(self, price_id: str, published: Published) -> None:
        """A price that ties with another: what stood under its id stays."""
        if self._judged(price_id, published):
            return
        before = self.changes.get(price_id) or self._known.kept.get(price_id)
        if before is None:
            self.changes[price_id] = KeptPrice(published, published, b"")
        else:
            # Not None again: Kafka forgets a record without a value, and with it that the price was refused.
            self.changes[price_id] = KeptPrice(before.published, published, before.value or b"")

    def seal_again(self, own_keys: PartitionKeys) -> None:
        """Write again what is not sealed as it would be now, so that the older key can be dropped."""
        for price_id, kept in self._known.kept.items():
            if not kept.sealed and kept.value is not None and not own_keys.foreign([price_id.encode()]):
                self.changes.setdefault(price_id, KeptPrice(kept.published, kept.judged, kept.value))

    def _judged(self, price_id: str, published: Published) -> bool:
        kept = self._known.kept.get(price_id)
        return kept is not None and published <= kept.judged
