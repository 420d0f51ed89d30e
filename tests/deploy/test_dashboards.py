"""Every panel's SQL runs on the engine itself, on the tables as the migrations make them, and shows what is there.

Grafana's macros and variables are put in as the ClickHouse plug-in does (`$__timeFilter(column)`, `${name}`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlglot
import yaml
from clickhouse_connect.driver.client import Client
from sqlglot import expressions

from docs.reference import metrics
from projections.clickhouse import connect, migrate
from tests.tidy.source import ROOT

DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
SOURCES = ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "credits.yml"
FROM, TO = "toDateTime(1767225600)", "toDateTime(1767312000)"  # 2026-01-01 UTC, the whole day
VARIABLES = {"unit": "USD", "org": "acme"}
# One row for each table that the views read, at noon of that day.
ROWS = (
    "INSERT INTO usage_hourly (org_id, hour, dims_id, wallet, operation, model, provider, requests, input_tokens,"
    " output_tokens, cost, refunded, version) VALUES"
    " ('acme', '2026-01-01 12:00:00', 'a', 'USD', 'chat.completion', 'm', 'p', 3, 30, 20, 1.5, 0.5, 7)",
    "INSERT INTO balances (org_id, wallet, seq, as_of, settled, available, allocation, status, health, version) VALUES"
    " ('acme', 'USD', 4, '2026-01-01 12:00:00', 8, 8, 10, 'ok', 'green', 1)",
    "INSERT INTO alerts (org_id, alert_id, wallet, kind, level, occurred_at, message) VALUES"
    " ('acme', 'a1', 'USD', 'credit_balance_low', '10', '2026-01-01 12:00:00', 'low')",
    "INSERT INTO dead_letters (source_topic, source_offset, code, recorded_at) VALUES"
    " ('credits.usage.v1', 5, 'undecodable', '2026-01-01 12:00:00')",
    "INSERT INTO ledger (org_id, seq, kind, wallet, amount, recorded_at) VALUES"
    " ('acme', 1, 'purchase', 'USD', 10, '2026-01-01 12:00:00')",
    "INSERT INTO positions (topic, partition, position, as_of) VALUES"
    " ('credits.ledger.v1', 0, 1, '2026-01-01 12:00:00')",
)


@dataclass(frozen=True)
class InProcess:
    """Settings of an in-process ClickHouse."""

    data_dir: Path
    clickhouse_url: None = None
    namespace: str = ""


@dataclass(frozen=True)
class Query:
    """One query of a panel."""

    dashboard: str
    panel: str
    kind: str
    sql: str

    @property
    def expanded(self) -> str:
        sql = re.sub(r"\$__timeFilter\(([^)]+)\)", rf"\1 >= {FROM} AND \1 <= {TO}", self.sql)
        for name, value in VARIABLES.items():
            sql = sql.replace(f"${{{name}}}", value)
        assert "$" not in sql, f"{self.panel}: a macro or variable that is not known here: {sql}"
        return sql


def dashboard(path: Path) -> dict[str, Any]:
    loaded = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def panels(path: Path) -> list[dict[str, Any]]:
    return [panel for panel in dashboard(path)["panels"] if panel["type"] != "row"]


def queries() -> list[Query]:
    found: list[Query] = []
    for path in DASHBOARDS:
        found += [
            Query(path.name, panel["title"], target["queryType"], target["rawSql"])
            for panel in panels(path)
            for target in panel["targets"]
            if target["datasource"]["type"] == "grafana-clickhouse-datasource"
        ]
        found += [
            Query(path.name, f"variable {variable['name']}", "table", variable["query"])
            for variable in dashboard(path)["templating"]["list"]
            if variable["type"] == "query"
        ]
    return found


EACH_QUERY = pytest.mark.parametrize("query", queries(), ids=lambda query: f"{query.dashboard}-{query.panel}")
EACH = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = connect(InProcess(tmp_path_factory.mktemp("clickhouse")))
    try:
        migrate(client)
        for row in ROWS:
            client.command(row)
        yield client
    finally:
        client.close()


@EACH_QUERY
def test_it_runs_and_shows_what_is_there(query: Query, clickhouse: Client) -> None:
    result = clickhouse.query(query.expanded)
    assert result.row_count == 1, f"{query.expanded}\nshows {result.row_count} rows of 1"
    values = [value for value in result.result_rows[0] if value not in (None, 0, "")]
    assert values, f"{query.panel} shows nothing of the row"


@pytest.mark.parametrize("query", [one for one in queries() if one.kind == "timeseries"], ids=lambda query: query.panel)
def test_a_series_begins_with_its_time(query: Query, clickhouse: Client) -> None:
    """Without a first column of a time, and numbers to draw, Grafana shows an empty graph."""
    types = [type_.name for type_ in clickhouse.query(query.expanded).column_types]
    assert types[0].startswith("DateTime")
    assert all(name.startswith(("Float", "UInt", "Int", "String", "LowCardinality")) for name in types[1:])
    assert types[-1].startswith("Float")


@EACH_QUERY
def test_it_reads_views_and_only_reads(query: Query) -> None:
    """The tables hold versions that were replaced; only the views are right without FINAL."""
    statement = sqlglot.parse_one(query.expanded, dialect="clickhouse")
    assert isinstance(statement, expressions.Select)
    tables = {table.name for table in statement.find_all(expressions.Table)}
    documented = set(re.findall(r"`(v_\w+)`", (ROOT / "projections" / "README.md").read_text(encoding="utf-8")))
    assert tables <= documented


@EACH
def test_panels_name_a_source_that_is_provisioned(path: Path) -> None:
    provisioned = {
        source["uid"]: source["type"] for source in yaml.safe_load(SOURCES.read_text("utf-8"))["datasources"]
    }
    for panel in panels(path):
        for named in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
            assert provisioned.get(named["uid"]) == named["type"], f"{panel['title']} asks {named}"


@EACH
def test_metrics_that_are_asked_for_exist(path: Path) -> None:
    series = {metric.name + end for metric in metrics() for end in ("", "_total", "_bucket", "_sum", "_count")}
    asked = [
        name
        for panel in panels(path)
        for target in panel["targets"]
        if target["datasource"]["type"] == "prometheus"
        for name in re.findall(r"\bcredits_\w+", target["expr"])
    ]
    assert asked
    assert set(asked) <= series


@EACH
def test_panels_fit_and_explain_themselves(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(path)["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, f"{panel['title']} lies over another panel"
        assert all(x < 24 for x, _ in cells), f"{panel['title']} is cut off"
        taken |= cells
        assert panel["type"] == "row" or panel["description"], f"{panel['title']}: say what it shows"
    ids = [panel["id"] for panel in dashboard(path)["panels"]]
    assert len(ids) == len(set(ids))


@EACH
def test_variables_that_are_used_are_there(path: Path) -> None:
    given = {variable["name"] for variable in dashboard(path)["templating"]["list"]}
    used = set(re.findall(r"\$\{(\w+)", " ".join(query.sql for query in queries() if query.dashboard == path.name)))
    assert used == given


def test_the_asked_for_subjects_are_shown() -> None:
    """Usage by hour and model, balances, alerts."""
    titles = " ".join(query.panel.lower() for query in queries())
    for subject in ("usage by hour and model", "wallets", "alerts"):
        assert subject in titles
