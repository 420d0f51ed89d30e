"""Each record has exactly one effect, through kills, rebalances, pauses and restarts, on a real broker."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from tests.integration.engine.workers import Installation, wait_for_counts

ROUNDS = 5


@pytest.mark.slow  # tests/integration/ledger/test_chaos.py does it with the whole ledger
def test_kill_9_at_random_moments(installation: Installation) -> None:
    installation.create_topics()
    seed = int(os.environ.get("CREDITS_TEST_SEED", "0")) or random.randrange(1, 10**6)
    print("CREDITS_TEST_SEED", seed)
    chance = random.Random(seed)
    duplicates = 0
    worker = installation.ready_worker()
    for _ in range(ROUNDS):
        repeated = chance.randrange(200)
        duplicates += repeated
        installation.send(3_000, duplicates=repeated)
        time.sleep(chance.uniform(0.0, 1.0))
        worker.kill()
        installation.send(1_000)
        worker = installation.ready_worker()
    installation.send(1_000)
    wait_for_counts(installation, installation.sent)
    counted = 0
    for number in range(installation.settings.partitions):
        position = installation.position(number)
        assert position is not None
        counted += sum(ends.get("duplicates", 0) for ends in position.counters.values())
    assert counted == duplicates


def test_two_workers_share_and_hand_over(installation: Installation) -> None:
    installation.create_topics()
    first = installation.ready_worker()
    installation.send(3_000)
    second = installation.ready_worker()
    installation.send(3_000)
    assert "serves partitions [0, 1, 2, 3]" in first.output
    assert "serves partitions [0, 1, 2, 3]" not in second.output
    wait_for_counts(installation, installation.sent)
    installation.send(2_000)
    first.signal(signal.SIGTERM)
    installation.send(2_000)
    assert first.ends_with(20) == 0
    installation.send(2_000)
    wait_for_counts(installation, installation.sent)
    assert "serves partitions [0, 1, 2, 3]" in second.output


@pytest.mark.fault(
    "paused-worker",
    title="a worker that wakes after its session",
    provoked="SIGSTOP with work in hand, another worker takes over, SIGCONT",
    holds="what the first one still writes has no effect",
    faults_row=12,
)
@pytest.mark.slow  # tests/integration/ledger/test_chaos.py does it with the whole ledger
def test_a_worker_that_was_paused_past_its_session_is_fenced(
    installation: Installation, seen: Callable[[str], None]
) -> None:
    installation.create_topics()
    first = installation.ready_worker()
    installation.send(2_000)
    wait_for_counts(installation, installation.sent)
    # It stops with work in its hands, and the other one takes over.
    installation.send(2_000)
    first.signal(signal.SIGSTOP)
    second = installation.ready_worker()
    wait_for_counts(installation, installation.sent)
    installation.send(2_000)
    first.signal(signal.SIGCONT)
    installation.send(2_000)
    wait_for_counts(installation, installation.sent)
    second.kill()
    installation.send(1_000)
    wait_for_counts(installation, installation.sent)
    assert first.process.poll() is None, first.output
    seen("each record was counted once")
