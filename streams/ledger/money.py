"""Money in and out: purchases, gifts, adjustments, failed charges, refunds (product rules 19, 21).

Rules of this file: guards in this order: validity, authority, what is referred to, limits, those of growth (`bounds`)
last; then the range of amounts; then the entry, which nothing refuses any more. A refund of more than is left to
refund, or than the wallet has that is not held, is refused whole; when a purchase's id was used again after its 35
days, a refund is about the latest. What a refund of usage gives back goes to the grants it was drawn from, the last
drawn first, so that the grants stand as if less had been used; partial refunds add up, at most to the usage.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any, assert_never

import msgspec

from schemas.amounts import NANOS
from schemas.enums import (
    EntryKind,
    EntryReason,
    GrantKind,
    PurchaseKind,
    PurchaseStatus,
    RefundTarget,
    RejectReason,
)
from streams.ledger.account import Account, CorrectedUsage, Grant, Wallet
from streams.ledger.authority import may_pay
from streams.ledger.bounds import refuse_new_credits, refuse_new_wallet, refuse_refund, refuse_reversal
from streams.ledger.commands import Purchase, Refund
from streams.ledger.entry import Lot, Slice
from streams.ledger.grants import draw, grants_named, has_ended, new_grant_id, pay_overdraft, reverse_slices
from streams.ledger.journal import Journal
from streams.ledger.refusals import DeadLetter, Refusal, Refused, refuse_range
from streams.ledger.rerating import decide_rerating
from streams.ledger.reversals import (
    USAGE_REFUND_WINDOW_MICROS,
    dimensions_carried,
    latest_usage,
    plan_reversal,
    reversal_details,
)
from streams.ledger.source import Context
from streams.ledger.usage import wallet_for

PURCHASE_MIN_NANOS = NANOS
"""The least that can be bought: 1 unit (product rule 19). Gifts and adjustments may be smaller."""

PURCHASE_FAMILY = "purchase"
"""Grants that were bought, given or adjusted have ids of this family (`grants.new_grant_id`)."""

_GRANT_KINDS = {
    PurchaseKind.PURCHASED: GrantKind.PURCHASED,
    PurchaseKind.PROMOTIONAL: GrantKind.PROMOTIONAL,
    PurchaseKind.ADJUSTMENT: GrantKind.ADJUSTMENT,
}


def _refuse_amount(account: Account, wallet: Wallet, amount: int) -> DeadLetter | None:
    """`amount_out_of_range` unless the wallet has room for `amount` and all that may come back."""
    return refuse_range(
        wallet.settled + account.in_transit_nanos(wallet.unit) + amount,
        wallet.allocation + amount,
        wallet.lifetime_added + amount,
    )


def decide_purchase(journal: Journal, purchase: Purchase) -> Refusal | None:
    """Credits bought, given or adjusted, or a charge that failed."""
    account = journal.account
    refusal = _refuse_purchase(account, purchase)
    if refusal is not None:
        return refusal
    kind = EntryKind.ADJUSTMENT if purchase.kind is PurchaseKind.ADJUSTMENT else EntryKind.PURCHASE
    amount, reason = purchase.amount_nanos, None
    lots: tuple[Lot, ...] = ()
    slices: tuple[Slice, ...] = ()
    wallet = wallet_for(account, purchase.wallet)
    if purchase.status is PurchaseStatus.FAILED:
        kind, amount, reason = EntryKind.PURCHASE, 0, EntryReason.PURCHASE_FAILED
    elif amount < 0:
        slices = draw(wallet, -amount)
    else:
        lots = (_bought(account, purchase),)
        slices = pay_overdraft(wallet, lots, journal.at)
    journal.write(
        kind,
        purchase.wallet,
        amount,
        event_id=purchase.purchase_id,
        occurred_at=purchase.occurred_at,
        slices=slices,
        grants=lots,
        reason=reason,
        actor=purchase.actor,
        correlation_id=purchase.topup_request_id,
        details=purchase_details(purchase),
    )
    return None


def _refuse_purchase(account: Account, purchase: Purchase) -> Refusal | None:
    amount, unit = purchase.amount_nanos, purchase.wallet
    if not may_pay(account, purchase.actor):
        return Refused(RejectReason.NOT_AUTHORIZED)
    if purchase.status is PurchaseStatus.FAILED:
        return None if amount < 0 else refuse_new_wallet(account, unit)
    match purchase.kind:
        case PurchaseKind.PURCHASED:
            too_little = amount < PURCHASE_MIN_NANOS
        case PurchaseKind.PROMOTIONAL:
            too_little = amount <= 0
        case PurchaseKind.ADJUSTMENT:
            too_little = not amount
        case _:
            assert_never(purchase.kind)
    if too_little:
        return Refused(RejectReason.AMOUNT_NOT_POSITIVE)
    wallet = wallet_for(account, unit)
    if amount > 0:
        return refuse_new_credits(account, unit, 1) or _refuse_amount(account, wallet, amount)
    if -amount > max(0, wallet.available):
        return Refused(RejectReason.INSUFFICIENT_CREDITS)
    return None


def _bought(account: Account, purchase: Purchase) -> Lot:
    return Lot(
        new_grant_id(account, PURCHASE_FAMILY, purchase.purchase_id),
        _GRANT_KINDS[purchase.kind],
        purchase.amount_nanos,
        purchase.priority,
        purchase.expires_at,
        purchase.price_paid_nanos,
        purchase.currency,
    )


class _PurchaseDetails(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the entry's own fields do not tell of a purchase."""

    kind: PurchaseKind
    status: PurchaseStatus
    amount_nanos: int
    failure_reason: str | None = None


