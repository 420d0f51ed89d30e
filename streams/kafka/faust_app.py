"""The Faust apps of this project: how they differ from Faust's defaults, and agents that get whole batches.

The rules of this file:
1. The ledger's worker and the projection are configured here, both alike.
2. Faust decides nothing about positions or state. Each app brings its own (`streams.kafka.transport.Positions`).
3. No web server without authentication, no leader topic.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faust

from streams.data_folder import prepare
from streams.kafka.clients import faust_broker_urls, faust_credentials
from streams.kafka.inbound import Inbound
from streams.kafka.transport import batch_topic

if TYPE_CHECKING:
    from streams.settings import Settings


def faust_app(
    settings: Settings, app_id: str, *, folder: str, fetch_bytes_max: int, instance_name: str | None = None
) -> faust.App:
    """An app without agents; `app_id` is its consumer group, `folder` its place in the data folder.

    With an `instance_name` a worker that comes back under the name keeps its partitions. Without one a dead worker's
    place is kept until its session has run out, whatever comes.
    """
    session_s = settings.session_timeout_ms / 1000
    return faust.App(
        app_id,
        broker=faust_broker_urls(settings),
        broker_credentials=faust_credentials(settings),
        datadir=str(_faust_folder(settings, folder)),
        store="memory://",
        topic_partitions=settings.partitions,
        topic_replication_factor=settings.replication_factor,
        topic_disable_leader=True,
        web_enabled=False,
        # Each app waits itself for what is in flight.
        stream_wait_empty=False,
        # Only for what was never read, before positions are sought. Each app finds by itself what is gone.
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=fetch_bytes_max,
        # Faust's 60 s would leave a dead worker's partitions alone for a minute.
        broker_session_timeout=session_s,
        broker_heartbeat_interval=session_s / 4,
        consumer_group_instance_id=instance_name,
        table_standby_replicas=0,
        stream_recovery_delay=0.0,
    )


def batch_agent(app: faust.App, name: str, topics: Iterable[str], take: Callable[[Inbound], Awaitable[None]]) -> None:
    """Add an agent to the app that hands every fetched batch of these topics to `take`. Needs `use_batches`."""

    async def agent(stream: Any) -> None:
        async for inbound in stream:
            await take(inbound)

    app.agent(batch_topic(app, *topics), name=name)(agent)


def _faust_folder(settings: Settings, name: str) -> Path:
    folder = prepare(settings.data_dir) / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
