"""Settings, drawn from the seed: their kind and their body."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tests.simulation.price_list import HOUR_US

Body = dict[str, Any]

SCOPES: tuple[dict[str, str], ...] = (
    {},
    {"user_id": "u1"},
    {"team": "red"},
    {"department": "sales"},
    {"team": "red", "department": "sales"},
    {"model": "gpt"},
)
"""What budgets are for."""
ZONES = ("UTC", "UTC", "Pacific/Kiritimati", "America/Los_Angeles")
LEVELS = ("0", "5", "20", "50")


def drawn(random: Random, at: int) -> tuple[str, Body]:
    """Kind and body of a setting made at `at`."""
    kind, body = random.choice(KINDS)
    return kind, body(random, at)


def _unit(random: Random) -> str:
    return random.choice(("USD", "USD", "USD", "EUR"))


def _wallet(random: Random, at: int) -> Body:
    return {
        "unit": _unit(random),
        "allowance": random.choice(("0", "10", "50")),
        "rollover_max": random.choice(("0", "5")),
        "low_balance_threshold": random.choice(LEVELS),
        "low_credit_limit": random.choice(("0", "5")),
        "negative_limit": random.choice(("0", "20")),
    }


def _thresholds(random: Random, at: int) -> Body:
    return {
        "unit": _unit(random),
        "rules": [
            {"rule_id": "r1", "type": "balance_at_or_below", "level": random.choice(LEVELS)},
            {"rule_id": "r2", "type": "used_percent", "level": "50"},
            {"rule_id": "r3", "type": "days_left_below", "level": "5"},
        ],
    }


def _month_limits(random: Random, at: int) -> Body:
    return {"unit": _unit(random), "alert_threshold": random.choice(LEVELS), "allowed_limit": "60"}


def _budget(random: Random, at: int) -> Body:
    return {
        "budget_id": random.choice(("b1", "b2", "b3")),
        "unit": _unit(random),
        "scope": random.choice(SCOPES),
        "window": random.choice(("day", "week", "month")),
        "limit": random.choice(("7", "50")),
    }


def _auto_topup(random: Random, at: int) -> Body:
    return {
        "unit": _unit(random),
        "enabled": random.choice((True, True, False)),
        "threshold": random.choice(("5", "20")),
        "purchase_amount": "20",
        "monthly_cap": random.choice((None, "60")),
        "backoff_seconds": random.choice((60, 3_600)),
    }


def _org(random: Random, at: int) -> Body:
    return {
        "administrators": ["ann"],
        "closed": not random.randrange(5),
        "time_zone": random.choice(ZONES),
        "tier": random.choice((None, "pro")),
    }


def _member(random: Random, at: int) -> Body:
    return {"user_id": "u2", "role": random.choice(("none", "none", "admin"))}


def _model_access(random: Random, at: int) -> Body:
    return {"allow": ["*"], "deny": random.choice(([], [], ["gp*"]))}


def _price_override(random: Random, at: int) -> Body:
    """A price for one model or for all; its id says which, so that no two tie. Another version has the same id."""
    model = random.choice((None, "gpt"))
    begins_at = random.choice((None, at - HOUR_US, at + HOUR_US))
    return {
        "price_id": f"own {model}",
        "operation": "chat",
        "model": model,
        "unit_price": random.choice(("0.000001", "0.0000015")),
        "billing_unit": random.choice(("token", "1000_tokens", "request")),
        "wallet": _unit(random),
        "free": random.choice((False, False, True)),
        "valid_from": begins_at,
        "valid_to": random.choice((None, None, at + 30 * HOUR_US)),
    }


KINDS: tuple[tuple[str, Callable[[Random, int], Body]], ...] = (
    ("wallet", _wallet),
    ("thresholds", _thresholds),
    ("month_limits", _month_limits),
    ("budget", _budget),
    ("budget", _budget),
    ("auto_topup", _auto_topup),
    ("org", _org),
    ("member", _member),
    ("model_access", _model_access),
    ("price_override", _price_override),
    ("price_override", _price_override),
)
