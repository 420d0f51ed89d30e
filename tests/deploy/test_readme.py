"""The README's first page is true: the demo's counts are those of the stream that the demo sends."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from streams.demo.script import script
from streams.loadgen.waves import Expected
from tests.tidy.source import ROOT

SEED, USAGE_EVENTS = 42, 200_000  # the defaults of `credits demo`
BASE_AT = 1_767_225_600_000_000  # any time will do: counts and sums do not depend on it


@pytest.fixture(scope="module")
def shown() -> str:
    """The verdict in the README, every run of white space one space."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text[text.index("<!-- demo: begin -->") : text.index("<!-- demo: end -->")]
    return re.sub(r"\s+", " ", block)


@pytest.fixture(scope="module")
def expected() -> Expected:
    total = Expected()
    for phase in script(SEED, USAGE_EVENTS, BASE_AT):
        total.add(phase.expected)
    return total


def test_the_counts_are_those_of_the_seed(shown: str, expected: Expected) -> None:
    counts = {
        "events in": expected.records,
        "applied": expected.applied,
        "duplicates": expected.duplicates,
        "rejected": expected.rejected.total(),
        "dead letters": expected.dead_letters.total(),
    }
    for name, count in counts.items():
        assert f"✓ {name} {count:,} " in shown, (
            f"README: {name} should be {count:,}; run `make demo` and copy the verdict"
        )


def test_the_reasons_are_those_of_the_seed(shown: str, expected: Expected) -> None:
    for name, count in each(expected.rejected.items(), expected.dead_letters.items()):
        assert f"{count:,} {name}" in shown


def test_what_the_rules_did_is_that_of_the_seed(shown: str, expected: Expected) -> None:
    for line, counts in expected.at_work.items():
        assert f"✓ {line} " in shown
        for name, count in counts.items():
            assert f"{count:,} {name}" in shown, f"README: {line}: {count:,} {name}"


def each(*groups: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    return [(str(name), count) for group in groups for name, count in group]


def test_everything_was_as_it_must_be(shown: str) -> None:
    assert "Everything is as it must be." in shown
    assert "✗" not in shown
