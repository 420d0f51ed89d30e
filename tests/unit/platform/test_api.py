"""The HTTP application's own rules: problems, health. What it answers from Kafka is tested on a broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient

from streams.api.health import health_router
from streams.api.problems import ProblemError, install_problems
from streams.errors import KafkaUnavailableError

faults: dict[str, str | None] = {"part": None, "kafka": None}
router = APIRouter()


@router.get("/told")
def told() -> None:
    """Refuses with members of its own."""
    raise ProblemError(402, "limit_reached", "the month's limit is reached", limit_id="month")


@router.get("/away")
def away() -> None:
    """Kafka does not answer."""
    raise KafkaUnavailableError("no Kafka answers", "start it")


@router.get("/bug")
def bug() -> None:
    """An error nobody thought of."""
    raise ValueError("secret")


@router.get("/number")
def number(of: int) -> int:
    """Takes a number."""
    return of


@pytest.fixture
def client() -> Iterator[TestClient]:
    api = FastAPI()
    install_problems(api)
    api.include_router(router)
    api.include_router(health_router({"part": lambda: faults["part"]}, {"kafka": lambda: faults["kafka"]}))
    yield TestClient(api, raise_server_exceptions=False)
    faults.update(part=None, kafka=None)


@pytest.mark.parametrize(
    ("path", "status", "code", "more"),
    [
        ("/told", 402, "limit_reached", {"limit_id": "month"}),
        ("/away", 503, "kafka_unavailable", {}),
        ("/bug", 500, "internal_error", {}),
        ("/nosuch", 404, "not_found", {}),
        ("/number?of=x", 422, "invalid_field", {}),
        ("/number", 422, "invalid_field", {}),
    ],
)
def test_every_error_is_a_problem(client: TestClient, path: str, status: int, code: str, more: dict[str, Any]) -> None:
    answer = client.get(path)
    document = answer.json()
    assert answer.status_code == document["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["code"] == code
    assert document["type"].endswith(code)
    assert document["title"]
    assert document["detail"]
    assert document.items() >= more.items()
    assert "secret" not in answer.text


def test_a_method_that_is_not_there(client: TestClient) -> None:
    assert client.post("/told").json()["code"] == "method_not_allowed"


def test_live_and_ready_differ_in_what_they_ask(client: TestClient) -> None:
    assert (client.get("/livez").status_code, client.get("/readyz").status_code) == (200, 200)
    faults["kafka"] = "does not answer"
    assert (client.get("/livez").status_code, client.get("/readyz").status_code) == (200, 503)
    assert client.get("/readyz").json() == {"ok": False, "parts": {"part": "ok", "kafka": "does not answer"}}
    faults["part"] = "is stuck"
    assert (client.get("/livez").status_code, client.get("/readyz").status_code) == (503, 503)


def test_metrics_are_prometheus(client: TestClient) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "python_info" in answer.text
