"""Invoices and statements over HTTP and on the command line (product rule 24): JSON, PDF, problems, pages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from clickhouse_connect.driver.client import Client
from fastapi import FastAPI
from fastapi.testclient import TestClient

from projections.sink import Sink
from schemas.amounts import NANOS
from schemas.records import BundledSchemas
from streams.api.finance import NO_ISSUER, Desk
from streams.api.invoices import invoices_router
from streams.api.problems import install_problems
from streams.api.statements import statements_router
from tests.brokers import free_port
from tests.unit.projections.entries import LEDGER, NOON, TOPICS, Row, entry, inbound
from tests.unit.projections.test_invoices import purchase, refund

ROOT = Path(__file__).parents[3]
PDF = "application/pdf"
ROWS: list[Row] = [
    purchase("a b é", 1, "p1", 50 * NANOS, paid=49 * NANOS, currency="EUR", balance_nanos=50 * NANOS),
    purchase("a b é", 2, "p2", 7 * NANOS, balance_nanos=57 * NANOS),
    refund("a b é", 3, "p1", 10 * NANOS, event_id="r1", balance_nanos=47 * NANOS),
    purchase("acme", 1, "p1", 50 * NANOS, paid=49 * NANOS, currency="EUR", balance_nanos=50 * NANOS),
    entry("acme", 2, -NANOS, balance_nanos=49 * NANOS),
    refund("acme", 3, "p1", 10 * NANOS, event_id="r1", balance_nanos=39 * NANOS),
    purchase("acme", 4, "p2", 7 * NANOS, balance_nanos=46 * NANOS),
]


@pytest.fixture
def api(client: Client) -> FastAPI:
    """The routes over the rows, in May 2026."""
    Sink(client, TOPICS, BundledSchemas()).apply([inbound(ROWS, 0)])
    api = FastAPI()
    install_problems(api)
    desk = Desk(lambda: client, LEDGER, "Example Inc. | Berlin |  | VAT 1")
    assert desk.issuer == ["Example Inc.", "Berlin", "VAT 1"]
    api.include_router(invoices_router(desk))
    api.include_router(statements_router(desk, clock=lambda: NOON))
    return api


@pytest.fixture
def http(api: FastAPI) -> TestClient:
    return TestClient(api, raise_server_exceptions=False)


@pytest.fixture
def port(api: FastAPI) -> Iterator[int]:
    """The same on a real port."""
    found = free_port()
    server = uvicorn.Server(uvicorn.Config(api, port=found, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield found
    server.should_exit = True
    thread.join()


def command(port: int, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streams", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CREDITS_HTTP_PORT": str(port)},
    )


def test_invoices(http: TestClient) -> None:
    page = http.get("/v1/orgs/acme/invoices").json()
    assert [(bill["number"], bill["total"], bill["credit_notes"]) for bill in page["invoices"]] == [
        (1, "49", [1]),
        (2, "7", []),
    ]
    assert page["next_after"] is None
    assert page["as_of"].startswith("2026-05-29T12:00:00")
    assert http.get("/v1/orgs/acme/invoices?limit=1").json()["next_after"] == 1
    assert http.get("/v1/orgs/acme/invoices?limit=1&after=1").json()["invoices"] == page["invoices"][1:]
    assert http.get("/v1/orgs/acme/invoices/2").json() == page["invoices"][1]
    (note,) = http.get("/v1/orgs/acme/credit-notes").json()["credit_notes"]
    assert (note["invoice_id"], note["credits"], note["total"]) == ("acme-000001", "10", "9.8")
    assert http.get("/v1/orgs/acme/credit-notes/1").json() == note


@pytest.mark.parametrize("what", ["invoices/1", "credit-notes/1", "statement"])
def test_pdf_by_name_and_by_accept(http: TestClient, what: str) -> None:
    by_name = http.get(f"/v1/orgs/acme/{what}.pdf")
    by_accept = http.get(f"/v1/orgs/acme/{what}", headers={"Accept": f"{PDF}, application/json;q=0.5"})
    assert by_name.status_code == by_accept.status_code == 200
    assert by_name.headers["content-type"] == by_accept.headers["content-type"] == PDF
    assert by_name.content == by_accept.content
    assert by_name.content.startswith(b"%PDF-")
    assert by_name.headers["content-disposition"].endswith('.pdf"')
    preferred = {"Accept": f"application/json, {PDF}"}
    assert http.get(f"/v1/orgs/acme/{what}", headers=preferred).headers["content-type"] == "application/json"


def test_a_statement(http: TestClient) -> None:
    shown = http.get("/v1/orgs/acme/statement?month=2026-05&wallet=USD").json()
    assert shown == http.get("/v1/orgs/acme/statement").json()
    assert shown["wallets"] == [
        {
            "wallet": "USD",
            "opening": "0",
            "movements": [
                {"kind": "purchase", "entries": 2, "amount": "57"},
                {"kind": "usage", "entries": 1, "amount": "-1"},
                {"kind": "purchase_refunded", "entries": 1, "amount": "-10"},
            ],
            "movement": "46",
            "closing": "46",
        }
    ]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("nosuch/invoices", 404, "unknown_org"),
        ("nosuch/statement", 404, "unknown_org"),
        ("acme/invoices/3", 404, "unknown_number"),
        ("acme/invoices/3.pdf", 404, "unknown_number"),
        ("acme/credit-notes/2", 404, "unknown_number"),
        ("acme/invoices/0", 422, "invalid_field"),
        ("acme/invoices/x.pdf", 422, "invalid_field"),
        ("acme/invoices?limit=1001", 422, "invalid_field"),
        ("acme/statement?month=May", 422, "invalid_field"),
        ("acme/statement?month=2026-06", 404, "month_to_come"),
        ("acme/statement?wallet=GBP", 404, "unknown_wallet"),
    ],
)
def test_problems(http: TestClient, path: str, status: int, code: str) -> None:
    answer = http.get(f"/v1/orgs/{path}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_statement_that_does_not_add_up_is_not_shown(http: TestClient, client: Client) -> None:
    client.command("DELETE FROM ledger WHERE org_id = 'acme' AND seq = 2")
    answer = http.get("/v1/orgs/acme/statement")
    assert (answer.status_code, answer.json()["code"]) == (500, "statement_broken")
    assert "credits verify" in answer.json()["detail"]


def test_clickhouse_away(http: TestClient, client: Client) -> None:
    client.command("DROP VIEW v_invoices")
    answer = http.get("/v1/orgs/acme/invoices")
    assert (answer.status_code, answer.json()["code"]) == (503, "clickhouse_unavailable")
    assert answer.headers["Retry-After"] == "1"


def test_who_did_not_say_who_issues_is_told(client: Client) -> None:
    assert Desk(lambda: client, LEDGER, " | ").issuer == [NO_ISSUER]


def test_the_documents_are_described(api: FastAPI) -> None:
    """OpenAPI says of each route that it may answer PDF."""
    paths = api.openapi()["paths"]
    for path in ("invoices/{number}", "credit-notes/{number}", "statement"):
        content = paths[f"/v1/orgs/{{org}}/{path}"]["get"]["responses"]["200"]["content"]
        assert PDF in content


def test_commands(port: int, tmp_path: Path) -> None:
    listed = command(port, "invoices", "acme", "--json", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    document: dict[str, Any] = json.loads(listed.stdout)
    assert [bill["invoice_id"] for bill in document["invoices"]] == ["acme-000001", "acme-000002"]
    assert [note["invoice_number"] for note in document["credit_notes"]] == [1]
    shown = command(port, "invoices", "acme", cwd=tmp_path).stdout
    assert "49 EUR" in shown
    assert "of invoice" in shown

    wrote = command(port, "invoices", "acme", "--pdf", "1", cwd=tmp_path)
    assert (wrote.returncode, wrote.stdout) == (0, "")
    assert (tmp_path / "invoice-1.pdf").read_bytes().startswith(b"%PDF-")
    named = command(port, "invoices", "acme", "--credit-note", "1", "--output", "c.pdf", cwd=tmp_path)
    assert named.returncode == 0, named.stderr
    assert (tmp_path / "c.pdf").read_bytes().startswith(b"%PDF-")

    statement = command(port, "statement", "acme", "--month", "2026-05", "--json", cwd=tmp_path)
    assert json.loads(statement.stdout)["wallets"][0]["closing"] == "46"
    table = command(port, "statement", "acme", "--wallet", "USD", "--pdf", "s.pdf", cwd=tmp_path)
    assert (table.returncode, table.stdout) == (0, "")
    assert (tmp_path / "s.pdf").read_bytes().startswith(b"%PDF-")
    assert "opening" in command(port, "statement", "acme", cwd=tmp_path).stdout
    assert command(port, "statement", "a b é", cwd=tmp_path).stdout.startswith("a b é, 2026-05 (UTC), as of 2026-05-29")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["statement", "nosuch"], 1, "error: no entry of 'nosuch' is projected"),
        (["invoices", "acme", "--pdf", "9"], 1, "error: acme has no invoice 9"),
        (["statement", "acme", "--month", "x"], 1, "error: query.month: 'x' is not a month such as 2026-05"),
        (["invoices", "acme", "--pdf", "1", "--credit-note", "1", "--output", "x"], 2, "error: "),
    ],
)
def test_an_error_of_a_command_is_one_line(
    port: int, tmp_path: Path, arguments: list[str], status: int, says: str
) -> None:
    done = command(port, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (status, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(says)
    assert not list(tmp_path.glob("*.pdf"))
