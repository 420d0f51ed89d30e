"""An installation with its own topics on the session's broker; its workers are gone when the test ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.settings import Settings
from tests.integration.ledger.broker_port import BrokerPort
from tests.integration.ledger.installation import LedgerInstallation


@pytest.fixture
def installation(settings: Settings, tmp_path: Path) -> Iterator[LedgerInstallation]:
    """Topics, a producer, and no worker yet."""
    with LedgerInstallation(settings, tmp_path) as made:
        yield made


@pytest.fixture
def port(settings: Settings, tmp_path: Path) -> Iterator[BrokerPort]:
    """An installation of one partition whose time is its log's."""
    installation = LedgerInstallation(settings.model_copy(update={"partitions": 1, "clock": "log"}), tmp_path)
    made = BrokerPort(installation)
    try:
        yield made
    finally:
        made.close()
        installation.stop()
