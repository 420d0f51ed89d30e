"""The agent of usage: what was consumed, millions of records a day, booked in columns.

```
in       usage
gather   decode; read the prices on if some usage has none or they may be out of date; find what corrections refer to
decide   guards over columns → leave out ids that had an effect before → `streams.ledger.usage_batch`
out      the outputs of an account; dead letters
```
"""

from __future__ import annotations

from streams.agents.agent import ACCOUNT_OUTPUTS, DEAD_LETTERS, Agent, Batch, PricesAtHand
from streams.ledger.usage_batch_rating import Kinds, unpriced
from streams.processing.usage import UsageIntake


def needs_newer_prices(usage: Kinds | None, known: PricesAtHand) -> bool:
    """When the prices may be out of date, or some usage of the batch has none."""
    assert usage is not None, "usage has kinds"
    return not known.current or unpriced(usage, known.log.prices, known.account)


def decide(batch: Batch) -> None:
    """Book the batch."""
    intake = UsageIntake(batch.state, batch.inbound, batch.outbound, batch.windows.usage)
    intake.book(batch.decoded, batch.usage_kinds, batch.gathered)


AGENT = Agent(
    name="usage",
    inputs=("usage",),
    outputs=(*ACCOUNT_OUTPUTS, DEAD_LETTERS),
    decide=decide,
    needs_newer_prices=needs_newer_prices,
)
