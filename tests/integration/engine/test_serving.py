"""What a worker does besides counting: timers, lookups, waiting, bounded queues, isolation; on a real broker."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.settings import Settings
from tests.integration.engine.counting import ASKED_SUFFIX
from tests.integration.engine.workers import Installation, audit, until, wait_for_counts


def test_what_is_due_happens_once_also_after_a_restart_and_without_traffic(installation: Installation) -> None:
    installation.create_topics()
    worker = installation.ready_worker()
    topic = installation.inputs[0]
    installation.send_values([("soon", b"due:1", topic), ("later", b"due:12", topic), ("never", b"x", topic)])
    until(lambda: audit(installation).ticks, 20, "the first tick")
    worker.kill()
    installation.ready_worker()
    until(lambda: len(audit(installation).ticks) == 2, 40, "the second tick")
    # What was due before comes before what is due now, in every partition: nothing of it may come again.
    after = [f"after-{number}" for number in range(20)]
    installation.send_values([(org, b"due:1.%d" % number, topic) for number, org in enumerate(after)])
    until(lambda: {org for org, _, _ in audit(installation).ticks} >= set(after), 40, "the last ticks")
    ticks = audit(installation).ticks
    assert sorted(org for org, _, _ in ticks) == sorted([*after, "later", "soon"])
    assert all(at >= due_at for _, due_at, at in ticks)


def test_an_earlier_entry_is_found_by_its_hint_and_survives_a_restart(installation: Installation) -> None:
    installation.create_topics()
    worker = installation.ready_worker()
    topic = installation.inputs[0]
    installation.send(2_000)
    wait_for_counts(installation, 2_000)
    installation.send_values([("looker", b"wanted", topic)])
    counted = wait_for_counts(installation, 2_001)
    assert not counted.others
    installation.send(2_000)
    wait_for_counts(installation, 4_001)
    worker.kill()
    installation.ready_worker()
    installation.send_values([("looker", b"find:wanted", topic), ("looker", b"find:unknown", topic)])
    until(lambda: audit(installation).others, 20, "the found entry")
    found = audit(installation).others
    assert len(found) == 1
    assert found[0].startswith(b"found|1|first|")


def test_while_it_cannot_ask_it_waits_and_loses_nothing(installation: Installation, tmp_path: Path) -> None:
    installation.create_topics()
    wait_file = tmp_path / "wait"
    wait_file.touch()
    worker = installation.ready_worker(COUNTING_WAIT_FILE=str(wait_file))
    installation.send(500)
    until(lambda: "waits: the wait file exists" in worker.output, 20, "its waiting")
    asked = wait_file.with_suffix(ASKED_SUFFIX)
    often = len(installation.inputs) * installation.settings.partitions + 1
    until(lambda: asked.stat().st_size >= often, 30, "asking again")
    assert audit(installation).counted == 0
    wait_file.unlink()
    wait_for_counts(installation, 500)
    assert worker.process.poll() is None


def test_a_waiting_worker_still_stops_when_told(installation: Installation, tmp_path: Path) -> None:
    installation.create_topics()
    wait_file = tmp_path / "wait"
    wait_file.touch()
    worker = installation.ready_worker(COUNTING_WAIT_FILE=str(wait_file))
    installation.send(500)
    until(lambda: "waits: the wait file exists" in worker.output, 20, "its waiting")
    worker.signal(signal.SIGTERM)
    assert worker.ends_with(30) == 0


@pytest.mark.slow
def test_small_queues_and_batches_give_the_same(installation: Installation) -> None:
    installation.create_topics()
    installation.send(3_000, duplicates=100)
    installation.ready_worker(CREDITS_BATCH_RECORDS_MAX="7", CREDITS_QUEUE_RECORDS_MAX="20")
    wait_for_counts(installation, 3_000, timeout_s=120)


@pytest.mark.slow
@pytest.mark.fault(
    "two-installations",
    title="two installations on one broker",
    provoked="two namespaces on one broker, both with traffic",
    holds="neither fences or reads the other",
    faults_row=26,
)
def test_two_installations_on_one_broker_do_not_meet(
    installation: Installation, settings: Settings, tmp_path: Path, seen: Callable[[str], None]
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    other = Installation(settings.model_copy(update={"namespace": settings.namespace + "other."}), folder)
    try:
        installation.create_topics()
        other.create_topics()
        one, two = installation.ready_worker(), other.ready_worker()
        installation.send(1_000)
        other.send(700)
        wait_for_counts(installation, 1_000)
        wait_for_counts(other, 700)
        assert "fenced" not in one.output + two.output
    finally:
        other.stop()
    seen("1,000 and 700 records were counted, each by its own; nobody was fenced")
