"""Stories of alarms that random operations hardly ever come to, told by ledger and auditor (rules 20 to 27)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.model.both import Both, Step

DAY_MICROS = 86_400 * 1_000_000
TOPUP: dict[str, Any] = {
    "unit": "USD",
    "enabled": True,
    "threshold": "10",
    "purchase_amount": "50",
    "monthly_cap": "50",
    "backoff_seconds": 60,
}
NOTHING_A_DAY: dict[str, Any] = {"budget_id": "b", "unit": "USD", "scope": {}, "window": "day", "limit": "0"}


def _set(kind: str, body: dict[str, Any]) -> Step:
    return ("set", "acme", kind, body, "root", "system")


def _use(much: str) -> Step:
    return ("use", "acme", "USD", much, {}, None)


def _answer(failed: bool, late: bool = False) -> Step:
    return ("answer", "acme", "USD", failed, late)


def _tick(micros: int) -> Step:
    return ("tick", micros)


BOUGHT: Step = ("buy", "acme", "USD", "100", "purchased", None, 50, None)
GIVEN: Step = ("buy", "acme", "USD", "20", "promotional", 10, 50, None)
GIVEN_TOO_LATE: Step = ("buy", "acme", "USD", "20", "promotional", 0, 50, None)
BELOW_ZERO: dict[str, Any] = {
    "unit": "USD",
    "allowance": "0",
    "rollover_max": "0",
    "low_balance_threshold": "10",
    "low_credit_limit": "0",
    "negative_limit": "5",
}

STORIES: dict[str, tuple[list[Step], dict[str, int]]] = {
    "a charge after its failure": (
        [BOUGHT, _set("auto_topup", TOPUP), _use("95"), _answer(True), _answer(False), _use("50"), _tick(DAY_MICROS)],
        {"credit_auto_recharge_triggered": 1, "credit_auto_recharge_capped": 1},
    ),
    "a second charge for one request": (
        [
            BOUGHT,
            _set("auto_topup", {**TOPUP, "monthly_cap": "100"}),
            _use("95"),
            _answer(False),
            _answer(False, late=True),
            _use("100"),
        ],
        {"credit_auto_recharge_triggered": 2, "credit_auto_recharge_capped": 1},
    ),
    "a cap that is set again": (
        [BOUGHT, _set("auto_topup", {**TOPUP, "monthly_cap": "40"}), _use("95")]
        + [_set("auto_topup", {**TOPUP, "monthly_cap": "40"})] * 2,
        {"credit_auto_recharge_capped": 1},
    ),
    "a gift that has expired on arrival": (
        [BOUGHT, _set("wallet", BELOW_ZERO), _use("106"), GIVEN_TOO_LATE],
        {"credit_balance_low": 1, "credit_balance_depleted": 1, "credit_negative_limit_crossed": 1}
        | {"credit_resolved": 0, "credit_balance_restored": 0, "credit_free_expired": 1},
    ),
    "a gift that has expired on arrival, to a wallet that never had credits": (
        [_set("wallet", BELOW_ZERO), _use("6"), GIVEN_TOO_LATE],
        {"credit_balance_low": 0, "credit_balance_depleted": 0, "credit_negative_limit_crossed": 1}
        | {"credit_resolved": 0, "credit_balance_restored": 0, "credit_free_expired": 1},
    ),
    "a refund to a grant that has expired": (
        [GIVEN, _use("20"), _tick(11 * DAY_MICROS), ("refund usage", "acme", 0, "20", None)],
        {"credit_balance_low": 1, "credit_balance_depleted": 1, "credit_resolved": 0, "credit_balance_restored": 0},
    ),
    "an amendment of what a grant gave that has expired": (
        [GIVEN, _use("20"), _tick(11 * DAY_MICROS), ("correct", "acme", 0, 1, "USD", "7", {})],
        {"credit_balance_low": 1, "credit_balance_depleted": 1, "credit_resolved": 0, "credit_balance_restored": 0},
    ),
    "a budget of nothing": (
        [BOUGHT, _set("budget", NOTHING_A_DAY), _tick(2 * DAY_MICROS), _use("1"), _tick(2 * DAY_MICROS)],
        {"budget_reached": 1, "credit_resolved": 0},
    ),
}
"""What happens, and how often an alert of some kinds is raised."""


@pytest.mark.parametrize("story", STORIES)
def test_both_raise_the_same_alarms(story: str) -> None:
    steps, expected = STORIES[story]
    both = Both()
    for step in steps:
        both.perform(step)
    both.finish()
    kinds = [alert.kind.value for alert in both.world.alerts]
    assert {kind: kinds.count(kind) for kind in expected} == expected
    both.replay([1])
    both.replay([100])
