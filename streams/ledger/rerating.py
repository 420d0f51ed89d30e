"""Re-rating: what a price correction changes for a usage that is booked, of any age (product rules 16, 21, 23).

Rules of this file:
- The difference is booked, as a `correction` of its own beside what the usage's entries say. It has the usage's
  dimensions and time, so it counts where the usage counted, and no quantities: nothing was used.
- What comes back goes to the grants that the usage drew, the last drawn first; what they never gave (an earlier
  re-rating charged more) becomes an adjustment. What costs more is drawn like usage that happens now, into the negative
  if need be.
- The account remembers nothing of it, so there is no cap and no end. The sender knows what is booked: `credits rerate`
  folds it from the ledger. An amendment, void or refund of the usage is about what its own entry drew; the next run
  then corrects the difference that was booked here.
- In budgets it counts in the windows of the usage's first booking, where they are still open.
"""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.enums import EntryKind, EntryReason, RejectReason
from streams.ledger.account import Account, CorrectedUsage
from streams.ledger.authority import may_pay
from streams.ledger.bounds import refuse_reversal
from streams.ledger.commands import Refund
from streams.ledger.entry import Lot, Slice
from streams.ledger.grants import draw, overdraft_slice
from streams.ledger.journal import Journal
from streams.ledger.refusals import DeadLetter, Refusal, Refused
from streams.ledger.reversals import ReversalDetails, dimensions_carried, plan_reversal
from streams.ledger.usage import refuse_cost, spent_of

Movement = tuple[tuple[Slice, ...], tuple[Lot, ...], int]
"""Slices, lots to recreate, and how much of it no longer counts as spent (below 0: counts in addition)."""


def decide_rerating(journal: Journal, refund: Refund, usage: CorrectedUsage | None) -> Refusal | None:
    """Give back (an amount above 0) or charge (below 0) the difference of a usage that was rated again.

    `usage`: what is known of it. Refused as a dead letter: `amount_out_of_range`.
    """
    account = journal.account
    if not refund.amount_nanos:
        return Refused(RejectReason.AMOUNT_NOT_POSITIVE)
    if not may_pay(account, refund.actor):
        return Refused(RejectReason.NOT_AUTHORIZED)
    if usage is None:
        return Refused(RejectReason.UNKNOWN_USAGE)
    give_back = refund.amount_nanos > 0
    movement = _give_back(journal, refund, usage) if give_back else _charge(account, refund, usage)
    if isinstance(movement, Refused):
        return movement.in_wallet(usage.wallet)
    if isinstance(movement, DeadLetter):
        return movement
    slices, recreated, spent = movement
    details = ReversalDetails(spent, usage.recorded_at, first_recorded_at=usage.first_recorded_at)
    journal.write(
        EntryKind.CORRECTION,
        usage.wallet,
        refund.amount_nanos,
        event_id=refund.refund_id,
        occurred_at=usage.occurred_at,
        slices=slices,
        grants=recreated,
        reason=EntryReason.USAGE_RERATED,
        actor=refund.actor,
        correlation_id=refund.target_id,
        details=msgspec.json.encode(details).decode(),
        billing_unit=usage.billing_unit,
        components=refund.components,
        **dict[str, Any](dimensions_carried(usage)),
    )
    return None


def _give_back(journal: Journal, refund: Refund, usage: CorrectedUsage) -> Movement | Refusal:
    account, amount = journal.account, refund.amount_nanos
    refused = refuse_reversal(account, usage.wallet, usage.slices)
    if refused is not None:
        return refused
    refunded = account.refunded.get(refund.target_id)
    so_far = 0 if refunded is None else refunded.amount
    drawn = max(0, sum(part.amount_nanos for part in usage.slices) - so_far)
    booked = usage
    if drawn < amount:
        booked = msgspec.structs.replace(usage, slices=(overdraft_slice(amount - drawn), *usage.slices))
    reversal = plan_reversal(account, booked, so_far, amount, refund.refund_id, journal.at)
    if isinstance(reversal, DeadLetter):
        return reversal
    return reversal.slices, reversal.recreated, reversal.spent


def _charge(account: Account, refund: Refund, usage: CorrectedUsage) -> Movement | Refusal:
    wallet, cost = account.wallets[usage.wallet], -refund.amount_nanos
    refused = refuse_cost(account, wallet, cost)
    if refused is not None:
        return refused
    slices = draw(wallet, cost)
    return slices, (), -spent_of(slices)
