"""The fold: what an entry makes of an account, and the alerts that follow from it.

Rules of this file: nothing but the account and the entry goes in, so folding the ledger of an org from `new_account`
gives the account, its settings, its watches and the same alerts with the same ids. `decide` changes accounts through
here too (usage through the functions of `usage` that this file calls), so replay equals live by construction. An entry
that does not follow on the account raises BrokenLedger.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from schemas.amounts import format_amount
from schemas.enums import AlertKind, EntryKind, GrantKind
from streams.ledger.account import Account, RefundedUsage, Transit, Wallet
from streams.ledger.due import enter_month, refresh_due
from streams.ledger.entry import Alert, Entry
from streams.ledger.grants import move
from streams.ledger.lines import figures, notice, watch_lines
from streams.ledger.refusals import BrokenLedger
from streams.ledger.settings import apply_setting
from streams.ledger.usage import advance_fast, apply_usage, refresh_headroom, wallet_for

USAGE_REFUND_WINDOW_MICROS = 35 * 86_400 * 1_000_000
"""How long after its booking a usage can be refunded; as long as money ids are remembered (design, 7)."""


class UsageRefund(msgspec.Struct, frozen=True):
    """`details` of the refund of a usage: what the slices of the entry cannot tell."""

    spent_nanos: int
    """The part that no longer counts as lifetime spent."""
    usage_recorded_at: int


def evolve(account: Account, entry: Entry) -> list[Alert]:
    """Apply the next entry of the account's org, in place; returns the alerts it causes, in order.

    Raises BrokenLedger when the entry does not follow: another org, a gap in `seq`, a grant or balance that differs.
    """
    if entry.org_id != account.org_id or entry.seq != account.seq + 1:
        raise BrokenLedger(f"{entry.entry_id} does not follow {account.org_id}:{account.seq}")
    match entry.kind:
        case EntryKind.USAGE:
            alerts = _usage(account, entry)
        case EntryKind.REJECTED:
            account.seq = entry.seq
            return []
        case EntryKind.SETTING:
            account.seq = entry.seq
            alerts = apply_setting(account, entry)
        case _:
            account.seq = entry.seq
            alerts = _movement(account, entry)
    if entry.wallet:
        _check_balance(account.wallets[entry.wallet], entry)
    return alerts


def _check_balance(wallet: Wallet, entry: Entry) -> None:
    if (wallet.settled, wallet.held) != (entry.balance_nanos, entry.held_nanos):
        raise BrokenLedger(
            f"{entry.entry_id} says balance {entry.balance_nanos}, held {entry.held_nanos};"
            f" the account has {wallet.settled}, {wallet.held}"
        )


def _usage(account: Account, entry: Entry) -> list[Alert]:
    wallet, cost = wallet_for(account, entry.wallet), -entry.amount_nanos
    if 0 < cost < wallet.headroom:
        if len(entry.slices) != 1 or entry.slices[0].grant_id != wallet.grants[0].grant_id:
            raise BrokenLedger(f"{entry.entry_id} draws on other grants than the first")
        advance_fast(account, wallet, cost)
        return []
    return list(apply_usage(account, wallet, entry.slices, cost, entry.recorded_at))


def _movement(account: Account, entry: Entry) -> list[Alert]:
    """Everything that moves credits without being usage."""
    wallet = wallet_for(account, entry.wallet)
    account.wallets.setdefault(entry.wallet, wallet)
    at = entry.recorded_at if entry.source_topic else entry.occurred_at  # what falls due happens at its time
    before = figures(wallet)
    enter_month(wallet, account.time_zone, at)
    move(wallet, entry.grants, entry.slices, at, current=entry.kind is EntryKind.ALLOWANCE)
    if entry.amount_nanos:
        wallet.opened = True
    _count(account, wallet, entry)
    replenished = entry.amount_nanos > 0 or entry.kind is EntryKind.ROLLOVER
    alerts = _notices(account, wallet, entry)
    alerts += watch_lines(account, wallet, entry.recorded_at, before, replenished)
    refresh_headroom(wallet)
    refresh_due(account)
    return alerts


def _count(account: Account, wallet: Wallet, entry: Entry) -> None:
    """What the entry adds to the wallet's counters and to what is on the way."""
    amount = entry.amount_nanos
    match entry.kind:
        case EntryKind.PURCHASE | EntryKind.ADJUSTMENT | EntryKind.TRANSFER_IN:
            if amount > 0:
                wallet.allocation += amount
                wallet.lifetime_added += amount
                wallet.funded = True
        case EntryKind.ALLOWANCE:
            wallet.allocation += amount
            wallet.allowance_month = wallet.month
            wallet.funded = True
        case EntryKind.ROLLOVER:
            wallet.used = 0
            wallet.allocation = wallet.settled - lapsing(wallet, entry.occurred_at)
        case EntryKind.EXPIRY:
            pass
        case EntryKind.TRANSFER_OUT:
            _send(account, wallet, entry)
        case EntryKind.TRANSFER_RETURN:
            if account.transits.pop(entry.event_id).month != wallet.month:
                wallet.allocation += amount  # it was not in the balance that the month began with
        case EntryKind.REFUND:
            if amount > 0:
                _refund_usage(account, wallet, entry)
        case EntryKind.CORRECTION | EntryKind.HOLD | EntryKind.HOLD_RELEASE:
            raise BrokenLedger(f"{entry.entry_id}: this ledger writes no entries of kind {entry.kind}")
        case EntryKind.USAGE | EntryKind.SETTING | EntryKind.REJECTED:
            raise AssertionError("folded elsewhere")
        case _:
            assert_never(entry.kind)


