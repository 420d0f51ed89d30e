"""What the READMEs show of the demo is true: its counts are those of the stream that the demo sends.

The README shows the summary, `streams/demo/README.md` the full verdict.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from streams.demo.script import script
from streams.loadgen.waves import Expected
from tests.tidy.source import ROOT

SEED, USAGE_EVENTS = 42, 200_000  # the defaults of `credits demo`
BASE_AT = 1_767_225_600_000_000  # any time will do: counts and sums do not depend on it


def verdict_in(document: str) -> str:
    """The verdict that a document shows, every run of white space one space."""
    text = (ROOT / document).read_text(encoding="utf-8")
    block = text[text.index("<!-- demo: begin -->") : text.index("<!-- demo: end -->")]
    return re.sub(r"\s+", " ", block)


@pytest.fixture(scope="module")
def summary() -> str:
    return verdict_in("README.md")


@pytest.fixture(scope="module")
def shown() -> str:
    return verdict_in("streams/demo/README.md")


@pytest.fixture(scope="module")
def expected() -> Expected:
    total = Expected()
    for phase in script(SEED, USAGE_EVENTS, BASE_AT):
        total.add(phase.expected)
    return total


def test_the_counts_are_those_of_the_seed(summary: str, shown: str, expected: Expected) -> None:
    counts = {
        "events in": expected.records,
        "applied": expected.applied,
        "duplicates": expected.duplicates,
        "rejected": expected.rejected.total(),
        "dead letters": expected.dead_letters.total(),
    }
    for name, count in counts.items():
        for document in (summary, shown):
            assert f"✓ {name} {count:,} " in document, (
                f"{name} should be {count:,}; run `make demo` (and with ARGS=--full) and copy the verdict"
            )


def test_the_summary_counts_the_reasons(summary: str, expected: Expected) -> None:
    assert f"refused by a rule, for {len(expected.rejected)} reasons" in summary
    assert f"could not be booked, for {len(expected.dead_letters)} reasons" in summary


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


def test_everything_was_as_it_must_be(summary: str, shown: str) -> None:
    for document in (summary, shown):
        assert "Everything is as it must be." in document
        assert "✗" not in document
