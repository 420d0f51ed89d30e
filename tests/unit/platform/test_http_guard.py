"""What stands before the routes: `Host`, the size of bodies, and an end to every wait. On real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn

from streams.api import connections, guard
from streams.api.audit_routes import audit_router
from streams.api.connections import BoundedProtocol
from streams.api.guard import Guard
from streams.api.hosts import HostRule
from streams.api.server import listen, server_config
from streams.local.api_key import HEADER, local_key, new_local_key
from tests.brokers import test_settings
from tests.tidy.source import ROOT
from tests.unit.platform.http_server import answer_to, open_door, rest, seen_api, serving

BODY_MAX = 64 * 1024
MIB = 1024 * 1024
SOON_S = 5.0
Address = tuple[str, int]


class Hasty(BoundedProtocol):
    """Waits for tenths of a second."""

    head_timeout_s = 0.3
    answer_timeout_s = 0.3
    connections_max = 8
    ahead_most = 0
    """Requests that were read ahead of an answer, at most."""

    def on_headers_complete(self) -> None:
        """Count."""
        super().on_headers_complete()
        Hasty.ahead_most = max(Hasty.ahead_most, len(self.pipeline))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """`serve`'s application and connections, with small limits."""
    settings = test_settings(tmp_path_factory.mktemp("serve"), http_body_bytes_max=BODY_MAX)
    config = server_config(seen_api(), settings, open_door())
    assert isinstance(config.app, Guard)
    assert config.http is BoundedProtocol
    config.app._body_timeout_s = 0.3
    config.http = Hasty
    with serving(config) as found:
        yield found


def post(head: str = "", body: bytes = b"") -> bytes:
    return f"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{head}\r\n".encode() + body


def chunked(body: bytes, size: int = 8192) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def document_of(answer: bytes) -> dict[str, object]:
    found: dict[str, object] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


# Hosts


@pytest.mark.parametrize(
    ("listens", "allowed", "header", "answered"),
    [
        ("127.0.0.1", "", "localhost:8080", True),
        ("127.0.0.1", "", "LocalHost.", True),
        ("127.0.0.1", "", "127.0.0.1:9999", True),
        ("127.0.0.1", "", "[::1]:8080", True),
        ("127.0.0.1", "", "evil.example:8080", False),
        ("127.0.0.1", "", "localhost.evil.example", False),
        ("127.0.0.1", "", "127.0.0.1.evil.example", False),
        ("127.0.0.1", "", "10.0.0.7:8080", False),
        ("127.0.0.1", "", "", False),
        ("127.0.0.1", "", None, False),
        ("127.0.0.1", "credits.example, serve", "credits.example:443", True),
        ("127.0.0.1", "credits.example, serve", "SERVE:8080", True),
        ("127.0.0.1", "credits.example", "www.credits.example", False),
        ("10.0.0.7", "", "10.0.0.7:8080", True),
        ("10.0.0.7", "", "10.0.0.8:8080", False),
        ("0.0.0.0", "", "10.0.0.8:8080", True),
        ("0.0.0.0", "", "[fd00::7]:8080", True),
        ("::", "", "10.0.0.8:8080", True),
        ("0.0.0.0", "", "evil.example", False),
        ("0.0.0.0", "*", "evil.example", True),
    ],
)
def test_which_hosts_are_answered(listens: str, allowed: str, header: str | None, answered: bool) -> None:
    assert HostRule(listens, allowed.split(",")).allows(header) is answered


@pytest.mark.fault(
    "dns-rebinding",
    title="A web page under a name that points at this machine",
    provoked="requests with a Host that is not listed, and with none, to every kind of route",
    holds="421, nothing is told",
)
@pytest.mark.parametrize("path", ["/livez", "/metrics", "/openapi.json", "/v1/orgs/acme/balance", "/no/such"])
def test_a_name_that_is_not_listed_is_answered_nowhere(
    address: Address, path: str, seen: Callable[[str], None]
) -> None:
    answer = answer_to(address, f"GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".encode())
    assert status(answer) == 421
    assert document_of(answer)["code"] == "host_not_allowed"
    none = answer_to(address, f"GET {path} HTTP/1.0\r\n\r\n".encode())
    assert status(none) == 421
    seen(f"{path}: 421")


# Bodies


@pytest.mark.parametrize("size", [BODY_MAX - 1, BODY_MAX])
def test_a_body_of_the_limit_is_taken(address: Address, size: int) -> None:
    body = b'{"a": "' + b"x" * (size - 9) + b'"}'
    for request in (
        post(f"Content-Length: {size}\r\nConnection: close\r\n", body),
        post("Transfer-Encoding: chunked\r\nConnection: close\r\n", chunked(body)),
    ):
        assert document_of(answer_to(address, request)) == {"members": 1}


