"""Debtors of the demonstration: organisations that may go below zero, down to a limit, and pay later.

Rules of this file: pure. Each debtor does the same: spends more than it has, may go on with what runs but begin nothing
new, crosses its negative limit, is stopped, and most of them pay. Amounts are dollars.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from schemas.amounts import NANOS
from schemas.enums import AlertKind, EntryKind, RejectReason, SettingKind
from streams.demo.holds import Asking, refuse
from streams.demo.organisations import DEBTORS, Settings, org_id, purchase
from streams.loadgen.price_list import USD
from streams.loadgen.tally import HOLDS, LIMITS
from streams.loadgen.waves import Expected

BOUGHT = 10
SPENT_FIRST, SPENT_THEN = 12, 19
PAID = 50
PAYING = DEBTORS[:7]
"""The others stay blocked."""


def debtor_settings(prefix: str, at: int) -> list[dict[str, Any]]:
    """Nothing new is begun at 5 or less; everything stops at −20."""
    settings = Settings(prefix, at)
    for number in DEBTORS:
        body = {"unit": USD, "default": True, "low_credit_limit": "5", "negative_limit": "20"}
        settings.add(org_id(number), SettingKind.WALLET, body)
    return settings.records


def debtor_purchases(prefix: str, at: int) -> list[dict[str, Any]]:
    """What the debtors have."""
    return [purchase(number, f"{prefix}-first", BOUGHT * NANOS, at) for number in DEBTORS]


def spends_first(prefix: str, at: int, expected: Expected) -> list[dict[str, Any]]:
    """Two dollars more than there are."""
    return _spend(f"{prefix}-debt1", SPENT_FIRST, at, expected)


def asks(prefix: str, at: int, expected: Expected) -> list[dict[str, Any]]:
    """A deployment is refused below zero; running work goes on."""
    records = []
    for number in DEBTORS:
        ask = Asking(prefix, number, at)
        ask.place("deployment", 1, operation="deployment")
        ask.place("running", 5, operation="chat.completion")
        ask.release("running")
        records += ask.records
    expected.records += len(records)
    refuse(expected, RejectReason.INSUFFICIENT_CREDITS, len(DEBTORS))
    expected.works(HOLDS, placed=len(DEBTORS), released=len(DEBTORS))
    expected.entries[EntryKind.HOLD.value] += len(DEBTORS)
    expected.entries[EntryKind.HOLD_RELEASE.value] += len(DEBTORS)
    return records


def spends_then(prefix: str, at: int, expected: Expected) -> list[dict[str, Any]]:
    """Beyond the negative limit."""
    expected.at_work[LIMITS] = expected.at_work.get(LIMITS, Counter())
    expected.at_work[LIMITS][AlertKind.NEGATIVE_LIMIT_CROSSED.value] += len(DEBTORS)
    return _spend(f"{prefix}-debt2", SPENT_THEN, at, expected)


def asks_again(prefix: str, at: int, expected: Expected) -> list[dict[str, Any]]:
    """Now nothing goes any more."""
    records = []
    for number in DEBTORS:
        ask = Asking(prefix, number, at)
        ask.place("stopped", 1, operation="chat.completion")
        records += ask.records
    expected.records += len(records)
    refuse(expected, RejectReason.BLOCKED, len(DEBTORS))
    return records


def pays(prefix: str, at: int) -> list[dict[str, Any]]:
    """The purchase that pays the debt first."""
    return [purchase(number, f"{prefix}-pays", PAID * NANOS, at) for number in PAYING]


def _spend(prefix: str, amount: int, at: int, expected: Expected) -> list[dict[str, Any]]:
    records = [
        {
            "event_id": f"{prefix}-{org_id(number)}",
            "org_id": org_id(number),
            "occurred_at": at,
            "operation": "partner.call",
            "category": "partner",
            "cost_nanos": amount * NANOS,
            "wallet": USD,
        }
        for number in DEBTORS
    ]
    expected.records += len(records)
    expected.usage_cost_nanos[USD] += amount * NANOS * len(records)
    return records
