"""The agent of usage: what was consumed, millions of records a day, booked in columns.

```
in       usage
gather   decode; read the prices on if some usage has none or they may be out of date; find what corrections refer to
decide   admit (guards over columns) → leave out repeats → rate, book and write entries (`UsageBooking`)
out      the outputs of an account; dead letters
```
"""

from __future__ import annotations

from streams.agents.agent import ACCOUNT_OUTPUTS, DEAD_LETTERS, Agent, Batch, PricesAtHand
from streams.processing.old_ids import old_ids
from streams.processing.state import USAGE_IDS
from streams.processing.usage_booking import UsageBooking
from streams.processing.usage_guards import UsageGuards, segments
from streams.processing.usage_rating import Kinds, unpriced


def needs_newer_prices(usage: Kinds | None, known: PricesAtHand) -> bool:
    """When the prices may be out of date, or some usage of the batch has none."""
    assert usage is not None, "usage has kinds"
    return not known.current or unpriced(usage, known.log.prices, known.account)


def decide(batch: Batch) -> None:
    """Book the batch in parts: a correction begins a part of its own."""
    state, inbound, outbound, window_us = batch.state, batch.inbound, batch.outbound, batch.windows.usage_us
    seen = state.partition.seen[USAGE_IDS]
    guards = UsageGuards(state, inbound, outbound, window_us)
    for part in segments(guards.admit(batch.decoded)):
        rows = guards.new(part, seen)
        if len(rows):
            booked = UsageBooking(state, inbound, rows, batch.usage_kinds, batch.gathered, outbound).book(seen)
            old = old_ids(booked.batch.column("event_id"), booked.arrived, window_us)
            if old:
                outbound.notice(inbound.topic, "old_id", old)


AGENT = Agent(
    name="usage",
    inputs=("usage",),
    outputs=(*ACCOUNT_OUTPUTS, DEAD_LETTERS),
    decide=decide,
    needs_newer_prices=needs_newer_prices,
)
