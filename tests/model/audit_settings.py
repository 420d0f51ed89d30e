"""Settings: who may change them, and what each changes (rules 5, 11, 12, 15, 20, 26, 33)."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from tests.model.audit_lines import met
from tests.model.audit_time import Time
from tests.model.audited import (
    NANOS,
    Budget,
    Limit,
    Pace,
    Rule,
    Scope,
    Topup,
    Wallet,
    month_starts,
    window_of,
)
from tests.model.audited_rates import Price

TOPUP_AMOUNT_MAX = 100_000 * NANOS


class SettingRules(Time):
    """A later body replaces the earlier one of its kind."""

    def change(self, name: str, kind: str, body: Mapping[str, Any], actor: str, role: str, at: int) -> None:
        """A setting. A body that breaks a rule is refused, as is who may not (rules 12, 33); else it replaces."""
        self.settle(name, at)
        if _breaks_a_rule(kind, body):
            self._refuse(name, "", "invalid_setting")
            return
        if not self._may_set(name, kind, actor, role):
            self._refuse(name, "", "not_authorized")
            return
        org = self.org(name)
        if "unit" in body and self._refuses_new_wallet(name, body["unit"]):
            self._refuse(name, "", "invalid_setting")
            return
        match kind:
            case "org":
                self._set_org(name, body, at)
            case "member":
                org.members[body["user_id"]] = body["role"]
            case "model_access":
                org.allow, org.deny = tuple(body["allow"]), tuple(body["deny"])
            case "price_override":
                org.prices[body["price_id"]] = _own_price(body, at)
            case _:
                wallet = self._wallet(org, body["unit"], at)
                self._set_in_wallet(name, wallet, kind, body, at)
        self.settle(name, at)

    def _may_set(self, name: str, kind: str, actor: str, role: str) -> bool:
        if role == "system":
            return True
        permitted = ("owner", "admin", "billing") if kind == "auto_topup" else ("owner", "admin")
        members = self.org(name).members
        return role in permitted and (set(members.values()) <= {"none"} or members.get(actor) in permitted)

    def _set_org(self, name: str, body: Mapping[str, Any], at: int) -> None:
        """Months and windows end by the new zone, and never go back."""
        org, zone = self.org(name), body["time_zone"]
        org.set_up = True
        org.closed, org.administrators, org.tier = body["closed"], tuple(body["administrators"]), body.get("tier")
        if zone != org.zone:
            old, org.zone = org.zone, zone
            for wallet in org.wallets.values():
                for lot in wallet.lots:
                    if lot.monthly and lot.expires_at == month_starts(wallet.month + 1, old):
                        lot.expires_at = month_starts(wallet.month + 1, zone)
                for budget in wallet.budgets.values():
                    if budget.ends_at(zone) <= at:  # it ends with the old zone
                        budget.since = at
        for wallet in org.wallets.values():
            self._ask(name, wallet, at)

    def _set_in_wallet(self, name: str, wallet: Wallet, kind: str, body: Mapping[str, Any], at: int) -> None:
        match kind:
            case "wallet":
                self._set_wallet(name, wallet, body, at)
            case "thresholds":
                self._set_rules(name, wallet, body, at)
            case "month_limits":
                self._set_limits(name, wallet, body, at)
            case "budget":
                self._set_budget(name, wallet, body, at)
            case "auto_topup":
                self._set_topup(name, wallet, body, at)
            case _:
                raise ValueError(kind)

    def _set_wallet(self, name: str, wallet: Wallet, body: Mapping[str, Any], at: int) -> None:
        """The allowance of this month is granted when one is first set; a change counts from the next month."""
        line, negative = wallet.low_line, wallet.negative
        wallet.allowance, wallet.rollover_max = _nanos(body["allowance"]), _nanos(body["rollover_max"])
        wallet.low = _nanos(body["low_balance_threshold"])
        wallet.low_credit = _nanos(body["low_credit_limit"])
        wallet.negative = abs(_nanos(body["negative_limit"]))
        left = self._low_line_moved(wallet, line)
        if wallet.negative != negative:
            if wallet.negative_crossed and not wallet.stopped:
                left.append("negative_limit")
            wallet.negative_crossed = False
        self._watch(name, wallet, at, left=left)
        if wallet.granted_month < wallet.month and wallet.allowance:
            self._grant_allowance(name, wallet, wallet.month, at, at)

    def _low_line_moved(self, wallet: Wallet, line: int) -> list[str]:
        """A threshold that changes is armed again; returns the name of one that was crossed and no longer is."""
        if wallet.low_line == line:
            return []
        left = ["low"] if wallet.low_crossed and wallet.available > wallet.low_line else []
        wallet.low_crossed = False
        return left

    def _set_rules(self, name: str, wallet: Wallet, body: Mapping[str, Any], at: int) -> None:
        """One that stays the same keeps its state."""
        old, wallet.rules = wallet.rules, {}
        for wanted in body["rules"]:
            rule = Rule(wanted["type"], _nanos(wanted["level"]))
            before = old.get(wanted["rule_id"])
            if before is not None and (before.kind, before.level) == (rule.kind, rule.level):
                rule.crossed = before.crossed
            wallet.rules[wanted["rule_id"]] = rule
        self._follow(name, wallet, at)
        alarmed = {rule_id for rule_id, rule in wallet.rules.items() if rule.crossed or met(wallet, rule)}
        left = [rule_id for rule_id, rule in old.items() if rule.crossed and rule_id not in alarmed]
        self._watch(name, wallet, at, left=left)

    def _follow(self, name: str, wallet: Wallet, at: int) -> None:
        """Rule 26: usage a day is known while a rule asks for it; at first it is that of the month so far."""
        zone = self.org(name).zone
        if not any(rule.kind == "days_left_below" for rule in wallet.rules.values()):
            wallet.pace = None
        elif wallet.pace is None:
            today = window_of("day", at, zone)
            complete = max(1, today - window_of("day", month_starts(wallet.month, zone), zone))
            so_far = wallet.used // complete
            wallet.pace = Pace(today, 0, [so_far] if so_far > 0 else [])

    def _set_limits(self, name: str, wallet: Wallet, body: Mapping[str, Any], at: int) -> None:
        """Rule 12."""
        left = []
        for limit_id, limit in wallet.limits.items():
            text = body.get(limit_id)
            level = None if text is None else _nanos(text)
            if limit.crossed and (level is None or wallet.used < level):
                left.append(limit_id)
            if level != limit.level:
                wallet.limits[limit_id] = Limit(level)
        self._watch(name, wallet, at, left=left)

    def _set_budget(self, name: str, wallet: Wallet, body: Mapping[str, Any], at: int) -> None:
        """Rule 11: a budget counts from when it is set; the same one goes on counting."""
        org = self.org(name)
        scope: Scope = frozenset(body["scope"].items())
        number = window_of(body["window"], at, org.zone)
        budget = Budget(body["budget_id"], scope, body["window"], _nanos(body["limit"]), number, at)
        if not scope and budget.window == "month":
            budget.spent, budget.since = wallet.used, month_starts(number, org.zone)
        found = org.budget(budget.name)
        left = []
        if found is not None:
            place, old = found
            self._enter(org, old, at)
            del place.budgets[old.name]
            if (place.unit, old.scope, old.window) == (wallet.unit, scope, budget.window):
                budget.spent, budget.number, budget.since = old.spent, old.number, old.since
                budget.crossed = old.crossed and old.limit == budget.limit
            if old.crossed and place is not wallet:
                self._watch(name, place, at, left=[old.name])
            elif old.crossed and budget.spent < budget.limit:
                left = [old.name]
        wallet.budgets[budget.name] = budget
        self._watch(name, wallet, at, left=left, charged=[(budget, 0)])

    def _set_topup(self, name: str, wallet: Wallet, body: Mapping[str, Any], at: int) -> None:
        """A charge on its way stays on its way, and what was charged this month counts."""
        line, old = wallet.low_line, wallet.topup
        cap = body.get("monthly_cap")
        wallet.topup = Topup(
            body["enabled"],
            _nanos(body["threshold"]),
            _nanos(body["purchase_amount"]),
            None if cap is None else _nanos(cap),
            body["backoff_seconds"] * 1_000_000,
        )
        if old is not None:
            wallet.topup.requests, wallet.topup.in_flight = old.requests, old.in_flight
            wallet.topup.asked, wallet.topup.charged = old.asked, old.charged
            wallet.topup.retry_at = old.retry_at
            same = (wallet.topup.amount, wallet.topup.cap) == (old.amount, old.cap)
            wallet.topup.capped = same and old.capped  # rule 27: what did not change is not told again
        self._watch(name, wallet, at, left=self._low_line_moved(wallet, line))


def _nanos(text: str) -> int:
    amount = Fraction(text) * NANOS
    assert amount.denominator == 1
    return amount.numerator


def _breaks_a_rule(kind: str, body: Mapping[str, Any]) -> bool:
    """Rules 12, 20 and 26: bodies whose shape is right, and which are refused all the same."""
    match kind:
        case "month_limits":
            alert, allowed = body.get("alert_threshold"), body.get("allowed_limit")
            return alert is not None and allowed is not None and _nanos(alert) > _nanos(allowed)
        case "auto_topup":
            amount = _nanos(body["purchase_amount"])
            fine = NANOS <= amount <= TOPUP_AMOUNT_MAX and _nanos(body["threshold"]) <= amount
            return bool(body["enabled"]) and not fine
        case "thresholds":
            return len(body["rules"]) > 20
        case _:
            return False


def _own_price(body: Mapping[str, Any], at: int) -> Price:
    return Price(
        body["price_id"],
        body["operation"],
        _nanos(body["unit_price"]),
        body["billing_unit"],
        body["wallet"],
        body.get("valid_from", at),
        body.get("valid_to"),
        body.get("model"),
        free=body.get("free", False),
        own=True,
    )
