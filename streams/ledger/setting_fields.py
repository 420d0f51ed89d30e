"""What is in force, in the words of a setting's body: for the activity log's "before" (product rule 32).

Rules of this file: reads only; amounts as decimal strings, as people wrote them. Nothing set is None.
"""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from schemas.amounts import format_amount
from schemas.settings_bodies import (
    AutoTopupBody,
    Body,
    BudgetBody,
    MemberBody,
    ModelAccessBody,
    MonthLimitsBody,
    OrgBody,
    PriceOverrideBody,
    ThresholdsBody,
    WalletBody,
)
from streams.ledger.account import DEFAULT_TERMS, Account, Budget, Topup, Wallet
from streams.ledger.budgets import Scope, find_budget

Fields = dict[str, Any]

MICROS_PER_SECOND = 1_000_000


def before(account: Account, body: Body) -> Fields | None:
    """What is in force where `body` is to go; None when nothing was set."""
    match body:
        case OrgBody():
            return None if account.org is None else msgspec.structs.asdict(account.org)
        case MemberBody():
            role = account.members.get(body.user_id)
            return None if role is None else {"user_id": body.user_id, "role": role.value}
        case ModelAccessBody():
            return None if account.access is None else msgspec.structs.asdict(account.access)
        case BudgetBody():
            found = find_budget(account, body.budget_id)
            return None if found is None else _budget_fields(*found)
        case PriceOverrideBody():
            price = None if account.overrides is None else account.overrides.prices.get(body.price_id)
            return None if price is None else msgspec.structs.asdict(price)
        case WalletBody() | ThresholdsBody() | MonthLimitsBody() | AutoTopupBody():
            wallet = account.wallets.get(body.unit)
            return None if wallet is None else _of_wallet(wallet, body)
        case _:
            raise AssertionError(body)


def _of_wallet(wallet: Wallet, body: WalletBody | ThresholdsBody | MonthLimitsBody | AutoTopupBody) -> Fields | None:
    match body:
        case WalletBody():
            return None if wallet.terms == DEFAULT_TERMS else _wallet_fields(wallet)
        case ThresholdsBody():
            return _rule_fields(wallet) if wallet.rules else None
        case MonthLimitsBody():
            return _limit_fields(wallet)
        case AutoTopupBody():
            return None if wallet.topup is None else _topup_fields(wallet.unit, wallet.topup)
        case _:
            assert_never(body)


def _optional(nanos: int | None) -> str | None:
    return None if nanos is None else format_amount(nanos)


def _limit_fields(wallet: Wallet) -> Fields | None:
    limits = wallet.limits
    if limits is None:
        return None
    return {
        "unit": wallet.unit,
        "alert_threshold": _optional(limits.alert_threshold),
        "allowed_limit": _optional(limits.allowed_limit),
    }


def _topup_fields(unit: str, topup: Topup) -> Fields:
    return {
        "unit": unit,
        "enabled": topup.enabled,
        "threshold": format_amount(topup.threshold),
        "purchase_amount": format_amount(topup.amount),
        "monthly_cap": _optional(topup.monthly_cap),
        "backoff_seconds": topup.backoff_micros // MICROS_PER_SECOND,
    }


def _budget_fields(wallet: Wallet, budget: Budget) -> Fields:
    scope = {name: value for name, value in zip(Scope._fields, budget.scope, strict=True) if value is not None}
    return {
        "budget_id": budget.budget_id,
        "unit": wallet.unit,
        "scope": scope,
        "window": budget.window.value,
        "limit": format_amount(budget.limit),
    }


def _wallet_fields(wallet: Wallet) -> Fields:
    terms = wallet.terms
    return {
        "unit": wallet.unit,
        "default": terms.default,
        "allowance": format_amount(terms.allowance),
        "rollover_max": format_amount(terms.rollover_max),
        "low_balance_threshold": format_amount(terms.low_balance_threshold),
        "low_credit_limit": format_amount(terms.low_credit_limit),
        "negative_limit": format_amount(terms.negative_limit),
    }


def _rule_fields(wallet: Wallet) -> Fields:
    rules = [
        {
            "rule_id": rule.rule_id,
            "type": rule.type.value,
            "level": format_amount(rule.level),
            "channels": list(rule.channels),
            "dismissable": rule.dismissable,
        }
        for rule in wallet.rules
    ]
    return {"unit": wallet.unit, "rules": rules}
