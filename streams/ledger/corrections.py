"""Corrections of usage: what was booked is unwound, and the new is booked (product rule 23).

Rules of this file:
- A correction is a usage of an id that was booked before, with a higher revision. An amendment makes two entries: a
  `correction` that carries what it takes back, and a `usage` of the new revision; a void makes the first alone.
- What is given back goes to the grants that were drawn, the last drawn first, less what was refunded already; the
  refunds are part of what is unwound, so the new revision can be refunded as if it were the first.
- An amendment in one wallet moves the difference: the new revision draws first on what the correction has just given
  back, in the order it was drawn, also where it would expire at once; only what it costs more goes by the draw-down
  order. Thresholds and budgets are evaluated once, at its end.
- Budgets count a revision in the windows in which the usage was first recorded, and in no other (`budgets`).
- A revision of a usage of which nothing is booked is booked as it stands, and remembered like a corrected one, so that
  a lower revision is refused when it comes after all; a void of it is `unknown_usage`.
- A revision that is not higher than the booked one is a dead letter.
- The latest revision of a corrected usage is kept for as long as usage can be refunded; before a first correction the
  usage's own entry says what it drew, looked up by the caller.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from schemas.enums import DeadLetterCode, EntryKind, EntryReason, GrantKind, RejectReason
from streams.ledger.account import Account, CorrectedUsage, Wallet
from streams.ledger.bounds import refuse_full_account, refuse_reversal
from streams.ledger.commands import Usage
from streams.ledger.entry import Component, Slice
from streams.ledger.grants import find_grant, overdraft_slice
from streams.ledger.hold_decisions import capture_by_usage
from streams.ledger.holds import kept_by
from streams.ledger.journal import Journal
from streams.ledger.rating import Rated
from streams.ledger.refusals import DeadLetter, Refusal, Refused
from streams.ledger.reversals import USAGE_REFUND_WINDOW_MICROS, Reversal, plan_reversal, reversal_details
from streams.ledger.usage import refuse_cost, usage_fields, wallet_for

CORRECTED_MAX = 4_096
"""Corrected usages remembered per org, about 200 bytes each; corrections of further ones are dead letters."""


def decide_correction(
    journal: Journal, usage: Usage, rated: Rated | None, booked: CorrectedUsage | None
) -> Refusal | None:
    """Amend or void, or book what comes as a revision at first.

    `rated`: the new revision, None when it is voided; `booked`: what is known of the usage (`reversals.latest_usage`).
    """
    account = journal.account
    if booked is None and rated is not None:  # nothing to unwind, and it is not lost (product rule 16)
        dead_letter = _refuse_revision(account, usage, rated, journal.at)
        if dead_letter is None:
            _book(journal, usage, rated)
        return dead_letter
    if booked is None or booked.recorded_at + USAGE_REFUND_WINDOW_MICROS < journal.at:
        return Refused(RejectReason.UNKNOWN_USAGE)
    if usage.revision <= booked.revision:
        message = f"revision {booked.revision} is booked; a correction needs a higher one"
        return DeadLetter(DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT, message)
    dead_letter = _refuse_revision(account, usage, rated, journal.at)
    if dead_letter is not None:
        return dead_letter
    refused = refuse_reversal(account, booked.wallet, booked.slices)
    if refused is not None:
        return refused.in_wallet(booked.wallet)
    reversal = _plan(account, usage, booked, journal.at)
    if isinstance(reversal, DeadLetter):
        return reversal
    restored = _reverse(journal, usage, booked, reversal, rebooked=rated is not None and _rebooked(booked, rated))
    if rated is not None:
        _book(journal, usage, rated, restored if rated.wallet == booked.wallet else ())
    return None


def _refuse_revision(account: Account, usage: Usage, rated: Rated | None, at: int) -> DeadLetter | None:
    """`invalid_field` when one more usage with a revision cannot be remembered; else as `refuse_cost`."""
    if usage.event_id not in account.corrected:
        full = refuse_full_account(account)
        if full is not None:
            return DeadLetter(DeadLetterCode.INVALID_FIELD, f"revision: {full.message}")
        oldest = next(iter(account.corrected.values()), None)
        horizon = at - USAGE_REFUND_WINDOW_MICROS  # those before it are forgotten by the next entry
        if len(account.corrected) >= CORRECTED_MAX and oldest is not None and oldest.recorded_at >= horizon:
            message = f"more than {CORRECTED_MAX} usages had a revision in 35 days"
            return DeadLetter(DeadLetterCode.INVALID_FIELD, message)
    return None if rated is None else refuse_cost(account, wallet_for(account, rated.wallet), rated.cost)


def _book(journal: Journal, usage: Usage, rated: Rated, restored: tuple[Slice, ...] = ()) -> None:
    """The entry of the new revision, for which there is room; it resolves the hold that it names.

    `restored`: what has just been given back in its wallet, to be drawn first, after what the hold keeps.
    """
    account = journal.account
    wallet = wallet_for(account, rated.wallet)
    hold = None if usage.hold_id is None else account.holds.get(usage.hold_id)
    kept = kept_by(wallet, hold) if hold is not None and hold.wallet == wallet.unit else ()
    slices = _draw_restored_first(wallet, rated.cost, (*kept, *restored))
    if hold is not None:
        capture_by_usage(journal, usage, rated, hold, slices)
        return
    journal.write(
        EntryKind.USAGE,
        rated.wallet,
        -rated.cost,
        event_id=usage.event_id,
        occurred_at=usage.occurred_at,
        slices=slices,
        **usage_fields(usage, rated),
    )


def _draw_restored_first(wallet: Wallet, cost: int, restored: tuple[Slice, ...]) -> tuple[Slice, ...]:
    """What `cost` takes: of `restored` first, the rest in draw-down order. Changes nothing."""
    slices: list[Slice] = []
    left = {grant.grant_id: grant.remaining for grant in (*wallet.grants, *wallet.ended)}
    by_draw_order = (Slice(grant.grant_id, grant.kind, grant.remaining, grant.expires_at) for grant in wallet.grants)
    for part in (*restored, *by_draw_order):
        amount = min(cost, part.amount_nanos, left[part.grant_id])
        if not amount:
            continue
        cost -= amount
        left[part.grant_id] -= amount
        if slices and slices[-1].grant_id == part.grant_id:
            amount += slices.pop().amount_nanos
        slices.append(msgspec.structs.replace(part, amount_nanos=amount))
    if cost:
        slices.append(overdraft_slice(cost))
    return tuple(slices)


def _plan(account: Account, usage: Usage, booked: CorrectedUsage, at: int) -> Reversal | DeadLetter:
    """All of a booked usage goes back, less what was refunded."""
    refunded = account.refunded.get(usage.event_id)
    so_far = refunded.amount if refunded is not None else 0
    amount = sum(part.amount_nanos for part in booked.slices) - so_far
    return plan_reversal(account, booked, so_far, amount, _overdraft_grant_id(usage), at)


def _overdraft_grant_id(usage: Usage) -> str:
    return f"correction/{usage.event_id}/{usage.revision}"


def _reverse(
    journal: Journal, usage: Usage, booked: CorrectedUsage, reversal: Reversal, *, rebooked: bool
) -> tuple[Slice, ...]:
    """Write the correction; returns what its wallet's grants have got back by it, in the order it was drawn."""
    carried: dict[str, Any] = dict(booked.carried)
    booked_amount, amount = (sum(part.amount_nanos for part in parts) for parts in (booked.slices, reversal.returned))
    journal.write(
        EntryKind.CORRECTION,
        booked.wallet,
        amount,
        event_id=usage.event_id,
        occurred_at=booked.occurred_at,
        slices=reversal.slices,
        grants=reversal.recreated,
        reason=EntryReason.USAGE_VOIDED if usage.voided else EntryReason.USAGE_AMENDED,
        revision=usage.revision,
        billing_unit=booked.billing_unit,
        details=reversal_details(booked, reversal, booked_amount - amount, (booked.revision, rebooked)),
        quantities=booked.quantities,
        components=tuple(map(_taken_back, booked.components)),
        **carried,
    )
    return _restored_slices(journal.account.wallets[booked.wallet], reversal, _overdraft_grant_id(usage))


