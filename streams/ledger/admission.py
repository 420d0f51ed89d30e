"""May this work begin? The answer before the work, and the first limit in its way (product rules 11-13, 15, 17, 18).

Rules of this file:
- Reads only. Guards in order, the first that refuses decides: the org is closed; the user may not spend (403
  `not_authorized`); the model is not allowed (403); free work is let through; the wallet is at its negative limit; the
  month's allowed limit; budgets, those of the whole org first (402 `limit_reached`, with its name); new work below the
  low-credit limit; the balance (402 `credits_not_available`, or `credits_held`).
- A limit stands in the way when it is reached, or when what is asked for would pass it; active holds count as spent.
- A wallet with a negative limit may be used down to it by running work; `deployment` is new work and may not.
- Usage that has happened is not asked about: it is booked.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import NamedTuple

import msgspec

from schemas.amounts import format_amount
from schemas.enums import BudgetWindow, RejectReason
from streams.ledger.account import Account, Budget, ModelAccess, Wallet
from streams.ledger.alerts import LIMIT_RULE_ID, NEGATIVE_RULE_ID, STOP_MESSAGE
from streams.ledger.authority import may_spend
from streams.ledger.budgets import ANY_SCOPE, Scope, matching
from streams.ledger.refusals import Refused
from streams.ledger.usage import wallet_for
from streams.ledger.windows import window_of, window_starts_at

DEPLOYMENT = "deployment"
"""The operation that begins new work (product rule 15); `deployment.create` and the like are the same."""

LOW_CREDIT_RULE_ID = "low_credit_limit"


class AdmissionRequest(msgspec.Struct, frozen=True):
    """The work that a caller wants to start, and about how much it costs."""

    wallet: str
    amount: int
    """Nano-units, about; 0: not known."""
    scope: Scope = ANY_SCOPE
    operation: str | None = None
    free: bool = False
    """The work is priced as free of charge (product rule 9): see `pricing.is_free`."""


class Admission(msgspec.Struct, frozen=True):
    """The answer: allowed unless a rule refuses. A refusal by a limit names it, its window and when that ends."""

    refused: Refused | None = None
    grantable: int = 0
    """Nano-units that could be granted at most, also where the whole amount is refused; 0 where nothing could."""

    @property
    def allowed(self) -> bool:
        return self.refused is None


class _Limit(NamedTuple):
    """A limit that applies, and what is left of it, holds taken off."""

    limit_id: str
    window: BudgetWindow
    ends_at: int
    level: int
    remaining: int


def admit(account: Account, request: AdmissionRequest, at: int) -> Admission:
    """Whether the org may do this at `at` (the ledger's time; what is due by then is settled)."""
    wallet = wallet_for(account, request.wallet)
    refused = _refuse_always(account, request)
    if refused is not None or request.free:
        return Admission(refused)
    if beyond_negative_limit(wallet):
        return Admission(Refused(RejectReason.BLOCKED, STOP_MESSAGE, NEGATIVE_RULE_ID))
    spendable = spendable_in(wallet, request.operation)
    limits = _limits(account, wallet, request.scope, at)
    low = is_new_work(request.operation) and wallet.available <= wallet.terms.low_credit_limit
    grantable = 0 if low else max(0, min([spendable, *(limit.remaining for limit in limits)]))
    for limit in limits:
        if limit.remaining <= 0 or request.amount > limit.remaining:
            return Admission(_refuse_over(limit, request), grantable)
    refused = _refuse_new_work(wallet, request, spendable) if low else _refuse_short(wallet, request, spendable)
    return Admission(refused, grantable)


def _refuse_always(account: Account, request: AdmissionRequest) -> Refused | None:
    """What stands against free work too."""
    user_id, model = request.scope.user_id, request.scope.model
    if account.closed:
        return Refused(RejectReason.ORG_CLOSED, "The organisation is closed.")
    if not may_spend(account, user_id):
        message = f"User {user_id} is not authorized to use this organisation's credits."
        return Refused(RejectReason.NOT_AUTHORIZED, message)
    if not model_allowed(account.access, model):
        return Refused(RejectReason.MODEL_NOT_ALLOWED, f"Model {model} is not allowed.")
    return None


def _refuse_over(limit: _Limit, request: AdmissionRequest) -> Refused:
    name = f"Limit {limit.limit_id} of {format_amount(limit.level)} {request.wallet} a {limit.window}"
    remaining, asked = format_amount(limit.remaining), format_amount(request.amount)
    message = f"{name} would be passed: {remaining} are left, {asked} asked for."
    if limit.remaining <= 0:
        message = f"{name} is reached."
    return Refused(RejectReason.LIMIT_REACHED, message, limit.limit_id, limit.window, limit.ends_at)


def _refuse_new_work(wallet: Wallet, request: AdmissionRequest, spendable: int) -> Refused:
    without_holds = spendable + wallet.held
    held = wallet.held and wallet.terms.low_credit_limit < without_holds >= request.amount
    reason = RejectReason.CREDITS_HELD if held else RejectReason.INSUFFICIENT_CREDITS
    return Refused(reason, "Credits are at or below the low-credit limit: no new work is begun.", LOW_CREDIT_RULE_ID)


def _refuse_short(wallet: Wallet, request: AdmissionRequest, spendable: int) -> Refused | None:
    if 0 < spendable >= request.amount:
        return None
    if wallet.held and 0 < spendable + wallet.held >= request.amount:
        return Refused(RejectReason.CREDITS_HELD, "The credits are held by other work.")
    return Refused(RejectReason.INSUFFICIENT_CREDITS, "Not enough credits are available.")


def model_allowed(access: ModelAccess | None, model: str | None) -> bool:
    """Whether a model may be used at all; work without a model always."""
    if access is None or model is None:
        return True
    return any(_matches(model, pattern) for pattern in access.allow) and not any(
        _matches(model, pattern) for pattern in access.deny
    )


def beyond_negative_limit(wallet: Wallet) -> bool:
    """The negative limit is crossed; a limit of 0 is none (product rule 15)."""
    return bool(wallet.terms.negative_limit) and wallet.settled <= -wallet.terms.negative_limit


def is_new_work(operation: str | None) -> bool:
    """The operation begins something that goes on using credits."""
    return operation is not None and (operation == DEPLOYMENT or operation.startswith(f"{DEPLOYMENT}."))


def spendable_in(wallet: Wallet, operation: str | None) -> int:
    """What may be spent, down to the negative limit by running work; may be below 0."""
    return wallet.available + (0 if is_new_work(operation) else wallet.terms.negative_limit)


def _matches(model: str, pattern: str) -> bool:
    """`*` stands for any characters, everything else for itself."""
    return fnmatchcase(model, pattern.replace("[", "[[]").replace("?", "[?]"))


def _limits(account: Account, wallet: Wallet, scope: Scope, at: int) -> list[_Limit]:
    """The limits that apply, in the order in which they decide."""
    limits = []
    terms = wallet.limits
    if terms is not None and terms.allowed_limit is not None:
        remaining = terms.allowed_limit - wallet.used - wallet.held
        limits.append(
            _Limit(LIMIT_RULE_ID, BudgetWindow.MONTH, _month_end(account, wallet, at), terms.allowed_limit, remaining)
        )
    if wallet.budgets is not None:
        limits += [_of_budget(account, budget, at) for budget in matching(wallet.budgets, scope)]
    return limits


def _month_end(account: Account, wallet: Wallet, at: int) -> int:
    if at < wallet.month_ends_at:
        return wallet.month_ends_at
    month = BudgetWindow.MONTH
    return window_starts_at(month, window_of(month, at, account.time_zone) + 1, account.time_zone)


def _of_budget(account: Account, budget: Budget, at: int) -> _Limit:
    spent, ends_at = budget.spent, budget.ends_at
    if at >= ends_at:  # nothing was used of it since
        spent, zone = 0, account.time_zone
        ends_at = window_starts_at(budget.window, window_of(budget.window, at, zone) + 1, zone)
    return _Limit(budget.budget_id, budget.window, ends_at, budget.limit, budget.limit - spent - budget.held)
