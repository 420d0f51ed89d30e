"""The agent of transfer legs: credits that left one org arrive at another, or come back.

```
in       transfer_legs, which only ledgers write: to the partition of the receiver, or back to that of the sender
gather   decode
decide   written by a ledger with our key → own key → own partition → new → `streams.ledger.decide`
out      the outputs of an account, with the answer to the sender's partition; dead letters
```

Two orgs of a transfer lie in two partitions, and a transaction has one. So a transfer is two entries with a leg between
them: its credits are in transit until the answer is booked.
"""

from __future__ import annotations

from streams.agents.agent import ACCOUNT_OUTPUTS, DEAD_LETTERS, Agent, Batch
from streams.processing.rows import RowBooking


def decide(batch: Batch) -> None:
    """Book every leg that is new."""
    gathered = batch.gathered
    rows = RowBooking(batch.state, batch.inbound, batch.outbound, gathered.prices, gathered.references)
    rows.book_legs(batch.decoded)


AGENT = Agent(
    name="transfer_legs",
    inputs=("transfer_legs",),
    outputs=(*ACCOUNT_OUTPUTS, DEAD_LETTERS),
    decide=decide,
)