def _taken_back(component: Component) -> Component:
    """A component of what is taken back: below 0."""
    quantity, amount = -component.quantity_nanos, -component.amount_nanos
    return msgspec.structs.replace(component, quantity_nanos=quantity, amount_nanos=amount)


def _restored_slices(wallet: Wallet, reversal: Reversal, overdraft_grant_id: str) -> tuple[Slice, ...]:
    """What the grants of a wallet have got of what was taken back, in the order it was drawn; the rest paid a debt."""
    received: Counter[str] = Counter()
    for lot in reversal.recreated:
        received[lot.grant_id] += lot.amount_nanos
    for part in reversal.slices:
        received[part.grant_id] -= part.amount_nanos
    restored: list[Slice] = []
    for part in reversed(reversal.returned):
        grant_id = overdraft_grant_id if part.kind is GrantKind.OVERDRAFT else part.grant_id
        amount = min(part.amount_nanos, received[grant_id])
        if not amount:
            continue
        received[grant_id] -= amount
        grant = find_grant(wallet, grant_id)
        assert grant is not None
        restored.append(Slice(grant_id, grant.kind, amount, grant.expires_at))
    return tuple(restored)


def _rebooked(booked: CorrectedUsage, rated: Rated) -> bool:
    """The new revision moves the same wallet, so that alerts are evaluated once, when it is booked."""
    return rated.cost > 0 and rated.wallet == booked.wallet
