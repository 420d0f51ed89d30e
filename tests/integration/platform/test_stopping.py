"""A worker that is told to stop while it takes its partitions over, or while its broker is away, ends in time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.local.broker import LocalBroker
from streams.settings import Settings
from streams.stopping import GROUP_LEAVE_TIMEOUT_S
from tests.brokers import test_settings
from tests.integration.engine.workers import until
from tests.integration.ledger.installation import LedgerInstallation

SOON_S = 4.0
# Each takes a moment to take over, so that a signal falls in between.
MANY_PARTITIONS = 12


def test_while_it_takes_partitions_over(settings: Settings, tmp_path: Path) -> None:
    """Faust's consumer waits for the end of the rebalance, and a take-over asks the consumer: neither may hang."""
    many = settings.model_copy(update={"partitions": MANY_PARTITIONS})
    installation = LedgerInstallation(many, tmp_path)
    try:
        worker = installation.worker()
        until(lambda: "Partition 1 restored" in worker.output, 40, "the first partitions")
        worker.signal(signal.SIGTERM)
        assert worker.ends_with(SOON_S) == 0, worker.output
        assert "ready" not in worker.output
        assert "Traceback" not in worker.output
    finally:
        installation.stop()


@pytest.mark.slow
def test_while_the_broker_is_away(own_broker: Callable[..., LocalBroker], tmp_path: Path) -> None:
    broker = own_broker()
    broker.start()
    settings = test_settings(tmp_path, kafka_bootstrap_servers=broker.bootstrap_servers, partitions=2)
    installation = LedgerInstallation(settings, tmp_path)
    pid = broker.pid
    assert pid is not None
    try:
        worker = installation.ready_worker()
        os.kill(pid, signal.SIGSTOP)  # it accepts connections and answers nothing
        worker.signal(signal.SIGTERM)
        assert worker.ends_with(GROUP_LEAVE_TIMEOUT_S + SOON_S) == 0, worker.output
        assert "group could not be left in time" in worker.output
        assert "Traceback" not in worker.output
    finally:
        os.kill(pid, signal.SIGCONT)
        installation.stop()
