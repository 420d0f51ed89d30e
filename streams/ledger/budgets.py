"""Budgets: what a part of an org may spend in a day, a week or a month (product rules 11, 13).

Rules of this file:
- A usage counts towards every budget of its wallet whose named fields it has, in the window in which it is recorded.
  Usage is always booked; a budget that is reached raises `budget_reached` and refuses admission (`admission`).
- What becomes of a usage later, a refund or a new revision, counts in the windows it was first recorded in: where they
  have ended, in none (product rule 23). A window that is open when the org's time zone changes goes on, with all that
  was counted in it, and ends by the new zone; where that end has passed, it ends at the change.
- A budget is reached when as much as its limit is spent: on the line counts. It is armed again when its window ends, or
  when so much is given back that it is below the limit.
- The windows of a wallet that end at one instant while their budgets are reached take one entry; the others are moved
  on by the next usage, and so is a budget of 0, which is reached in every window.
- A budget that is set counts from then on; one of the whole org and month knows what the wallet has used of the month.
  One that is set again for the same wallet, scope and window goes on counting.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from schemas.enums import BudgetWindow
from streams.ledger.account import Account, AlertState, Budget, BudgetBook, Wallet
from streams.ledger.refusals import BrokenLedger
from streams.ledger.windows import window_of, window_starts_at

BUDGETS_MAX = 1_000
"""Budgets per org, about 100 bytes each; one more is refused as `invalid_setting`."""


class Scope(NamedTuple):
    """The fields of a usage or a hold that a budget may name."""

    user_id: str | None = None
    project_id: str | None = None
    model: str | None = None
    tool: str | None = None
    team: str | None = None
    department: str | None = None


ANY_SCOPE = Scope()


class BudgetCharge(NamedTuple):
    """A budget that was charged, and what could be spent of it before until it was reached."""

    budget: Budget
    before: int


def matching(book: BudgetBook, scope: Scope) -> list[Budget]:
    """The budgets that a usage counts towards: those of the whole org first. Called for every usage with budgets."""
    found = [*book.org_wide]
    for field_index, by_field in book.by_field.items():
        named = scope[field_index]
        if named in by_field:
            found += [budget for budget in by_field[named] if not budget.multi_field or covers(budget, scope)]
    return found


def charge_fast(book: BudgetBook, scope: Scope, cost: int, at: int) -> bool:
    """Count `cost` towards the budgets of a usage, as `matching` finds them; False, and nothing is counted, where one
    of them needs more than counting: its window has ended, or it would be reached."""
    for budget in book.org_wide:
        spent = budget.spent + cost
        if at >= budget.ends_at or (spent >= budget.limit and not budget.alert_state.crossed):
            return _undo_charge(book, scope, cost, budget)
        budget.spent = spent
    for field_index, by_field in book.by_field.items():
        named = scope[field_index]
        if named in by_field:
            for budget in by_field[named]:
                if budget.multi_field and not covers(budget, scope):
                    continue
                spent = budget.spent + cost
                if at >= budget.ends_at or (spent >= budget.limit and not budget.alert_state.crossed):
                    return _undo_charge(book, scope, cost, budget)
                budget.spent = spent
    return True


def _undo_charge(book: BudgetBook, scope: Scope, cost: int, obstacle: Budget) -> bool:
    """Take back what was counted before the obstacle was met."""
    for budget in matching(book, scope):
        if budget is obstacle:
            return False
        budget.spent -= cost
    raise BrokenLedger(f"the budget {obstacle.budget_id} is not among those of the usage")


def covers(budget: Budget, scope: Scope) -> bool:
    """Whether a usage of this scope counts towards the budget."""
    return all(named is None or named == given for named, given in zip(budget.scope, scope, strict=True))


def all_budgets(book: BudgetBook) -> Iterator[Budget]:
    """All budgets of a wallet, in an order that the ledger alone decides."""
    yield from book.org_wide
    for by_field in book.by_field.values():
        for budgets in by_field.values():
            yield from budgets


def reached(wallet: Wallet) -> Budget | None:
    """A budget of the whole org that is reached."""
    if wallet.budgets is None:
        return None
    return next((budget for budget in wallet.budgets.org_wide if budget.spent >= budget.limit), None)


def count_of(account: Account) -> int:
    """How many budgets an org has."""
    return sum(wallet.budgets.count for wallet in account.wallets.values() if wallet.budgets is not None)


def find_budget(account: Account, budget_id: str) -> tuple[Wallet, Budget] | None:
    """The budget of that id and its wallet; ids are unique in an org."""
    for wallet in account.wallets.values():
        if wallet.budgets is not None:
            for budget in all_budgets(wallet.budgets):
                if budget.budget_id == budget_id:
                    return wallet, budget
    return None


def add_budget(wallet: Wallet, budget: Budget) -> None:
    """File a budget in a wallet."""
    book = wallet.budgets
    if book is None:
        book = wallet.budgets = BudgetBook()
    first = _first_field(budget)
    if first is None:
        book.org_wide.append(budget)
    else:
        field_index, value = first
        book.by_field.setdefault(field_index, {}).setdefault(value, []).append(budget)
    book.count += 1
    book.alerting_count += budget.alert_state.crossed


def remove_budget(wallet: Wallet, budget: Budget) -> None:
    """The inverse of `add_budget`."""
    book = wallet.budgets
    assert book is not None
    book.count -= 1
    book.alerting_count -= budget.alert_state.crossed
    if not book.count:
        wallet.budgets = None
        return
    first = _first_field(budget)
    if first is None:
        book.org_wide.remove(budget)
        return
    field_index, value = first
    by_field = book.by_field[field_index]
    by_field[value].remove(budget)
    if not by_field[value]:
        del by_field[value]
    if not by_field:
        del book.by_field[field_index]


def _first_field(budget: Budget) -> tuple[int, str] | None:
    return next(_named_fields(budget.scope), None)


def _named_fields(scope: tuple[str | None, ...]) -> Iterator[tuple[int, str]]:
    return ((field_index, value) for field_index, value in enumerate(scope) if value is not None)


def new_budget(
    budget_id: str, scope: Scope, window: BudgetWindow, limit: int, version: int, time_zone: str, at: int
) -> Budget:
    """A budget in the window of `at`, nothing spent yet; it counts from then on."""
    number = window_of(window, at, time_zone)
    ends_at = window_starts_at(window, number + 1, time_zone)
    multi_field = sum(value is not None for value in scope) > 1
    return Budget(
        budget_id,
        tuple(scope),
        window,
        limit,
        AlertState(version),
        number,
        ends_at,
        multi_field=multi_field,
        began_at=at,
    )


def enter_window(budget: Budget, time_zone: str, at: int) -> None:
    """Move a budget on to the window of `at`, but for one that leaves its alarm with its window: that is an entry."""
    if at >= budget.ends_at and not _resets_with_window(budget):
        _begin(budget, window_of(budget.window, at, time_zone), time_zone)


def next_alert_reset_at(book: BudgetBook) -> int | None:
    """When the first budget leaves its alarm because its window ends; None: none will."""
    return min((budget.ends_at for budget in all_budgets(book) if _resets_with_window(budget)), default=None)


def reset_alerts(book: BudgetBook, time_zone: str, at: int) -> tuple[str, ...]:
    """The fold of windows that end at `at`: their budgets are armed for the next epoch. Returns the ids of these."""
    ended = [budget for budget in all_budgets(book) if _resets_with_window(budget) and budget.ends_at <= at]
    for budget in ended:
        _begin(budget, budget.number + 1, time_zone)
        budget.alert_state.crossed = False
        budget.alert_state.epoch += 1
    book.alerting_count -= len(ended)
    return tuple(budget.budget_id for budget in ended)


def _resets_with_window(budget: Budget) -> bool:
    """It is reached, and will not be when its window ends. A budget of 0 still is: it does not alert again."""
    return budget.alert_state.crossed and budget.limit > 0


def change_window_zone(wallet: Wallet, time_zone: str, at: int) -> None:
    """Let windows end by the org's new time zone, which it has from `at` on."""
    if wallet.budgets is not None:
        for budget in all_budgets(wallet.budgets):
            budget.ends_at = window_starts_at(budget.window, budget.number + 1, time_zone)
            if budget.ends_at <= at:
                budget.began_at = at


