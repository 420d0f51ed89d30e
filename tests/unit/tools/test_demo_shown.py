"""What the demo shows while and after it runs: progress within its total, and hints that are commands."""

from __future__ import annotations

import shlex

import pytest

from streams.cli.demo import HINTS
from streams.cli.tail_lines import What
from streams.loadgen.watcher import ReadOfPhase


@pytest.mark.parametrize(
    ("reads", "steps"),
    [
        ([100, 150, 370], [0, 50, 220]),
        ([370, 372, 372], [270, 0, 0]),  # the payment service's answers are in the same topic
        ([360, 372, 380], [260, 10, 0]),
    ],
)
def test_progress_is_never_more_than_the_total(reads: list[int], steps: list[int]) -> None:
    phase = ReadOfPhase(base=100, total=270)
    assert [phase.further(read) for read in reads] == steps
    assert phase.records == sum(steps) == 270


def test_what_is_followed_in_a_hint_can_be_and_is_long_enough() -> None:
    for hint in HINTS:
        words = shlex.split(hint)
        assert words[0] == "credits"
        if words[1] == "tail":
            assert words[2] in set(What)
    longer = [hint for hint, shows in HINTS.items() if "placed" in shows or "failed" in shows]
    assert longer
    assert all(hint.endswith("-n 30") for hint in longer)
