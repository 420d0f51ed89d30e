"""The ledger against the auditor: the same operations, line by line and alert by alert.

The auditor (tests/model/auditor.py) is written from the rules and shares no code with the ledger. Whatever the
sequence, both must say the same amounts, balances, refusals, draws by kind of grant, alerts, answers to holds, requests
for credits and statuses; and whatever the batches, the processor must come to what the ledger came to.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.ledger.entry import Entry
from tests.laws import examples
from tests.model.both import EXTRAS, Both, Step

SEQUENCES = examples(300)
LONG_SEQUENCES = int(os.environ.get("CREDITS_TEST_LONG_SEQUENCES", "100000"))
"""Of the long run; fewer make a piece of it, and pieces of different `--hypothesis-seed` add up."""

ORGS = ("acme", "beta", "gone")
ZONES = ("UTC", "Asia/Tokyo", "America/Los_Angeles", "Pacific/Kiritimati")
DAY_MS = 86_400_000
BUDGETED: tuple[dict[str, str], ...] = (
    {},
    {},
    {"user_id": "u1"},
    {"model": "gpt"},
    {"user_id": "u1", "model": "gpt"},
    {"tool": "search"},
    {"project_id": "web"},
    {"team": "red"},
    {"department": "sales"},
    {"team": "red", "department": "sales"},
)
"""What budgets are for: all of an org, or some dimensions of it."""
DIMENSIONS = sorted({name for named in BUDGETED for name in named})

org = st.sampled_from(("acme", "acme", "acme", "beta", "gone"))
unit = st.sampled_from(("USD", "USD", "USD", "EUR"))
amount = st.sampled_from(("0.000000001", "0.5", "1", "2.5", "7", "10", "19.999999999", "40", "100"))
days = st.sampled_from((None, 0, 1, 3, 20, 40))
level = st.sampled_from(("0", "5", "20", "50", "80", "100"))
maybe_level = st.none() | level
place = st.integers(0, 9)
rule_kind = st.sampled_from(
    ("balance_at_or_below", "used_percent", "left_percent", "month_spend_above", "days_left_below", "days_left_below")
)
actor = st.sampled_from((None, None, "ann", "bob", "eve"))
writer = st.sampled_from(
    (("root", "system"), ("root", "system"), ("ann", "admin"), ("bob", "billing"), ("eve", "member"))
)
user = st.sampled_from(("u1", "u2"))
model = st.sampled_from(("gpt", "mini", "gift"))
people_and_things = {"user_id": user, "model": model, "tool": st.just("search"), "project_id": st.just("web")}
groups = {"team": st.just("red"), "department": st.just("sales")}
scope = st.fixed_dictionaries({}, optional={**people_and_things, **groups})
hold_scope = st.fixed_dictionaries({}, optional={**people_and_things, **groups, "user_id": user | st.just("eve")})
operation = st.sampled_from((None, "chat", "deployment"))
on_shortage = st.sampled_from(("reject", "cap", "overflow"))
minutes = st.sampled_from((None, 0, 10, 600, 3_000))

rules = st.lists(st.tuples(rule_kind, level), max_size=4).map(
    lambda wanted: [{"rule_id": f"r{n}", "type": kind, "level": text} for n, (kind, text) in enumerate(wanted)]
)


def _own_price(named: str | None) -> st.SearchStrategy[dict[str, Any]]:
    """A price of the org's own, for one model or for all; its id says which, so that no two tie."""
    return st.fixed_dictionaries(
        {
            "price_id": st.just(f"own {named}"),
            "operation": st.just("chat"),
            "model": st.just(named),
            "unit_price": st.sampled_from(("0.000001", "0.0000015")),
            "billing_unit": st.sampled_from(("token", "1000_tokens", "request")),
            "wallet": unit,
            "free": st.sampled_from((False, False, True)),
        }
    )


