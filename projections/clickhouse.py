"""Connections to ClickHouse: in process (chDB) or a server over HTTP, the same client either way.

Rules of this file: one database per installation, named from its namespace; a chDB folder belongs to one process
(decision 9, ClickHouse in process, or a server by its URL); migrations run before anything reads or writes, are
numbered, and are never edited after release.
"""

from __future__ import annotations

import fcntl
import re
import shutil
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import (
    ClickHouseError,
    DataError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)
from clickhouse_migrations.connection import ClickhouseConnectConnection
from clickhouse_migrations.defaults import MIGRATIONS_TABLE_DEFAULT_NAME
from clickhouse_migrations.migration import MigrationStorage
from clickhouse_migrations.migrator import Migrator

AWARE: Final = "aware"
"""Times are read with their zone: chDB takes the zone off `DateTime('UTC')`, and a naive time would be the host's."""

MIGRATIONS = Path(__file__).parent / "migrations"

# Server conditions that pass: too many queries or parts, no memory, no disk, time-outs, network, Keeper, read-only.
# Everything else (unknown column, type mismatch) is a bug and must stop the sink instead of being retried without end.
PASSING_ERROR_CODES = frozenset({3, 159, 164, 202, 203, 209, 210, 225, 236, 241, 242, 243, 252, 285, 319, 394, 999})


class ClickHouseSettings(Protocol):
    """The part of the settings that says where ClickHouse is."""

    @property
    def clickhouse_url(self) -> str | None: ...
    @property
    def data_dir(self) -> Path: ...
    @property
    def namespace(self) -> str: ...


class ClickHouseUnavailableError(Exception):
    """ClickHouse cannot be asked now, or cannot take rows now (away, overloaded, disk full): try again later."""


class ClickHouseDamagedError(ClickHouseUnavailableError):
    """A chDB folder that no other process has open, and that cannot be opened all the same."""


def database_name(namespace: str) -> str:
    """Name of the installation's database: `credits`, or `<namespace>credits` in letters, digits and `_`."""
    return re.sub(r"[^0-9A-Za-z_]", "_", namespace) + "credits"


def clickhouse_url(settings: ClickHouseSettings) -> str:
    """The given URL, or that of the chDB folder under the data folder."""
    return settings.clickhouse_url or f"chdb://{settings.data_dir.absolute() / 'clickhouse'}"


def chdb_folder(settings: ClickHouseSettings) -> Path | None:
    """The folder of ClickHouse in process; None where it is a server."""
    url = clickhouse_url(settings)
    return Path(urlsplit(url).path) if url.startswith("chdb:") else None


def _has_owner(folder: Path) -> bool:
    """Whether a process has the chDB folder open: its engine holds a lock on a file in it (chDB says neither)."""
    try:
        with (folder / "status").open("rb") as status:
            fcntl.flock(status, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def set_aside(folder: Path) -> Path:
    """Move a damaged chDB folder out of the way, over what was set aside before; where it is now."""
    aside = folder.with_name(f"{folder.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    return aside


def shown_place(settings: ClickHouseSettings) -> str:
    """Where ClickHouse is, without user and password, for messages."""
    url = clickhouse_url(settings)
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else url


def connect(settings: ClickHouseSettings, *, create: bool = True) -> Client:
    """A client of the installation's database, which is made when absent, unless `create` is false; close it.

    Each client of a chDB folder has its own handle and runs one statement at a time: callers that must not wait for
    each other (API, sink) connect separately, in the same process. Raises `ClickHouseUnavailableError` where nothing
    answers, or where another process owns the folder.
    """
    url = clickhouse_url(settings)
    database = database_name(settings.namespace)
    try:
        if create:
            first = _client(url, None)
            try:
                first.command(f"CREATE DATABASE IF NOT EXISTS `{database}`")
            finally:
                first.close()
        return _client(url, database)
    except (OperationalError, ProgrammingError) as error:
        folder = chdb_folder(settings)
        if folder is not None and not _has_owner(folder):
            raise ClickHouseDamagedError(
                f"{folder} cannot be opened, though no other process has it: {first_line(error)}"
            ) from error
        raise ClickHouseUnavailableError(f"{shown_place(settings)}: {first_line(error)}") from error


def migrate(client: Client) -> list[int]:
    """Bring the client's database to the newest migration; the versions that were applied now, ascending.

    A migration that was edited after it was applied raises `MigrationException`.
    """
    migrator = Migrator(ClickhouseConnectConnection(client))
    migrator.init_schema()
    applied = migrator.apply_migration(MigrationStorage(MIGRATIONS).migrations(), multi_statement=True)
    return [migration.version for migration in applied]


def missing_migrations(settings: ClickHouseSettings) -> list[int]:
    """The versions that the installation's database lacks, ascending; all of them where there is none. Changes nothing.

    Raises as `connect`.
    """
    known = [migration.version for migration in MigrationStorage(MIGRATIONS).migrations()]
    database = database_name(settings.namespace)
    try:
        client = _client(clickhouse_url(settings), None)
    except (OperationalError, ProgrammingError) as error:
        raise ClickHouseUnavailableError(f"{shown_place(settings)}: {first_line(error)}") from error
    try:
        there = "SELECT count() FROM system.tables WHERE database = {database:String} AND name = {name:String}"
        names = {"database": database, "name": MIGRATIONS_TABLE_DEFAULT_NAME}
        if not client.query(there, parameters=names).result_rows[0][0]:
            return sorted(known)
        rows = client.query(f"SELECT version FROM `{database}`.`{MIGRATIONS_TABLE_DEFAULT_NAME}`").result_rows
        return sorted(set(known) - {int(row[0]) for row in rows})
    finally:
        client.close()


def is_passing(error: ClickHouseError) -> bool:
    """Whether the same statement may succeed later: a state of the server or the network, not of the statement.

    What has no code of the server's came from something between (a proxy, the connection), or is our own mistake.
    """
    code = getattr(error, "code", None)
    if code is None:
        return not isinstance(error, ProgrammingError | DataError | NotSupportedError)
    return code in PASSING_ERROR_CODES


def first_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _client(url: str, database: str | None) -> Client:
    if url.startswith("chdb:"):
        Path(urlsplit(url).path).mkdir(parents=True, exist_ok=True)
        return clickhouse_connect.get_client(dsn=url, database=database, tz_mode=AWARE)
    # Without a session a client may be used from several threads.
    return clickhouse_connect.get_client(dsn=url, database=database, tz_mode=AWARE, autogenerate_session_id=False)
