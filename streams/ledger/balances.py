"""What people and programs are shown of an account: balances, status and health (product rules 6, 14).

Rules of this file: reads only. The words are closed sets; the order of precedence of the status is the contract's.
"""

from __future__ import annotations

from typing import Any

from schemas.enums import Health, WalletStatus
from streams.ledger.account import Account, Wallet
from streams.ledger.lines import low_level


def status(account: Account, wallet: Wallet) -> WalletStatus:
    """The worst that holds; depletion and negative look at the settled balance, `low` at the available one."""
    if account.closed:
        return WalletStatus.BLOCKED
    if wallet.settled < 0:
        return WalletStatus.NEGATIVE
    if wallet.settled == 0 and wallet.funded:
        return WalletStatus.DEPLETED
    if wallet.available <= low_level(wallet):
        return WalletStatus.LOW
    return WalletStatus.OK


def health(wallet: Wallet) -> Health:
    """What is left of the allocation: above 75 % green, 25 to 75 % yellow, below 25 % red; nothing: triangle."""
    left, allocation = wallet.available, wallet.allocation
    if left <= 0:
        return Health.TRIANGLE
    if left * 4 < allocation or allocation <= 0:
        return Health.RED
    return Health.YELLOW if left * 4 <= allocation * 3 else Health.GREEN


def wallet_balance(account: Account, wallet: Wallet) -> dict[str, Any]:
    """One line of a balance record: the Avro record `wallet_balance`."""
    return {
        "unit": wallet.unit,
        "settled_nanos": wallet.settled,
        "held_nanos": wallet.held,
        "available_nanos": wallet.available,
        "allocation_nanos": wallet.allocation,
        "month_spent_nanos": wallet.month_spent,
        "lifetime_added_nanos": wallet.lifetime_added,
        "lifetime_spent_nanos": wallet.lifetime_spent,
        "status": status(account, wallet).value,
        "health": health(wallet).value,
    }


def balance_record(account: Account, as_of: int) -> dict[str, Any]:
    """The Avro record `balance`: the wallets by unit, true as of the ledger's time `as_of`."""
    wallets = [wallet_balance(account, wallet) for _, wallet in sorted(account.wallets.items())]
    return {"org_id": account.org_id, "seq": account.seq, "as_of": as_of, "wallets": wallets}