bodies: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "org": st.fixed_dictionaries(
        {
            "closed": st.sampled_from((False, False, True)),
            "time_zone": st.sampled_from(ZONES),
            "administrators": st.just(["alice"]),
            "tier": st.sampled_from((None, "pro")),
        }
    ),
    "member": st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(("ann", "bob", "eve")),
            "role": st.sampled_from(("owner", "admin", "billing", "member", "none", "none")),
        }
    ),
    "wallet": st.fixed_dictionaries(
        {
            "unit": unit,
            "allowance": st.sampled_from(("0", "10", "50")),
            "rollover_max": st.sampled_from(("0", "5")),
            "low_balance_threshold": level,
            "low_credit_limit": st.sampled_from(("0", "5")),
            "negative_limit": st.sampled_from(("0", "5", "-20")),
        }
    ),
    "thresholds": st.fixed_dictionaries({"unit": unit, "rules": rules}),
    "month_limits": st.fixed_dictionaries({"unit": unit, "alert_threshold": maybe_level, "allowed_limit": maybe_level}),
    "budget": st.fixed_dictionaries(
        {
            "budget_id": st.sampled_from(("b1", "b2", "b3")),
            "unit": unit,
            "scope": st.sampled_from(BUDGETED),
            "window": st.sampled_from(("day", "week", "month")),
            "limit": st.sampled_from(("1", "7", "20", "50")),
        }
    ),
    "auto_topup": st.fixed_dictionaries(
        {
            "unit": unit,
            "enabled": st.sampled_from((True, True, True, False)),
            "threshold": st.sampled_from(("20", "10", "20", "0")),
            "purchase_amount": st.sampled_from(("20", "50", "20", "10", "0.5", "100001")),
            "monthly_cap": st.sampled_from((None, "30", "100")),
            "backoff_seconds": st.sampled_from((60, 3_600, 604_800)),
        }
    ),
    "model_access": st.fixed_dictionaries(
        {"allow": st.sampled_from((["*"], ["g*"])), "deny": st.sampled_from(([], [], ["gpt"], ["m*"]))}
    ),
    "price_override": st.sampled_from((None, "gpt")).flatmap(_own_price),
}
setting = st.one_of(
    *(
        st.tuples(st.just("set"), org, st.just(kind), body, writer).map(lambda made: (*made[:4], *made[4]))
        for kind, body in bodies.items()
    )
)
bought = st.sampled_from(("purchased", "purchased", "promotional", "adjustment"))
hold_number = st.none() | st.integers(0, 2)

anything: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("use"), org, unit, amount, scope, hold_number),
    st.tuples(st.just("use"), org, unit, amount, scope, hold_number),
    st.tuples(
        st.just("work"),
        org,
        st.sampled_from(("chat", "chat", "deployment", "nobody knows")),
        model,
        st.sampled_from((0, 1, 999, 123_457)),
        st.sampled_from((None, 1, 3)),
        st.sampled_from(({}, {}, {}, *EXTRAS)),
    ),
    st.tuples(st.just("buy"), org, unit, amount, bought, days, st.sampled_from((0, 50, 50, 100)), actor),
    st.tuples(st.just("buy"), org, unit, amount.map("-{}".format), st.just("adjustment"), days, st.just(50), actor),
    st.tuples(st.just("answer"), org, unit, st.booleans(), st.sampled_from((False, False, True))),
    st.tuples(st.just("answer"), st.just("acme"), st.just("USD"), st.booleans(), st.just(False)),
    st.tuples(st.just("send"), org, org, unit, amount, st.sampled_from(("alice", "alice", "mallory"))),
    st.tuples(st.just("buy again"), org, unit, amount, place),
    st.tuples(st.just("send again"), org, org, unit, amount, place),
    st.tuples(st.just("deliver")),
    st.tuples(st.just("refund purchase"), org, place, amount),
    st.tuples(st.just("refund usage"), org, place, amount, actor),
    st.tuples(st.just("correct"), org, place, st.integers(1, 3), unit, st.none() | amount, scope),
    st.tuples(st.just("place"), org, unit, amount, hold_scope, operation, on_shortage, minutes),
    st.tuples(st.just("place"), org, unit, amount, hold_scope, operation, on_shortage, minutes),
    st.tuples(st.just("capture"), org, st.integers(0, 2), unit, amount | st.just("0")),
    st.tuples(st.just("release"), org, st.integers(0, 2), unit),
    st.tuples(st.just("tick"), st.integers(0, 35 * DAY_MS).map(lambda millis: millis * 1_000)),
    st.tuples(st.just("tick"), st.integers(0, DAY_MS).map(lambda millis: millis * 1_000)),
    st.tuples(st.just("tick"), st.just(41 * DAY_MS * 1_000)),
    setting,
    setting,
)


