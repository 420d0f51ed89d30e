"""`serve` with a ClickHouse server that comes late, goes away and comes back (fault 8): it waits, nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from projections.clickhouse import connect
from schemas.amounts import NANOS
from schemas.enums import InputKind
from streams.settings import Settings
from streams.verify.audit import audit
from streams.verify.clickhouse import ask_serve
from tests.brokers import free_port
from tests.integration.engine.workers import until
from tests.integration.ledger.events import now_us, purchase
from tests.integration.ledger.installation import LedgerInstallation
from tests.integration.platform.clickhouse_server import ClickHouseServer
from tests.integration.platform.serving import Serve, projected

DAY_US = 86_400_000_000
SOON_S = 30.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ClickHouseServer]:
    """Not yet started."""
    made = ClickHouseServer(tmp_path / "clickhouse", free_port())
    yield made
    made.kill()


def usage(number: int, at: int) -> dict[str, Any]:
    fields = {"event_id": f"u{number}", "org_id": "acme", "occurred_at": at, "operation": "chat"}
    return {**fields, "wallet": "USD", "cost_nanos": NANOS}


def test_it_waits_answers_meanwhile_and_loses_nothing(
    settings: Settings, server: ClickHouseServer, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"clickhouse_url": server.url, "http_port": free_port()})
    installation = LedgerInstallation(settings, tmp_path)
    serve = Serve(settings, tmp_path)
    try:
        installation.send(InputKind.PURCHASE, [purchase("p1", "acme", 100 * NANOS)])
        installation.ready_worker()
        until(lambda: serve.waits_for("clickhouse").startswith("waiting for ClickHouse"), SOON_S, "its waiting")
        assert [serve.get(path)[0] for path in ("/livez", "/readyz")] == [200, 503]
        assert "waiting for ClickHouse" in serve.output
        assert serve.output.count("ready: ") == 1
        status, document = serve.get("/internal/clickhouse/audit")
        assert (status, document["code"]) == (503, "clickhouse_unavailable")
        until(lambda: serve.get("/v1/orgs/acme/balance")[0] == 200, SOON_S, "a balance without ClickHouse")

        server.start()
        until(lambda: serve.get("/readyz")[0] == 200, SOON_S, "readiness")
        today = now_us()
        installation.send(InputKind.USAGE, [usage(number, today) for number in range(20)])
        until(lambda: projected(serve) == 21, SOON_S, "the first entries")

        server.kill()
        until(lambda: "does not answer" in serve.waits_for("clickhouse"), SOON_S, "it to be noticed")
        assert serve.get("/livez")[0] == 200
        late = [usage(number, today - DAY_US) for number in range(20, 30)]
        installation.send(InputKind.USAGE, late + [usage(number, today) for number in range(30, 40)])
        until(lambda: serve.get("/v1/orgs/acme/balance")[1]["wallets"][0]["settled"] == "60", SOON_S, "the balance")
        time.sleep(2)  # it tries, and fails

        server.start()
        until(lambda: projected(serve) == 41, SOON_S, "the rest")
        assert serve.get("/readyz")[0] == 200
        report = audit(settings, clickhouse=ask_serve(serve.address, tmp_path))
        assert report.ok, report.differences
        assert days(settings) == [10, 30]
        assert "Traceback" not in serve.output
        serve.process.terminate()
        assert serve.process.wait(10) == 0, serve.output
    finally:
        serve.process.kill()
        installation.stop()


def test_what_waiting_does_not_mend_ends_it_with_a_sentence(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "taken"
    folder.write_text("no folder")
    settings = settings.model_copy(update={"clickhouse_url": f"chdb://{folder}", "http_port": free_port()})
    serve = Serve(settings, tmp_path)
    assert serve.process.wait(SOON_S) == 1
    last = serve.output.splitlines()[-1]
    assert last.startswith("error: ")
    assert str(folder) in last
    assert "CREDITS_CLICKHOUSE_URL" in last
    assert "Traceback" not in serve.output


def days(settings: Settings) -> list[int]:
    """Requests by day, the earlier first: late events correct the day they happened on."""
    client = connect(settings)
    try:
        return [row[0] for row in client.query("SELECT requests FROM v_usage_daily ORDER BY requests").result_rows]
    finally:
        client.close()
