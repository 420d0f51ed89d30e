"""SQL of people: what is read is published, what runs only computes, and there is an end to it.

On the in-process engine, whose parser and limits they are.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet
import pytest
from clickhouse_connect.driver.client import Client

from projections import sql
from projections.clickhouse import connect, migrate
from projections.reads import TooWideError
from projections.sql_gate import PUBLISHED, ROWS_MAX, SqlRefusedError, is_listed
from tests.brokers import test_settings
from tests.tidy.source import ROOT
from tests.unit.projections.conftest import Engine

SECRET = "a secret of this machine"


@pytest.fixture(scope="module")
def client(engine: Engine) -> Iterator[Client]:
    """A migrated database of its own, with two prices."""
    made = connect(test_settings(engine.data_dir, namespace="sql."))
    migrate(made)
    made.command(
        "INSERT INTO prices (price_id, operation, unit_price, wallet, display_name, version)"
        " VALUES ('p1', 'chat', 2.5, 'USD', 'one', 1), ('p2', 'chat', 0.000000001, 'USD', 'two', 1)"
    )
    yield made
    made.close()


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (
            "SELECT price_id, unit_price FROM v_prices ORDER BY price_id",
            [("p1", Decimal("2.5")), ("p2", Decimal("1E-9"))],
        ),
        ("select count() from sql_credits.v_prices;", [(2,)]),
        ("WITH cheap AS (SELECT * FROM v_prices WHERE unit_price < 1) SELECT price_id FROM cheap", [("p2",)]),
        (
            "WITH a AS (SELECT 1 AS x), b AS (SELECT 2 AS x) SELECT * FROM a UNION ALL SELECT * FROM b ORDER BY x",
            [(1,), (2,)],
        ),
        (
            "SELECT price_id FROM v_prices WHERE price_id IN (SELECT price_id FROM prices FINAL WHERE unit_price > 1)",
            [("p1",)],
        ),
        ("SELECT sumIf(toFloat64(unit_price), operation = 'chat') > 2 FROM v_prices", [(1,)]),
        (
            "SELECT row_number() OVER (ORDER BY price_id) AS n, 'it''s -- /* fine */' FROM v_prices ORDER BY n LIMIT 1",
            [(1, "it's -- /* fine */")],
        ),
        ("(SELECT 1) UNION ALL (SELECT 1)", [(1,), (1,)]),
        (
            "SELECT arrayMap(x -> x + 1, [1, 2])[1], (1, 2).2, CASE WHEN 1 = 1 THEN 'y' END, '7'::Int64",
            [(2, 2, "y", 7)],
        ),
        ("SELECT toStartOfDay(toDateTime('2026-05-01 12:00:00', 'UTC')) < now() -- a comment", [(1,)]),
    ],
)
def test_a_select_over_what_is_published_runs(client: Client, text: str, rows: list[tuple[object, ...]]) -> None:
    assert [tuple(row) for row in sql.run(client, text).rows] == rows


TABLE_FUNCTIONS = (
    "file('/etc/passwd', 'LineAsString')", "url('http://127.0.0.1:1/', 'CSV', 'a String')", "s3('http://x/y', 'CSV')",
    "remote('127.0.0.1', system.one)", "remoteSecure('127.0.0.1', system.one)", "cluster('x', system.one)",
    "mysql('x:1', 'a', 'b', 'c', 'd')", "postgresql('x:1', 'a', 'b', 'c', 'd')", "sqlite('/x', 'y')", "mongodb('x')",
    "executable('x', 'CSV', 'a String')", "jdbc('x', 'y')", "odbc('x', 'y', 'z')", "hdfs('hdfs://x/y', 'CSV')",
    "merge('sql_credits', '.*')", "numbers(3)", "generateRandom('a Int8')", "values('a Int8', 1)", "view(SELECT 1)",
    "dictionary('x')", "python('x')", "Python('x')", "input('a Int8')", "format('CSV', '1')", "null('a Int8')",
    "fileCluster('x', 'y')", "azureBlobStorage('x')", "deltaLake('x')", "iceberg('x')", "hudi('x')", "loop(v_prices)",
    "mergeTreeIndex('credits', 'ledger')", "redis('x', 'y', 'z')", "zeros(1)", "numbers_mt(1)", "generate_series(1, 2)",
)  # fmt: skip


@pytest.mark.parametrize("function", TABLE_FUNCTIONS)
def test_no_table_function_runs(client: Client, function: str) -> None:
    with pytest.raises(SqlRefusedError):
        sql.run(client, f"SELECT * FROM {function}")
    with pytest.raises(SqlRefusedError):
        sql.run(
            client, f"WITH t AS (SELECT * FROM {function}) SELECT count() FROM v_prices WHERE 1 IN (SELECT 1 FROM t)"
        )


def test_every_table_function_of_the_engine_is_refused(client: Client) -> None:
    """Those of the next version, too: nothing is refused by its name here."""
    names = [str(row[0]) for row in client.query("SELECT name FROM system.table_functions").result_rows]
    assert len(names) > 30
    for name in names:
        with pytest.raises(SqlRefusedError):
            sql.run(client, f"SELECT * FROM {name}('x', 'y')")


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM system.settings",
        "SELECT * FROM system.query_log",
        "SELECT * FROM `system`.`one`",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM INFORMATION_SCHEMA.TABLES",
        "SELECT * FROM default.x",
        "SELECT * FROM positions",
        "SELECT * FROM sql_credits.positions",
        "SELECT * FROM `v_prices.x`",
        "SELECT 1 WHERE 1 IN system.one",
        "SELECT 1 WHERE 1 NOT IN (SELECT * FROM system.one)",
        "SELECT 1 WHERE 1 GLOBAL IN system.one",
        "SELECT (SELECT count() FROM system.tables)",
        "SELECT * FROM v_prices, system.one",
        "SELECT * FROM v_prices JOIN system.one ON 1 = 1",
        "WITH a AS (SELECT * FROM system.one) SELECT * FROM a",
        "SELECT * FROM '/etc/passwd'",
        "SELECT 1 INTO OUTFILE '{outfile}'",
        "SELECT 1 INTO OUTFILE '{outfile}' FORMAT CSV",
        "SELECT 1 FORMAT CSV",
        "SELECT 1 SETTINGS max_execution_time = 0",
        "SELECT * FROM (SELECT 1 SETTINGS readonly = 0)",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE prices",
        "SELECT 1 ; -- \nDROP TABLE prices",
        "; DROP TABLE prices",
        "DROP TABLE prices",
        "INSERT INTO prices (price_id) VALUES ('x')",
        "INSERT INTO FUNCTION file('{outfile}') SELECT 1",
        "CREATE TABLE x (a Int8) ENGINE = Memory",
        "ALTER TABLE prices DELETE WHERE 1",
        "SET max_execution_time = 0",
        "USE system",
        "SHOW TABLES",
        "SYSTEM SHUTDOWN",
        "KILL QUERY WHERE 1",
        "EXPLAIN SELECT 1",
        "DESCRIBE TABLE v_prices",
        "EXISTS TABLE v_prices",
        "optimize = 0 SELECT 1",
        "/* */ DROP TABLE prices",
        "SELECT file('{secret}')",
        "SELECT FILE('{secret}')",
        "SELECT * APPLY(file) FROM (SELECT '{secret}' AS x)",
        "SELECT COLUMNS('x') APPLY(x -> file(x)) FROM (SELECT '{secret}' AS x)",
        "SELECT arrayMap(x -> file(x), ['{secret}'])",
        "SELECT 1 FROM v_prices ORDER BY file('{secret}')",
        "SELECT 1 FROM v_prices WHERE file('{secret}') != '' LIMIT length(file('{secret}'))",
        "SELECT sleep(1)",
        "SELECT sleepEachRow(1) FROM v_prices",
        "SELECT dictGet('x', 'y', 1)",
        "SELECT joinGet('x', 'y', 1)",
        "SELECT getSetting('readonly')",
        "SELECT getMacro('x')",
        "SELECT hostName()",
        "SELECT currentUser()",
        "SELECT version()",
        "SELECT addressToLine(1)",
        "SELECT hasColumnInTable('system', 'one', 'dummy')",
        "SELECT catboostEvaluate('x', 1)",
        "SELECT aiGenerate('x', 'y')",
        "SELECT throwIf(1)",
        "SELECT nosuchfunction(1)",
        "SELECT nosuch FROM v_prices",
        "SELECT 'unclosed",
        "SELECT 1 /* unclosed",
        "SELECT \0",
        "",
        "   ;",
        "SELECT " + "1," * 50_000 + "1",
        "(" * 40_000,
    ],
)
def test_nothing_else_runs(client: Client, tmp_path: Path, text: str) -> None:
    secret, outfile = tmp_path / "secret", tmp_path / "outfile"
    secret.write_text(SECRET)
    with pytest.raises((SqlRefusedError, TooWideError)) as refused:
        sql.run(client, text.replace("{secret}", str(secret)).replace("{outfile}", str(outfile)))
    assert SECRET not in str(refused.value)
    assert not outfile.exists()
    assert sql.run(client, "SELECT count() FROM v_prices").rows == [(2,)], "and what comes after it is as before"


def test_there_is_an_end_to_rows_and_time(client: Client) -> None:
    many = "SELECT arrayJoin(range(1000)) AS a, arrayJoin(range(100)) AS b FROM v_prices"
    answer = sql.run(client, many)
    assert (len(answer.rows), answer.truncated) == (ROWS_MAX, True)
    assert len(sql.run(client, many, rows_max=7).rows) == 7
    assert not sql.run(client, "SELECT 1").truncated
    both = sql.run(client, f"{many} UNION ALL {many} -- limits are of the whole query")
    assert (len(both.rows), both.truncated) == (ROWS_MAX, True)
    with pytest.raises(TooWideError):
        sql.run(client, "SELECT length(range(400000000))")


def test_functions_that_tell_or_read_are_not_listed() -> None:
    for name in ("file", "url", "sleep", "dictGet", "joinGet", "hostName", "FQDN", "currentUser", "getServerSetting"):
        assert not is_listed(name), name
    for name in ("sum", "sumIf", "uniqExactIf", "quantilesOrNull", "toStartOfMonth", "JSONExtractString", "DATE_DIFF"):
        assert is_listed(name), name


def test_what_is_published_exists_and_is_documented(client: Client) -> None:
    tables = {
        str(row[0]) for row in client.query("SELECT name FROM system.tables WHERE database = 'sql_credits'").result_rows
    }
    assert tables >= PUBLISHED
    page = (ROOT / "projections" / "README.md").read_text(encoding="utf-8")
    assert not [name for name in PUBLISHED if f"`{name}`" not in page]


def test_answers_as_json_csv_and_parquet(client: Client) -> None:
    answer = sql.run(
        client, "SELECT price_id, unit_price, valid_to, ['a', 'b'] AS tags FROM v_prices ORDER BY price_id"
    )
    document = sql.document(answer)
    assert [each["name"] for each in document["columns"]] == ["price_id", "unit_price", "valid_to", "tags"]
    assert document["rows"] == [["p1", "2.5", None, ["a", "b"]], ["p2", "0.000000001", None, ["a", "b"]]]
    assert sql.csv_of(answer).splitlines()[1] == "p1,2.5,,\"['a', 'b']\""
    table = pyarrow.parquet.read_table(io.BytesIO(sql.parquet_of(answer)))
    assert table.column("unit_price").to_pylist() == [Decimal("2.500000000"), Decimal("0.000000001")]
