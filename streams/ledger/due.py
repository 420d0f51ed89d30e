"""What happens by itself: the turn of the month, and grants that expire (product rules 4, 5).

Rules of this file:
- `due_at` of an account is the earliest instant at which something would change; a turn of the month that changes
  nothing (no usage, nothing moved, no allowance) is not due, and is caught up with by the next entry (`enter_month`).
- A month is in the org's time zone, and only ever goes forward, whatever the zone is set to.
- Whether settled in time or late, the same things happen in the same order: this file only says what is due next.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from schemas.enums import GrantKind
from streams.ledger.account import Account, Grant, Wallet
from streams.ledger.months import month_of, month_starts_at

MONTHLY_GRANT_PREFIX = "allowance/"
"""Ids of grants made by a wallet's own allowance begin so; what is left of them lapses at the turn of the month."""


class Due(NamedTuple):
    """One thing that falls due: the turn of the month of a wallet, or the expiry of a grant in it."""

    at: int
    order: int
    """At one instant the turns come before the expiries, so that an allowance is there before free credits go."""
    unit: str
    grant: Grant | None


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
        or any(own_monthly(grant) for grant in wallet.grants)
    )


def next_due(account: Account) -> Due | None:
    """What falls due first; None: nothing ever will, without a command."""
    return min(_all_due(account), default=None, key=lambda due: due[:3])


def _all_due(account: Account) -> Iterator[Due]:
    for wallet in account.wallets.values():
        if turns(wallet):
            yield Due(wallet.month_ends_at, 0, wallet.unit, None)
        for grant in wallet.grants:
            if grant.expires_at is not None and not lapses_at_turn(wallet, grant):
                yield Due(grant.expires_at, 1, wallet.unit, grant)


def refresh_due(account: Account) -> None:
    """Work out `due_at` anew; called at the end of every change but the fast one."""
    due = next_due(account)
    account.due_at = None if due is None else due.at


def enter_month(wallet: Wallet, time_zone: str, at: int) -> None:
    """Move the wallet's month on to that of `at`; what a turn changes is done by its entries, and before this."""
    if at >= wallet.month_ends_at:
        wallet.month = month_of(at, time_zone)
        wallet.month_ends_at = month_starts_at(wallet.month + 1, time_zone)


def change_time_zone(account: Account) -> None:
    """Let months end by the account's (new) time zone, and what lapses at the turn with them."""
    for wallet in account.wallets.values():
        wallet.month_ends_at = month_starts_at(wallet.month + 1, account.time_zone)
        for grant in wallet.grants:
            if own_monthly(grant):
                grant.expires_at = wallet.month_ends_at
