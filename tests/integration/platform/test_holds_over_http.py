"""Holds and leases over HTTP on a real broker, with a real ledger: answers carry decisions, nothing is booked twice."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from schemas.amounts import NANOS
from schemas.enums import InputKind
from streams.api.app import build_api
from streams.api.door import Door
from streams.api.hold_routes import holds_router
from streams.api.holds import Holds
from streams.api.intake import Intake
from streams.api.lease_routes import leases_router
from streams.api.server import server_config
from streams.client.lease import HttpLeaseServer, Lease
from streams.client.lease_state import LeaseRefusedError, LeaseTerms
from streams.kafka.api_keys import Keyring
from streams.kafka.balances import BalanceReader
from streams.kafka.decisions import DecisionReader
from streams.kafka.registry import connect_registry
from streams.settings import Settings
from tests.integration.engine.workers import REPOSITORY, until
from tests.integration.ledger.events import purchase
from tests.integration.ledger.installation import LedgerInstallation
from tests.unit.platform.http_server import serving

README = REPOSITORY / "streams" / "client" / "README.md"


class Served:
    """The calls about holds and leases on a port of their own, as one process has them."""

    def __init__(self, settings: Settings, stack: ExitStack, wait_s: float = 20.0, remembered: int = 1_000) -> None:
        registry = connect_registry(settings)
        balances, intake = BalanceReader(settings, registry), Intake(settings, registry)
        decisions = DecisionReader(settings, registry, decisions_max=remembered)
        for part in (balances, intake, decisions):
            part.start()
            stack.callback(part.close)
        decisions.wait_until_current(20)
        holds = Holds(intake, decisions, wait_s=wait_s)
        routers = [holds_router(holds), leases_router(holds, intake)]
        api = build_api(balances=balances, registry=None, live={}, ready={}, others=routers)
        door = Door(Keyring, "local", loopback=True)
        self.address = stack.enter_context(serving(server_config(api, settings, door)))
        self.url = f"http://{self.address[0]}:{self.address[1]}"
        self.client = stack.enter_context(httpx.Client(base_url=self.url, timeout=60, trust_env=False))

    def post(self, path: str, body: Any = None, status: int = 200) -> dict[str, Any]:
        """The document of an answer with that status."""
        answer = self.client.post(f"/v1/orgs/acme{path}", json=body)
        assert answer.status_code == status, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def state(self, hold: str) -> str | None:
        """What is remembered of a hold."""
        answer = self.client.get(f"/v1/orgs/acme/holds/{hold}")
        return str(answer.json()["state"]) if answer.status_code == 200 else None


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Starts processes of the API; they end with the test."""
    with ExitStack() as stack:
        yield lambda settings, **more: Served(settings, stack, **more)


@pytest.fixture
def installation(settings: Settings, tmp_path: Path) -> Iterator[LedgerInstallation]:
    """Topics, 10 USD of acme, and a ledger that the test starts."""
    with LedgerInstallation(settings, tmp_path) as made:
        made.send(InputKind.PURCHASE, [purchase("p1", "acme", 10 * NANOS)])
        yield made


def hold(hold_id: str, amount: str = "2", **fields: Any) -> dict[str, Any]:
    return {"hold_id": hold_id, "wallet": "USD", "amount": amount, **fields}


def vanish(address: tuple[str, int], body: dict[str, Any]) -> None:
    """Ask for a hold, and go away without reading the answer."""
    content = json.dumps(body).encode()
    head = f"POST /v1/orgs/acme/holds HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(content)}\r\n"
    with socket.create_connection(address, 10) as client:
        client.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + content)