def _spent_in_a_budget(
    who: str, where: str, named: dict[str, str], window: str, uses: list[tuple[str, dict[str, str]]]
) -> list[Step]:
    """A budget is set, spent, and stands in the way of a hold."""
    body = {"budget_id": "b1", "unit": where, "scope": named, "window": window, "limit": "1"}
    return [
        ("set", who, "budget", body, "root", "system"),
        *(("use", who, where, much, {**more, **named}, None) for much, more in uses),
        ("place", who, where, "1", named, None, "cap", 600),
    ]


def _used_day_by_day(who: str, where: str, days_left: str, uses: list[tuple[str, int]]) -> list[Step]:
    """A rule on days of credit left, and usage of some days."""
    rule = {"rule_id": "r9", "type": "days_left_below", "level": days_left}
    steps: list[Step] = [("set", who, "thresholds", {"unit": where, "rules": [rule]}, "root", "system")]
    for much, hours in uses:
        steps += [("use", who, where, much, {}, None), ("tick", hours * 3_600 * 1_000_000)]
    return steps


def _used_again(who: str, target: str, where: str, much: str, number: int) -> list[Step]:
    """A purchase and a transfer come to their end, and their ids are used again long after."""
    return [
        ("buy", who, where, "40", "purchased", None, 50, None),
        ("send", who, target, where, much, "alice"),
        ("deliver",),
        ("tick", 41 * DAY_MS * 1_000),
        ("buy again", who, where, "40", number),
        ("send again", who, target, where, much, number),
        ("deliver",),
    ]


def _amended_later(
    who: str, where: str, much: str, revisions: list[tuple[int, str | None, dict[str, str]]]
) -> list[Step]:
    """Usage on an allowance and in budgets, corrected and refunded in later days and months."""
    terms = {"unit": where, "allowance": "50", "rollover_max": "5", "low_balance_threshold": "20"}
    steps: list[Step] = [
        ("set", who, "wallet", {**terms, "low_credit_limit": "0", "negative_limit": "0"}, "root", "system"),
        ("set", who, "budget", _budget("b1", where, {}, "month"), "root", "system"),
        ("set", who, "budget", _budget("b2", where, {"user_id": "u1"}, "day"), "root", "system"),
        ("use", who, where, much, {"user_id": "u1"}, None),
    ]
    for number, (hours, cost, named) in enumerate(revisions):
        steps += [
            ("tick", hours * 3_600 * 1_000_000),
            ("use", who, where, "0.5", {}, None),
            ("correct", who, 0, number + 1, where, cost, named),
        ]
    return [*steps, ("refund usage", who, 0, "0.5", None)]


def _back_before_it_ends(who: str, where: str, much: str, used_after: int, back_after: int) -> list[Step]:
    """A gift for 20 days that is all used, and comes back: before its last week, or in it, or when it has ended."""
    day = DAY_MS * 1_000
    return [
        ("buy", who, where, much, "promotional", 20, 0, None),
        ("tick", used_after * day),
        ("use", who, where, much, {}, None),
        ("tick", back_after * day),
        ("refund usage", who, -1, "0.000000001", None),
        ("refund usage", who, -1, "0.5", None),
        *[("tick", 4 * day)] * 6,
    ]


def _held_over_the_end(
    who: str, where: str, much: str, priority: int, held: list[str], meanwhile: list[Step], resolved: list[Step]
) -> list[Step]:
    """A gift ends while holds cover some of it, other things happen, and the holds are resolved or time out."""
    hour = 3_600 * 1_000_000
    return [
        ("buy", who, where, much, "promotional", 1, priority, None),
        ("tick", 23 * hour),
        *(("place", who, where, each, {}, None, "overflow", 600) for each in held),
        ("tick", 2 * hour),
        *meanwhile,
        *resolved,
        ("tick", 12 * hour),
    ]


