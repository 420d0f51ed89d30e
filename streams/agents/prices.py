"""The agent of prices: it judges the price list, record by record, for all workers.

```
in       prices (keyed by price id, so a partition of its own has each)
gather   decode; read the prices on: a record is judged with everything published before it
decide   readable → own key → no tie with another price (`streams.ledger.price_log`)
out      the ledger's own copy of the price list, which all workers read; dead letters
```

A price changes no account. Usage is rated with it by the agent of usage, in whichever partition that is.
"""

from __future__ import annotations

from streams.agents.agent import DEAD_LETTERS, Agent, Batch, PricesAtHand
from streams.ledger.usage_batch_rating import Kinds
from streams.processing.rows import RowBooking


def needs_newer_prices(usage: Kinds | None, known: PricesAtHand) -> bool:
    """Always: the record itself must be among those known."""
    return True


def decide(batch: Batch) -> None:
    """Judge every record, and keep what comes of it."""
    gathered = batch.gathered
    rows = RowBooking(batch.state, batch.inbound, batch.outbound, gathered.prices, gathered.references)
    rows.judge_prices(batch.decoded, gathered.price_log, batch.prices)


AGENT = Agent(
    name="prices",
    inputs=("prices",),
    outputs=("kept_prices", DEAD_LETTERS),
    decide=decide,
    needs_newer_prices=needs_newer_prices,
)
