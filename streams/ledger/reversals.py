"""Usage that was booked: what is known of it, and how it goes back to where it was drawn (product rules 21, 23).

Rules of this file:
- The entry of a usage says what it drew. Of a usage with revisions the account knows the latest (`latest_usage`).
- It goes back to the grants it was drawn from, the last drawn first, for 35 days after its booking.
- `ReversalDetails` is what the entry of a refund or a correction carries besides its slices, so that the fold needs
  nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from schemas.enums import EntryKind
from streams.ledger.account import Account, CorrectedUsage
from streams.ledger.avro_fields import CARRIED, DIMENSIONS
from streams.ledger.entry import Entry, Lot, Slice
from streams.ledger.grants import give_back, lot_of, reverse_slices
from streams.ledger.refusals import DeadLetter, refuse_range
from streams.ledger.usage import spent_of
from streams.ledger.volume import UsageDetails, share_of

USAGE_REFUND_WINDOW_MICROS = 35 * 86_400 * 1_000_000
"""How long after its booking a usage can be refunded: as long as ids of money are remembered.

See decision 7, exact memory of ids.
"""


class ReversalDetails(msgspec.Struct, frozen=True):
    """`details` of a refund or a correction of usage: what the slices of the entry cannot tell."""

    spent_nanos: int
    """The part that no longer counts as lifetime spent."""
    usage_recorded_at: int
    replaced_revision: int = 0
    """Of a correction: the revision that it takes back."""
    rebooked: bool = False
    """Of a correction: the next entry is the new revision, of the same wallet."""
    first_recorded_at: int = 0
    """When the first booking of the usage was recorded; 0: that is `usage_recorded_at`."""
    uncounted_nanos: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    """By graduated price what counts no longer, where the usage counted (`volume`)."""
    period: int | msgspec.UnsetType = msgspec.UNSET
    """The month in which it did."""

    @property
    def counted_at(self) -> int:
        """The time whose budget windows the usage counts in: that of its first booking (product rule 23)."""
        return self.first_recorded_at or self.usage_recorded_at


def _carried_by(entry: Entry) -> dict[str, str | int]:
    """Dimensions and quantities of a usage entry, as far as it has any."""
    return {name: value for name in CARRIED if (value := getattr(entry, name)) is not None}


def revision_of(entry: Entry, voided: bool = False) -> CorrectedUsage:
    """The usage of an entry, as corrections and refunds ask for it."""
    usage = CorrectedUsage(
        entry.revision,
        entry.recorded_at,
        entry.wallet,
        entry.slices,
        voided,
        _carried_by(entry),
        entry.occurred_at,
        entry.billing_unit,
    )
    if entry.kind is EntryKind.USAGE:
        usage.components, usage.quantities = entry.components, dict(entry.quantities)
        if entry.details is not None:
            details = msgspec.json.decode(entry.details, type=UsageDetails)
            usage.counted, usage.period = details.counted_nanos, details.period
    return usage


def latest_usage(account: Account, event_id: str, references: Mapping[str, Entry]) -> CorrectedUsage | None:
    """The booked state of a usage: as it was corrected last, else as its entry says; None: it is unknown."""
    known = account.corrected.get(event_id)
    if known is not None:
        return known
    entry = references.get(event_id)
    if entry is None:
        return None
    return revision_of(entry)


def dimensions_carried(booked: CorrectedUsage) -> dict[str, str | int]:
    """The dimensions of a booked usage."""
    return {name: value for name, value in booked.carried.items() if name in DIMENSIONS}


class Reversal(NamedTuple):
    """How a part of a usage is given back."""

    returned: tuple[Slice, ...]
    """The parts of what was drawn, the last drawn first."""
    slices: tuple[Slice, ...]
    recreated: tuple[Lot, ...]
    """Grants that the wallet no longer remembers."""
    spent: int
    """The part that no longer counts as lifetime spent."""


def reversal_details(
    booked: CorrectedUsage, reversal: Reversal, so_far: int, replaced: tuple[int, bool] = (0, False)
) -> str:
    """The `details` of an entry that takes back a part of a booked usage, after `so_far`.

    `replaced`: of a correction the revision that it takes back, and whether the next entry is the new one.
    """
    cost, amount = (sum(part.amount_nanos for part in parts) for parts in (booked.slices, reversal.returned))
    counted = share_of(booked.counted, cost, so_far, amount)
    details = ReversalDetails(
        reversal.spent,
        booked.recorded_at,
        *replaced,
        booked.first_recorded_at,
        counted or msgspec.UNSET,
        booked.period if counted else msgspec.UNSET,
    )
    return msgspec.json.encode(details).decode()


def plan_reversal(
    account: Account, booked: CorrectedUsage, so_far: int, amount: int, overdraft_grant_id: str, at: int
) -> Reversal | DeadLetter:
    """How the next `amount` of a booked usage goes back to its grants, after `so_far`: the last drawn first.

    Changes nothing. What was overdraft and is paid meanwhile becomes a grant `overdraft_grant_id`. A dead letter:
    `amount_out_of_range`.
    """
    wallet = account.wallets[booked.wallet]
    returned = reverse_slices(booked.slices, so_far, amount)
    spent = spent_of(returned)
    out_of_range = refuse_range(
        wallet.settled + account.in_transit_nanos(wallet.unit) + amount,
        wallet.used - amount,
        wallet.lifetime_spent - spent,
    )
    if out_of_range is not None:
        return out_of_range
    slices, recreated = give_back(wallet, [lot_of(wallet, part, overdraft_grant_id) for part in returned], at)
    return Reversal(returned, slices, recreated, spent)