def _held_over_the_turn(
    who: str, where: str, used: str, rollover: str, held: list[str], meanwhile: list[Step], resolved: list[Step]
) -> list[Step]:
    """The same of an allowance, at the turn of the month."""
    hour = 3_600 * 1_000_000
    terms = {"unit": where, "allowance": "50", "rollover_max": rollover, "low_balance_threshold": "20"}
    return [
        ("set", who, "wallet", {**terms, "low_credit_limit": "0", "negative_limit": "0"}, "root", "system"),
        ("before the turn", hour),
        ("use", who, where, used, {}, None),
        *(("place", who, where, each, {}, None, "overflow", 600) for each in held),
        ("tick", 2 * hour),
        *meanwhile,
        *resolved,
        ("tick", 12 * hour),
    ]


def _before_any_credits(who: str, where: str, wanted: list[dict[str, str]], much: str, first: Step) -> list[Step]:
    """Rules are set and usage comes before there are credits."""
    return [
        ("set", who, "thresholds", {"unit": where, "rules": wanted}, "root", "system"),
        ("use", who, where, much, {}, None),
        first,
        ("use", who, where, much, {}, None),
    ]


def _budget(name: str, where: str, named: dict[str, str], window: str) -> dict[str, Any]:
    return {"budget_id": name, "unit": where, "scope": named, "window": window, "limit": "7"}


uses = st.lists(st.tuples(amount, st.fixed_dictionaries({}, optional={"user_id": user})), min_size=1, max_size=3)
days_of_usage = st.lists(st.tuples(amount, st.sampled_from((1, 20, 24, 30, 80))), min_size=2, max_size=9)
revisions = st.lists(
    st.tuples(st.sampled_from((1, 30, 800)), st.none() | amount, st.fixed_dictionaries({}, optional={"user_id": user})),
    min_size=1,
    max_size=3,
)
helds = st.lists(amount, min_size=1, max_size=3)


def _around(who: str) -> st.SearchStrategy[tuple[list[Step], list[Step]]]:
    """What happens while a hold keeps what has ended, and how holds are resolved."""
    meanwhile: st.SearchStrategy[Step] = st.one_of(
        st.tuples(st.just("use"), st.just(who), unit, amount, st.just({}), st.none()),
        st.tuples(st.just("place"), st.just(who), unit, amount, st.just({}), st.none(), on_shortage, minutes),
        st.tuples(st.just("refund purchase"), st.just(who), st.just(-1), amount),
        st.tuples(st.just("refund usage"), st.just(who), st.integers(-2, 0), amount, st.none()),
        st.tuples(st.just("correct"), st.just(who), st.integers(-2, 0), st.integers(1, 3), unit, amount, st.just({})),
        st.tuples(st.just("buy"), st.just(who), unit, amount, bought, days, st.sampled_from((0, 50)), st.none()),
        st.tuples(st.just("send"), st.just(who), org, unit, amount, st.just("alice")),
        st.tuples(st.just("deliver")),
    )
    resolved: st.SearchStrategy[Step] = st.one_of(
        st.tuples(st.just("capture"), st.just(who), st.integers(0, 2), unit, amount | st.just("0")),
        st.tuples(st.just("use"), st.just(who), unit, amount, st.just({}), st.integers(0, 2)),
        st.tuples(st.just("release"), st.just(who), st.integers(0, 2), unit),
    )
    return st.tuples(st.lists(meanwhile, max_size=4), st.lists(resolved, max_size=3))


def _ended(who: str) -> st.SearchStrategy[list[Step]]:
    named, priority = st.just(who), st.sampled_from((0, 50, 100))
    over_the_end = st.builds(
        lambda where, much, first, held, around: _held_over_the_end(who, where, much, first, held, *around),
        unit,
        amount,
        priority,
        helds,
        _around(who),
    )
    over_the_turn = st.builds(
        lambda where, used, rollover, held, around: _held_over_the_turn(who, where, used, rollover, held, *around),
        unit,
        amount,
        st.sampled_from(("0", "5", "40")),
        helds,
        _around(who),
    )
    silent = st.builds(
        _before_any_credits,
        named,
        unit,
        rules,
        amount,
        st.tuples(st.just("buy"), named, unit, amount, bought, days, st.just(50), st.none()),
    )
    return st.one_of(over_the_end, over_the_turn, silent)