@pytest.mark.parametrize(
    "request_",
    [
        post(f"Content-Length: {BODY_MAX + 1}\r\n"),
        post(f"Content-Length: {'9' * 5000}\r\n"),
        post("Transfer-Encoding: chunked\r\n", chunked(b"x" * (BODY_MAX + 1))),
        post("Transfer-Encoding: chunked\r\n", b"%x\r\n%s" % (2**40, b"x" * (BODY_MAX + 1))),
    ],
    ids=["announced", "5000 digits", "chunked", "one endless chunk"],
)
def test_a_larger_body_is_refused(address: Address, request_: bytes) -> None:
    answer = answer_to(address, request_)
    assert status(answer) in (400, 413)  # 400: h11 refuses the number itself
    if status(answer) == 413:
        assert document_of(answer)["code"] == "body_too_large"


SERVER = """
import resource, sys
from tests.brokers import test_settings
from tests.unit.platform.http_server import open_door, seen_api, serving
from streams.api.server import server_config
from pathlib import Path
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 if sys.platform == "linux" else 1024)
with serving(server_config(seen_api(), test_settings(Path(sys.argv[1])), open_door())) as address:
    print(address[1], peak(), flush=True)
    sys.stdin.readline()
    print(peak(), flush=True)
"""


@pytest.mark.fault(
    "body-without-end",
    title="A body that is far too large",
    provoked="four clients post 50 MB of JSON each, in chunks, without a length",
    holds="413, and the process does not grow with what is posted",
)
def test_memory_is_bounded_whatever_is_posted(tmp_path: Path, seen: Callable[[str], None]) -> None:
    """200 MB, without a length, as JSON that would be large; from four clients at once."""
    child = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        port, before_kib = map(int, child.stdout.readline().split())
        part = b'{"a": [' + b"{}," * 350_000
        chunk = b"%x\r\n%s\r\n" % (len(part), part)
        codes: list[int] = []

        def post_much() -> None:
            with socket.create_connection(("127.0.0.1", port), 30) as client:
                client.sendall(post("Transfer-Encoding: chunked\r\n"))
                for _ in range(50):
                    client.sendall(chunk)
                codes.append(status(client.recv(65536)))

        threads = [threading.Thread(target=post_much) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(60)
        child.stdin.write(b"\n")
        child.stdin.flush()
        grown_mib = (int(child.stdout.readline()) - before_kib) / 1024
    finally:
        child.kill()
        child.wait()
    assert codes == [413] * 4
    assert grown_mib < 64
    seen("413 four times; the process grew by less than 64 MiB")


def test_all_bodies_together_have_a_limit(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """One client more than fits is told to come again, and does when the others have been answered."""
    half = b'{"a": "' + b"x" * (BODY_MAX - 100)
    with contextlib.ExitStack() as open_:
        room = Guard(seen_api(), HostRule("127.0.0.1"), open_door(), body_bytes_max=BODY_MAX, body_timeout_s=30)
        server = open_.enter_context(serving(_config(room)))
        clients = [open_.enter_context(socket.create_connection(server, 10)) for _ in range(guard.BODIES_AT_ONCE)]
        for client in clients:
            client.sendall(post(f"Content-Length: {len(half) + 2}\r\nConnection: close\r\n", half))
        until(lambda: room._room.left < len(half))
        late = post(f"Content-Length: {len(half) + 2}\r\nConnection: close\r\n", half + b'"}')
        answer = answer_to(server, late)
        assert status(answer) == 503
        assert b"retry-after: 1" in answer.lower()
        for client in clients:
            client.sendall(b'"}')
            assert status(rest(client)) == 200
        until(lambda: room._room.left == guard.BODIES_AT_ONCE * BODY_MAX)
        assert status(answer_to(server, late)) == 200


def _config(app: Guard) -> uvicorn.Config:
    return uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")


def until(true: object) -> None:
    deadline = time.monotonic() + SOON_S
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)


# Heads


@pytest.mark.parametrize(
    "endless",
    [
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Large: ",
        b"GET /livez?",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"X: 1\r\n" * 4_000,
        post("Transfer-Encoding: chunked\r\n", b"0\r\nX-Behind: "),
        post("Transfer-Encoding: chunked\r\n", b"1;extension="),
    ],
    ids=["one header", "an address", "many headers", "behind a body", "around a chunk"],
)
def test_a_head_without_end_is_refused(address: Address, endless: bytes) -> None:
    """Long before what was sent of it would be felt."""
    sent = 0
    with socket.create_connection(address, 10) as client, contextlib.suppress(ConnectionError):
        client.sendall(endless)
        while sent < 64 * 1024 * 1024:
            client.sendall(b"x" * 16_384)
            sent += 16_384
    assert sent < 16 * 1024 * 1024


def test_a_head_of_the_usual_size_is_taken(address: Address) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Large: " + b"x" * 12_000
    assert status(answer_to(address, head + b"\r\n\r\n")) == 200


def test_requests_ahead_of_their_answers_are_answered_in_order_and_not_all_read_at_once(address: Address) -> None:
    one = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    Hasty.ahead_most = 0
    with socket.create_connection(address, 10) as client:
        thread = threading.Thread(target=client.sendall, args=(one * 3_000 + last,))
        thread.start()
        answers = rest(client)
        thread.join()
    assert answers.count(b"HTTP/1.1 200 OK") == 3_000
    assert answers.rpartition(b"HTTP/1.1 ")[2].startswith(b"401" if b"401" in answers else b"404")
    assert 0 < Hasty.ahead_most <= connections.FEED_BYTES // len(one) + 1


# Waits


@pytest.mark.fault(
    "half-open",
    title="Connections that do not go on",
    provoked="no byte, half a head, half of the next head, a body after its refusal, a head byte by byte",
    holds="the server closes each",
)
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /livez HT",
        post("Content-Length: 100000\r\n", b"x") + b"x" * 100_000,
    ],
    ids=["nothing", "half a head", "half of the next head", "after a refused body"],
)
def test_what_does_not_go_on_is_closed(address: Address, sent: bytes, seen: Callable[[str], None]) -> None:
    begun = time.monotonic()
    answer_to(address, sent)
    assert time.monotonic() - begun < SOON_S
    seen("closed by the server")


