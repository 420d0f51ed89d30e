"""The thresholds of a wallet, and the alerts of crossing and clearing them (product rules 25-28).

Rules of this file:
- A threshold has a distance: how much more can be spent until it is reached. At 0 or below it is crossed: to reach it
  is enough. So the next threshold to be reached is the nearest, and a jump over several reports them from near to far.
- A crossing alerts once. A threshold is armed again, in a new epoch, only by an entry that replenishes: one that adds
  credits or begins a month, and leaves the distance above 0. Holds that come and go do not re-arm. Credits that have
  expired when they come in clear no threshold: the expiry that takes them follows at the same instant.
- One entry that clears some thresholds raises one `credit_resolved` that lists them; clearing depletion raises
  `credit_balance_restored` instead.
- A changed rule is a new version: armed again, and evaluated at once. An alert's id is a function of org, wallet, kind,
  rule, version and epoch, so the same crossing has the same id whenever the ledger is folded.
- Depletion and the negative limit look at the settled balance, limits and budgets at what was booked, everything else
  at the available one.
- Thresholds that are measured against credits (a balance, a percentage, days left, low, depleted) are not evaluated in
  a wallet that never had any (product rule 26); those of usage (month spend, limits, budgets, the negative limit) are.
- The threshold of a low balance is that of the auto top-up while it is on (product rule 28).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, assert_never

from schemas.amounts import NANOS, format_amount
from schemas.enums import AlertKind, Channel, ThresholdType
from streams.ledger.account import Account, AlertState, Rule, Wallet
from streams.ledger.budgets import BudgetCharge
from streams.ledger.burn import rate
from streams.ledger.entry import Alert
from streams.ledger.grants import lapsing

HUNDRED_PERCENT_NANOS = 100 * NANOS
UNREACHABLE = 2**63 - 1
"""A distance that no spending covers."""

MESSAGE_CHARACTERS_MAX = 500
"""Of an alert's sentence; `thresholds_left` has all that it lists: 1,000 budgets of 512 bytes are half of a record."""

ALL_CHANNELS = (Channel.BANNER, Channel.EMAIL, Channel.WEBHOOK)
RESOLVED_RULE_ID = "resolved"
LOW_RULE_ID = "low"
DEPLETION_RULE_ID = "depleted"
NEGATIVE_RULE_ID = "negative_limit"
LIMIT_ALERT_RULE_ID = "alert_threshold"
LIMIT_RULE_ID = "allowed_limit"

STOP_MESSAGE = "You've used all your available credits. Please add more credits to your account to continue."
"""Of the stop event when the negative limit is crossed, word for word (product rule 15)."""


class Figures(NamedTuple):
    """What thresholds are measured against, in nano-units of the wallet."""

    settled: int
    available: int
    used: int
    allocation: int
    daily: int = 0
    """Usage of a day, as `burn.rate` tells it; 0: none, or no rule asks."""

    @property
    def used_percent(self) -> int:
        """Nano-percent of the allocation that is used, rounded down; an allocation of 0 or less counts as all used."""
        if self.allocation <= 0:
            return HUNDRED_PERCENT_NANOS
        return self.used * HUNDRED_PERCENT_NANOS // self.allocation


def figures(wallet: Wallet) -> Figures:
    """The wallet as it stands."""
    return Figures(wallet.settled, wallet.settled - wallet.held, wallet.used, wallet.allocation, rate(wallet.burn))


def figures_with(wallet: Wallet, used: int) -> Figures:
    """The wallet as it stood before `used` was given back: with the revision that an amendment replaces."""
    now = figures(wallet)
    return now._replace(settled=now.settled - used, available=now.available - used, used=now.used + used)


def _figures_after_lapses(wallet: Wallet, at: int) -> Figures:
    """The wallet as it stands when what has expired by `at` is gone."""
    now, gone = figures(wallet), lapsing(wallet, at)
    return now._replace(settled=now.settled - gone, available=now.available - gone) if gone else now