stories: st.SearchStrategy[list[Step]] = st.one_of(
    org.flatmap(_ended),
    org.flatmap(_ended),
    st.builds(_spent_in_a_budget, org, unit, st.sampled_from(BUDGETED[2:]), st.sampled_from(("day", "month")), uses),
    st.builds(_used_day_by_day, org, unit, st.sampled_from(("1", "2.5", "5", "20")), days_of_usage),
    st.builds(_used_again, org, org, unit, st.sampled_from(("1", "7")), place),
    st.builds(_amended_later, org, unit, amount, revisions),
    st.builds(_back_before_it_ends, org, unit, amount, st.sampled_from((1, 14)), st.sampled_from((2, 13, 20))),
)
"""Operations that random ones hardly ever come to together."""
parts = st.one_of(*[anything.map(lambda step: [step])] * 4, stories)
sequences = st.integers(4, 20).flatmap(
    lambda size: st.lists(parts, min_size=size, max_size=size).map(
        lambda found: [step for part in found for step in part]
    )
)
sizes = st.lists(st.sampled_from((100, 13, 5, 2, 1)), min_size=1, max_size=4)


def _follow(steps: list[Step]) -> Both:
    both = Both()
    for who in ORGS[:2]:
        body: dict[str, Any] = {"closed": False, "time_zone": "UTC", "administrators": ["alice"]}
        both.perform(("set", who, "org", body, "root", "system"))
    for who, much in (("acme", "100"), ("beta", "19.999999999")):
        both.perform(("buy", who, "USD", much, "purchased", None, 50, None))
    for step in steps:
        both.perform(step)
    both.finish()
    return both


REACHED: Counter[str] = Counter()
"""What the sequences of the default run have come to."""

SELDOM = {
    *(
        "credit_days_left",
        "credits_expiring",
        "purchase used again",
        "transfer_out used again",
        "amended in a later month",
        "kept for a hold at the end",
        "kept for a hold at the turn",
        "expired with its hold",
    ),
    *(f"over the budget of a {name}" for name in DIMENSIONS),
    *(f"a hold refused by the budget of a {name}" for name in DIMENSIONS),
}
"""What random operations come to only when they are made to."""


def _note(both: Both) -> None:
    REACHED.update(alert.kind.value for alert in both.world.alerts)
    REACHED["amended in a later month"] += sum(
        _amended_in_a_later_month(entries) for entries in both.world.entries.values()
    )
    for entries in both.world.entries.values():
        for entry in entries:
            if entry.kind == "rollover" and entry.details is not None:
                REACHED["kept for a hold at the " + ("turn" if entry.reason is None else "end")] += 1
            if entry.kind == "expiry" and entry.correlation_id is not None:
                REACHED["expired with its hold"] += 1
    for kind, count in both.again.items():
        REACHED[f"{kind} used again"] += count
    for name, count in both.over.items():
        REACHED[f"over the budget of a {name}"] += count
    for name, count in both.refused.items():
        REACHED[f"a hold refused by the budget of a {name}"] += count


def _amended_in_a_later_month(entries: list[Entry]) -> int:
    turns = [entry.seq for entry in entries if entry.kind == "rollover" and entry.reason is None]
    first = {entry.event_id: entry.seq for entry in reversed(entries) if entry.kind == "usage"}
    amended = [entry for entry in entries if entry.reason == "usage_amended"]
    return sum(any(first[entry.event_id] < seq < entry.seq for seq in turns) for entry in amended)


def test_both_know_how_many_wallets_an_org_may_have() -> None:
    steps: list[Step] = []
    for number in range(66):
        where = f"unit-{number}"
        steps += [
            ("buy", "acme", where, "2.5", "promotional", None, 50, None),
            ("use", "beta", where, "1", {}, None),
            ("set", "beta", "thresholds", {"unit": where, "rules": []}, "root", "system"),
            ("place", "beta", where, "1", {}, None, "overflow", None),
            ("correct", "beta", number, 1, where, "2.5", {}),
            ("send", "acme", "beta", where, "1", "alice"),
            ("deliver",),
        ]
    both = _follow(steps)
    both.replay([7, 100])
    reasons = {entry.reason for entries in both.world.entries.values() for entry in entries}
    assert {"too_many_wallets", "invalid_setting", "limit_reached"} <= reasons


