"""What is refused before prices are published (product rules 7 and 9).

Rules of this file: every usage has one price, so a price that could match the same usage equally well as another one is
refused. Two who publish at the same moment do not see each other: the worker judges again, by the topic's order. A
price of 0 is refused unless it says that it is free: it is a slip, or the usage it is for is meant to be let in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from schemas.topics import Topics
from streams.errors import OperatorError
from streams.kafka.reader import committed_ends, read_range
from streams.ledger.price_log import PriceLog, Published
from streams.ledger.rating import Price
from streams.processing.prices import PriceRecords
from streams.seals import Seals

if TYPE_CHECKING:
    from schemas.codec import WriterSchemas
    from schemas.fields import Record
    from streams.settings import Settings

LAST_MS = 2**62
"""Later than what was published at any time."""


class PriceTieError(OperatorError):
    """Two prices that could match the same usage equally well; nothing was published."""

    code = "price_tie"


class ZeroPriceError(PriceTieError):
    """A price of 0 that does not say that it is free; nothing was published."""

    code = "zero_price"


def refuse_ties(settings: Settings, writers: WriterSchemas, records: Sequence[Record]) -> None:
    """Raise `PriceTieError` when a price could tie with a published one, or with another of these; or is 0."""
    refuse_ties_with(published_prices(settings, writers), (), records)


def refuse_ties_with(log: PriceLog, withdrawn: Sequence[str], records: Sequence[Record]) -> None:
    """The same, against the prices of `log`, when those with the ids in `withdrawn` are taken away first."""
    gone = [(Published(LAST_MS, 0, number), price_id, None) for number, price_id in enumerate(withdrawn)]
    prices = [Price.from_record(record.to_record()) for record in records]
    for price in prices:
        if price.is_costless and not price.free and price.factor_nanos is None:
            raise ZeroPriceError(
                f"price {price.price_id} is 0 and does not say that it is free",
                "nothing was published; add free: true, so that free work is let in, or give it a price",
            )
    new = [(Published(LAST_MS, 1, number), price.price_id, price) for number, price in enumerate(prices)]
    judged = log.with_changes([*gone, *new])
    for published, price_id, _ in new:
        other = judged.refused.get(published)
        if other is not None:
            raise PriceTieError(
                f"price {price_id} and price {other.price_id} could match the same usage equally well",
                "nothing was published; narrow one of them, or end its validity with valid_to",
            )


def published_prices(settings: Settings, writers: WriterSchemas) -> PriceLog:
    """The published prices, as the workers judge them."""
    topics = Topics(settings.namespace)
    kept = topics.name("kept_prices")
    records = PriceRecords(settings.partitions, writers, topics, Seals.of(settings))
    # What the ledger keeps is read last: what was judged meanwhile is then known as judged.
    for topic in (topics.name("prices"), kept):
        for batch in read_range(settings, {}, committed_ends(settings, [topic])):
            records.take(*((), batch) if topic == kept else (batch, ()))
    return records.log
