"""A ClickHouse for the package: in process, migrated, in one folder; each test finds it empty.

A process can have one such folder open, so a test that needs a database of its own gives a namespace. Starting the
engine takes seconds, and each start leaves threads and descriptors behind that chDB does not free: it starts once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from projections.clickhouse import connect, migrate
from tests.brokers import test_settings


@dataclass(frozen=True)
class Engine:
    """The engine of the process, and the database that tests share."""

    data_dir: Path
    client: Client
    schema: list[Any]


def schema_of(client: Client) -> list[Any]:
    """Everything that the database has, but its rows."""
    tables = "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase() ORDER BY name"
    versions = "SELECT version, md5 FROM schema_versions ORDER BY ALL"
    return [*client.query(tables).result_rows, *client.query(versions).result_rows]


def empty(client: Client) -> None:
    """Delete the rows of every table but those that say which migrations were applied."""
    query = (
        "SELECT name FROM system.tables"
        " WHERE database = currentDatabase() AND total_rows > 0 AND name != 'schema_versions'"
    )
    for (table,) in client.query(query).result_rows:
        client.command(f"TRUNCATE TABLE `{table}`")


@pytest.fixture(scope="package")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The package's ClickHouse. Take `client`."""
    data_dir = tmp_path_factory.mktemp("clickhouse")
    client = connect(test_settings(data_dir))
    try:
        migrate(client)
        yield Engine(data_dir, client, schema_of(client))
    finally:
        client.close()


@pytest.fixture
def clickhouse_folder(engine: Engine) -> Path:
    """The data folder of the engine: a test that connects by itself must use it, with a namespace of its own."""
    return engine.data_dir


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    """A client of an empty, migrated database. What the test changes of the schema is undone after it."""
    client = engine.client
    try:
        yield client
    finally:
        client.command("SYSTEM START MERGES")
        if schema_of(client) == engine.schema:
            empty(client)
        else:
            for (name,) in client.query("SHOW TABLES").result_rows:
                client.command(f"DROP TABLE IF EXISTS `{name}` SYNC")
            migrate(client)
