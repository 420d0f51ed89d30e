"""Reading over HTTP on a real broker, through `credits serve`: entries, usage, and streams of alerts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from schemas.amounts import NANOS
from schemas.enums import InputKind
from streams.local.api_key import HEADER, local_key
from streams.settings import Settings
from tests.brokers import free_port
from tests.integration.engine.workers import until
from tests.integration.ledger.events import purchase, usage
from tests.integration.ledger.installation import LedgerInstallation
from tests.integration.platform.serving import Serve

SOON_S = 120.0
LOW = "credit_balance_low"
Event = dict[str, str]


@pytest.fixture
def installation(settings: Settings, tmp_path: Path) -> Iterator[LedgerInstallation]:
    with LedgerInstallation(settings, tmp_path) as made:
        made.ready_worker()
        yield made


@pytest.fixture
def serve(installation: LedgerInstallation, tmp_path: Path) -> Iterator[Serve]:
    settings = installation.settings.model_copy(update={"http_port": free_port(), "clickhouse_url": None})
    made = Serve(settings, tmp_path / "serve")
    try:
        until(lambda: made.get("/livez")[0] == 200, SOON_S, "an answer")
        yield made
    finally:
        made.process.kill()
        made.process.wait()


def deplete(installation: LedgerInstallation, number: int) -> None:
    """Credits come and go, so that the balance is low, and then is not."""
    installation.send(InputKind.PURCHASE, [purchase(f"p-{number}", "acme", 100 * NANOS)])
    installation.wait_until_booked()
    installation.send(
        InputKind.USAGE,
        [usage(f"u-{number}", "acme", wallet="USD", cost_nanos=95 * NANOS if number == 0 else 100 * NANOS)],
    )
    installation.wait_until_booked()


def events(serve: Serve, path: str, last_id: str | None, wanted: int) -> list[Event]:
    """The first so many alerts of a stream, and what came before them."""
    headers = {HEADER: local_key(serve._log.parent) or ""} | ({} if last_id is None else {"Last-Event-ID": last_id})
    found: list[Event] = []
    with (
        httpx.Client(base_url=serve.address, timeout=SOON_S, trust_env=False) as client,
        client.stream("GET", path, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        event: Event = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
                continue
            found.append(event)
            if len([each for each in found if each.get("event") == "alert"]) >= wanted:
                return found
            event = {}
    return found


def ids(found: list[Event]) -> list[str]:
    return [json.loads(each["data"])["alert_id"] for each in found if each.get("event") == "alert"]


def test_entries_usage_and_streams_of_alerts(installation: LedgerInstallation, serve: Serve) -> None:
    """What was booked is listed; a client that left gets the alerts that came meanwhile, once, and dismisses one."""
    begin = events(serve, "/v1/orgs/acme/alerts/stream", None, 0)[0]["id"]
    assert begin.startswith("d")
    for number in range(3):
        deplete(installation, number)
    published = {
        row["alert_id"]
        for key in ("alerts_threshold", "alerts_depletion", "alerts_topup")
        for row in installation.rows(key)
    }
    assert len(published) >= 5
    streamed = events(serve, "/v1/orgs/acme/alerts/stream", begin, len(published))
    assert sorted(ids(streamed)) == sorted(published)
    alerts = [each for each in streamed if each.get("event") == "alert"]
    again = events(serve, "/v1/orgs/acme/alerts/stream", alerts[1]["id"], len(published) - 2)
    assert sorted(ids(streamed)[:2] + ids(again)) == sorted(published)

    def entries(serve: Serve) -> Any:
        return serve.get("/v1/orgs/acme/transactions?kind=usage&kind=purchase&order=asc&limit=4")[1]

    until(lambda: len(entries(serve).get("transactions", ())) == 4, SOON_S, "entries in ClickHouse")
    page = entries(serve)
    rest = serve.get(f"/v1/orgs/acme/transactions?kind=usage&kind=purchase&order=asc&cursor={page['next_cursor']}")[1]
    found = [each["event_id"] for each in page["transactions"] + rest["transactions"]]
    assert found == ["p-0", "u-0", "p-1", "u-1", "p-2", "u-2"]
    report = serve.get("/v1/orgs/acme/usage?granularity=month&time_zone=Asia/Kolkata")[1]
    assert sum(float(row["net_cost"]) for row in report["usage"]) == 295
    card = serve.get("/v1/orgs/acme")[1]
    assert (card["wallets"][0]["settled"], card["wallets"][0]["low"]) == ("5", True)

    listed = serve.get("/v1/orgs/acme/alerts?dismissable=true")[1]["alerts"]
    target = listed[0]["alert_id"]
    headers = {HEADER: local_key(serve._log.parent) or ""}
    address = f"{serve.address}/v1/orgs/acme/alerts/{target}/dismiss"
    assert httpx.post(address, headers=headers, trust_env=False).json()["dismissed_by"] == "local"
    open_ones = [each["alert_id"] for each in serve.get("/v1/orgs/acme/alerts?dismissed=false")[1]["alerts"]]
    assert target not in open_ones

    def dismissals() -> Any:
        return serve.get("/v1/orgs/acme/activity?action=alert_dismissed")[1]["activity"]

    until(dismissals, SOON_S, "the dismissal in the activity log")
    assert [(each["actor"], each["subject"]) for each in dismissals()] == [("local", target)]
    serve.process.terminate()
    assert serve.process.wait(15) == 0, serve.output
    assert "Traceback" not in serve.output
