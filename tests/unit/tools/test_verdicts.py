"""The verdict of the demo and the goals of the benchmark: right is right, and one thing wrong is wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from streams.bench.figures import GOAL_IDS, GOAL_ORGS, Figures
from streams.cli.demo import show
from streams.demo.verdict import Measured, judge
from streams.loadgen.watcher import quantile
from streams.loadgen.waves import Expected
from streams.verify.audit import Report
from streams.verify.fold import Difference, UnitSum
from streams.verify.sources import TopicCount

MEASURED = Measured(
    seed=1,
    burst_records=1_000,
    burst_s=0.5,
    live_per_second=100,
    latency_p50_ms=10,
    latency_p99_ms=40,
    elapsed_s=30,
    first_number_s=4,
)


def expected() -> Expected:
    return Expected(
        records=100,
        duplicates=5,
        rejected=Counter(same_org=2),
        dead_letters=Counter(too_old=3),
        usage_cost_nanos=Counter(USD=7),
        added_nanos=Counter(USD=50),
        refunded_nanos=Counter(USD=2),
        taken_back_nanos=Counter(USD=1),
        at_work={"holds": Counter({"placed": 4, "released": 2}), "limits": Counter(budget_reached=3)},
    )


def report(**fields: Any) -> Report:
    found: dict[str, Any] = {
        "entries": 95,
        "orgs": 3,
        "kinds": {"usage": 90, "transfer_out": 2},
        "rejected": {"same_org": 2},
        "dead_letters": {"too_old": 3},
        "alerts": {"credit_balance_low": 1},
        "inputs": {
            "credits.usage.v1": TopicCount(records=100, ledger=92, dead_letters=3, duplicates=5),
            "credits.internal.transfer-legs.v1": TopicCount(records=9),
        },
        "units": [UnitSum("USD")],
        "totals": {("USD", "usage"): -7, ("USD", "purchase"): 50, ("USD", "refund"): 2, ("USD", "refund_purchase"): -1},
        "clickhouse_compared": True,
    }
    return Report(**{**found, **fields})


def at_work() -> dict[str, Counter[str]]:
    return {line: Counter(counts) for line, counts in expected().at_work.items()}


def test_all_as_expected() -> None:
    verdict = judge(expected(), report(), at_work(), MEASURED)
    assert verdict.ok
    document = verdict.document
    counts = ("events_in", "applied", "duplicates", "rejected", "dead_letters")
    assert [document[name] for name in counts] == [100, 90, 5, 2, 3]
    assert document["throughput_per_second"] == 2_000
    assert document["at_work"]["holds"] == {"placed": 4, "released": 2}
    shown = {line.name: (line.value, line.note, line.counts) for line in verdict.lines}
    assert shown["holds"] == ("4", "placed", {"released": 2})
    assert shown["limits"] == ("3", "", {"budget_reached": 3})
    assert "ledger = balances = ClickHouse" in [line.note for line in verdict.lines]


@pytest.mark.parametrize(
    "wrong",
    [
        {"rejected": {"same_org": 3}},
        {"dead_letters": {"too_old": 2}},
        {"inputs": {"credits.usage.v1": TopicCount(records=99, ledger=92, dead_letters=3, duplicates=5)}},
        {"totals": {("USD", "usage"): -8, ("USD", "purchase"): 50}},
        {"differences": [Difference("seq_gap", "acme", "entry 3 follows entry 1")], "differences_count": 1},
        {"differences": [Difference("conservation", "USD", "1 too many")], "differences_count": 1},
    ],
)
def test_one_thing_wrong_is_told(wrong: dict[str, Any]) -> None:
    verdict = judge(expected(), report(**wrong), at_work(), MEASURED)
    assert not verdict.ok
    assert verdict.document["ok"] is False
    assert any(line.right is False for line in verdict.lines)


@pytest.mark.parametrize(
    "wrong",
    [
        {"holds": Counter({"placed": 4, "released": 1}), "limits": Counter(budget_reached=3)},
        {"holds": Counter({"placed": 4, "released": 2})},
        {
            "holds": Counter({"placed": 4, "released": 2}),
            "limits": Counter(budget_reached=3),
            "expiries": Counter(grant_expired=1),
        },
    ],
)
def test_a_rule_that_did_something_else_is_told(wrong: dict[str, Counter[str]]) -> None:
    assert not judge(expected(), report(), wrong, MEASURED).ok


def test_the_summary_fits_a_screen_of_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    show(judge(expected(), report(), at_work(), MEASURED))
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) <= 15  # title, thirteen lines, the last sentence
    assert max(map(len, shown)) <= 80
    columns = [re.match(r".  (?P<name>.*?)  +(?P<number>[\d,.]+)", line) for line in shown[1:-1]]
    assert len({found.end() for found in columns if found}) == 1, "numbers end in one column"
    assert all(columns)


def test_a_line_that_is_wrong_is_shown_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = judge(expected(), report(totals={("USD", "usage"): -8}), at_work(), MEASURED)
    assert [line.name for line in wrong.summary if line.right is False] == ["sums"]
    show(wrong)
    shown = capsys.readouterr().out
    assert re.search(r"^✗  USD spent +0\.000000008  0\.000000007 expected *$", shown, re.MULTILINE)
    assert "Something is wrong" in shown


def test_full_shows_each_reason(capsys: pytest.CaptureFixture[str]) -> None:
    verdict = judge(expected(), report(), at_work(), MEASURED)
    show(verdict)
    assert "same_org" not in capsys.readouterr().out
    show(verdict, full=True)
    shown = capsys.readouterr().out
    assert "2  same_org" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(("part", "value"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_quantiles(part: float, value: float) -> None:
    assert quantile([float(n) for n in range(100, 0, -1)], part) == value
    assert quantile([], part) == 0


def figures(**fields: Any) -> Figures:
    met: dict[str, Any] = {
        "idiomatic_rate": 5_000.0,
        "ledger_rate": 90_000.0,
        "plain_rate": 250_000.0,
        "latency_events_per_second": 8_000,
        "latency_p50_ms": 10.0,
        "latency_p99_ms": 99.0,
        "latency_max_ms": 200.0,
        "memory_mib": 500.0,
        "memory_orgs": GOAL_ORGS,
        "memory_ids": GOAL_IDS,
        "ready_s": 14.0,
    }
    return Figures(**{**met, **fields})


def test_goals_that_are_met() -> None:
    assert figures().ok
    assert [goal.met for goal in figures().goals()] == [True] * 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ledger_rate", 79_999.0),
        ("idiomatic_rate", 6_001.0),
        ("latency_p99_ms", 100.0),
        ("memory_mib", 600.0),
        ("ready_s", 15.0),
    ],
)
def test_a_goal_that_is_missed(name: str, value: float) -> None:
    assert not figures(**{name: value}).ok


@pytest.mark.parametrize(
    ("small", "too_small"),
    [
        (lambda: figures(memory_ids=GOAL_IDS - 1, memory_mib=700.0), "worker memory"),
        (lambda: figures(memory_orgs=GOAL_ORGS - 1, ready_s=20.0), "restart to ready"),
        (lambda: figures(latency_events_per_second=7_999, latency_p99_ms=300.0), "p99 to committed entry"),
    ],
)
def test_a_run_that_is_too_small_says_nothing(small: Callable[[], Figures], too_small: str) -> None:
    assert {goal.name: goal.met for goal in small().goals()}[too_small] is None


def test_what_was_not_measured_has_no_goal() -> None:
    assert Figures().goals() == []
    assert Figures().ok


def test_a_quick_look_judges_nothing() -> None:
    look = figures(ledger_rate=1.0)
    assert not look.ok
    look.quick = True
    assert look.ok
    assert {goal.met for goal in look.goals()} == {None}