def distance(rule_type: ThresholdType, level: int, now: Figures) -> int:
    """Nano-units that can be spent until the threshold is reached; 0 or below: crossed. `level`: see `Rule.level`."""
    match rule_type:
        case ThresholdType.BALANCE_AT_OR_BELOW:
            return now.available - level
        case ThresholdType.USED_PERCENT:
            if now.allocation <= 0:  # all used, by definition
                return 0 if level <= HUNDRED_PERCENT_NANOS else UNREACHABLE
            return -(-level * now.allocation // HUNDRED_PERCENT_NANOS) - now.used
        case ThresholdType.LEFT_PERCENT:
            if now.allocation <= 0:
                return 0
            return now.available - level * now.allocation // HUNDRED_PERCENT_NANOS
        case ThresholdType.MONTH_SPEND_ABOVE:
            return level - now.used
        case ThresholdType.DAYS_LEFT_BELOW:
            return now.available - level * now.daily // NANOS if now.daily else UNREACHABLE
        case _:
            assert_never(rule_type)


def low_balance_level(wallet: Wallet) -> int:
    """The line of `credit_balance_low`, in nano-units (product rule 28)."""
    topup = wallet.topup
    return topup.threshold if topup is not None and topup.enabled else wallet.terms.low_balance_threshold


def distance_to_next_threshold(wallet: Wallet) -> int | None:
    """Distance to the nearest line ahead, armed or a change of status; None when there is none."""
    now = figures(wallet)
    low = now.available - low_balance_level(wallet)
    nearest = low if low > 0 else None
    limits = wallet.limits
    if limits is not None:
        for level in (limits.alert_threshold, limits.allowed_limit):
            if level is not None and level - now.used > 0 and (nearest is None or level - now.used < nearest):
                nearest = level - now.used
    for rule in wallet.rules:
        if not rule.alert_state.crossed:
            ahead = distance(rule.type, rule.level, now)
            if nearest is None or ahead < nearest:
                nearest = ahead
    return nearest


def may_clear_alert(wallet: Wallet) -> bool:
    """Some line is crossed that the wallet stands above, for a hold came free: what replenishes next leaves it."""
    now, negative, limits = figures(wallet), wallet.terms.negative_limit, wallet.limits
    if wallet.opened and (
        (wallet.low.crossed and now.available > low_balance_level(wallet))
        or (wallet.depletion.crossed and now.settled > 0)
        or (negative and wallet.negative.crossed and now.settled > -negative)
    ):
        return True
    if limits is not None and (
        (limits.alert_threshold is not None and limits.alert.crossed and now.used < limits.alert_threshold)
        or (limits.allowed_limit is not None and limits.reached.crossed and now.used < limits.allowed_limit)
    ):
        return True
    return any(rule.alert_state.crossed and distance(rule.type, rule.level, now) > 0 for rule in wallet.rules)


class _Threshold(NamedTuple):
    """One line of a wallet, as it is reported."""

    kind: AlertKind
    rule_id: str
    level: int
    alert_state: AlertState
    before: int
    channels: tuple[str, ...]
    dismissable: bool
    message: str


def _low_balance_threshold(wallet: Wallet, before: Figures) -> _Threshold:
    level = low_balance_level(wallet)
    message = f"The {wallet.unit} balance is low: at or below {format_amount(level)}."
    distance_before = before.available - level
    return _Threshold(
        AlertKind.BALANCE_LOW, LOW_RULE_ID, level, wallet.low, distance_before, ALL_CHANNELS, True, message
    )


def _depletion_threshold(wallet: Wallet, before: Figures) -> _Threshold:
    message = f"The {wallet.unit} balance is used up."
    return _Threshold(
        AlertKind.BALANCE_DEPLETED, DEPLETION_RULE_ID, 0, wallet.depletion, before.settled, ALL_CHANNELS, False, message
    )


def _negative_limit_threshold(wallet: Wallet, before: Figures) -> _Threshold:
    limit = -wallet.terms.negative_limit
    kind, ahead = AlertKind.NEGATIVE_LIMIT_CROSSED, before.settled - limit
    return _Threshold(kind, NEGATIVE_RULE_ID, limit, wallet.negative, ahead, ALL_CHANNELS, False, STOP_MESSAGE)


def _month_limit_threshold(
    wallet: Wallet, rule_id: str, level: int, alert_state: AlertState, before: Figures
) -> _Threshold:
    """Alert threshold or allowed limit of the month (product rule 12)."""
    reached = rule_id == LIMIT_RULE_ID
    kind = AlertKind.LIMIT_REACHED if reached else AlertKind.LIMIT_ALERT
    what = "allowed limit" if reached else "alert threshold"
    message = f"This month's {wallet.unit} usage has reached the {what} of {format_amount(level)}."
    return _Threshold(kind, rule_id, level, alert_state, level - before.used, ALL_CHANNELS, not reached, message)


def _budget_threshold(wallet: Wallet, charged: BudgetCharge) -> _Threshold:
    budget = charged.budget
    message = f"Budget {budget.budget_id}: {format_amount(budget.limit)} {wallet.unit} are spent this {budget.window}."
    kind = AlertKind.BUDGET_REACHED
    return _Threshold(
        kind, budget.budget_id, budget.limit, budget.alert_state, charged.before, ALL_CHANNELS, True, message
    )


def _rule_threshold(wallet: Wallet, rule: Rule, before: Figures) -> _Threshold:
    return _Threshold(
        AlertKind.DAYS_LEFT if rule.type is ThresholdType.DAYS_LEFT_BELOW else AlertKind.THRESHOLD_CROSSED,
        rule.rule_id,
        rule.level,
        rule.alert_state,
        distance(rule.type, rule.level, before),
        rule.channels,
        rule.dismissable,
        _rule_message(wallet.unit, rule),
    )


class _Transitions:
    """What an entry did to the thresholds of a wallet, found one by one."""

    def __init__(self, cleared: tuple[str, ...]) -> None:
        self.crossed: list[_Threshold] = []
        self.resolved = list(cleared)
        self.restored: list[AlertState] = []

    @property
    def any(self) -> bool:
        return bool(self.crossed or self.resolved or self.restored)


def evaluate_alerts(
    account: Account,
    wallet: Wallet,
    at: int,
    before: Figures,
    replenished: bool,
    cleared: tuple[str, ...] = (),
    charged: Sequence[BudgetCharge] = (),
) -> list[Alert]:
    """The alerts of the entry just applied (`account.seq`). Updates the alert states.

    `before`: the wallet before the entry. `replenished`: the entry adds credits or begins a month. `cleared`:
    thresholds that the entry removed while they were crossed. `charged`: the budgets that it charged.
    """
    after = _figures_after_lapses(wallet, at) if replenished else figures(wallet)
    transitions = _Transitions(cleared)
    if wallet.opened:
        _evaluate_balance(wallet, before, after, replenished, transitions)
    if wallet.limits is not None:
        _evaluate_limits(wallet, before, after, replenished, transitions)
    for rule in wallet.rules:
        if not wallet.funded and rule.type is not ThresholdType.MONTH_SPEND_ABOVE:
            continue
        transition = _transition(rule.alert_state, distance(rule.type, rule.level, after), replenished)
        if transition is _Transition.CROSSED:
            transitions.crossed.append(_rule_threshold(wallet, rule, before))
        elif transition is _Transition.CLEARED:
            transitions.resolved.append(rule.rule_id)
    if charged:
        _evaluate_budgets(wallet, charged, transitions)
    if not transitions.any:
        return []
    report = _Report(account, wallet, at, before, after)
    transitions.crossed.sort(key=lambda threshold: threshold.before)
    alerts = [report.crossed(threshold) for threshold in transitions.crossed]
    alerts += [report.restored(alert_state) for alert_state in transitions.restored]
    if transitions.resolved:
        wallet.resolved += 1
        alerts.append(report.resolved(tuple(transitions.resolved)))
    return alerts


def _evaluate_balance(
    wallet: Wallet, before: Figures, after: Figures, replenished: bool, transitions: _Transitions
) -> None:
    """Low and depleted, where there ever were credits; beyond the negative limit."""
    if wallet.funded:
        transition = _transition(wallet.low, after.available - low_balance_level(wallet), replenished)
        if transition is _Transition.CROSSED:
            transitions.crossed.append(_low_balance_threshold(wallet, before))
        elif transition is _Transition.CLEARED:
            transitions.resolved.append(LOW_RULE_ID)
        transition = _transition(wallet.depletion, after.settled, replenished)
        if transition is _Transition.CROSSED:
            transitions.crossed.append(_depletion_threshold(wallet, before))
        elif transition is _Transition.CLEARED:
            transitions.restored.append(wallet.depletion)
    limit = wallet.terms.negative_limit
    if limit:
        transition = _transition(wallet.negative, after.settled + limit, replenished)
        if transition is _Transition.CROSSED:
            transitions.crossed.append(_negative_limit_threshold(wallet, before))
        elif transition is _Transition.CLEARED:
            transitions.resolved.append(NEGATIVE_RULE_ID)


def _evaluate_limits(
    wallet: Wallet, before: Figures, after: Figures, replenished: bool, transitions: _Transitions
) -> None:
    limits = wallet.limits
    assert limits is not None
    for rule_id, level, alert_state in (
        (LIMIT_ALERT_RULE_ID, limits.alert_threshold, limits.alert),
        (LIMIT_RULE_ID, limits.allowed_limit, limits.reached),
    ):
        if level is None:
            continue
        transition = _transition(alert_state, level - after.used, replenished)
        if transition is _Transition.CROSSED:
            transitions.crossed.append(_month_limit_threshold(wallet, rule_id, level, alert_state, before))
        elif transition is _Transition.CLEARED:
            transitions.resolved.append(rule_id)


def _evaluate_budgets(wallet: Wallet, charged: Sequence[BudgetCharge], transitions: _Transitions) -> None:
    """A budget is replenished by what was given back in it, whatever the entry was to the wallet."""
    book = wallet.budgets
    assert book is not None
    for each in charged:
        budget = each.budget
        ahead = budget.limit - budget.spent
        transition = _transition(budget.alert_state, ahead, ahead > each.before)
        if transition is _Transition.CROSSED:
            book.alerting_count += 1
            transitions.crossed.append(_budget_threshold(wallet, each))
        elif transition is _Transition.CLEARED:
            book.alerting_count -= 1
            transitions.resolved.append(budget.budget_id)


class _Transition(Enum):
    """What an entry did to one line."""

    NONE = 0
    CROSSED = 1
    CLEARED = 2


def _transition(alert_state: AlertState, ahead: int, replenished: bool) -> _Transition:
    """Move one watch on: `ahead` is the distance after the entry. Leaving arms the line for its next epoch."""
    if ahead <= 0:
        if not alert_state.crossed:
            alert_state.crossed = True
            return _Transition.CROSSED
    elif alert_state.crossed and replenished:
        alert_state.crossed = False
        alert_state.epoch += 1
        return _Transition.CLEARED
    return _Transition.NONE


class _Report:
    """What the alerts of one entry have in common."""

    def __init__(self, account: Account, wallet: Wallet, at: int, before: Figures, after: Figures) -> None:
        self._account = account
        self._wallet = wallet
        self._at = at
        self._before = before
        self._after = after

    def crossed(self, threshold: _Threshold) -> Alert:
        level = format_amount(threshold.level)
        return self.of(
            threshold.kind,
            threshold.rule_id,
            threshold.alert_state,
            level,
            threshold.channels,
            threshold.dismissable,
            threshold.message,
            (),
        )

    def restored(self, alert_state: AlertState) -> Alert:
        """In the epoch of the depletion that is over."""
        over = AlertState(alert_state.version, alert_state.epoch - 1)
        message = f"The {self._wallet.unit} balance is above zero again."
        return self.of(AlertKind.BALANCE_RESTORED, DEPLETION_RULE_ID, over, "0", ALL_CHANNELS, True, message, ())

    def resolved(self, cleared: tuple[str, ...]) -> Alert:
        count = AlertState(epoch=self._wallet.resolved)
        message = f"No longer in alarm for {self._wallet.unit}: {', '.join(cleared)}."[:MESSAGE_CHARACTERS_MAX]
        return self.of(AlertKind.RESOLVED, RESOLVED_RULE_ID, count, None, ALL_CHANNELS, True, message, cleared)

    def of(
        self,
        kind: AlertKind,
        rule_id: str,
        alert_state: AlertState,
        level: str | None,
        channels: tuple[str, ...],
        dismissable: bool,
        message: str,
        cleared: tuple[str, ...],
    ) -> Alert:
        account, wallet = self._account, self._wallet
        return Alert(
            alert_id(account.org_id, wallet.unit, kind, rule_id, alert_state.version, alert_state.epoch),
            account.org_id,
            wallet.unit,
            kind,
            rule_id,
            alert_state.version,
            alert_state.epoch,
            level,
            self._after.settled,
            self._after.available,
            self._after.used_percent,
            self._before.used_percent,
            self._at,
            account.seq,
            channels,
            dismissable,
            message,
            cleared,
        )


def notice(
    account: Account,
    wallet: Wallet,
    at: int,
    kind: AlertKind,
    subject: str,
    level: str | None,
    message: str,
    epoch: int = 1,
) -> Alert:
    """An alert about something that happened, such as an expiry of `subject`, rather than about a line.

    Its version is the number of the entry: what comes back to a grant that has expired makes it expire again.
    """
    now, alert_state = figures(wallet), AlertState(account.seq, epoch)
    return _Report(account, wallet, at, now, now).of(kind, subject, alert_state, level, ALL_CHANNELS, True, message, ())


def alert_id(org_id: str, unit: str, kind: AlertKind, rule_id: str, version: int, epoch: int) -> str:
    """32 hex digits; the same crossing always has the same id. Lengths go in, so no two tuples share a text."""
    parts = (org_id, unit, kind.value, rule_id, str(version), str(epoch))
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _rule_message(unit: str, rule: Rule) -> str:
    level = format_amount(rule.level)
    match rule.type:
        case ThresholdType.BALANCE_AT_OR_BELOW:
            return f"The {unit} balance is at or below {level}."
        case ThresholdType.USED_PERCENT:
            return f"{level} % of the {unit} credits are used."
        case ThresholdType.LEFT_PERCENT:
            return f"{level} % of the {unit} credits or less are left."
        case ThresholdType.MONTH_SPEND_ABOVE:
            return f"This month's {unit} usage has reached {level}."
        case ThresholdType.DAYS_LEFT_BELOW:
            return f"The {unit} credits last for less than {level} days."
        case _:
            assert_never(rule.type)
