"""The marker `fault`, the fixture `seen`, and `--faults-page`, which writes the table of faults after a run."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.table import Run, fault_of, page

MARKER = "fault(slug, title, provoked, holds, faults_row): provokes a fault; a row of docs/faults.md (make faults)"
PROPERTY = "fault"
_SEEN: pytest.StashKey[list[str]] = pytest.StashKey()
_RUNS: pytest.StashKey[list[Run]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--faults-page FILE`: where to write the table."""
    parser.addoption("--faults-page", metavar="FILE", help="write the table of the faults that were provoked")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", MARKER)
    config.stash[_RUNS] = []


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say what was observed: one short sentence of facts for the table of faults, the same in every run."""
    sentences: list[str] = []
    request.node.stash[_SEEN] = sentences
    return sentences.append


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Hand what a fault's test came to on with its report, which xdist carries to the process that writes the page."""
    report: Any = yield
    marker = item.get_closest_marker("fault")
    if marker is not None and (report.when == "call" or report.failed):
        fault = fault_of(marker.args, marker.kwargs)
        observed: list[str] = item.stash.get(_SEEN, [])
        sentences = tuple(observed)
        if report.passed and not sentences:
            report.outcome = "failed"
            report.longrepr = f"the fault {fault.slug!r} was provoked, and the test does not tell what it has seen"
        run = Run(fault, item.nodeid, report.passed, sentences)
        report.user_properties.append((PROPERTY, run.to_json()))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect what `pytest_runtest_makereport` handed on."""
    for name, value in report.user_properties:
        if name == PROPERTY and _collected is not None:
            _collected.append(Run.from_json(value))  # type: ignore[arg-type]  # what `to_json` made


_collected: list[Run] | None = None


def pytest_sessionstart(session: pytest.Session) -> None:
    """Collect only where the page is to be written: not in the workers of xdist."""
    global _collected
    wanted = session.config.getoption("--faults-page") and not hasattr(session.config, "workerinput")
    _collected = session.config.stash[_RUNS] if wanted else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the page."""
    if _collected is None:
        return
    Path(session.config.getoption("--faults-page")).write_text(page(_collected), encoding="utf-8")
