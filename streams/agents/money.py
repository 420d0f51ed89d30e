"""The agent of money events: purchases, transfers, refunds and holds, decided one by one.

```
in       purchases, transfers, refunds, holds
gather   decode; find the usage that a refund refers to
decide   readable → valid → own key → own partition → inside its window → new → `streams.ledger.decide`
out      the outputs of an account, with the other leg of each transfer; dead letters
```
"""

from __future__ import annotations

from schemas.enums import InputKind
from streams.agents.agent import ACCOUNT_OUTPUTS, DEAD_LETTERS, Agent, Batch
from streams.processing.rows import MONEY_IDS, RowBooking


def decide(batch: Batch) -> None:
    """Decide every record by the rules of the kind that its topic has."""
    gathered = batch.gathered
    rows = RowBooking(batch.state, batch.inbound, batch.outbound, gathered.prices, gathered.references)
    seen = batch.state.partition.seen[MONEY_IDS]
    rows.book_commands(InputKind(batch.decoded.record), batch.decoded, seen, batch.windows.money)


AGENT = Agent(
    name="money",
    inputs=("purchases", "transfers", "refunds", "holds"),
    outputs=(*ACCOUNT_OUTPUTS, DEAD_LETTERS),
    decide=decide,
)
