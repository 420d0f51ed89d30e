"""The projection of `serve` and `projector`, which works as soon as ClickHouse does.

The rules of this file, beside those of `streams.api.clickhouse_clients`:
1. The projection has a client of its own: questions must not make it wait. It migrates the database before it folds,
   and before a question is asked.
2. While ClickHouse is away, the projection keeps its backlog in Kafka and tries again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog
from faust.contrib.asgi import bind_to_running_loop

from projections.clickhouse import connect, migrate
from projections.projector import build_projection_app, waiting_s
from streams.api.clickhouse_clients import ClickHouseClients
from streams.errors import OperatorError
from streams.stopping import GROUP_LEAVE_TIMEOUT_S, exit_now

if TYPE_CHECKING:
    import faust
    from clickhouse_connect.driver.client import Client

    from streams.api.health import Check
    from streams.settings import Settings

log = structlog.get_logger(__name__)

# The projection writes about once a second, and tries again after 15 s at the latest.
WAITING_MAX_S = 20.0


class Projection(ClickHouseClients):
    """Connects, migrates, folds: `run` does it until `stop`; everything else may be asked at any time."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._app: faust.App | None = None
        self._folding: Client | None = None

    def waits(self) -> str | None:
        """Why what is in ClickHouse cannot be asked, or falls behind; None when all is well."""
        if self._app is None:
            return self._waits
        silent = self._silent()
        if silent is not None:
            return silent
        waited_s = waiting_s(self._app, time.monotonic())
        return None if waited_s < WAITING_MAX_S else f"nothing was written for {waited_s:.0f} s; the log says why"

    @property
    def live(self) -> Mapping[str, Check]:
        """Whether it folds, or will."""
        return {"projection": self.ended}

    def ended(self) -> str | None:
        """Why it does not fold any more; None while it does, or will."""
        if self._app is None or not self._app.crashed:
            return None
        return f"the projection ended: {self._app.crash_reason!r}"

    def _prepare(self) -> str | None:
        """Make the database, and migrate it."""
        self._folding = self._folding or connect(self._settings)
        applied = migrate(self._folding)
        if applied:
            log.info("ClickHouse migrated", versions=applied)
        return None

    def _close(self) -> None:
        if self._folding is not None:
            self._folding.close()
        super()._close()

    async def _work(self) -> None:
        """Run the app; it is stopped also when it has not come up yet."""
        assert self._folding is not None
        app = build_projection_app(self._settings, self._folding)
        bind_to_running_loop(app)
        app.finalize()
        starting = asyncio.create_task(app.start())
        stopping = asyncio.create_task(self._stopping.wait())
        ended = asyncio.create_task(app.wait_until_stopped())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        failure = starting.exception() if starting.done() else None
        if starting.done() and failure is None:
            self._app = app
            self.tried.set()
            await asyncio.wait({stopping, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                failure = OperatorError(
                    f"the projection ended: {app.crash_reason!r}",
                    "see the log above; where ClickHouse's data is at fault, `credits rebuild` makes it again",
                )
        if (
            not (await asyncio.wait({asyncio.create_task(app.stop())}, timeout=GROUP_LEAVE_TIMEOUT_S))[0]
            and not failure
        ):
            log.warning("the consumer group could not be left in time; it finds out by itself")
            exit_now(0)
        if failure is not None:
            raise failure
