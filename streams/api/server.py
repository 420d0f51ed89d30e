"""`serve` and `api`: the HTTP application, and beside it what the process has of ClickHouse, on one event loop.

`serve` has the projection beside HTTP: they share a process because one process may own the chDB folder (decision 9,
ClickHouse in process, or a server by its URL), and a loop because Faust wants its own. `api` is HTTP alone, as many
processes as one likes; `streams.api.projector` is the projection alone.
What blocks (Kafka, ClickHouse) runs in threads. HTTP answers as soon as Kafka does, with ClickHouse or without.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import uvicorn

from streams.api.clickhouse_clients import ClickHouseClients, NoClickHouse
from streams.api.connections import BoundedProtocol
from streams.api.door import Door
from streams.api.guard import Guard
from streams.api.hosts import HostRule
from streams.api.http_parts import HttpParts
from streams.api.sessions import Sessions, session_secret
from streams.background import watched_threads
from streams.errors import OperatorError
from streams.kafka import topics_admin
from streams.kafka.key_topic import check_keys_file
from streams.local.api_key import new_local_key

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from streams.api.clickhouse_clients import ClickHousePart
    from streams.settings import Settings
    from streams.stopping import Stopping


class _Server(uvicorn.Server):
    """Uvicorn without signal handlers of its own: who serves decides when to stop. Then `ending` is called."""

    def __init__(self, config: uvicorn.Config, ending: Callable[[], None]) -> None:
        super().__init__(config)
        self._ending = ending

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what would go on, then wait for what is being answered."""
        self._ending()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: Settings, announce: Callable[[str], None], stopping: Stopping) -> None:
    """Serve HTTP and fold the ledger into ClickHouse, until told to stop.

    Raises `OperatorError` where a part cannot be had, or ends by itself; `NoApiKeysError` where others than this
    machine could ask and no key was ever made.
    """
    from streams.api.projection import Projection  # Faust, which `api` does without

    await _serve(settings, Projection(settings), announce, stopping, own_folder=True)


async def serve_api(settings: Settings, announce: Callable[[str], None], stopping: Stopping) -> None:
    """Serve HTTP alone, until told to stop. Questions about the past are for a ClickHouse server, if one is set.

    Writes nothing on this machine: commands here present an API key, as from elsewhere. Raises as `serve`.
    """
    has_server = settings.clickhouse_url is not None and not settings.clickhouse_url.startswith("chdb:")
    clickhouse: ClickHousePart = ClickHouseClients(settings) if has_server else NoClickHouse()
    await _serve(settings, clickhouse, announce, stopping, own_folder=False)


async def _serve(
    settings: Settings,
    clickhouse: ClickHousePart,
    announce: Callable[[str], None],
    stopping: Stopping,
    *,
    own_folder: bool,
) -> None:
    """Serve until told to stop.

    1. Take the port, and look at the file of keys. 2. Topics. 3. API keys, then what else is read from Kafka. 4. HTTP,
    and beside it ClickHouse; `announce` is called with the address once it answers, and ClickHouse does or is known to
    be away. `own_folder`: the data folder is this process's, and commands of this machine find a key there.
    """
    stopping.take_signals()
    listening = listen(settings.http_host, settings.http_port)
    check_keys_file(settings)
    await asyncio.to_thread(topics_admin.apply, settings)
    parts = HttpParts(settings, clickhouse)
    died: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    try:
        with watched_threads(lambda error: None if died.done() else died.set_result(error)):
            await parts.start()
            key = new_local_key(settings.data_dir) if own_folder else secrets.token_urlsafe(32)
            limit = settings.http_requests_per_s
            sessions = Sessions(session_secret(settings.internal_key))
            door = Door(lambda: parts.keys.keyring, key, loopback=settings.http_on_loopback, requests_per_s=limit)
            door.sessions = sessions
            api = parts.build(key if own_folder else None, door.refusal, sessions)
            server = _Server(server_config(api, settings, door), parts.end_streams)
            gc.freeze()  # what was made for the start is not looked at by the collector again and again
            await _run(server, listening, clickhouse, announce, stopping, died)
    finally:
        await parts.close()


def server_config(api: ASGIApp, settings: Settings, door: Door) -> uvicorn.Config:
    """How `api` is served: behind the guard, on connections that end, on what the socket says and nothing else."""
    hosts = HostRule(settings.http_host, settings.http_allowed_hosts.split(","))
    return uvicorn.Config(
        Guard(api, hosts, door, body_bytes_max=settings.http_body_bytes_max),
        http=BoundedProtocol,
        ws="none",
        proxy_headers=False,  # what a header says of the client is what the client likes
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        # Who is still being answered then has to ask again; the projection's last write needs the rest of the time.
        timeout_graceful_shutdown=max(1, int(settings.stop_grace_s / 2)),
    )


async def _run(
    server: _Server,
    listening: socket.socket,
    clickhouse: ClickHousePart,
    announce: Callable[[str], None],
    stopping: Stopping,
    died: asyncio.Future[BaseException],
) -> None:
    """Run both until told, or until one of them ends, or a thread has `died`, whose error is raised.

    Then stop HTTP first, for it asks what the other closes.
    """
    stop_event = stopping.graceful_stop_event()
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    beside = asyncio.create_task(clickhouse.run())
    tried = asyncio.create_task(clickhouse.tried.wait())
    ends: set[asyncio.Future[Any]] = {serving, beside, died, asyncio.create_task(stop_event.wait())}
    done, _ = await asyncio.wait({tried, *ends}, return_when=asyncio.FIRST_COMPLETED)
    if done == {tried}:
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        host, port = listening.getsockname()[:2]
        announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if not stop_event.is_set():
        stopping.start_deadline()
    server.should_exit = True
    await asyncio.gather(serving, return_exceptions=True)
    clickhouse.stop()
    await asyncio.gather(beside, return_exceptions=True)
    for each in (beside, serving):
        each.result()
    if died.done():
        raise died.result()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises `OperatorError` when the port is taken or the host is not ours."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Named TCP: only then asyncio sends small writes at once (TCP_NODELAY) on the connections that it accepts. Head
        # and body are two writes; without it each answer waited 40 ms for the client's delayed acknowledgement.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if os.name == "posix":  # a port that was closed a moment ago may be taken again
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1024)
        listening.setblocking(False)
    except OSError as error:
        raise OperatorError(
            f"cannot listen on {host}:{port} ({error.strerror})", "set CREDITS_HTTP_PORT or CREDITS_HTTP_HOST"
        ) from error
    return listening
