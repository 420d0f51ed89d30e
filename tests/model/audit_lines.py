"""Lines that are crossed and left, and credits that are asked for (rules 12, 15, 20, 25 to 28)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from tests.model.audit_page import Page
from tests.model.audited import (
    NANOS,
    Budget,
    Draw,
    Org,
    Rule,
    Wallet,
)
from tests.model.predicted import Alarm, Request

Charge = tuple[Budget, int]
"""A budget, and how much more is spent there; below 0: less."""


class Lines(Page):
    """Every entry is judged by all lines of its wallet."""

    def _line(
        self,
        name: str,
        kind: str,
        wallet: Wallet,
        amount: int,
        at: int,
        *,
        replenished: bool = False,
        reason: str | None = None,
        draws: Sequence[Draw] = (),
        charged: Sequence[Charge] = (),
    ) -> None:
        self._say(name, kind, wallet, amount, reason, draws)
        self._watch(name, wallet, at, replenished=replenished, charged=charged)

    def _watch(
        self,
        name: str,
        wallet: Wallet,
        at: int,
        *,
        replenished: bool = False,
        left: Sequence[str] = (),
        charged: Sequence[Charge] = (),
    ) -> None:
        """Rules 12, 15, 25-28: once a crossing; armed again by what replenishes, a budget by what comes back in it.

        What has expired by then replenishes nothing. One `resolved` lists what was left.
        Then credits are asked for, if it is time.
        """
        resolved = list(left)
        gone = wallet.gone(at) if replenished else 0

        def judge(crossed: bool, on_or_over: bool, kind: str, rule: str, armed: bool = replenished) -> bool:
            now = on_or_over or (crossed and not armed)
            if now and not crossed:
                self.alarms.append(Alarm(name, wallet.unit, kind, rule))
            if crossed and not now and rule != "depleted":
                resolved.append(rule)
            return now

        if wallet.funded:  # rule 26
            low, available = wallet.low_line, wallet.available - gone
            wallet.low_crossed = judge(wallet.low_crossed, available <= low, "credit_balance_low", "low")
            before, empty = wallet.depleted, wallet.balance <= gone
            wallet.depleted = judge(before, empty, "credit_balance_depleted", "depleted")
            if before and not wallet.depleted:
                self.alarms.append(Alarm(name, wallet.unit, "credit_balance_restored", "depleted"))
        if wallet.negative:
            kind, crossed = "credit_negative_limit_crossed", wallet.negative_crossed
            beyond = wallet.balance - gone <= -wallet.negative
            wallet.negative_crossed = judge(crossed, beyond, kind, "negative_limit")
        for limit_id, limit in wallet.limits.items():
            if limit.level is not None:
                kind = "credit_limit_alert" if limit_id == "alert_threshold" else "credit_limit_reached"
                limit.crossed = judge(limit.crossed, wallet.used >= limit.level, kind, limit_id)
        for rule_id, rule in wallet.rules.items():
            if rule.kind != "month_spend_above" and not wallet.funded:  # rule 26
                continue
            kind = "credit_days_left" if rule.kind == "days_left_below" else "credit_threshold_crossed"
            rule.crossed = judge(rule.crossed, met(wallet, rule, gone), kind, rule_id)
        for budget, more in charged:
            over = budget.spent >= budget.limit
            budget.crossed = judge(budget.crossed, over, "budget_reached", budget.name, more < 0)
        if resolved:
            self.alarms.append(Alarm(name, wallet.unit, "credit_resolved", "resolved", frozenset(resolved)))
        self._ask(name, wallet, at)

    def _ask(self, name: str, wallet: Wallet, at: int) -> None:
        """Rule 20: at or below the threshold, one charge at a time, not during a back-off, never over the cap."""
        topup = wallet.topup
        if topup is None or not wants(self.org(name), wallet):
            return
        if topup.retry_at is not None and at < topup.retry_at:
            return
        if topup.cap is not None and topup.charged + topup.amount > topup.cap:
            if not topup.capped:
                topup.capped = True
                self.alarms.append(Alarm(name, wallet.unit, "credit_auto_recharge_capped", "monthly_cap"))
            return
        topup.requests += 1
        topup.in_flight, topup.asked, topup.retry_at = topup.requests, topup.amount, None
        topup.charged += topup.amount
        again = self._again.get((name, wallet.unit), False)
        self.requests.append(Request(name, wallet.unit, topup.amount, again))


def leaves(wallet: Wallet) -> bool:
    """The wallet stands off a line it is in alarm for, since a hold came free: a turn of the month says so."""
    limits = [
        limit.crossed and limit.level is not None and wallet.used < limit.level for limit in wallet.limits.values()
    ]
    balance = [
        wallet.low_crossed and wallet.available > wallet.low_line,
        wallet.depleted and wallet.balance > 0,
        wallet.negative_crossed and bool(wallet.negative) and wallet.balance > -wallet.negative,
    ]
    rules = [rule.crossed and not met(wallet, rule) for rule in wallet.rules.values()]
    return any(limits) or any(rules) or (wallet.touched and any(balance))


def wants(org: Org, wallet: Wallet) -> bool:
    topup = wallet.topup
    on = topup is not None and topup.enabled and topup.in_flight is None and not org.closed
    return on and topup is not None and wallet.available <= topup.threshold


def met(wallet: Wallet, rule: Rule, gone: int = 0) -> bool:
    """Whether the line is reached: on the line counts. `gone`: what of the balance is none."""
    available = wallet.available - gone
    match rule.kind:
        case "balance_at_or_below":
            return available <= rule.level
        case "used_percent":
            used = Fraction(100) if wallet.allocation <= 0 else Fraction(100 * wallet.used, wallet.allocation)
            return used >= Fraction(rule.level, NANOS)
        case "left_percent":
            return wallet.allocation <= 0 or Fraction(100 * available, wallet.allocation) <= Fraction(rule.level, NANOS)
        case "month_spend_above":
            return wallet.used >= rule.level
        case "days_left_below":
            daily = 0 if wallet.pace is None else wallet.pace.daily
            return bool(daily) and Fraction(available, daily) <= Fraction(rule.level, NANOS)
        case _:
            raise ValueError(rule.kind)