def test_both_know_how_many_grants_an_org_may_have() -> None:
    steps: list[Step] = [("buy", "acme", "USD", "1", "promotional", None, 50, None)] * 498
    steps += [
        ("send", "acme", "beta", "USD", "2.5", "alice"),
        ("buy", "acme", "EUR", "1", "promotional", None, 50, None),
        ("deliver",),
        ("use", "acme", "USD", "1", {}, None),
        *[("buy", "acme", "EUR", "1", "purchased", None, 50, None)] * 5,
        ("refund usage", "acme", 0, "1", None),
        ("correct", "acme", 0, 1, "USD", "2.5", {}),
        ("send", "beta", "acme", "USD", "1", "alice"),
        ("deliver",),
    ]
    both = _follow(steps)
    both.replay([50])
    refused = [entry.reason for entry in both.world.entries["acme"] if entry.kind == "rejected"]
    assert refused.count("too_many_grants") >= 4


def test_both_count_seven_complete_days() -> None:
    day = 24
    uses = [("1", day), *[("10", day)] * 6]
    both = _follow(
        [("buy", "acme", "USD", "40", "purchased", None, 50, None), *_used_day_by_day("acme", "USD", "8.5", uses)]
    )
    assert not any(alert.kind == "credit_days_left" for alert in both.world.alerts)  # 79 at 61 / 7 a day: 9.07 days
    both.perform(("use", "acme", "USD", "7", {}, None))
    assert [alert.kind.value for alert in both.world.alerts].count("credit_days_left") == 1  # 72: 8.3 days


STORIES: list[list[Step]] = [
    *(_spent_in_a_budget("acme", "USD", named, "day", [("7", {})]) for named in BUDGETED),
    _used_day_by_day("acme", "USD", "20", [("7", 24), ("10", 24)]),
    _used_again("acme", "beta", "USD", "7", 0),
    _amended_later(
        "acme", "USD", "40", [(30, "10", {"user_id": "u1"}), (720, "7", {}), (30, "100", {"user_id": "u2"})]
    ),
    *(_back_before_it_ends("acme", "EUR", "1", used, back) for used, back in ((1, 2), (1, 13), (14, 2), (1, 20))),
    _held_over_the_end(
        "beta",
        "EUR",
        "40",
        0,
        ["10", "7"],
        [("use", "beta", "EUR", "2.5", {}, None), ("refund purchase", "beta", -1, "1")],
        [("capture", "beta", 1, "EUR", "7"), ("release", "beta", 0, "EUR")],
    ),
    _held_over_the_turn("beta", "EUR", "1", "5", ["40"], [("use", "beta", "EUR", "2.5", {}, None)], []),
    _before_any_credits(
        "gone",
        "EUR",
        [{"rule_id": "r0", "type": "used_percent", "level": "80"}],
        "1",
        ("buy", "gone", "EUR", "10", "purchased", None, 50, None),
    ),
    _amended_later("acme", "USD", "7", [(800, "10", {"user_id": "u2"}), (1, None, {}), (1, "2.5", {"user_id": "u1"})]),
]


@pytest.mark.fault(
    "any-batch-size",
    title="the same records in other batches",
    provoked="stories of usage, holds, refunds and transfers, one by one and in batches of two",
    holds="in ledger order, the same at every batch size",
    faults_row=16,
)
@pytest.mark.parametrize("story", STORIES)
def test_both_tell_each_story_alike(story: list[Step], seen: Callable[[str], None]) -> None:
    both = _follow(story)
    both.replay([2])
    _note(both)
    seen("entries, alerts and decisions were the same in batches, and the same as the auditor's")


@settings(max_examples=SEQUENCES)
@given(sequences, sizes)
def test_the_ledger_says_what_the_rules_say(steps: list[Step], sizes: list[int]) -> None:
    both = _follow(steps)
    both.replay(sizes)
    _note(both)


def test_every_rule_was_reached() -> None:
    if not REACHED:
        pytest.skip("neither stories nor sequences were run")
    assert (+REACHED).keys() >= SELDOM, f"not reached: {SELDOM - (+REACHED).keys()}"


@pytest.mark.slow
@pytest.mark.timeout(14_400)
@settings(max_examples=LONG_SEQUENCES)
@given(sequences, sizes)
def test_the_ledger_says_what_the_rules_say_for_long(steps: list[Step], sizes: list[int]) -> None:
    _follow(steps).replay(sizes)
