"""The broker goes away, gently and by kill -9, and comes back: the worker goes on, nothing lost or doubled."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.local.broker import LocalBroker
from tests.brokers import test_settings
from tests.integration.engine.workers import Installation, until, wait_for_counts

AWAY_S = 20.0  # longer than a session and than a transaction may be open


@pytest.mark.fault(
    "broker-bounces",
    title="the broker goes away and comes back",
    provoked="stopped gently, killed with kill -9, and away for longer than a session, while records come",
    holds="the worker goes on by itself; every record has one effect",
    faults_row=6,
)
@pytest.mark.slow
@pytest.mark.parametrize("bounces", [("stop", "kill", "stop", "kill", "away")], ids=["five"])
def test_a_broker_that_bounces(
    own_broker: Callable[..., LocalBroker],
    namespace: str,
    tmp_path: Path,
    bounces: tuple[str, ...],
    seen: Callable[[str], None],
) -> None:
    broker = own_broker()
    broker.start()
    settings = test_settings(
        tmp_path,
        kafka_bootstrap_servers=broker.bootstrap_servers,
        namespace=namespace,
        partitions=4,
        session_timeout_ms=6_000,
    )
    installation = Installation(settings, tmp_path)
    try:
        installation.create_topics()
        worker = installation.ready_worker()
        for bounce in bounces:
            installation.send(3_000)
            if bounce == "stop":
                broker.stop()
            else:
                broker.kill()
            time.sleep(AWAY_S if bounce == "away" else 1.0)
            broker.start()
            assert worker.process.poll() is None, worker.output
        installation.send(2_000)
        wait_for_counts(installation, installation.sent, timeout_s=90)
        assert worker.process.poll() is None, worker.output
        until(lambda: installation.position(0) is not None, 10, "a position")
    finally:
        installation.stop()
    seen("the same worker went on after every bounce; each record was counted once")
