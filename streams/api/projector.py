"""`projector`: the projection alone, which shares the partitions with others of its kind.

The rules of this file:
1. Its ClickHouse is a server: a chDB folder belongs to one process, and `api` would find nothing in it.
2. It answers `/livez`, `/readyz` and `/metrics` as a worker does, when CREDITS_WORKER_METRICS_PORT is set.
3. It ends as a worker does: told to stop, with what was written complete, or by a failure, with one line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from streams.api.projection import Projection
from streams.background import watched_threads
from streams.engine.health import serve_health
from streams.errors import SettingRefusedError
from streams.kafka import topics_admin

if TYPE_CHECKING:
    from streams.settings import Settings
    from streams.stopping import Stopping


class ProjectionHealth:
    """What a projector tells about itself."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection

    def alive(self) -> tuple[bool, str]:
        """(alive, sentence)."""
        ended = self._projection.ended()
        return ended is None, ended or "alive"

    def ready(self) -> tuple[bool, str]:
        """(ready, sentence)."""
        waits = self._projection.ended() or self._projection.waits()
        return waits is None, waits or "the projection keeps up"


def check_server(settings: Settings) -> None:
    """Raise `SettingRefusedError` where ClickHouse is a folder of one process."""
    if settings.clickhouse_url is None or settings.clickhouse_url.startswith("chdb:"):
        raise SettingRefusedError(
            "the projection by itself needs a ClickHouse server: a chDB folder belongs to one process",
            "set CREDITS_CLICKHOUSE_URL=http://…, or run `credits serve`, which has HTTP and the projection in one",
        )


async def project(settings: Settings, announce: Callable[[], None], stopping: Stopping) -> None:
    """Fold the ledger into ClickHouse until told to stop.

    `announce` is called once it folds, or is known to wait for ClickHouse. Raises `OperatorError` when it cannot go on.
    """
    check_server(settings)
    await asyncio.to_thread(topics_admin.apply, settings)
    projection = Projection(settings)
    port = settings.worker_metrics_port
    health = serve_health(ProjectionHealth(projection), port, settings.worker_metrics_host) if port else None
    died: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    with watched_threads(lambda error: None if died.done() else died.set_result(error)):
        await _run(projection, announce, stopping, died)
    if health is not None:
        health.shutdown()


async def _run(
    projection: Projection, announce: Callable[[], None], stopping: Stopping, died: asyncio.Future[BaseException]
) -> None:
    stop_event = stopping.graceful_stop_event()
    folding = asyncio.create_task(projection.run())
    tried = asyncio.create_task(projection.tried.wait())
    ends: set[asyncio.Future[Any]] = {folding, died, asyncio.create_task(stop_event.wait())}
    done, _ = await asyncio.wait({tried, *ends}, return_when=asyncio.FIRST_COMPLETED)
    if done == {tried}:
        announce()
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if not stop_event.is_set():
        stopping.start_deadline()
    projection.stop()
    await asyncio.gather(folding, return_exceptions=True)
    folding.result()
    if died.done():
        raise died.result()