def test_holds_from_placing_to_the_end(installation: LedgerInstallation, serve: Callable[..., Served]) -> None:
    """The ledger is away, comes, decides; two processes answer alike; a third has forgotten; a client vanishes."""
    hasty = serve(installation.settings, wait_s=0.2)
    early = hold("early")
    assert hasty.post("/holds", early, status=202)["status"] == "pending"
    assert hasty.state("early") is None
    installation.ready_worker()
    one, other = serve(installation.settings), serve(installation.settings)
    until(lambda: one.state("early") == "active", 60, "the ledger's decision")
    placed = one.post("/holds", hold("h1", "3"))
    assert (placed["granted"], placed["available"]) == ("3", "5")
    assert one.post("/holds", hold("h1", "3")) == placed
    until(lambda: other.state("h1") == "active", 20, "the other process to have read it")
    assert other.post("/holds", hold("h1", "3")) == placed
    assert other.post("/holds", hold("h1", "4"), status=409)["code"] == "hold_id_reused"
    assert other.post("/holds", early)["granted"] == "2"
    refused = one.post("/holds", hold("h2", "6"), status=402)
    assert (refused["code"], refused["available"]) == ("credits_held", "5")

    captured = other.post("/holds/h1/capture", {"amount": "1.5"})
    assert (captured["granted"], captured["available"]) == ("1.5", "6.5")
    until(lambda: one.state("h1") == "captured", 20, "the capture to have been read")
    assert one.post("/holds/h1/capture", {"amount": "1.5"}) == captured
    assert one.post("/holds/h1/release", status=409)["code"] == "already_resolved"
    assert one.post("/holds/early/release")["available"] == "8.5"
    assert one.post("/holds/none/release", status=404)["code"] == "unknown_hold"

    vanish(one.address, hold("gone", "1"))
    until(lambda: one.state("gone") == "active", 20, "the hold of the client that is gone")
    forgetful = serve(installation.settings, remembered=1, wait_s=1.0)
    assert forgetful.state("h1") is None
    assert forgetful.post("/holds", hold("h1", "3")) == placed, "searched in the topic"

    kinds = Counter(entry["kind"] for entry in installation.rows("ledger"))
    assert {kind: kinds[kind] for kind in ("hold", "usage", "hold_release")} == {
        "hold": 3, "usage": 1, "hold_release": 2,
    }  # fmt: skip
    gone = [row for row in installation.rows("decisions") if row["hold_id"] == "gone"]
    assert [row["expires_at"] is not None for row in gone] == [True], "what is left of it has an end"
    assert set(installation.codes()) == {"duplicate_with_different_content"}, "what was sent again after forgetting"
    assert installation.report().ok


def test_a_lease_of_the_python_client(installation: LedgerInstallation, serve: Callable[..., Served]) -> None:
    """Spent in small parts over several leases; what was spent is booked, the rest is given back."""
    installation.ready_worker()
    served = serve(installation.settings)
    terms = LeaseTerms("USD", 2 * NANOS, duration_s=4, operation="chat.completion")
    spent: list[str] = []
    with Lease(HttpLeaseServer(served.url, "acme"), terms) as lease:
        while len({usage.rpartition("/")[0] for usage in spent}) < 3 and len(spent) < 90:
            try:
                spent.append(lease.spend(NANOS // 10, model="gpt-4o", user_id=f"u{len(spent) % 3}"))
            except LeaseRefusedError:
                until(lambda: lease.left_nanos >= NANOS // 10, 30, "the next lease")
    assert len({usage.rpartition("/")[0] for usage in spent}) >= 3, "more than one lease was spent"
    until(lambda: booked(installation) == Counter(spent), 60, "everything spent to be booked once")
    last = installation.rows("balances")[-1]
    assert [wallet["held_nanos"] for wallet in last["wallets"]] == [0]
    assert [wallet["settled_nanos"] for wallet in last["wallets"]] == [10 * NANOS - len(spent) * NANOS // 10]
    assert installation.codes() == {}
    assert installation.report().ok


def booked(installation: LedgerInstallation) -> Counter[str]:
    """How often each usage is in the ledger."""
    return Counter(row["event_id"] for row in installation.rows("ledger") if row["kind"] == "usage")


def example(containing: str) -> str:
    """The one block of Python of the client's README in which a text stands."""
    blocks = README.read_text(encoding="utf-8").split("```python\n")[1:]
    (found,) = (block.partition("```")[0] for block in blocks if containing in block)
    return found


def test_the_gateway_of_the_documentation(installation: LedgerInstallation, serve: Callable[..., Served]) -> None:
    installation.ready_worker()
    served = serve(installation.settings)
    done = subprocess.run(
        [sys.executable, "-c", example("HttpLeaseServer(").replace("http://127.0.0.1:8080", served.url)],
        cwd=REPOSITORY,
        env=installation.environment(),
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    assert done.stdout == "answered\nanswered\nrefused: short\n", done.stderr
    until(lambda: sum(booked(installation).values()) == 2, 60, "what was spent to be booked")
