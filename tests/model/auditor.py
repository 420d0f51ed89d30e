"""What the rules say must happen, derived from the rules alone: a slow, plain model to check the ledger against.

It shares no code with the ledger, keeps no clever order, remembers everything and computes with fractions. Product
rules 1-23, 25-28 and 33 are in it, but for what is told of expiries to come (25). Where the contract is silent it
follows the decisions in streams/ledger/README.md.

An operation returns nothing and writes down what it must cause (tests/model/predicted.py). The rules stand by subject
in tests/model/audit_*.py, what the auditor keeps in tests/model/audited.py.
"""

from __future__ import annotations

from tests.model.audit_holds import HoldRules
from tests.model.audit_money import MoneyRules
from tests.model.audit_settings import SettingRules
from tests.model.audit_transfers import TransferRules
from tests.model.audit_usage import NOBODY
from tests.model.audited import (
    Org,
    Wallet,
)


class Auditor(HoldRules, MoneyRules, TransferRules, SettingRules):
    """The model, with every operation."""


def status(org: Org, wallet: Wallet) -> str:
    """Rule 14, the worst that holds."""
    allowed = wallet.limits["allowed_limit"].level
    reached = allowed is not None and wallet.used >= allowed
    reached = reached or any(budget.spent >= budget.limit for budget in wallet.about(NOBODY))
    if org.closed or wallet.stopped:
        return "blocked"
    if reached:
        return "limit_reached"
    if wallet.balance < 0:
        return "negative"
    if wallet.balance == 0 and wallet.funded:
        return "depleted"
    return "low" if wallet.available <= wallet.low_line else "ok"
