"""May this work begin? A question of a caller, as the one that `admission` answers, priced where it names no amount.

Rules of this file:
- The answer is that of a hold of the same request at the same instant, but for what is about placing a hold: its id,
  and that an org has no more than so many. What is due by then is settled first, by the caller.
- A question with an amount is about that; one with an operation and no amount is priced as usage of it would be
  (`pricing.rate`), and is about the wallet that its price names; one with neither asks whether anything may be spent.
- An answer holds for every amount up to `grantable`, until the account changes or `settled_until`: `admit` looks at the
  amount only to compare it with what it also counts as grantable.
"""

from __future__ import annotations

import msgspec

from schemas.enums import DecisionCode
from streams.ledger.account import Account
from streams.ledger.admission import Admission, AdmissionRequest, admit
from streams.ledger.budgets import Scope, all_budgets
from streams.ledger.commands import Usage
from streams.ledger.hold_decisions import DECISION_CODES, HTTP_STATUS
from streams.ledger.pricing import default_unit, is_free, rate
from streams.ledger.rating import PriceList, Work
from streams.ledger.settle import settle_due
from streams.ledger.usage import scope_of, wallet_for

UNKNOWN_OPERATION = ""
"""What the usage of a question has that names no operation."""

_NEVER = 2**63 - 1


class Question(msgspec.Struct, frozen=True):
    """What somebody asks to do."""

    usage: Usage
    """Its dimensions, and its quantities where it is to be priced; `occurred_at`: when it would begin."""
    wallet: str | None = None
    """The unit of `amount`; None: the org's default wallet."""
    amount: int | None = None
    """About how much it costs, in nano-units; None: what the price list says."""


class Authorization(msgspec.Struct, frozen=True):
    """The answer: what was asked in the end, what came of it, and what the wallet has."""

    request: AdmissionRequest
    admission: Admission
    available: int

    @property
    def code(self) -> DecisionCode:
        """As the decision on a hold has it."""
        refused = self.admission.refused
        return DecisionCode.OK if refused is None else DECISION_CODES[refused.reason]

    @property
    def http_status(self) -> int:
        """As the decision on a hold has it."""
        return HTTP_STATUS[self.code]


def request_of(account: Account, question: Question, prices: PriceList) -> AdmissionRequest:
    """What the question comes to. Raises DeadLetter where it cannot be priced, as usage could not (`pricing.rate`)."""
    usage = question.usage
    scope = Scope(*scope_of(usage))
    operation = usage.operation or None
    free = False
    if operation is not None:
        work = Work(operation, usage.category, usage.model, usage.tool, usage.provider, usage.service_tier)
        free = is_free(account, prices, work, usage.occurred_at)
    if question.amount is not None or operation is None:
        unit = question.wallet or default_unit(account)
        return AdmissionRequest(unit, question.amount or 0, scope, operation, free)
    rated = rate(account, usage, prices, usage.occurred_at)
    return AdmissionRequest(rated.wallet, rated.cost, scope, operation, free)


def authorize(account: Account, question: Question, prices: PriceList, at: int) -> Authorization:
    """The answer at `at`; what is due by then is settled. Raises as `request_of`."""
    request = request_of(account, question, prices)
    return Authorization(request, admit(account, request, at), wallet_for(account, request.wallet).available)


def settled_until(account: Account, at: int) -> int:
    """Settle what is due by `at`, as the ledger will; from when on an answer may be another one, if nothing is booked.

    That is when something is due again, or the window of a budget ends: what was spent in it counts no longer.
    """
    settle_due(account, at)
    until = _NEVER if account.due_at is None else account.due_at
    for wallet in account.wallets.values():
        if wallet.budgets is not None:
            for budget in all_budgets(wallet.budgets):
                if at < budget.ends_at < until:
                    until = budget.ends_at
    return until
