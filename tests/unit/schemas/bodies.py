"""Bodies of settings: the contract's own examples, and bodies that are refused."""

from __future__ import annotations

from typing import Any

from schemas.enums import SettingKind

# The contract's examples, word for word.
GOOD: list[tuple[SettingKind, dict[str, Any]]] = [
    (
        SettingKind.ORG,
        {"time_zone": "Europe/Madrid", "closed": False, "administrators": ["alice"], "tier": "pro"},
    ),
    (SettingKind.MEMBER, {"user_id": "bob", "role": "owner"}),
    (
        SettingKind.WALLET,
        {
            "unit": "USD",
            "default": True,
            "allowance": "100",
            "rollover_max": "0",
            "low_balance_threshold": "10",
            "low_credit_limit": "0",
            "negative_limit": "0",
        },
    ),
    (
        SettingKind.BUDGET,
        {"budget_id": "u1", "unit": "USD", "scope": {"user_id": "u1"}, "window": "day", "limit": "50"},
    ),
    (
        SettingKind.THRESHOLDS,
        {
            "unit": "USD",
            "rules": [
                {
                    "rule_id": "r1",
                    "type": "balance_at_or_below",
                    "level": "20",
                    "channels": ["banner", "email", "webhook"],
                    "dismissable": True,
                }
            ],
        },
    ),
    (SettingKind.MONTH_LIMITS, {"unit": "EUR", "alert_threshold": "80", "allowed_limit": "100"}),
    (
        SettingKind.AUTO_TOPUP,
        {
            "unit": "USD",
            "enabled": True,
            "threshold": "10",
            "purchase_amount": "50",
            "monthly_cap": "500",
            "backoff_seconds": 3600,
        },
    ),
    (SettingKind.MODEL_ACCESS, {"allow": ["*"], "deny": ["gpt-4"]}),
    (
        SettingKind.PRICE_OVERRIDE,
        {
            "price_id": "p1",
            "operation": "chat.completion",
            "unit_price": "2.5",
            "billing_unit": "1000000_tokens",
            "wallet": "USD",
            "valid_from": "2026-01-01T00:00:00Z",
            "model": "gpt-4o",
            "direction": "input",
        },
    ),
]

# kind, body, what the message names
BAD_SHAPES: list[tuple[SettingKind, Any, str]] = [
    (SettingKind.ORG, {"time_zone": "Mars/Olympus"}, "time_zone"),
    (SettingKind.ORG, {"time_zone": "../../etc/passwd"}, "time_zone"),
    (SettingKind.ORG, {"closed": "no"}, "closed"),
    (SettingKind.ORG, {"administrators": [""]}, "administrators.0"),
    (SettingKind.ORG, {"colour": "red"}, "colour"),
    (SettingKind.MEMBER, {"user_id": "bob", "role": "king"}, "role"),
    (SettingKind.MEMBER, {"role": "owner"}, "user_id"),
    (SettingKind.WALLET, {}, "unit"),
    (SettingKind.WALLET, {"unit": "USD", "allowance": 100}, "allowance"),
    (SettingKind.WALLET, {"unit": "USD", "allowance": 0.1}, "allowance"),
    (SettingKind.WALLET, {"unit": "USD", "allowance": "1e3"}, "allowance"),
    (SettingKind.WALLET, {"unit": "USD", "allowance": "-1"}, "allowance"),
    (SettingKind.WALLET, {"unit": "USD", "allowance": "9000000001"}, "allowance"),
    (SettingKind.WALLET, {"unit": "USD", "allowance_nanos": 5}, "allowance_nanos"),
    (SettingKind.WALLET, {"unit": "USD", "default": 1}, "default"),
    (SettingKind.BUDGET, {"budget_id": "b", "unit": "USD", "window": "year", "limit": "1"}, "window"),
    (
        SettingKind.BUDGET,
        {"budget_id": "b", "unit": "USD", "window": "day", "limit": "1", "scope": {"tier": "x"}},
        "scope.tier",
    ),
    (SettingKind.BUDGET, {"budget_id": "b", "unit": "USD", "window": "day"}, "limit"),
    (SettingKind.THRESHOLDS, {"unit": "USD", "rules": [{"rule_id": "r", "type": "x", "level": "1"}]}, "rules.0.type"),
    (
        SettingKind.THRESHOLDS,
        {"unit": "USD", "rules": [{"rule_id": "r", "type": "used_percent", "level": "1", "channels": ["fax"]}]},
        "rules.0.channels.0",
    ),
    (SettingKind.AUTO_TOPUP, {"unit": "USD", "backoff_seconds": 0}, "backoff_seconds"),
    (SettingKind.AUTO_TOPUP, {"unit": "USD", "backoff_seconds": 1.5}, "backoff_seconds"),
    (SettingKind.MODEL_ACCESS, {"allow": "*"}, "allow"),
    (
        SettingKind.PRICE_OVERRIDE,
        {
            "price_id": "p",
            "operation": "*",
            "unit_price": "1",
            "billing_unit": "unit",
            "wallet": "USD",
            "valid_from": "2026-01-02T00:00:00Z",
            "valid_to": "2026-01-01T00:00:00Z",
        },
        "valid_to",
    ),
    (
        SettingKind.PRICE_OVERRIDE,
        {"price_id": "p", "operation": "*", "unit_price": "1", "billing_unit": "bushel", "wallet": "USD"},
        "billing_unit",
    ),
]


