"""The HTTP interface against its own description: whatever is sent, the answer is a described one, and no server error.

In process, over ClickHouse in process. On a real broker: tests/integration/platform/test_openapi.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from clickhouse_connect.driver.client import Client
from fastapi.testclient import TestClient

from projections.sink import Sink
from schemas.records import BundledSchemas
from tests.laws import examples
from tests.unit.platform.conformance import try_every_call
from tests.unit.platform.test_every_route import CALLS, KEY, TOKEN, request_of
from tests.unit.platform.whole_api import WholeApi
from tests.unit.projections.entries import NOON, TOPICS, inbound
from tests.unit.projections.test_finance_routes import ROWS


def project(client: Client) -> None:
    """Entries of `acme`, and the alert of the examples."""
    sink = Sink(client, TOPICS, BundledSchemas())
    alert = {"alert_id": "9f2c", "org_id": "acme", "wallet": "USD", "kind": "credit_balance_low", "balance_nanos": 5}
    alert |= {"available_nanos": 5, "occurred_at": NOON, "entry_seq": 1, "dismissable": True}
    alerts = inbound([alert], 0, topic=TOPICS.name("alerts_threshold"), record="alert")
    sink.apply([inbound(ROWS, 0), alerts])


@pytest.mark.timeout(900)
def test_every_answer_is_described(client: Client) -> None:
    project(client)
    whole = WholeApi([KEY], lambda: client)
    schema = schemathesis.openapi.from_asgi("/openapi.json", whole.app)
    bearer = {"Authorization": f"Bearer {TOKEN}"}

    def ask(case: Any) -> Any:
        return case.call(headers=bearer)

    statuses = try_every_call(schema, ask, examples(2))
    assert statuses.keys() == CALLS.keys()
    assert all(statuses.values())


def test_every_example_is_answered_as_described(client: Client) -> None:
    """The examples name what is there, so these are the answers that callers want; ClickHouse's among them."""
    project(client)
    whole = WholeApi([KEY], lambda: client)
    http = TestClient(whole.app, raise_server_exceptions=False)
    method, path, arguments = request_of("PUT /v1/orgs/{org}/settings/{kind}")
    assert http.request(method, path, **arguments).status_code == 202
    for name, call in CALLS.items():
        method, path, arguments = request_of(name)
        answer = http.request(method, path, **arguments)
        assert answer.status_code < (500 if method == "DELETE" else 300), (name, answer.text)
        if answer.status_code == 204:
            continue
        kind = answer.headers["content-type"].partition(";")[0]
        shown = call["responses"][str(answer.status_code)]["content"][kind].get("example")
        if isinstance(shown, dict):
            assert set(answer.json()) == set(shown), name
