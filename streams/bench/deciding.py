"""What one decision costs: a usage decided and folded, against a plain dict update, in turns in the same process.

The plain update is the least that any ledger does for an event: `balances[event.org_id] -= event.cost_nanos`. The
account that decides has three wallets, ten alert rules and five budgets, three of which are about the usage.
"""

from __future__ import annotations

import json
import timeit
from typing import Any, Final

import msgspec

from schemas.amounts import NANOS
from schemas.enums import ActorRole, BillingUnit, Direction, SettingKind
from streams.ledger.account import Account, new_account
from streams.ledger.commands import Purchase, Setting, Usage
from streams.ledger.decide import Command, Context, Source, decide, settle_due
from streams.ledger.entry import Outcome
from streams.ledger.rating import Price, PriceList

AT: Final = 1_777_593_600_000_000
ORG: Final = "acme"
UNITS: Final = ("USD", "EUR", "tool_runs")
LEVELS: Final = {
    "balance_at_or_below": "5",
    "used_percent": "90",
    "left_percent": "5",
    "month_spend_above": "900000",
    "days_left_below": "5",
}
SCOPES: Final[tuple[dict[str, str], ...]] = (
    {},
    {"user_id": "ann"},
    {"model": "gpt"},
    {"team": "blue"},
    {"project_id": "p", "user_id": "bob"},
)
PRICES: Final = PriceList(
    Price(side.value, "chat", price, BillingUnit.TOKEN, "USD", 0, model="gpt", direction=side)
    for side, price in ((Direction.INPUT, 2_500), (Direction.OUTPUT, 10_000))
)
USAGE: Final = Usage("u", ORG, AT, "chat", model="gpt", user_id="ann", team="red", input_tokens=9, output_tokens=3)

ROUNDS: Final = 25
"""Each round measures both; the best of each counts, for a shared machine only ever adds time."""

DECISIONS: Final = 500
ORGS: Final = 1_000


def cost_in_updates() -> float:
    """How many plain dict updates one decision costs."""
    account, context = benchmark_account(), Context(AT, PRICES, Source("topic", 0, 1))
    events = [msgspec.structs.replace(USAGE, org_id=f"org-{number}", cost_nanos=number) for number in range(ORGS)]
    balances = dict.fromkeys((event.org_id for event in events), 0)

    def update() -> None:
        for event in events:
            balances[event.org_id] -= event.cost_nanos  # type: ignore[operator]  # all of them have a cost

    decided, updated = [], []
    for _ in range(ROUNDS):
        decided.append(timeit.timeit(lambda: decide(account, USAGE, context), number=DECISIONS) / DECISIONS)
        updated.append(timeit.timeit(update, number=1) / ORGS)
    return min(decided) / min(updated)


def benchmark_account() -> Account:
    """The account that decides; one usage is booked, as the first of a month costs more."""
    account = new_account(ORG)
    for unit in UNITS:
        _do(account, Purchase(f"p-{unit}", ORG, AT, unit, 10**6 * NANOS))
    for unit in UNITS[:2]:
        rules = [{"rule_id": kind, "type": kind, "level": level} for kind, level in LEVELS.items()]
        _set(account, SettingKind.THRESHOLDS, {"unit": unit, "rules": rules})
    for number, scope in enumerate(SCOPES):
        body = {"budget_id": f"b{number}", "unit": "USD", "scope": scope, "window": "month", "limit": "900000"}
        _set(account, SettingKind.BUDGET, body)
    _do(account, USAGE)
    return account


def _set(account: Account, kind: SettingKind, body: dict[str, Any]) -> None:
    _do(account, Setting(f"s-{account.seq}", ORG, AT, "bench", ActorRole.SYSTEM, kind, json.dumps(body)))


def _do(account: Account, command: Command) -> None:
    settle_due(account, AT)
    outcome = decide(account, command, Context(AT, PRICES, Source("topic", 0, account.seq)))
    assert isinstance(outcome, Outcome)
    assert not outcome.rejected, "the benchmark's account could not be set up"
