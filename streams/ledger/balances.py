"""What people and programs are shown of an account: balances, status and health (product rules 6, 14, 22).

Rules of this file: reads only. The words are closed sets; the order of precedence of the status is the contract's.
"""

from __future__ import annotations

from schemas.enums import Health, WalletStatus
from streams.ledger.account import Account, Wallet
from streams.ledger.admission import beyond_negative_limit
from streams.ledger.alerts import low_balance_level
from streams.ledger.budgets import reached


def status(account: Account, wallet: Wallet) -> WalletStatus:
    """The worst that holds; depletion and negative look at the settled balance, `low` at the available one."""
    if account.closed or beyond_negative_limit(wallet):
        return WalletStatus.BLOCKED
    if _limit_reached(wallet):
        return WalletStatus.LIMIT_REACHED
    if wallet.settled < 0:
        return WalletStatus.NEGATIVE
    if wallet.settled == 0 and wallet.funded:
        return WalletStatus.DEPLETED
    if wallet.available <= low_balance_level(wallet):
        return WalletStatus.LOW
    return WalletStatus.OK


def _limit_reached(wallet: Wallet) -> bool:
    """The month's allowed limit, or a budget of the whole org."""
    limits = wallet.limits
    allowed = None if limits is None else limits.allowed_limit
    return (allowed is not None and wallet.used >= allowed) or reached(wallet) is not None


def health(wallet: Wallet) -> Health:
    """What is left of the allocation: above 75 % green, 25 to 75 % yellow, below 25 % red; nothing: triangle.

    Where the wallet has month limits, also red at the allowed limit, and orange at the alert threshold.
    """
    left, allocation, limits = wallet.available, wallet.allocation, wallet.limits
    if left <= 0:
        return Health.TRIANGLE
    if left * 4 < allocation or allocation <= 0:
        return Health.RED
    if limits is not None:
        if limits.allowed_limit is not None and wallet.used >= limits.allowed_limit:
            return Health.RED
        if limits.alert_threshold is not None and wallet.used >= limits.alert_threshold:
            return Health.ORANGE
    return Health.YELLOW if left * 4 <= allocation * 3 else Health.GREEN
