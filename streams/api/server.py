"""`serve`: the HTTP application and the projection on one event loop, in one process.

They share a process because one process may own the chDB folder (decision 9, ClickHouse in process, or a server by its
URL), and a loop because Faust wants its own.
What blocks (Kafka, ClickHouse) runs in threads. HTTP answers as soon as Kafka does, with ClickHouse or without.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import structlog
import uvicorn

from schemas.topics import Topics
from streams.api.app import build_api
from streams.api.audit_routes import audit_router
from streams.api.connections import BoundedProtocol
from streams.api.door import Door
from streams.api.finance import Desk
from streams.api.guard import Guard
from streams.api.hosts import HostRule
from streams.api.intake import Intake
from streams.api.invoices import invoices_router
from streams.api.projection import Projection
from streams.api.refused_calls import RefusedCalls
from streams.api.setting_versions import SettingVersions
from streams.api.statements import statements_router
from streams.api.write_routes import write_router
from streams.background import watched_threads
from streams.errors import KafkaUnavailableError, NoApiKeysError, OperatorError
from streams.kafka import topics_admin
from streams.kafka.balances import BalanceReader
from streams.kafka.key_topic import KeyReader, check_keys_file
from streams.kafka.latest import ASK_TIMEOUT_S
from streams.kafka.registry import connect_registry
from streams.kafka.registry_topic import TopicRegistry
from streams.local.api_key import new_local_key
from streams.processing.price_ties import refuse_ties

if TYPE_CHECKING:
    from fastapi import FastAPI

    from streams.api.health import Check
    from streams.kafka.api_keys import Keyring
    from streams.settings import Settings
    from streams.stopping import Stopping

log = structlog.get_logger(__name__)

READER_IDLE_MAX_S = 30.0
KEYS_TIMEOUT_S = 30.0


class _Server(uvicorn.Server):
    """Uvicorn without signal handlers of its own: who serves decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: Settings, announce: Callable[[str], None], stopping: Stopping) -> None:
    """Serve until told to stop.

    1. Take the port, and look at the file of keys. 2. Topics. 3. API keys. 4. Balances. 5. HTTP, and beside it
    ClickHouse and the projection; `announce` is called with the address once it answers, and the projection runs or is
    known to wait. Raises `OperatorError` where a part cannot be had, or ends by itself; `NoApiKeysError` where others
    than this machine could ask and no key was ever made.
    """
    listening = listen(settings.http_host, settings.http_port)
    check_keys_file(settings)
    await asyncio.to_thread(topics_admin.apply, settings)
    keys = KeyReader(settings)
    registry = None if settings.schema_registry_url else TopicRegistry(settings)
    schemas = connect_registry(settings)
    balances = BalanceReader(settings, schemas)
    versions = SettingVersions(settings, schemas)
    intake = Intake(settings, schemas)
    died: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    try:
        with watched_threads(lambda error: None if died.done() else died.set_result(error)):
            keys.start()
            await asyncio.to_thread(keys.wait_until_current, KEYS_TIMEOUT_S)
            check_keys(settings, keys.keyring)
            for each in (balances, versions, intake):
                each.start()
            balances.start_checking()
            projection = Projection(settings)
            people = projection.client()
            topics = Topics(settings.namespace)
            desk = Desk(lambda: people, topics.name("ledger"), settings.invoice_issuer)
            live, ready = checks(balances, projection)
            key = new_local_key(settings.data_dir)
            reading = settings.model_copy(update={"read_timeout_s": ASK_TIMEOUT_S})
            check_prices = functools.partial(refuse_ties, reading, schemas)
            limit = settings.http_requests_per_s
            door = Door(lambda: keys.keyring, key, loopback=settings.http_on_loopback, requests_per_s=limit)
            api = build_api(
                balances=balances,
                registry=registry,
                live=live,
                ready=ready,
                statements=[invoices_router(desk), statements_router(desk)],
                others=[audit_router(projection.client(), key), write_router(intake, versions, check_prices)],
                refused_calls=RefusedCalls(functools.partial(intake.offer, topics.name("refused_calls"))),
            )
            await _run(_Server(server_config(api, settings, door)), listening, projection, announce, stopping, died)
    finally:
        for part in (intake, keys, versions, balances):
            await asyncio.to_thread(part.close)
        if registry is not None:
            registry.close()


def check_keys(settings: Settings, keyring: Keyring) -> None:
    """Refuse to listen beyond this machine while no key was ever made; say it where nobody is asked for one."""
    if len(keyring):
        return
    if not settings.http_on_loopback:
        raise NoApiKeysError(settings.http_host)
    log.warning("nobody is asked for an API key, until `credits keys create` makes one", host=settings.http_host)


def server_config(api: FastAPI, settings: Settings, door: Door) -> uvicorn.Config:
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
    projection: Projection,
    announce: Callable[[str], None],
    stopping: Stopping,
    died: asyncio.Future[BaseException],
) -> None:
    """Run both until told, or until one of them ends, or a thread has `died`, whose error is raised.

    Then stop HTTP first, for it asks what the other closes.
    """
    stop_event = stopping.graceful_stop_event()
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    folding = asyncio.create_task(projection.run())
    tried = asyncio.create_task(projection.tried.wait())
    ends: set[asyncio.Future[Any]] = {serving, folding, died, asyncio.create_task(stop_event.wait())}
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
    projection.stop()
    await asyncio.gather(folding, return_exceptions=True)
    for each in (folding, serving):
        each.result()
    if died.done():
        raise died.result()


def checks(balances: BalanceReader, projection: Projection) -> tuple[dict[str, Check], dict[str, Check]]:
    """What `/livez` and `/readyz` look at."""

    def reading() -> str | None:
        idle = balances.idle_s()
        return None if idle < READER_IDLE_MAX_S else f"the balances reader has not moved for {idle:.0f} s"

    def current() -> str | None:
        try:
            balances.wait_until_current()
        except KafkaUnavailableError as error:
            return error.problem
        return None

    return {"balances": reading, "projection": projection.ended}, {"kafka": current, "clickhouse": projection.waits}


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
