"""HTTP and the projection as processes of their own: several of each share one ledger and one ClickHouse server."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from projections.clickhouse import connect
from projections.verify import clickhouse_audit
from schemas.amounts import NANOS
from schemas.enums import InputKind
from schemas.partitioner import partition_of
from streams.local.api_key import FILE
from streams.settings import Settings
from streams.verify.audit import audit
from tests.brokers import free_port
from tests.integration.conftest import PARTITIONS
from tests.integration.engine.workers import until
from tests.integration.ledger.events import purchase, usage
from tests.integration.ledger.installation import LedgerInstallation
from tests.integration.platform.clickhouse_server import ClickHouseServer
from tests.integration.platform.serving import Serve

SOON_S = 240.0
ORGS = [f"org-{number}" for number in range(24)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ClickHouseServer]:
    """Not yet started."""
    made = ClickHouseServer(tmp_path / "clickhouse", free_port())
    yield made
    made.kill()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What the test starts ends with it."""
    with ExitStack() as made:
        yield made


def start(stack: ExitStack, settings: Settings, folder: Path, command: str) -> Serve:
    ports = {"http_port": free_port(), "worker_metrics_port": free_port()}
    made = Serve(settings.model_copy(update=ports), folder, command)
    stack.callback(made.process.wait)
    stack.callback(made.process.kill)
    return made


def eventually(part: Serve, condition: Callable[[Serve], object], what: str) -> None:
    until(lambda: condition(part), SOON_S, what)


def is_ready(projector: Serve) -> bool:
    try:
        url = f"http://127.0.0.1:{projector.metrics_port}/readyz"
        return bool(urllib.request.urlopen(url, timeout=10).status == 200)
    except urllib.error.URLError:
        return False


def projected(settings: Settings) -> int:
    client = connect(settings)
    try:
        return int(clickhouse_audit(client)["entries"])
    finally:
        client.close()


@pytest.mark.slow
def test_several_of_each_share_the_work_and_one_that_dies_is_replaced(
    settings: Settings, server: ClickHouseServer, stack: ExitStack, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"clickhouse_url": server.url})
    assert {partition_of(org.encode(), PARTITIONS) for org in ORGS} == set(range(PARTITIONS))
    installation = stack.enter_context(LedgerInstallation(settings, tmp_path))
    installation.send(InputKind.PURCHASE, [purchase(f"p-{org}", org, 100 * NANOS) for org in ORGS])
    installation.ready_worker()

    apis = [start(stack, settings, tmp_path / f"api-{number}", "api") for number in range(2)]
    for api in apis:
        eventually(api, lambda part: part.waits_for("clickhouse").startswith("waiting for"), "its waiting")
    server.start()
    for api in apis:
        eventually(api, lambda part: "has not made its tables" in part.waits_for("clickhouse"), "no tables")
        assert api.get("/v1/orgs/org-0/statement")[1]["code"] == "clickhouse_unavailable"

    projectors = [start(stack, settings, tmp_path / f"projector-{number}", "projector") for number in range(2)]
    for each in projectors:
        eventually(each, is_ready, "a projector")
    until(lambda: projected(settings) == len(ORGS), SOON_S, "what was bought")
    for api in apis:
        eventually(api, lambda part: part.get("/readyz")[0] == 200, "an api")
        assert api.get("/v1/orgs/org-0/statement")[1]["wallets"][0]["closing"] == "100"
        assert "projection" not in api.get("/readyz")[1]["parts"]
        assert api.get("/internal/clickhouse/audit")[0] == 404
        assert not (tmp_path / f"api-{apis.index(api)}" / FILE).exists()

    projectors[0].process.kill()
    installation.send(InputKind.USAGE, [usage(f"u-{org}", org, wallet="USD", cost_nanos=NANOS) for org in ORGS])
    until(lambda: projected(settings) == 2 * len(ORGS), SOON_S, "what was used, by the projector that is left")
    for api in apis:
        eventually(api, lambda part: part.get("/v1/orgs/org-7/balance")[1]["wallets"][0]["settled"] == "99", "usage")

    client = connect(settings)
    stack.callback(client.close)

    def ask(after: str, most: int) -> Any:
        return clickhouse_audit(client, after_org=after, orgs_max=most)

    report = audit(settings, clickhouse=ask)
    assert report.ok, report.differences
    for part in (*apis, projectors[1]):
        part.process.terminate()
        assert part.process.wait(15) == 0, part.output
        assert "Traceback" not in part.output


def test_without_clickhouse_only_the_past_is_missing(settings: Settings, stack: ExitStack, tmp_path: Path) -> None:
    installation = stack.enter_context(LedgerInstallation(settings, tmp_path))
    installation.send(InputKind.PURCHASE, [purchase("p1", "acme", 100 * NANOS)])
    installation.ready_worker()
    api = start(stack, settings, tmp_path / "api", "api")
    until(lambda: api.get("/v1/orgs/acme/balance")[0] == 200, SOON_S, "a balance")
    until(lambda: api.get("/readyz")[0] == 200, SOON_S, "readiness")  # the accounts, too, are read to their end
    assert "clickhouse" not in api.get("/readyz")[1]["parts"]
    status, problem = api.get("/v1/orgs/acme/statement")
    assert (status, problem["code"]) == (503, "clickhouse_unavailable")
    assert "CREDITS_CLICKHOUSE_URL" in problem["detail"]
    assert not (tmp_path / "api" / "clickhouse").exists()
