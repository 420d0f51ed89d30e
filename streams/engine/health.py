"""What a worker tells about itself over HTTP: `/livez`, `/readyz`, `/metrics`, in a thread of its own.

Alive means: every partition that has work committed something within the last minute. Records that wait behind an open
transaction are no work yet: the answer names them and stays 200, because a restart cannot end another producer's
transaction. Ready means: the first
assignment is being served. Both answer 200 or 503 with one line of plain text.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from streams.engine.engine import Engine

REQUEST_TIMEOUT_S = 10.0
CONNECTIONS_MAX = 32


class Health(Protocol):
    """Answers for one process: (whether it is so, sentence)."""

    def alive(self) -> tuple[bool, str]:
        """Every part that must make progress does."""
        ...

    def ready(self) -> tuple[bool, str]:
        """It does its work."""
        ...


class WorkerHealth:
    """Answers for one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def alive(self) -> tuple[bool, str]:
        """(alive, sentence)."""
        if self._engine.failed.done():
            return False, f"stopped: {self._engine.failed.result()}"
        stuck = self._engine.stuck(time.monotonic())
        if stuck:
            return False, f"no progress on partitions {stuck}"
        stalled = self._engine.stalled_inputs(time.monotonic())
        return True, "; ".join(["alive", *stalled])

    def ready(self) -> tuple[bool, str]:
        """(ready, sentence)."""
        if not self._engine.ready.is_set():
            return False, "waiting for partitions"
        if paused := self._engine.paused:
            return False, f"paused for a flood of dead letters: {', '.join(paused)}"
        return True, f"serving partitions {self._engine.owned}"


class BoundedServer(ThreadingHTTPServer):
    """A thread a connection: each is closed after `request_timeout_s`, and one more than `connections_max` at once."""

    request_timeout_s = REQUEST_TIMEOUT_S
    connections_max = CONNECTIONS_MAX

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._begun: dict[Any, float] = {}
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or close."""
        if len(self._begun) >= self.connections_max:
            super().shutdown_request(request)
            return
        self._begun[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """It has been answered."""
        self._begun.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Twice a second: end what takes too long. Its thread then reads the end of the connection."""
        late = time.monotonic() - self.request_timeout_s
        for request, begun in list(self._begun.items()):
            if begun < late:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)


def serve_health(health: Health, port: int, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """Start answering on `host`:`port`; `shutdown()` the server at the end."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(HTTPStatus.OK, generate_latest(), CONTENT_TYPE_LATEST)
            elif self.path in ("/livez", "/readyz"):
                good, sentence = health.alive() if self.path == "/livez" else health.ready()
                status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
                self._answer(status, f"{sentence}\n".encode(), "text/plain; charset=utf-8")
            else:
                self._answer(HTTPStatus.NOT_FOUND, b"not found\n", "text/plain; charset=utf-8")

        def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Health checks are not logged."""

    server = BoundedServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
