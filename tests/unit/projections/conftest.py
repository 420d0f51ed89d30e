"""A ClickHouse for each test: in process, migrated, in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from projections.clickhouse import connect, migrate
from tests.brokers import test_settings


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """A client of an empty, migrated database."""
    client = connect(test_settings(tmp_path))
    try:
        migrate(client)
        yield client
    finally:
        client.close()