def purchase_details(purchase: Purchase) -> str:
    """The `details` of a purchase's entry, accepted or rejected."""
    details = _PurchaseDetails(purchase.kind, purchase.status, purchase.amount_nanos, purchase.failure_reason)
    return msgspec.json.encode(details).decode()


def decide_refund(journal: Journal, refund: Refund, context: Context) -> Refusal | None:
    """Take back what is left of a purchase, give back what a usage drew, or book what re-rating changes of it."""
    match refund.target:
        case RefundTarget.PURCHASE:
            return _refund_purchase(journal, refund)
        case RefundTarget.USAGE:
            return _refund_usage(journal, refund, latest_usage(journal.account, refund.target_id, context.references))
        case RefundTarget.RERATED_USAGE:
            return decide_rerating(journal, refund, latest_usage(journal.account, refund.target_id, context.references))
        case _:
            assert_never(refund.target)


def _refuse_refund(account: Account, refund: Refund) -> Refused | None:
    if refund.amount_nanos <= 0:
        return Refused(RejectReason.AMOUNT_NOT_POSITIVE)
    if not may_pay(account, refund.actor):
        return Refused(RejectReason.NOT_AUTHORIZED)
    return None


def _refund_purchase(journal: Journal, refund: Refund) -> Refused | None:
    account, amount = journal.account, refund.amount_nanos
    found = max(grants_named(account, PURCHASE_FAMILY, refund.target_id), key=itemgetter(0), default=None)
    refused = _refuse_refund(account, refund)
    if found is None:
        return refused or Refused(RejectReason.UNKNOWN_PURCHASE)
    _, unit, grant = found
    if refused is None and amount > _refundable(account.wallets[unit], grant, journal.at):
        refused = Refused(RejectReason.EXCEEDS_REFUNDABLE)
    if refused is not None:
        return refused.in_wallet(unit)
    journal.write(
        EntryKind.REFUND,
        unit,
        -amount,
        event_id=refund.refund_id,
        occurred_at=refund.occurred_at,
        slices=(Slice(grant.grant_id, grant.kind, amount, grant.expires_at),),
        reason=EntryReason.PURCHASE_REFUNDED,
        actor=refund.actor,
        correlation_id=refund.target_id,
    )
    return None


def _refundable(wallet: Wallet, grant: Grant, at: int) -> int:
    """What can be taken back of a purchase: what is left of it and is not held; nothing of one that has expired."""
    return 0 if has_ended(grant, at) else min(grant.remaining, max(0, wallet.available))


def _refund_usage(journal: Journal, refund: Refund, usage: CorrectedUsage | None) -> Refusal | None:
    account, amount = journal.account, refund.amount_nanos
    horizon = journal.at - USAGE_REFUND_WINDOW_MICROS
    if usage is None or usage.recorded_at < horizon:  # too old to be refunded: as if it were not known
        return _refuse_refund(account, refund) or Refused(RejectReason.UNKNOWN_USAGE)
    known = account.refunded.get(refund.target_id)
    so_far = known.amount if known is not None else 0
    refused = _refuse_usage_refund(account, refund, usage, so_far, horizon)
    if refused is not None:
        return refused.in_wallet(usage.wallet)
    reversal = plan_reversal(account, usage, so_far, amount, f"refund/{refund.refund_id}", journal.at)
    if isinstance(reversal, DeadLetter):
        return reversal
    journal.write(
        EntryKind.REFUND,
        usage.wallet,
        amount,
        event_id=refund.refund_id,
        occurred_at=refund.occurred_at,
        slices=reversal.slices,
        grants=reversal.recreated,
        reason=EntryReason.USAGE_REFUNDED,
        actor=refund.actor,
        correlation_id=refund.target_id,
        details=reversal_details(usage, reversal, so_far),
        billing_unit=usage.billing_unit,
        **dict[str, Any](dimensions_carried(usage)),
    )
    return None


def _refuse_usage_refund(
    account: Account, refund: Refund, usage: CorrectedUsage, so_far: int, horizon: int
) -> Refused | None:
    refused = _refuse_refund(account, refund)
    if refused is not None:
        return refused
    amount = refund.amount_nanos
    if amount > sum(part.amount_nanos for part in usage.slices) - so_far:
        return Refused(RejectReason.EXCEEDS_REFUNDABLE)
    returned = reverse_slices(usage.slices, so_far, amount)
    return refuse_refund(account, refund.target_id, horizon) or refuse_reversal(account, usage.wallet, returned)
