"""What integration tests share: one real broker for the session, a fresh namespace on it for each test.

Set CREDITS_TEST_BOOTSTRAP to run on a broker that exists already.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from streams.local.broker import LocalBroker
from streams.settings import Settings
from tests.brokers import given_bootstrap_servers, local_broker, test_settings

PARTITIONS = 4


@dataclass(frozen=True)
class SharedBroker:
    """A broker that runs for the whole session. Never stop it: take `own_broker` for that."""

    bootstrap_servers: str


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedBroker]:
    """A real Kafka that every test of the session may use."""
    given = given_bootstrap_servers()
    if given is not None:
        yield SharedBroker(given)
        return
    local = local_broker(tmp_path_factory.mktemp("broker"))
    local.start()
    try:
        yield SharedBroker(local.bootstrap_servers)
    finally:
        local.kill()


@pytest.fixture
def namespace() -> str:
    """A prefix of topics, groups and transactional ids that nobody else uses."""
    return f"t{uuid.uuid4().hex[:10]}."


@pytest.fixture
def settings(broker: SharedBroker, namespace: str, tmp_path: Path) -> Settings:
    """Settings of an installation of the test's own, on the shared broker."""
    return test_settings(
        tmp_path,
        kafka_bootstrap_servers=broker.bootstrap_servers,
        namespace=namespace,
        partitions=PARTITIONS,
        session_timeout_ms=6_000,
    )


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Callable[..., LocalBroker]]:
    """Makes brokers (not started) that the test may stop, kill and start again; gone when the test ends."""
    made: list[LocalBroker] = []

    def make(**properties: str | int) -> LocalBroker:
        named = {name.replace("_", "."): value for name, value in properties.items()}
        made.append(local_broker(tmp_path / f"broker-{len(made)}", named))
        return made[-1]

    try:
        yield make
    finally:
        for each in made:
            each.kill()