def rule(rule_id: str, level: str = "10", kind: str = "used_percent") -> dict[str, str]:
    """A threshold rule."""
    return {"rule_id": rule_id, "type": kind, "level": level}


# kind, body, what the refusal says
BROKEN_RULES: list[tuple[SettingKind, dict[str, Any], str]] = [
    (SettingKind.MONTH_LIMITS, {"unit": "EUR", "alert_threshold": "100.000000001", "allowed_limit": "100"}, "above"),
    (SettingKind.THRESHOLDS, {"unit": "USD", "rules": [rule(f"r{n}") for n in range(21)]}, "at most 20"),
    (SettingKind.THRESHOLDS, {"unit": "USD", "rules": [rule("r"), rule("r")]}, "same rule_id"),
    (SettingKind.THRESHOLDS, {"unit": "USD", "rules": [rule("r", "-1")]}, "below 0"),
    (
        SettingKind.AUTO_TOPUP,
        {"unit": "USD", "enabled": True, "threshold": "51", "purchase_amount": "50"},
        "above purchase_amount",
    ),
    (SettingKind.AUTO_TOPUP, {"unit": "USD", "enabled": True, "purchase_amount": "100000.000000001"}, "100000"),
    (SettingKind.AUTO_TOPUP, {"unit": "USD", "enabled": True, "purchase_amount": "0.999999999"}, "between 1"),
    (SettingKind.AUTO_TOPUP, {"unit": "USD", "enabled": True}, "between 1"),
]

# On the line is still right.
KEPT_RULES: list[tuple[SettingKind, dict[str, Any]]] = [
    (SettingKind.MONTH_LIMITS, {"unit": "EUR", "alert_threshold": "100", "allowed_limit": "100"}),
    (SettingKind.MONTH_LIMITS, {"unit": "EUR", "alert_threshold": "100", "allowed_limit": None}),
    (SettingKind.MONTH_LIMITS, {"unit": "EUR", "allowed_limit": "0"}),
    (SettingKind.THRESHOLDS, {"unit": "USD", "rules": [rule(f"r{n}") for n in range(20)]}),
    (SettingKind.THRESHOLDS, {"unit": "USD", "rules": [rule("r", "-1", "balance_at_or_below")]}),
    (SettingKind.AUTO_TOPUP, {"unit": "USD", "enabled": True, "threshold": "50", "purchase_amount": "50"}),
    (SettingKind.AUTO_TOPUP, {"unit": "USD", "enabled": True, "purchase_amount": "100000"}),
    (SettingKind.AUTO_TOPUP, {"unit": "USD", "enabled": True, "purchase_amount": "1"}),
    (SettingKind.AUTO_TOPUP, {"unit": "USD", "enabled": False, "threshold": "51"}),
]
