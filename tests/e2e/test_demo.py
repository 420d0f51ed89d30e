"""`credits demo`, small: everything it counts is as expected, and as it was the last time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.installation import Installation

EVENTS = 4_000
# What must be the same on every machine and every day. Made by the rules from seed 11; a change of the script or of a
# rule that moves them must be meant.
SAME = (
    "events_in",
    "applied",
    "duplicates",
    "rejected",
    "dead_letters",
    "alerts",
    "at_work",
    "entries_by_kind",
    "sums",
)


def test_the_demo_ends_with_a_true_verdict(tmp_path: Path) -> None:
    installation = Installation.at(tmp_path)
    verdict = installation.json("demo", "--events", str(EVENTS), "--seed", "11")
    assert verdict["ok"] is True
    assert verdict["differences"] == []
    assert verdict["clickhouse_compared"] is True
    assert verdict["orgs"] == 500
    assert verdict["events_in"] > EVENTS
    assert set(verdict["conservation"].values()) == {"0"}
    assert verdict["transfers_on_the_way"] == 0
    assert set(verdict["at_work"]) == {"holds", "holds refused", "top-ups", "limits", "corrections", "expiries"}
    assert verdict["at_work"]["holds refused"]["held by other work"] == 10
    assert verdict["at_work"]["top-ups"]["failed"] == 2


@pytest.mark.slow
def test_the_same_seed_gives_the_same_figures(tmp_path: Path) -> None:
    """With two workers, on the folder that the first run left."""
    installation = Installation.at(tmp_path)
    first = installation.json("demo", "--events", str(EVENTS), "--seed", "11")
    again = installation.json("demo", "--events", str(EVENTS), "--seed", "11", "--workers", "2")
    assert {name: again[name] for name in SAME} == {name: first[name] for name in SAME}
