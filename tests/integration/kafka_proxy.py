"""A TCP proxy between Kafka clients and a broker which sees each request, and can keep one back.

It reads as much of Kafka's protocol as it needs: the length of a request, its api key, its correlation id. A rule says
of each request what becomes of it: forwarded; or kept, and the client's connection cut, while the one to the broker
stays open. `deliver` sends what was kept to the broker, as a network would that was slow.
"""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

PRODUCE = 0
END_TXN = 26
ANSWER_TIMEOUT_S = 30.0
CUT_LOOK_S = 0.02

_LENGTH = struct.Struct(">i")
_HEAD = struct.Struct(">hhi")
"""Api key, version, correlation id."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a client: its api key, and all bytes after the length."""

    api_key: int
    payload: bytes

    def names(self, transactional_id: str) -> bool:
        """Whether the request has this transactional id in it."""
        return transactional_id.encode() in self.payload


Rule = Callable[[Request], bool]
"""True: forward the request. False: keep it, and cut the client. It may block: the connection then waits."""


class KafkaProxy:
    """Listens on `port`; forwards to `broker_port` once that is set. Use as a context manager."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.broker_port = 0
        self.rule: Rule = lambda request: True
        self._kept: queue.Queue[tuple[_Connection, Request]] = queue.Queue()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def deliver(self) -> bytes:
        """Send the request that was kept longest to the broker, and wait for the answer: its bytes after the length."""
        connection, request = self._kept.get(timeout=ANSWER_TIMEOUT_S)
        assert connection.answers_ended.wait(ANSWER_TIMEOUT_S)
        broker = connection.broker
        broker.settimeout(ANSWER_TIMEOUT_S)
        broker.sendall(_LENGTH.pack(len(request.payload)) + request.payload)
        answer = _read_frame(broker)
        assert answer is not None, "the broker has closed the connection"
        assert answer[:4] == struct.pack(">i", _HEAD.unpack_from(request.payload)[2]), "the answer to another request"
        return answer

    def keep(self, connection: _Connection, request: Request) -> None:
        """Remember a request that was not forwarded."""
        self._kept.put((connection, request))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                broker = socket.create_connection(("127.0.0.1", self.broker_port))
                self._sockets += [client, broker]
                connection = _Connection(self, client, broker)
                threading.Thread(target=connection.forward_requests, daemon=True).start()
                threading.Thread(target=connection.forward_answers, daemon=True).start()


class _Connection:
    """One client's connection. Answers of the broker are forwarded until the client is cut."""

    def __init__(self, proxy: KafkaProxy, client: socket.socket, broker: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self.broker = broker
        self.answers_ended = threading.Event()
        self._cut = threading.Event()
        self._answers = threading.Condition()
        self._open = 0

    def forward_requests(self) -> None:
        """From the client to the broker. A request that a rule looks at waits until those before it are answered."""
        with contextlib.suppress(OSError):
            while (payload := _read_frame(self._client)) is not None:
                request = Request(_HEAD.unpack_from(payload)[0], payload)
                if request.api_key in (PRODUCE, END_TXN):
                    with self._answers:
                        self._answers.wait_for(lambda: self._open == 0, ANSWER_TIMEOUT_S)
                    if not self._proxy.rule(request):
                        self._cut.set()
                        # Ends the reading of answers, which `deliver` then does; the broker knows nothing of it.
                        self._client.shutdown(socket.SHUT_RDWR)
                        self._proxy.keep(self, request)
                        return
                with self._answers:
                    self._open += 1
                self.broker.sendall(_LENGTH.pack(len(payload)) + payload)
        self._close()

    def forward_answers(self) -> None:
        """From the broker to the client, until the client is cut or either is gone."""
        readable = select.poll()
        readable.register(self.broker, select.POLLIN)
        with contextlib.suppress(OSError):
            while not self._cut.is_set():
                if not readable.poll(CUT_LOOK_S * 1_000):
                    continue
                answer = _read_frame(self.broker)
                if answer is None:
                    break
                with self._answers:
                    self._open -= 1
                    self._answers.notify()
                self._client.sendall(_LENGTH.pack(len(answer)) + answer)
        self.answers_ended.set()
        if not self._cut.is_set():
            self._close()

    def _close(self) -> None:
        # Only shut: the other thread may be reading. The proxy closes what it has opened at its end.
        for each in (self._client, self.broker):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _read_frame(stream: socket.socket) -> bytes | None:
    """What follows the next length; None at the end of the stream."""
    head = _read_exactly(stream, _LENGTH.size)
    return None if head is None else _read_exactly(stream, _LENGTH.unpack(head)[0])


def _read_exactly(stream: socket.socket, size: int) -> bytes | None:
    parts = b""
    while len(parts) < size:
        part = stream.recv(size - len(parts))
        if not part:
            return None
        parts += part
    return parts
