"""The table of faults, `docs/faults.md`: made from a run of the tests that are marked with `@pytest.mark.fault`.

A marked test provokes a fault on the real parts, or on as much of them as the fault needs. The marker says what the
fault is, how it is provoked and what must hold; the test hands one sentence of facts to the fixture `seen`. `make
faults` runs the marked tests, slow ones too, and writes the page. What a test saw must not change from run to run:
counts and names, no times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tests.faults.rows import ROWS

INTRODUCTION = """# Faults

The faults that the system must survive: how each is provoked, what must hold, and what the last run saw. `make faults`
writes this page; it runs every test that is named here, slow ones included. Do not edit the page by hand.

"""

LIST = """
## The numbered list

"""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, as its test's marker gives it. `slug` names it; `title`, `provoked` and `holds` are for readers.

    `faults_row`: its number in the list of faults that the design was made for; 0 where it came later.
    """

    slug: str
    title: str
    provoked: str
    holds: str
    faults_row: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a fault's test came to. `seen`: its sentences; empty when it failed before it saw anything."""

    fault: Fault
    test: str
    passed: bool
    seen: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The run as plain values, for the report of a test that ran in another process."""
        return asdict(self)

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> Run:
        """What `to_json` wrote."""
        return Run(Fault(**given["fault"]), given["test"], given["passed"], tuple(given["seen"]))


def fault_of(positional: tuple[Any, ...], named: Mapping[str, Any]) -> Fault:
    """The fault that a marker's arguments describe; raises `ValueError` where one is missing, empty or unknown."""
    try:
        fault = Fault(*positional, **named)
    except TypeError as error:
        raise ValueError(f"a fault is marked with slug, title, provoked and holds: {error}") from error
    texts = {name: value for name, value in asdict(fault).items() if name != "faults_row"}
    empty = [name for name, value in texts.items() if not (isinstance(value, str) and value.strip())]
    if empty:
        raise ValueError(f"the fault {fault.slug!r} says nothing of: {', '.join(empty)}")
    if fault.faults_row and fault.faults_row not in ROWS:
        raise ValueError(f"the fault {fault.slug!r} is of row {fault.faults_row}; there are {len(ROWS)}")
    return fault


def page(runs: Iterable[Run]) -> str:
    """The whole document: a row a fault, numbered ones first. Several runs of a test (its parameters) are one row.

    After it the list that the numbers are of, with the faults that each number was shown by.
    """
    rows = [
        "| # | fault | how it is provoked | what must hold | seen | test |",
        "|---|---|---|---|---|---|",
    ]
    every = _one_per_test(runs)
    for run in sorted(every, key=lambda each: (each.fault.faults_row or 1_000, each.fault.slug)):
        fault = run.fault
        seen = "; ".join(run.seen) if run.passed else "**failed**"
        number = str(fault.faults_row or "")
        cells = (number, f"**{fault.title}**", fault.provoked, fault.holds, seen, f"`{run.test}`")
        rows.append("| " + " | ".join(_cell(each) for each in cells) + " |")
    return INTRODUCTION + "\n".join(rows) + "\n" + LIST + "\n".join(_listed(every)) + "\n"


def _listed(every: Iterable[Run]) -> list[str]:
    titles: dict[int, list[str]] = {number: [] for number in ROWS}
    for run in every:
        if run.fault.faults_row:
            titles[run.fault.faults_row].append(run.fault.title)
    rows = ["| # | fault | what is expected | shown by |", "|---|---|---|---|"]
    for number, row in ROWS.items():
        cells = (str(number), row.fault, row.expected, "; ".join(sorted(titles[number])) or "no test")
        rows.append("| " + " | ".join(_cell(each) for each in cells) + " |")
    return rows


def _one_per_test(runs: Iterable[Run]) -> list[Run]:
    merged: dict[str, Run] = {}
    for run in runs:
        test = run.test.partition("[")[0]
        before = merged.get(test)
        if before is None:
            merged[test] = Run(run.fault, test, run.passed, run.seen)
        else:
            seen = tuple(sorted({*before.seen, *run.seen}))  # in any order of runs the same
            merged[test] = Run(run.fault, test, before.passed and run.passed, seen)
    return list(merged.values())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
