"""What happens by itself: ends of months, days and windows, grants that expire, holds that time out, a charge's retry.

Product rules 4, 5, 11, 18, 20, 26.

Rules of this file:
- `due_at` of an account is the earliest instant at which something would change; a turn of the month that changes
  nothing (no usage, nothing moved, no allowance) is not due, and is caught up with by the next entry (`enter_month`).
- The end of a day or of a budget's window is due only where it changes something (`burn`, `budgets`).
- A month is in the org's time zone, and only ever goes forward, whatever the zone is set to.
- Whether settled in time or late, the same things happen in the same order: this file only says what is due next.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from schemas.amounts import AMOUNT_MAX
from schemas.enums import GrantKind
from streams.ledger.account import Account, ActiveHold, Grant, Wallet
from streams.ledger.alerts import may_clear_alert
from streams.ledger.budgets import change_window_zone, next_alert_reset_at
from streams.ledger.burn import change_day_zone, idle
from streams.ledger.grants import EXPIRING_NOTICE_MICROS, sort_grants
from streams.ledger.months import month_of, month_starts_at
from streams.ledger.topups import wants_credits

MONTHLY_GRANT_PREFIX = "allowance/"
"""Ids of grants made by a wallet's own allowance begin so; what is left of them lapses at the turn of the month."""


class DueKind(IntEnum):
    """What falls due; at one instant in this order, so that an allowance is there before free credits go."""

    MONTH = 0
    EXPIRY = 1
    NOTICE = 2
    HOLD = 3
    WINDOW = 4
    DAY = 5
    RETRY = 6


class Due(NamedTuple):
    """One thing that falls due, in a wallet."""

    at: int
    kind: DueKind
    unit: str
    subject: Grant | ActiveHold | None = None
    """The grant that expires or is to be noticed, the hold; None: the wallet itself."""


def own_monthly(grant: Grant) -> bool:
    """The grant was made by this wallet's own allowance, of this month or rolled over."""
    return grant.kind is GrantKind.ALLOWANCE and grant.grant_id.startswith(MONTHLY_GRANT_PREFIX)


def lapses_at_turn(wallet: Wallet, grant: Grant) -> bool:
    """What is left of the grant goes with the turn of the month, rather than as an expiry of its own."""
    return own_monthly(grant) and grant.expires_at == wallet.month_ends_at


def turns(wallet: Wallet) -> bool:
    """The turn of the month would change something in this wallet."""
    return (
        wallet.used != 0
        or wallet.allocation != wallet.settled
        or wallet.terms.allowance > 0
        or (wallet.topup is not None and (wallet.topup.charged != 0 or wallet.topup.capped))
        or any(own_monthly(grant) for grant in wallet.grants)
        or may_clear_alert(wallet)
    )


def allowance_due(account: Account, wallet: Wallet) -> int:
    """The allowance to be granted now: as much of it as the bound of amounts leaves room for; 0 or below: none."""
    room = AMOUNT_MAX - max(wallet.settled, wallet.allocation) - account.in_transit_nanos(wallet.unit)
    return min(wallet.terms.allowance, room)


def notice_at(grant: Grant) -> int | None:
    """When the notice of the grant's expiry is due; None: never, or it was given."""
    if grant.noticed or grant.expires_at is None or own_monthly(grant):
        return None
    at = grant.expires_at - EXPIRING_NOTICE_MICROS
    return at if at > grant.created_at else None


def next_due(account: Account) -> Due | None:
    """What falls due first; None: nothing ever will, without a command."""
    return min(_all_due(account), default=None, key=lambda due: due[:3])


def _all_due(account: Account) -> Iterator[Due]:
    for wallet in account.wallets.values():
        if turns(wallet):
            yield Due(wallet.month_ends_at, DueKind.MONTH, wallet.unit)
        for grant in wallet.ended:
            if grant.remaining > grant.kept and grant.expires_at is not None:
                yield Due(grant.expires_at, DueKind.EXPIRY, wallet.unit, grant)
        for grant in wallet.grants:
            if grant.expires_at is not None and not lapses_at_turn(wallet, grant):
                told_at = notice_at(grant)
                if told_at is not None:
                    yield Due(told_at, DueKind.NOTICE, wallet.unit, grant)
                yield Due(grant.expires_at, DueKind.EXPIRY, wallet.unit, grant)
        if wallet.budgets is not None and wallet.budgets.alerting_count:
            ended_at = next_alert_reset_at(wallet.budgets)
            if ended_at is not None:
                yield Due(ended_at, DueKind.WINDOW, wallet.unit)
        if wallet.burn is not None and not idle(wallet, wallet.burn):
            yield Due(wallet.burn.ends_at, DueKind.DAY, wallet.unit)
        if wallet.topup is not None and wallet.topup.retry_at is not None and wants_credits(account, wallet):
            yield Due(wallet.topup.retry_at, DueKind.RETRY, wallet.unit)
    if account.hold_ends:
        ends_at, hold_id = account.hold_ends[0]
        hold = account.holds[hold_id]
        yield Due(ends_at, DueKind.HOLD, hold.wallet, hold)


def refresh_due(account: Account) -> None:
    """Recompute `due_at`; called at the end of every change but those of the fast path."""
    due = next_due(account)
    account.due_at = None if due is None else due.at


def enter_month(wallet: Wallet, time_zone: str, at: int) -> None:
    """Move the wallet's month on to that of `at`; what a turn changes is done by its entries, and before this."""
    if at >= wallet.month_ends_at:
        wallet.month = month_of(at, time_zone)
        wallet.month_ends_at = month_starts_at(wallet.month + 1, time_zone)


def change_time_zone(account: Account, at: int) -> None:
    """Let months, days and windows end by the account's new time zone, and what lapses at the turn with them.

    `at`: when it changed.
    """
    for wallet in account.wallets.values():
        turned_at = wallet.month_ends_at
        change_day_zone(wallet, account.time_zone)
        change_window_zone(wallet, account.time_zone, at)
        wallet.month_ends_at = month_starts_at(wallet.month + 1, account.time_zone)
        for grant in (*wallet.grants, *wallet.exhausted):
            if own_monthly(grant) and grant.expires_at == turned_at:
                grant.expires_at = wallet.month_ends_at
        sort_grants(wallet)
