"""What deciding a usage costs, with its fold: at most 60 times a plain dict update measured in the same run.

The plain update is the least that any ledger does for an event: `balances[org] -= cost`, in a dict of a thousand orgs.
"""

from __future__ import annotations

import timeit

import msgspec

from schemas.enums import SettingKind
from streams.ledger.commands import Usage
from streams.ledger.decide import Context, Source, decide
from tests.unit.ledger.world import World

DICT_UPDATES_MAX = 60
ROUNDS = 25
"""Each round measures both; the best of each counts, for a shared machine only ever adds time."""

DECISIONS = 500
KEYS = 1_000


def measured_world() -> World:
    """Three wallets, five budgets, ten thresholds; three of the budgets are about the usage that is measured."""
    world = World()
    for unit in ("USD", "EUR", "tool_runs"):
        world.buy("1000000", unit=unit)
    types = ("balance_at_or_below", "used_percent", "left_percent", "month_spend_above", "days_left_below")
    for unit in ("USD", "EUR"):
        rules = [{"rule_id": f"{unit}{number}", "type": kind, "level": "5"} for number, kind in enumerate(types)]
        rules[1]["level"] = "90"
        rules[3]["level"] = "900000"
        world.set(SettingKind.THRESHOLDS, {"unit": unit, "rules": rules})
    scopes: tuple[dict[str, str], ...] = (
        {},
        {"user_id": "ann"},
        {"model": "gpt"},
        {"team": "blue"},
        {"project_id": "p", "user_id": "bob"},
    )
    for number, scope in enumerate(scopes):
        body = {"budget_id": f"b{number}", "unit": "USD", "scope": scope, "window": "month", "limit": "900000"}
        world.set(SettingKind.BUDGET, body)
    world.use("1")
    return world


def test_deciding_a_usage_costs_at_most_sixty_dict_updates() -> None:
    world = measured_world()
    account = world.account()
    usage = Usage(
        "u", "acme", world.at, "chat", model="gpt", user_id="ann", team="red", input_tokens=9, output_tokens=3
    )
    context = Context(world.at, world.prices, Source("topic", 0, 1))
    usages = [msgspec.structs.replace(usage, org_id=f"org-{number}", cost_nanos=1) for number in range(KEYS)]
    balances = {each.org_id: 0 for each in usages}

    def update() -> None:
        for each in usages:
            balances[each.org_id] = balances.get(each.org_id, 0) - (each.cost_nanos or 0)

    decided, updated = [], []
    for _ in range(ROUNDS):
        decided.append(timeit.timeit(lambda: decide(account, usage, context), number=DECISIONS) / DECISIONS)
        updated.append(timeit.timeit(update, number=1) / KEYS)
    ratio = min(decided) / min(updated)
    assert account.wallets["USD"].room > 0, "the way that is measured is the one with budgets"
    assert ratio <= DICT_UPDATES_MAX, f"{ratio:.0f} times a dict update of {min(updated) * 1e9:.0f} ns"
