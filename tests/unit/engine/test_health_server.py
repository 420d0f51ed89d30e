"""The worker's health over HTTP: half-open connections end, and never keep a check from being answered."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

import pytest

from streams.engine import health
from streams.engine.health import BoundedServer, WorkerHealth, serve_health

SOON_S = 5.0


class Engine:
    """Has nothing to do."""

    owned = (0,)

    class failed:  # noqa: N801
        """Has not failed."""

        done = staticmethod(lambda: False)

    def stuck(self, _: float) -> list[int]:
        """Nothing is stuck."""
        return []

    def stalled_inputs(self, _: float) -> list[str]:
        """Nothing is stalled."""
        return []


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(BoundedServer, "request_timeout_s", 0.2)
    monkeypatch.setattr(BoundedServer, "connections_max", 4)
    engine: Any = Engine()
    server = serve_health(WorkerHealth(engine), 0)
    yield server.server_address[:2]
    server.shutdown()
    server.server_close()


def answer(address: tuple[str, int]) -> bytes:
    with contextlib.suppress(OSError), socket.create_connection(address, 5) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return client.recv(4096)
    return b""


def test_half_open_connections_end_and_checks_are_answered(address: tuple[str, int]) -> None:
    assert health.CONNECTIONS_MAX > 4
    with contextlib.ExitStack() as open_:
        for sent in (b"", b"G", b"GET /livez HTTP/1.1\r\n", b"GET /livez HTTP/1.1\r\nHost: x\r\n"):
            client = open_.enter_context(socket.create_connection(address, SOON_S))
            client.sendall(sent)
        deadline = time.monotonic() + SOON_S
        while b"200" not in answer(address):
            assert time.monotonic() < deadline, "half-open connections keep the check from being answered"
            time.sleep(0.01)


def test_one_connection_too_many_is_closed_at_once(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedServer, "request_timeout_s", 60.0)
    with contextlib.ExitStack() as open_:
        clients = [open_.enter_context(socket.create_connection(address, SOON_S)) for _ in range(5)]
        assert clients[-1].recv(1) == b""
