"""Limits of the demonstration: budgets of a user and of a model, limits of a month, on organisations with traffic.

Rules of this file: pure. A limit is a share of what will be spent about, so that some are reached and some are not;
which ones is known by adding up what the generator has made. Nothing of these organisations is refunded or corrected,
so what is spent only grows. All windows are months: see `organisations` on why none ends during a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from schemas.amounts import format_amount
from schemas.enums import AlertKind, BudgetWindow, SettingKind
from streams.demo.organisations import ACTIVE, CENT_NANOS, Settings, org_id, spend_nanos
from streams.loadgen.price_list import USD
from streams.loadgen.waves import Expected

BUDGET_USER = "user-07"
BUDGET_MODEL = "claude-sonnet-4"
USER_PERCENT = 4
"""Part of an organisation's spending that a user has, about: one of 25."""
MODEL_PERCENT = 37
ALERT_PERCENT = 60


class Limit(NamedTuple):
    """A budget or a limit of the month of one organisation."""

    number: int
    name: str


def has_budgets(number: int) -> bool:
    """Whether the active organisation with this number has budgets."""
    return number % 10 == 3


def has_month_limits(number: int) -> bool:
    """Whether the active organisation with this number has an alert threshold and an allowed limit for the month."""
    return number % 10 == 6


def has_limits(number: int) -> bool:
    """Either of them."""
    return has_budgets(number) or has_month_limits(number)


def limits_of(number: int, row: Mapping[str, Any]) -> Iterator[Limit]:
    """The limits that a usage record in dollars counts towards."""
    if has_month_limits(number):
        yield Limit(number, "month")
        return
    if row.get("user_id") == BUDGET_USER:
        yield Limit(number, "user")
    if row.get("model") == BUDGET_MODEL:
        yield Limit(number, "model")


def _whole_cents(nanos: int) -> int:
    return max(CENT_NANOS, nanos // CENT_NANOS * CENT_NANOS)


def level_nanos(limit: Limit, usage_events: int) -> int:
    """The limit."""
    percent = {"user": USER_PERCENT, "model": MODEL_PERCENT, "month": 100}[limit.name]
    return _whole_cents(spend_nanos(limit.number, usage_events) * percent // 100)


def alert_level_nanos(limit: Limit, usage_events: int) -> int:
    """The month's alert threshold."""
    return _whole_cents(level_nanos(limit, usage_events) * ALERT_PERCENT // 100)


def limit_settings(prefix: str, usage_events: int, at: int) -> list[dict[str, Any]]:
    """The settings of all these organisations."""
    settings = Settings(prefix, at)
    for number in range(1, ACTIVE + 1):
        if has_budgets(number):
            for name, scope in (("user", {"user_id": BUDGET_USER}), ("model", {"model": BUDGET_MODEL})):
                body = {
                    "budget_id": f"{name}-budget",
                    "unit": USD,
                    "scope": scope,
                    "window": BudgetWindow.MONTH.value,
                    "limit": format_amount(level_nanos(Limit(number, name), usage_events)),
                }
                settings.add(org_id(number), SettingKind.BUDGET, body)
        elif has_month_limits(number):
            month = Limit(number, "month")
            body = {
                "unit": USD,
                "alert_threshold": format_amount(alert_level_nanos(month, usage_events)),
                "allowed_limit": format_amount(level_nanos(month, usage_events)),
            }
            settings.add(org_id(number), SettingKind.MONTH_LIMITS, body)
    return settings.records


def reached(spent: Counter[Limit], usage_events: int) -> Expected:
    """The alerts that so much spending must have raised, each once."""
    found: Counter[str] = Counter()
    for limit, nanos in spent.items():
        if nanos >= level_nanos(limit, usage_events):
            found[(AlertKind.LIMIT_REACHED if limit.name == "month" else AlertKind.BUDGET_REACHED).value] += 1
        if limit.name == "month" and nanos >= alert_level_nanos(limit, usage_events):
            found[AlertKind.LIMIT_ALERT.value] += 1
    return Expected(at_work={"limits": found})
