"""The application of `serve` on a port of its own, with what it reads from replaced; and a client of bare sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI

from streams.api.app import build_api
from streams.api.door import Door
from streams.api.finance import Desk
from streams.api.invoices import invoices_router
from streams.api.problems import ProblemError
from streams.api.server import listen
from streams.api.statements import statements_router
from streams.kafka.api_keys import Keyring


class OrgSeenError(ProblemError):
    """Says which organisation a handler was asked for."""

    def __init__(self, org: str) -> None:
        super().__init__(404, "seen", "asked", org=org)


class SeenBalances:
    """Knows no balance."""

    async def latest(self, org: str, min_seq: int) -> None:
        """Say who was asked for."""
        raise OrgSeenError(org)


class SeenDesk(Desk):
    """Asks no ClickHouse."""

    def __init__(self) -> None:
        super().__init__(lambda: pytest_never(), "ledger")

    def ask(self, org: str, question: Any) -> Any:
        """Say who was asked for."""
        raise OrgSeenError(org)


def pytest_never() -> Any:
    """There is no client."""
    raise AssertionError("ClickHouse is not asked")


def seen_api() -> FastAPI:
    """Every route of `serve` that names an organisation, and one that takes a body."""
    desk, bodies = SeenDesk(), APIRouter()

    @bodies.post("/body")
    def body(document: dict[str, Any]) -> dict[str, int]:
        """Takes any JSON object."""
        return {"members": len(document)}

    balances: Any = SeenBalances()
    statements = [invoices_router(desk), statements_router(desk)]
    return build_api(balances=balances, registry=None, live={}, ready={}, statements=statements, others=[bodies])


def open_door() -> Door:
    """Asks nobody for a key, as on loopback before the first one is made."""
    return Door(Keyring, "local", loopback=True)


@contextlib.contextmanager
def serving(config: uvicorn.Config) -> Iterator[tuple[str, int]]:
    """A server in a thread; its address."""
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        yield listening.getsockname()[:2]
    finally:
        server.should_exit = True
        thread.join(20)


def answer_to(address: tuple[str, int], request: bytes, timeout_s: float = 10) -> bytes:
    """All that comes back, until the server closes."""
    with socket.create_connection(address, timeout_s) as client:
        client.sendall(request)
        return rest(client)


def rest(client: socket.socket) -> bytes:
    """What else comes, until the other side closes."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := client.recv(65536):
            got += chunk
    return got
