"""Corrections of usage: what was booked is unwound, and the new is booked (product rule 23).

Rules of this file:
- A correction is a usage of an id that was booked before, with a higher revision. An amendment makes two entries: a
  `correction` that carries what it takes back, and a `usage` of the new revision; a void makes the first alone.
- What is given back goes to the grants that were drawn, the last drawn first, less what was refunded already; the
  refunds are part of what is unwound, so the new revision can be refunded as if it were the first.
- A revision of a usage of which nothing is booked is booked as it stands, and remembered like a corrected one, so that
  a lower revision is refused when it comes after all; a void of it is `unknown_usage`.
- A revision that is not higher than the booked one is a dead letter.
- The latest revision of a corrected usage is kept for as long as usage can be refunded; before a first correction the
  usage's own entry says what it drew, looked up by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from schemas.enums import DeadLetterCode, EntryKind, EntryReason, RejectReason
from streams.ledger.account import Account, CorrectedUsage
from streams.ledger.bounds import full, no_return, told
from streams.ledger.budgets import Scope
from streams.ledger.commands import Usage
from streams.ledger.entry import DIMENSIONS, Entry, Lot, Slice
from streams.ledger.evolve import USAGE_REFUND_WINDOW_MICROS, Unwound, revision_of
from streams.ledger.grants import draw, give_back, lot_of, undrawn
from streams.ledger.hold_decisions import capture_by_usage
from streams.ledger.journal import Journal
from streams.ledger.rating import Rated
from streams.ledger.refusals import DeadLetter, check_range
from streams.ledger.usage import check_spendable, spent_of, usage_words, wallet_for

CORRECTED_MAX = 4_096
"""Corrected usages remembered per org, about 200 bytes each; corrections of further ones are dead letters."""


def latest_usage(account: Account, event_id: str, references: Mapping[str, Entry]) -> CorrectedUsage | None:
    """The booked state of a usage: as it was corrected last, else as its entry says; None: nobody knows it."""
    known = account.corrected.get(event_id)
    if known is not None:
        return known
    entry = references.get(event_id)
    if entry is None:
        return None
    return revision_of(entry)


def decide_correction(journal: Journal, usage: Usage, rated: Rated | None, references: Mapping[str, Entry]) -> None:
    """Amend or void, or book what comes as a revision at first; `rated`: the new revision, None when it is voided.

    Raises DeadLetter `duplicate_with_different_content` for a revision that is not higher, `amount_out_of_range`, and
    `invalid_field` when there are too many corrections.
    """
    account = journal.account
    booked = latest_usage(account, usage.event_id, references)
    if booked is None and rated is not None:  # nothing to unwind, and it is not lost (product rule 16)
        _check_remembered(account, usage, journal.at)
        check_spendable(account, wallet_for(account, rated.wallet), rated.cost)
        _book(journal, usage, rated)
        return
    if booked is None or booked.recorded_at + USAGE_REFUND_WINDOW_MICROS < journal.at:
        journal.reject(
            usage.wallet or "",
            RejectReason.UNKNOWN_USAGE,
            event_id=usage.event_id,
            occurred_at=usage.occurred_at,
            revision=usage.revision,
        )
        return
    if usage.revision <= booked.revision:
        message = f"revision {booked.revision} is booked; a correction needs a higher one"
        raise DeadLetter(DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT, message)
    _check_remembered(account, usage, journal.at)
    if rated is not None:
        check_spendable(account, wallet_for(account, rated.wallet), rated.cost)
    crowd = no_return(account, booked.wallet, booked.slices)
    if crowd is not None:
        journal.reject(
            booked.wallet,
            crowd.reason,
            event_id=usage.event_id,
            occurred_at=usage.occurred_at,
            revision=usage.revision,
            details=msgspec.json.encode(told(crowd)).decode(),
        )
        return
    _unwind(journal, usage, booked, rebooked=_rebooked(booked, usage, rated))
    if rated is not None:
        _book(journal, usage, rated)


def _check_remembered(account: Account, usage: Usage, at: int) -> None:
    """Raise DeadLetter `invalid_field` when one more usage with a revision cannot be remembered."""
    if usage.event_id in account.corrected:
        return
    crowd = full(account)
    if crowd is not None:
        raise DeadLetter(DeadLetterCode.INVALID_FIELD, f"revision: {crowd.message}")
    oldest = next(iter(account.corrected.values()), None)
    horizon = at - USAGE_REFUND_WINDOW_MICROS  # those before it are forgotten by the next entry
    if len(account.corrected) >= CORRECTED_MAX and oldest is not None and oldest.recorded_at >= horizon:
        message = f"more than {CORRECTED_MAX} usages had a revision in 35 days"
        raise DeadLetter(DeadLetterCode.INVALID_FIELD, message)


def _book(journal: Journal, usage: Usage, rated: Rated) -> None:
    """The entry of the new revision, for which there is room; it resolves the hold that it names."""
    account = journal.account
    hold = None if usage.hold_id is None else account.holds.get(usage.hold_id)
    if hold is not None:
        capture_by_usage(journal, usage, rated, hold)
        return
    wallet = wallet_for(account, rated.wallet)
    journal.write(
        EntryKind.USAGE,
        rated.wallet,
        -rated.cost,
        event_id=usage.event_id,
        occurred_at=usage.occurred_at,
        slices=draw(wallet, rated.cost) if rated.cost else (),
        **usage_words(usage, rated),
    )


def _unwind(journal: Journal, usage: Usage, booked: CorrectedUsage, *, rebooked: bool) -> None:
    account = journal.account
    refunded = account.refunded.get(usage.event_id)
    so_far = refunded.amount if refunded is not None else 0
    amount = sum(part.amount_nanos for part in booked.slices) - so_far
    back = taken_back(journal, booked, so_far, amount, f"correction/{usage.event_id}/{usage.revision}")
    carried: dict[str, Any] = dict(booked.carried)
    journal.write(
        EntryKind.CORRECTION,
        booked.wallet,
        amount,
        event_id=usage.event_id,
        occurred_at=booked.occurred_at,
        slices=back.slices,
        grants=back.anew,
        reason=EntryReason.USAGE_VOIDED if usage.voided else EntryReason.USAGE_AMENDED,
        revision=usage.revision,
        billing_unit=booked.billing_unit,
        details=msgspec.json.encode(Unwound(back.spent, booked.recorded_at, booked.revision, rebooked)).decode(),
        **carried,
    )


class TakenBack(NamedTuple):
    """How a part of a usage is given back."""

    slices: tuple[Slice, ...]
    anew: tuple[Lot, ...]
    """Grants that the wallet no longer remembers."""
    spent: int
    """The part that no longer counts as lifetime spent."""


def taken_back(
    journal: Journal, booked: CorrectedUsage, so_far: int, amount: int, overdraft_grant_id: str
) -> TakenBack:
    """How the next `amount` of a booked usage goes back to its grants, after `so_far`: the last drawn first.

    Changes nothing. What was overdraft and is paid meanwhile becomes a grant `overdraft_grant_id`. Raises DeadLetter
    `amount_out_of_range`.
    """
    account = journal.account
    wallet = account.wallets[booked.wallet]
    returned = undrawn(booked.slices, so_far, amount)
    spent = spent_of(returned)
    check_range(wallet.settled + account.on_the_way(wallet.unit) + amount, wallet.used - amount)
    check_range(wallet.lifetime_spent - spent)
    slices, anew = give_back(wallet, [lot_of(wallet, part, overdraft_grant_id) for part in returned], journal.at)
    return TakenBack(slices, anew, spent)


def dimensions_carried(booked: CorrectedUsage) -> dict[str, str | int]:
    """What a booked usage is told apart by."""
    return {name: value for name, value in booked.carried.items() if name in DIMENSIONS}


def _rebooked(booked: CorrectedUsage, usage: Usage, rated: Rated | None) -> bool:
    """The new revision touches the same wallet and budgets, so that lines are judged once, when it is booked."""
    if rated is None or not rated.cost or rated.wallet != booked.wallet:
        return False
    return all(booked.carried.get(name) == getattr(usage, name) for name in Scope._fields)
