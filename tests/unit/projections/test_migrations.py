"""Migrations are numbered without gaps, run on an empty and on a migrated database, and are never edited."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_migrations.exceptions import MigrationException

from projections import clickhouse
from projections.clickhouse import ClickHouseUnavailableError, connect, database_name, migrate, shown_place
from projections.verify import TABLES
from tests.brokers import test_settings

FILES = sorted(clickhouse.MIGRATIONS.glob("*.sql"))
README = Path(clickhouse.__file__).parent / "README.md"


def test_numbers_have_no_gap() -> None:
    assert [int(path.name[:4]) for path in FILES] == list(range(1, len(FILES) + 1))
    assert all(re.fullmatch(r"\d{4}_[a-z_]+\.sql", path.name) for path in FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_says_what_it_makes_and_may_be_run_again(path: Path) -> None:
    """A crash between a statement and the note that it ran repeats the whole file."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("-- ")
    statements = re.findall(r"^(?:CREATE|ALTER|DROP|INSERT)\b.*", text, re.MULTILINE)
    assert statements
    again = r"CREATE (TABLE IF NOT EXISTS|OR REPLACE VIEW) |ALTER TABLE \w+ ADD COLUMN IF NOT EXISTS "
    assert all(re.match(again, each) for each in statements)


def test_migrating_again_does_nothing(client: Client) -> None:
    assert migrate(client) == []
    client.command("TRUNCATE TABLE schema_versions")
    assert migrate(client) == list(range(1, len(FILES) + 1))


def test_balances_from_before_have_nothing_on_the_way(
    clickhouse_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Migration 18 finds rows, and views that read them."""
    before = tmp_path / "before"
    before.mkdir()
    for path in FILES[:17]:
        shutil.copy(path, before)
    client = connect(test_settings(clickhouse_folder, namespace="before."))
    try:
        with monkeypatch.context() as patch:
            patch.setattr(clickhouse, "MIGRATIONS", before)
            assert len(migrate(client)) == 17
        client.command("INSERT INTO balances (org_id, wallet, settled, version) VALUES ('acme', 'USD', 7, 1)")
        assert migrate(client) == list(range(18, len(FILES) + 1))
        for view in ("v_balances", "v_balance_cards"):
            assert client.query(f"SELECT settled, on_the_way FROM {view}").result_rows == [(7, 0)], view
    finally:
        client.close()


def test_an_edited_migration_is_refused(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edited = tmp_path / "edited"
    shutil.copytree(clickhouse.MIGRATIONS, edited)
    with (edited / FILES[0].name).open("a", encoding="utf-8") as file:
        file.write("-- more\n")
    monkeypatch.setattr(clickhouse, "MIGRATIONS", edited)
    with pytest.raises(MigrationException, match="md5"):
        migrate(client)


def test_the_tables_are_those_of_the_contract(client: Client) -> None:
    tables = {row[0] for row in client.query("SHOW TABLES").result_rows}
    assert set(TABLES) <= tables


def test_the_readme_lists_every_view_with_its_columns(client: Client) -> None:
    views = {row[0] for row in client.query("SHOW TABLES LIKE 'v_%'").result_rows}
    lines = dict(re.findall(r"^\| `(v_\w+)` \| (.*)$", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert set(lines) == views
    usage = {row[0] for row in client.query("DESCRIBE v_usage_hourly").result_rows}
    for view in sorted(views):
        columns = {row[0] for row in client.query(f"DESCRIBE {view}").result_rows}
        documented = set(re.findall(r"`(\w+)`", lines[view]))
        if "the rest as above" in lines[view]:
            documented |= usage - {"hour"}
        if view == "v_ledger":  # "the dimensions and quantities of usage"
            documented |= (usage & columns) | {"unit_of_measure", "replicas"}
        assert documented == columns, view


@pytest.mark.parametrize(
    ("namespace", "database"), [("", "credits"), ("t1.", "t1_credits"), ("eu-west.a", "eu_west_acredits")]
)
def test_database_of_a_namespace(namespace: str, database: str, clickhouse_folder: Path) -> None:
    assert database_name(namespace) == database
    client = connect(test_settings(clickhouse_folder, namespace=namespace))
    assert client.command("SELECT currentDatabase()") == database
    client.close()


def test_two_installations_do_not_see_each_other(client: Client, clickhouse_folder: Path) -> None:
    client.command("INSERT INTO positions VALUES ('t', 0, 1, now64(6))")
    other = connect(test_settings(clickhouse_folder, namespace="other."))
    migrate(other)
    assert other.command("SELECT count() FROM positions") == 0
    other.close()


def test_a_folder_of_another_process_and_a_server_away_are_told(client: Client, tmp_path: Path) -> None:
    with pytest.raises(ClickHouseUnavailableError, match="elsewhere/clickhouse"):
        connect(test_settings(tmp_path / "elsewhere"))
    away = test_settings(tmp_path, clickhouse_url="http://ann:secret@127.0.0.1:9/")
    with pytest.raises(ClickHouseUnavailableError) as caught:
        connect(away)
    assert "secret" not in str(caught.value)
    assert shown_place(away) == "http://127.0.0.1:9/"