def lapsing(wallet: Wallet, at: int) -> int:
    """What is left in grants that have reached their end at `at`: no part of the allocation of the month to come."""
    return sum(grant.remaining for grant in wallet.grants if grant.expires_at is not None and grant.expires_at <= at)


def _send(account: Account, wallet: Wallet, entry: Entry) -> None:
    """Credits leave; or, with an amount of 0, the target has confirmed that they arrived."""
    if entry.amount_nanos:
        account.transits[entry.event_id] = Transit(
            wallet.unit, -entry.amount_nanos, entry.counterparty_org_id or "", entry.recorded_at, wallet.month
        )
    else:
        del account.transits[entry.event_id]


def _refund_usage(account: Account, wallet: Wallet, entry: Entry) -> None:
    refund = msgspec.json.decode(entry.details or "", type=UsageRefund)
    wallet.used -= entry.amount_nanos
    wallet.lifetime_spent -= refund.spent_nanos
    horizon = entry.recorded_at - USAGE_REFUND_WINDOW_MICROS
    for event_id in [key for key, known in account.refunded.items() if known.usage_recorded_at < horizon]:
        del account.refunded[event_id]
    usage_id = entry.correlation_id or ""
    so_far = account.refunded.get(usage_id)
    total = entry.amount_nanos + (so_far.amount if so_far is not None else 0)
    account.refunded[usage_id] = RefundedUsage(total, refund.usage_recorded_at)


def _notices(account: Account, wallet: Wallet, entry: Entry) -> list[Alert]:
    """Alerts about what happens once, rather than about a line."""
    at = entry.recorded_at
    if entry.kind is EntryKind.PURCHASE and not entry.amount_nanos:
        message = f"A purchase of {wallet.unit} credits has failed."
        return [notice(account, wallet, at, AlertKind.PURCHASE_FAILED, entry.event_id, None, message)]
    if entry.kind is EntryKind.EXPIRY:
        return [
            notice(
                account,
                wallet,
                at,
                AlertKind.FREE_EXPIRED,
                part.grant_id,
                format_amount(part.amount_nanos),
                f"{format_amount(part.amount_nanos)} free {wallet.unit} credits have expired.",
            )
            for part in entry.slices
            if part.kind is GrantKind.PROMOTIONAL
        ]
    return []
