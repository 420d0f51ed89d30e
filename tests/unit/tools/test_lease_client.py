"""The lease client and its calls: what each answer of the server means, and what is left when it cannot be reached."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from streams.client.lease import (
    Booked,
    Granted,
    HttpLeaseServer,
    Lease,
    LeaseNotReportedError,
    Refused,
    Unbookable,
    Unknown,
)
from streams.client.lease_state import LeaseRefusedError, LeaseReport, LeaseRequest, LeaseTerms

TERMS = LeaseTerms("USD", 2_500_000_000, operation="chat", scope={"user_id": "bob"})
REQUEST = LeaseRequest("l/1", 0.0)
REPORT = LeaseReport("l/1", "USD", ({"event_id": "l/1/1", "cost_nanos": 1},), True)


class Answers(ThreadingHTTPServer):
    """Answers what the test says, and keeps what was asked."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.document, self.retry = 200, b"{}", ""
        self.asked: list[tuple[str, dict[str, Any], str | None]] = []


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Answers

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body, self.headers["Authorization"]))
        self.send_response(self.server.status)
        if self.server.retry:
            self.send_header("Retry-After", self.server.retry)
        self.send_header("Content-Length", str(len(self.server.document)))
        self.end_headers()
        self.wfile.write(self.server.document)

    def log_message(self, *_: Any) -> None:
        """Quietly."""


@pytest.fixture
def answers() -> Iterator[Answers]:
    with Answers() as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join(10)


def server_of(answers: Answers) -> HttpLeaseServer:
    return HttpLeaseServer(f"http://127.0.0.1:{answers.server_port}/", "a/b", "credits_x", timeout_s=5)


@pytest.mark.parametrize(
    ("status", "document", "retry", "outcome"),
    [
        (200, {"granted": "1.5", "spend_for_s": 30}, "", Granted(1_500_000_000, 30.0)),
        (202, {"status": "pending"}, "1", Unknown("202", 1.0)),
        (402, {"code": "credits_held", "detail": "x"}, "", Refused("credits_held")),
        (402, {"code": "limit_reached"}, "3600", Refused("limit_reached", 3600.0)),
        (403, {"code": "not_authorized"}, "", Refused("not_authorized")),
        (422, {"code": "invalid_field", "detail": "amount: x"}, "", Refused("invalid_field")),
        (429, {"code": "rate_limited"}, "2", Unknown("rate_limited", 2.0)),
        (503, {"code": "kafka_unavailable"}, "1", Unknown("kafka_unavailable", 1.0)),
    ],
)
def test_what_an_answer_to_a_request_means(
    answers: Answers, status: int, document: dict[str, Any], retry: str, outcome: object
) -> None:
    answers.status, answers.document, answers.retry = status, json.dumps(document).encode(), retry
    assert server_of(answers).place(REQUEST, TERMS) == outcome
    body = {"lease_id": "l/1", "wallet": "USD", "amount": "2.5", "duration_s": 30, "user_id": "bob"}
    assert answers.asked == [("/v1/orgs/a%2Fb/leases", body, "Bearer credits_x")]


@pytest.mark.parametrize(
    ("status", "document", "outcome"),
    [
        (202, {"accepted": 1}, Booked()),
        (422, {"code": "invalid_field", "detail": "cost: x", "index": 0}, Unbookable(0, "cost: x")),
        (422, {"code": "invalid_field", "detail": "usage: x"}, Unknown("usage: x")),
        (403, {"code": "not_authorized", "detail": "no"}, Unknown("no")),
        (503, {"code": "busy", "detail": "later"}, Unknown("later")),
    ],
)
def test_what_an_answer_to_a_report_means(
    answers: Answers, status: int, document: dict[str, Any], outcome: object
) -> None:
    answers.status, answers.document = status, json.dumps(document).encode()
    assert server_of(answers).report(REPORT) == outcome
    body = {"wallet": "USD", "usage": [{"event_id": "l/1/1", "cost_nanos": 1}], "final": True}
    assert answers.asked[0][:2] == ("/v1/orgs/a%2Fb/leases/l%2F1/usage", body)


@pytest.mark.parametrize("document", [b"", b"not JSON", b"[]", b'"text"'])
def test_what_is_no_document_is_no_outcome(answers: Answers, document: bytes) -> None:
    answers.document = document
    server = server_of(answers)
    assert isinstance(server.place(REQUEST, TERMS), Unknown)
    answers.document = json.dumps({"granted": "1", "spend_for_s": 5}).encode()
    assert server.place(REQUEST, TERMS) == Granted(1_000_000_000, 5.0), "a new connection"


def test_no_server_is_no_outcome() -> None:
    with Answers() as gone:
        port = gone.server_port
    assert isinstance(HttpLeaseServer(f"http://127.0.0.1:{port}", "acme", timeout_s=1).report(REPORT), Unknown)
    for wrong in ("127.0.0.1:8080", "ftp://x", "http://"):
        with pytest.raises(ValueError, match="is no address"):
            HttpLeaseServer(wrong, "acme")


class Memory:
    """A server that grants, and takes reports as the test says."""

    def __init__(self, *reports: Booked | Unbookable | Unknown) -> None:
        self.reports = list(reports)
        self.taken: list[LeaseReport] = []

    def place(self, request: LeaseRequest, terms: LeaseTerms) -> Granted | Refused | Unknown:
        return Granted(terms.amount_nanos, terms.duration_s)

    def report(self, report: LeaseReport) -> Booked | Unbookable | Unknown:
        outcome = self.reports.pop(0) if self.reports else Booked()
        if isinstance(outcome, Booked):
            self.taken.append(report)
        return outcome


def test_what_was_spent_is_reported_at_the_end() -> None:
    server = Memory()
    with Lease(server, TERMS, client_id="gw") as lease:
        ids = [lease.spend(1_000_000_000), lease.spend(500_000_000, model="m")]
        assert lease.left_nanos == 1_000_000_000
    assert [usage["event_id"] for report in server.taken for usage in report.usage] == ids == ["gw-1/1", "gw-1/2"]
    with pytest.raises(LeaseRefusedError, match="closed"):
        lease.spend(1)


def test_a_wrong_record_does_not_keep_the_others(caplog: pytest.LogCaptureFixture) -> None:
    server = Memory(Unbookable(0, "user_id: x"))
    with caplog.at_level(logging.ERROR), Lease(server, TERMS, client_id="gw") as lease:
        lease.spend(1, user_id=5)
        lease.spend(2)
    assert [usage["event_id"] for report in server.taken for usage in report.usage] == ["gw-1/2"]
    assert "gw-1/1 is wrong and was dropped: user_id: x" in caplog.text


def test_what_cannot_be_reported_is_an_error() -> None:
    lease = Lease(Memory(*[Unknown("away")] * 100), TERMS)
    lease.start()
    lease.spend(1)
    with pytest.raises(LeaseNotReportedError, match="1 records of usage"):
        lease.close(timeout_s=0.05)
