"""Timers, which no record brings: grants expire, months turn, holds end when their time has come.

```
in       the time of the partition (`streams.engine.clock`), and the orgs whose accounts are due
gather   nothing
decide   `streams.ledger.settle.settle_due`
out      the outputs of an account
```
"""

from __future__ import annotations

from collections.abc import Sequence

from streams.ledger.settle import settle_due
from streams.processing.outbound import Outbound
from streams.processing.state import PartitionState


def decide(state: PartitionState, at: int, orgs: Sequence[str], outbound: Outbound) -> None:
    """Settle what fell due at or before `at` (microseconds) for these orgs. The clock may be ahead of it.

    A second account, in a partition that is not the org's, is frozen (`streams.ledger.merges`).
    """
    foreign = state.own_keys.foreign([org.encode() for org in orgs])
    state.clock_at = max(state.clock_at, at)
    for org in orgs:
        if org.encode() not in foreign:
            outbound.outcome(settle_due(state.account(org), state.clock_at, until=at))
