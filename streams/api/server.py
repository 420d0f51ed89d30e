"""`serve`: the HTTP application and the projection on one event loop, in one process.

They share a process because one process may own the chDB folder (design, 9), and a loop because Faust wants its own.
What blocks (Kafka, ClickHouse) runs in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

import structlog
import uvicorn

from streams import topics_admin
from streams.api.app import build_api
from streams.api.audit_routes import audit_router
from streams.balances import BalanceReader
from streams.errors import KafkaUnavailableError, OperatorError
from streams.registry import connect_registry
from streams.registry_topic import TopicRegistry

if TYPE_CHECKING:
    import faust
    from clickhouse_connect.driver.client import Client

    from streams.api.health import Check
    from streams.settings import Settings

log = structlog.get_logger(__name__)

READER_IDLE_MAX_S = 30.0
STOP_TIMEOUT_S = 20.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class _Server(uvicorn.Server):
    """Uvicorn without signal handlers of its own: who serves decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    1. Take the port. 2. Topics. 3. ClickHouse and the projection. 4. Balances. 5. HTTP; `announce` is called with the
    address once it answers. Raises `OperatorError` where a part cannot be had, or ends by itself.
    """
    listening = listen(settings.http_host, settings.http_port)
    if settings.http_host not in LOOPBACK and settings.api_keys_file is None:
        log.warning("open to the network without API keys", host=settings.http_host, setting="CREDITS_API_KEYS_FILE")
    await asyncio.to_thread(topics_admin.apply, settings)
    registry = None if settings.schema_registry_url else TopicRegistry(settings)
    balances = BalanceReader(settings, connect_registry(settings))
    balances.start()
    try:
        async with projecting(settings) as (projection, client):
            live, ready = checks(balances, projection)
            routers = [audit_router(client)]
            api = build_api(balances=balances, registry=registry, live=live, ready=ready, routers=routers)
            config = uvicorn.Config(api, log_config=None, access_log=False, lifespan="off", server_header=False)
            config.timeout_graceful_shutdown = int(STOP_TIMEOUT_S)
            await _run(_Server(config), listening, projection, announce)
    finally:
        await asyncio.to_thread(balances.close)
        if registry is not None:
            registry.close()


async def _run(
    server: _Server, listening: socket.socket, projection: faust.App, announce: Callable[[str], None]
) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.should_exit = True

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop)
    host, port = listening.getsockname()[:2]
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    folding = asyncio.create_task(projection.wait_until_stopped())
    try:
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if not server.should_exit:
            announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        await asyncio.wait({serving, folding}, return_when=asyncio.FIRST_COMPLETED)
        if folding.done() and not server.should_exit:
            server.should_exit = True
            await serving
            raise OperatorError(f"the projection ended: {projection.crash_reason!r}", "see the log above")
        await serving
    finally:
        folding.cancel()


@contextlib.asynccontextmanager
async def projecting(settings: Settings) -> AsyncIterator[tuple[faust.App, Client]]:
    """The projection, running on this loop, and a second ClickHouse client to ask with; closed at the end.

    The projection has a client of its own: a client runs one statement at a time, and questions must not make the
    projection wait.
    """
    from faust.contrib.asgi import faust_app_running

    from projections.clickhouse import ClickHouseUnavailableError, connect, migrate
    from projections.sink import build_projection_app

    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for _ in range(2):
            try:
                client = await asyncio.to_thread(connect, settings)
            except ClickHouseUnavailableError as error:
                raise OperatorError(
                    f"ClickHouse cannot be had ({error})",
                    "check CREDITS_CLICKHOUSE_URL; a chDB folder belongs to one process: another `serve` may have it",
                ) from error
            stack.push_async_callback(asyncio.to_thread, client.close)
            clients.append(client)
        applied = await asyncio.to_thread(migrate, clients[0])
        if applied:
            log.info("ClickHouse migrated", versions=applied)
        app = build_projection_app(settings, clients[0])
        await stack.enter_async_context(faust_app_running(app, discover=False))
        yield app, clients[1]


def checks(balances: BalanceReader, projection: faust.App) -> tuple[dict[str, Check], dict[str, Check]]:
    """What `/livez` and `/readyz` look at."""

    def reading() -> str | None:
        idle = balances.idle_s()
        return None if idle < READER_IDLE_MAX_S else f"the balances reader has not moved for {idle:.0f} s"

    def folding() -> str | None:
        return f"the projection ended: {projection.crash_reason!r}" if projection.crashed else None

    def current() -> str | None:
        try:
            balances.wait_until_current()
        except KafkaUnavailableError as error:
            return error.problem
        return None

    return {"balances": reading, "projection": folding}, {"kafka": current}


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises `OperatorError` when the port is taken or the host is not ours."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family)
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