def _begin(budget: Budget, number: int, time_zone: str) -> None:
    budget.spent = 0
    budget.number = number
    budget.began_at = max(budget.began_at, window_starts_at(budget.window, number, time_zone))
    budget.ends_at = window_starts_at(budget.window, number + 1, time_zone)


def charge(
    wallet: Wallet, scope: Scope, cost: int, time_zone: str, at: int, used_at: int | None = None
) -> list[BudgetCharge]:
    """Count `cost` (below 0: given back) towards the budgets of a usage; `alerts` finds which of them were crossed.

    `used_at`: when the usage was first recorded, where that was before: only windows count that were open then as well.
    """
    if wallet.budgets is None:
        return []
    charged = []
    for budget in matching(wallet.budgets, scope):
        enter_window(budget, time_zone, at)
        if used_at is None or used_at >= budget.began_at:
            charged.append(BudgetCharge(budget, budget.limit - budget.spent))
            budget.spent += cost
    return charged


def charge_revision(
    wallet: Wallet, was: Scope, given_back: int, scope: Scope, cost: int, time_zone: str, at: int, used_at: int
) -> list[BudgetCharge]:
    """Count the new revision of a usage, after `given_back` was counted back in the budgets of what it `was`.

    Returns the budgets of either, once each, with what could be spent before both.
    """
    touched = {
        each.budget.budget_id: each._replace(before=each.before - given_back)
        for each in charge(wallet, was, 0, time_zone, at, used_at)
    }
    for each in charge(wallet, scope, cost, time_zone, at, used_at):
        touched.setdefault(each.budget.budget_id, each)
    return list(touched.values())


def reserve_in_budgets(wallet: Wallet, scope: Scope, amount: int) -> None:
    """Count `amount` (below 0: no longer) as held in the budgets that a hold is about."""
    if wallet.budgets is not None:
        for budget in matching(wallet.budgets, scope):
            budget.held += amount