def test_a_head_that_comes_byte_by_byte_is_closed(address: Address) -> None:
    with socket.create_connection(address, 10) as client:
        client.settimeout(0.02)
        begun = time.monotonic()
        closed = False
        while not closed and time.monotonic() - begun < SOON_S:
            try:
                client.sendall(b"G")
                closed = client.recv(1) == b""
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                closed = True
    assert closed


@pytest.mark.parametrize("head", ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"])
def test_a_body_that_does_not_come_is_answered_and_closed(address: Address, head: str) -> None:
    answer = answer_to(address, post(head))
    assert status(answer) == 408
    assert document_of(answer)["code"] == "request_timeout"


def test_an_answer_that_nobody_reads_is_given_up(address: Address) -> None:
    """Requests one after another without reading: the buffers fill up, and the connection ends."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(SOON_S)
        client.connect(address)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            _ask_on_and_on(client)


def _ask_on_and_on(client: socket.socket) -> None:
    while True:
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)


def test_there_are_not_more_connections_than_the_limit(address: Address) -> None:
    with contextlib.ExitStack() as open_:
        clients = [open_.enter_context(socket.create_connection(address, 10)) for _ in range(Hasty.connections_max + 4)]
        assert rest(clients[-1]) == b""
    until(lambda: _answers(address))


def _answers(address: Address) -> bool:
    return b"200" in answer_to(address, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")[:20]


def test_a_connection_is_kept_between_requests(address: Address) -> None:
    client = http.client.HTTPConnection(*address, timeout=10)
    for _ in range(3):
        client.request("GET", "/livez")
        assert client.getresponse().read()
    client.close()


# Answers


def test_small_writes_are_sent_at_once() -> None:
    """Head and body are two writes: without TCP_NODELAY the second waits for the client's delayed acknowledgement."""

    async def accepted() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        class Seen(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                connection = transport.get_extra_info("socket")
                found.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

        server = await asyncio.get_running_loop().create_server(Seen, sock=listen("127.0.0.1", 0))
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            return await found
        finally:
            writer.close()
            server.close()

    assert asyncio.run(accepted()) != 0


# What is internal


@pytest.mark.fault(
    "behind-a-proxy",
    title="A proxy on this machine that adds no header",
    provoked="requests from loopback for what is internal, without its key",
    holds="403",
)
def test_internal_routes_ask_for_the_key_in_the_data_folder(tmp_path: Path, seen: Callable[[str], None]) -> None:
    """Not for an address: behind a proxy on this machine all requests come from loopback, with no header added."""
    from unittest.mock import Mock

    key = new_local_key(tmp_path)
    assert local_key(tmp_path) == key
    assert (tmp_path / "serve.key").stat().st_mode & 0o777 == 0o600
    assert new_local_key(tmp_path) != key
    api = seen_api()
    api.include_router(audit_router(Mock(), key))
    with serving(server_config(api, test_settings(tmp_path), open_door())) as address:
        for more in ("", f"{HEADER}: \r\n", f"{HEADER}: {key[:-1]}\r\n", "X-Forwarded-For: 127.0.0.1\r\n"):
            asked = f"GET /internal/clickhouse/audit HTTP/1.1\r\nHost: localhost\r\n{more}Connection: close\r\n\r\n"
            assert status(answer_to(address, asked.encode())) == 403
    seen("403 without the key, with a wrong one, with a header that says loopback")
