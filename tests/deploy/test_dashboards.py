"""Every panel's SQL runs on the engine itself, on the tables as the migrations make them, and shows what is there.

Grafana's macros and variables are put in as Grafana and the ClickHouse plug-in do: `$__timeFilter(column)`,
`$__timeInterval(column)`, `${name:sqlstring}` quoted, `${name:raw}` as it is. Panels are read twice: over one row of
each table, and over the months of five products, where what comes back must be what the panel's type can draw.
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
from projections.sink import PROJECTED, Sink
from schemas.enums import Health, WalletStatus
from schemas.records import BundledSchemas
from schemas.topics import Topics
from streams.kafka.inbound import Inbound
from tests.model.memory import MemoryLedger
from tests.products import scenario
from tests.products.memory_port import MemoryPort
from tests.tidy.source import ROOT

DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
SOURCES = ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "credits.yml"
DAY = ("toDateTime(1767225600)", "toDateTime(1767312000)")  # 2026-01-01 UTC, the whole day
YEAR = ("toDateTime(1767225600)", "toDateTime(1798761600)")
STEP_S = 3_600
MAY_MS = 1_780_000_000_000
VARIABLES = {"unit": "USD", "org": "acme", "by": "model"}
# One row for each table that the views read, at noon of that day.
ROWS = (
    "INSERT INTO usage_hourly (org_id, hour, dims_id, wallet, operation, model, provider, requests, input_tokens,"
    " output_tokens, cost, refunded, version) VALUES"
    " ('acme', '2026-01-01 12:00:00', 'a', 'USD', 'chat.completion', 'm', 'p', 3, 30, 20, 1.5, 0.5, 7)",
    "INSERT INTO balances (org_id, wallet, seq, as_of, settled, available, allocation, status, health, version) VALUES"
    " ('acme', 'USD', 4, '2026-01-01 12:00:00', 8, 8, 10, 'ok', 'green', 1)",
    "INSERT INTO alerts (org_id, alert_id, wallet, kind, level, occurred_at, message) VALUES"
    " ('acme', 'a1', 'USD', 'credit_balance_low', '10', '2026-01-01 12:00:00', 'low')",
    "INSERT INTO dead_letters (source_topic, source_offset, code, org_id, recorded_at) VALUES"
    " ('credits.usage.v1', 5, 'undecodable', 'acme', '2026-01-01 12:00:00')",
    "INSERT INTO ledger (org_id, seq, kind, wallet, amount, recorded_at) VALUES"
    " ('acme', 1, 'purchase', 'USD', 10, '2026-01-01 12:00:00')",
    "INSERT INTO purchases (org_id, seq, purchase_id, status, wallet, amount, grant_kind, recorded_at) VALUES"
    " ('acme', 1, 'p1', 'completed', 'USD', 10, 'purchased', '2026-01-01 12:00:00')",
    "INSERT INTO activity (org_id, seq, kind, action, subject, details) VALUES"
    """ ('acme', 2, 'setting', 'month_limits', 'USD', '{"body":{"allowed_limit":"5"}}')""",
    "INSERT INTO positions (topic, partition, position, as_of) VALUES"
    " ('credits.ledger.v1', 0, 1, '2026-01-01 12:00:00')",
)


@dataclass(frozen=True)
class InProcess:
    """Settings of an in-process ClickHouse; a process may have one folder, so the databases share it."""

    data_dir: Path
    namespace: str = ""
    clickhouse_url: None = None


@dataclass(frozen=True)
class Query:
    """One query of a panel; `panel` None: of a variable."""

    dashboard: str
    title: str
    kind: str
    sql: str
    panel: dict[str, Any] | None = None

    def expanded(self, span: tuple[str, str] = DAY, **variables: str) -> str:
        """The SQL that ClickHouse gets."""
        first, last = span
        sql = re.sub(r"\$__timeFilter\(([^)]+)\)", rf"\1 >= {first} AND \1 <= {last}", self.sql)
        interval = rf"toStartOfInterval(toDateTime(\1), INTERVAL {STEP_S} second)"
        sql = re.sub(r"\$__timeInterval\(([^)]+)\)", interval, sql)
        for name, value in {**VARIABLES, **variables}.items():
            quoted = "'" + value.replace("'", "''") + "'"
            sql = sql.replace(f"${{{name}:sqlstring}}", quoted).replace(f"${{{name}:raw}}", value)
        assert "$" not in sql, f"{self.title}: a macro or variable that is not known here: {sql}"
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
            Query(path.name, panel["title"], target["queryType"], target["rawSql"], panel)
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


EACH_QUERY = pytest.mark.parametrize("query", queries(), ids=lambda query: f"{query.dashboard}-{query.title}")
EACH_PANEL = pytest.mark.parametrize(
    "query", [query for query in queries() if query.panel is not None], ids=lambda query: query.title
)
EACH = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clickhouse")


@pytest.fixture(scope="module")
def clickhouse(folder: Path) -> Iterator[Client]:
    client = connect(InProcess(folder))
    try:
        migrate(client)
        for row in ROWS:
            client.command(row)
        yield client
    finally:
        client.close()


@pytest.fixture(scope="module")
def months(folder: Path) -> Iterator[Client]:
    """The months of the five products: several orgs, units, kinds of entry, alerts and dead letters."""
    client = connect(InProcess(folder, "months."))
    topics = Topics()
    offsets: dict[str, int] = {}
    try:
        migrate(client)
        sink = Sink(client, topics, BundledSchemas())
        for product in scenario.PRODUCTS:
            port = MemoryPort()
            scenario.run(scenario.load(product), port)
            sink.apply(outputs(port.ledger, topics, offsets))
        yield client
    finally:
        client.close()


def outputs(ledger: MemoryLedger, topics: Topics, offsets: dict[str, int]) -> list[Inbound]:
    """What a ledger has written, as batches of its topics after those before; `offsets`: where each topic ends."""
    batches = []
    for name in (topics.name(key) for key in PROJECTED):
        written = ledger.written.get(name, [])
        first = offsets.get(name, 0)
        offsets[name] = end = first + len(written)
        times_ms = [MAY_MS] * len(written)
        keys, values = [key for key, _, _ in written], [value for _, value, _ in written]
        batch = Inbound(name, 0, first, end, list(range(first, end)), times_ms, keys, values)
        batch.headers.extend(list(headers.items()) for _, _, headers in written)
        if written:
            batches.append(batch)
    return batches


@EACH_QUERY
def test_it_runs_and_shows_what_is_there(query: Query, clickhouse: Client) -> None:
    result = clickhouse.query(query.expanded())
    assert result.row_count == 1, f"{query.expanded()}\nshows {result.row_count} rows of 1"
    values = [value for value in result.result_rows[0] if value not in (None, 0, "")]
    assert values, f"{query.title} shows nothing of the row"


@EACH_PANEL
@pytest.mark.parametrize("org", ["", "casa", "o'neil"], ids=["every org", "one org", "a quote"])
def test_it_gives_what_its_panel_draws(query: Query, months: Client, org: str) -> None:
    """Names that a panel colours exist; a series begins with its time; a number is a number, and no line is twice."""
    assert query.panel is not None
    for unit in ("USD", "EUR"):
        sql = query.expanded(YEAR, org=org, unit=unit)
        result = months.query(sql)
        names, types = zip(*(row[:2] for row in months.query(f"DESCRIBE ({sql})").result_rows), strict=True)
        assert len(set(names)) == len(names)
        named = {override["matcher"]["options"] for override in query.panel["fieldConfig"]["overrides"]}
        assert named <= set(names), f"{query.title} colours what is not there: {named - set(names)}"
        match query.panel["type"]:
            case "timeseries":
                assert types[0].startswith("DateTime"), "without a first column of a time Grafana draws nothing"
                texts = [name for name, type_ in zip(names[1:], types[1:], strict=True) if "String" in type_]
                assert texts in ([], ["series"]), "one column of text names the lines"
                assert all(type_.startswith("Float") for type_ in types[1 + len(texts) :])
                assert types[1 + len(texts) :], "nothing to draw"
                keys: list[tuple[Any, ...]] = [tuple(row[: 1 + len(texts)]) for row in result.result_rows]
                assert len(set(keys)) == len(keys), "two values for one point"
                assert keys == sorted(keys)
                legend = query.panel["fieldConfig"]["defaults"].get("displayName")
                assert legend == ("${__field.labels.series}" if texts else None)
            case "stat" | "bargauge":
                assert result.row_count == 1
                assert all(type_.startswith("Float") for type_ in types)
                assert query.panel["options"]["reduceOptions"]["values"] is False
            case "table":
                assert not any(type_.startswith("Decimal") for type_ in types), "Grafana shows decimals as text"
                assert len(set(map(repr, result.result_rows))) == result.row_count
            case other:
                pytest.fail(f"nobody said what a {other} needs")


@pytest.mark.parametrize("title", [query.title for query in queries() if query.panel is not None])
def test_the_months_of_products_show_in_it(title: str, months: Client) -> None:
    """Data of every kind that a panel is about: none of them is empty for want of a wrong name."""
    (query,) = (query for query in queries() if query.title == title)
    units = ("USD", "EUR", "model_credits", "credits", "tool_runs")
    shown = [months.query(query.expanded(YEAR, org="", unit=unit)).result_rows for unit in units]
    assert any(rows for rows in shown), f"{title}: nothing in any unit"


def test_usage_may_be_grouped_by_every_dimension_that_is_offered(months: Client) -> None:
    (by,) = (
        variable
        for path in DASHBOARDS
        for variable in dashboard(path)["templating"]["list"]
        if variable["name"] == "by"
    )
    (query,) = (query for query in queries() if "${by}" in query.title)
    offered = by["query"].split(",")
    assert [option["value"] for option in by["options"]] == offered
    for name in offered:
        rows = months.query(query.expanded(YEAR, org="", by=name)).result_rows
        assert rows
        assert sum(row[5] for row in rows) == pytest.approx(1)


def test_every_status_and_health_has_its_colour() -> None:
    """A status that a panel does not know would have no colour, and no bar."""
    for path in DASHBOARDS:
        text = json.dumps(panels(path))
        for panel in panels(path):
            for override in panel["fieldConfig"]["overrides"]:
                for prop in override["properties"]:
                    if prop["id"] == "mappings":
                        known = set(prop["value"][0]["options"])
                        assert known >= set(Health if override["matcher"]["options"] == "health" else WalletStatus)
        assert all(f"countIf(status = '{status}')" in text for status in WalletStatus)


@EACH
def test_an_empty_panel_says_so(path: Path) -> None:
    assert all(panel["fieldConfig"]["defaults"].get("noValue") for panel in panels(path))


@EACH
def test_links_keep_what_was_chosen(path: Path) -> None:
    loaded = dashboard(path)
    links = [link["url"] for link in loaded["links"]]
    links += [
        link["url"]
        for panel in panels(path)
        for override in panel["fieldConfig"]["overrides"]
        for prop in override["properties"]
        if prop["id"] == "links"
        for link in prop["value"]
    ]
    assert links
    for url in links:
        assert url.startswith(f"/d/{loaded['uid']}?")
        assert "var-org=" in url
        for kept in ("${unit:queryparam}", "${by:queryparam}", "${__url_time_range}"):
            assert kept in url


@EACH_QUERY
def test_it_reads_views_and_only_reads(query: Query) -> None:
    """The tables hold versions that were replaced; only the views are right without FINAL."""
    statement = sqlglot.parse_one(query.expanded(), dialect="clickhouse")
    assert isinstance(statement, expressions.Select)
    named_here = {each.alias for each in statement.find_all(expressions.CTE)}
    tables = {table.name for table in statement.find_all(expressions.Table)} - named_here
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
    used = set(re.findall(r"\$\{(\w+):(?:sqlstring|raw)", " ".join(query.sql for query in queries())))
    assert used == given


def test_the_asked_for_subjects_are_shown() -> None:
    """Usage by hour and model, by org, balances, alerts, dead letters, and as of when (product rule 34)."""
    titles = " ".join(query.title.lower() for query in queries())
    for subject in ("usage by hour and model", "who uses most", "wallets", "alerts", "dead letters", "true as of"):
        assert subject in titles
