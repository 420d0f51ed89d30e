"""Agents of the demonstration, who hold credits before they work: every way that a hold can go.

Rules of this file: pure. Each agent has the same balance and asks the same, in one topic, so every answer is known
beforehand: amounts below are dollars. Nothing else happens to these organisations while they hold.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from schemas.amounts import NANOS
from schemas.enums import BudgetWindow, EntryKind, HoldAction, OnShortage, RejectReason, SettingKind
from streams.demo.organisations import AGENTS, Settings, org_id, purchase
from streams.loadgen.price_list import USD
from streams.loadgen.tally import HOLDS, REFUSED_HOLDS, refusal_words
from streams.loadgen.waves import Expected

BOUGHT = 100
TIME_OUT_AFTER_US = 12_000_000
"""How long after the start of the run the hold that is never resolved ends by itself."""

LATE_HOLD = "later"
LATE_COST_NANOS = 2 * NANOS


def agent_settings(prefix: str, at: int) -> list[dict[str, Any]]:
    """A model that no agent may use, and a budget for one user."""
    settings = Settings(prefix, at)
    for number in AGENTS:
        settings.add(org_id(number), SettingKind.MODEL_ACCESS, {"allow": ["*"], "deny": ["o3-*"]})
        budget = {
            "budget_id": "intern",
            "unit": USD,
            "scope": {"user_id": "intern"},
            "window": BudgetWindow.MONTH.value,
            "limit": "5",
        }
        settings.add(org_id(number), SettingKind.BUDGET, budget)
    return settings.records


def agent_purchases(prefix: str, at: int) -> list[dict[str, Any]]:
    """What the agents have."""
    return [purchase(number, f"{prefix}-first", BOUGHT * NANOS, at) for number in AGENTS]


class Asking:
    """Makes the hold records of one organisation, in the order in which they are asked."""

    def __init__(self, prefix: str, number: int, at: int) -> None:
        self._prefix = prefix
        self._org_id = org_id(number)
        self._at = at
        self.records: list[dict[str, Any]] = []

    def hold_id(self, name: str) -> str:
        """The id that a hold has over the wire."""
        return f"{self._prefix}-{name}-{self._org_id}"

    def place(self, name: str, amount: int, **fields: Any) -> None:
        """Set these units aside."""
        self._ask(name, HoldAction.PLACE, amount, fields)

    def capture(self, name: str, amount: int) -> None:
        """The work is done and cost these units."""
        self._ask(name, HoldAction.CAPTURE, amount, {})

    def release(self, name: str) -> None:
        """The work is not done after all."""
        self._ask(name, HoldAction.RELEASE, 0, {})

    def _ask(self, name: str, action: HoldAction, amount: int, fields: dict[str, Any]) -> None:
        record = {
            "hold_id": self.hold_id(name),
            "org_id": self._org_id,
            "occurred_at": self._at,
            "action": action.value,
            "wallet": USD,
            "amount_nanos": amount * NANOS,
        }
        self.records.append({**record, **fields})


def asked_by_agents(prefix: str, at: int, base_at: int, expected: Expected) -> list[dict[str, Any]]:
    """Placed, refused, captured for less, as much and more, released, left to time out."""
    records = []
    for number in AGENTS:
        ask = Asking(prefix, number, at)
        ask.place("research", 40, model="gpt-4o", user_id="ana")
        ask.place("coding", 50, model="claude-sonnet-4", user_id="ben")
        ask.place("more", 30)  # 10 are free, 90 are held
        ask.place("dream", 500)  # more than there ever was
        ask.place("rest", 20, on_shortage=OnShortage.CAP.value)  # gets the 10 that are free
        ask.place("banned", 1, model="o3-mini")
        ask.capture("research", 25)
        ask.capture("coding", 50)
        ask.capture("rest", 12)
        ask.capture("research", 20)  # was resolved
        ask.release("never")
        ask.place("trainee", 6, user_id="intern")  # the budget is 5
        ask.place("idea", 5)
        ask.release("idea")
        ask.place("forgotten", 3, expires_at=base_at + TIME_OUT_AFTER_US)
        ask.place(LATE_HOLD, 2)
        ask.place("rush", 30, on_shortage=OnShortage.OVERFLOW.value)  # 8 are free, but this work goes on
        ask.capture("rush", 10)
        records += ask.records
    agents = len(AGENTS)
    expected.records += len(records)
    expected.works(HOLDS, placed=7 * agents, timed_out=agents, released=agents, placed_for_less=agents)
    expected.works(HOLDS, captured_for_less=2 * agents, captured_as_held=agents, captured_for_more=agents)
    for reason in (
        RejectReason.CREDITS_HELD,
        RejectReason.INSUFFICIENT_CREDITS,
        RejectReason.MODEL_NOT_ALLOWED,
        RejectReason.ALREADY_RESOLVED,
        RejectReason.UNKNOWN_HOLD,
        RejectReason.LIMIT_REACHED,
    ):
        refuse(expected, reason, agents)
    expected.usage_cost_nanos[USD] += (25 + 50 + 12 + 10) * NANOS * agents
    expected.entries[EntryKind.HOLD.value] += 7 * agents
    expected.entries[EntryKind.HOLD_RELEASE.value] += 4 * agents  # two captures for less, a release, a time-out
    return records


def late_work(prefix: str, at: int, expected: Expected) -> list[dict[str, Any]]:
    """Usage that names its hold captures it, as a capture does."""
    records = [
        {
            "event_id": f"{prefix}-late-{org_id(number)}",
            "org_id": org_id(number),
            "occurred_at": at,
            "operation": "partner.call",
            "category": "partner",
            "cost_nanos": LATE_COST_NANOS,
            "wallet": USD,
            "hold_id": Asking(prefix, number, at).hold_id(LATE_HOLD),
        }
        for number in AGENTS
    ]
    expected.records += len(records)
    expected.works(HOLDS, captured_as_held=len(records))
    expected.usage_cost_nanos[USD] += LATE_COST_NANOS * len(records)
    return records


def refuse(expected: Expected, reason: RejectReason, count: int) -> None:
    """Expect `count` more refusals of holds with this reason."""
    expected.rejected[reason.value] += count
    expected.at_work.setdefault(REFUSED_HOLDS, Counter())[refusal_words(reason.value)] += count
