"""Kafka's own door in four languages: the programs on the documentation's pages, against a real broker and ledger.

What each needs is fetched by its language's own tool, so they belong to the long suite, and skip where the tool is not
there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.partitioner import partition_of
from streams.kafka.registry_topic import TopicRegistry
from tests.integration.engine.workers import REPOSITORY
from tests.integration.ledger.installation import LedgerInstallation
from tests.integration.registry_server import RegistryServer

CLIENTS = Path(__file__).parents[2] / "clients" / "kafka"
COST = 9_007_199_254_740_993
"""One more than a number of 53 bits can hold exactly."""
COUNT = 24
FETCH_S = 400
RUN_S = 150

PROGRAMS: dict[str, tuple[str, list[list[str]], list[str]]] = {
    "python": ("python", [], [sys.executable, "client.py"]),
    "java": (
        "mvn",
        [["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib"]],
        ["java", "-cp", "lib/*", "Client.java"],
    ),
    "node": (
        "npm",
        [["npm", "install", "--no-package-lock", "--no-audit", "--ignore-scripts"]],
        ["node", "client.js"],
    ),
    "go": ("go", [["go", "build", "-o", "client", "."]], ["./client"]),
}
PAGES = {
    "python": ["client.py"],
    "java": ["Client.java", "pom.xml"],
    "node": ["client.js", "package.json"],
    "go": ["main.go", "go.mod"],
}


@pytest.fixture
def registry(installation: LedgerInstallation) -> Iterator[str]:
    """The address of the built-in registry."""
    topic = TopicRegistry(installation.settings)
    server = RegistryServer(topic)
    server.start()
    yield server.url
    server.stop()
    topic.close()


@pytest.mark.parametrize("language", PAGES)
def test_the_page_shows_the_program_that_is_tested(language: str) -> None:
    page = (REPOSITORY / "docs" / f"kafka-{language}.md").read_text(encoding="utf-8")
    for name in PAGES[language]:
        program = (CLIENTS / language / name).read_text(encoding="utf-8")
        assert f"```\n\n## {name}\n" in page or f"\n## {name}\n" in page
        assert f"\n{program}```" in page, f"put {name} into docs/kafka-{language}.md as it is"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", PROGRAMS)
def test_a_program_of_each_language_writes_and_reads_exact_amounts(
    language: str, installation: LedgerInstallation, registry: str, tmp_path: Path
) -> None:
    """Usage of twelve organisations: each in its own partition, booked once, read back with all 64 bits."""
    tool, fetching, running = PROGRAMS[language]
    if language != "python" and shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    folder = tmp_path / language
    shutil.copytree(CLIENTS / language, folder)
    for command in fetching:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FETCH_S, check=False)
        if done.returncode != 0:
            pytest.skip(f"{tool} cannot fetch the client: {(done.stderr or done.stdout).strip()[-300:]}")
    installation.ready_worker()
    arguments = [installation.settings.bootstrap_servers, registry, installation.settings.namespace, "run", str(COUNT)]
    done = subprocess.run(
        [*running, *arguments], cwd=folder, capture_output=True, text=True, timeout=RUN_S, check=False
    )
    assert done.returncode == 0, done.stderr
    printed: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    installation.sent = COUNT
    installation.wait_until_booked()
    assert installation.codes() == {}
    report = installation.report()
    assert report.ok, report.differences
    assert len({partition_of(f"org-{number}".encode(), installation.settings.partitions) for number in range(12)}) > 1
    booked = {entry["event_id"]: entry for entry in installation.rows("ledger") if entry["kind"] == "usage"}
    assert {entry["amount_nanos"] for entry in booked.values()} == {-COST}
    if language == "node":  # reads balances: the ledger topic is written with LZ4
        per_org = Counter(entry["org_id"] for entry in booked.values())
        assert {row["org_id"]: row["settled_nanos"] for row in printed} == {
            org: str(-COST * number) for org, number in per_org.items()
        }
        return
    assert {row["event_id"]: row["amount_nanos"] for row in printed} == dict.fromkeys(booked, str(-COST))
    assert len(printed) == COUNT
