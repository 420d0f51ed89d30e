"""The projection and the ClickHouse clients of `serve`, which work as soon as ClickHouse does.

The rules of this file:
1. A ClickHouse server that is away is waited for, for as long as it takes: the ledger and the balances do not need it.
   What waiting does not fix (a wrong login, a chDB folder of another process) ends `serve`, with a sentence.
2. The projection has a client of its own, and so has each other use: a client runs one statement at a time, and
   questions must not make the projection wait.
3. Later, ClickHouse may go away and come back: the projection keeps its backlog in Kafka and tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, cast

import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError
from faust.contrib.asgi import bind_to_running_loop

from projections.clickhouse import (
    ClickHouseDamagedError,
    ClickHouseUnavailableError,
    clickhouse_url,
    connect,
    first_line,
    is_passing,
    migrate,
    shown_place,
)
from projections.projector import build_projection_app, waiting_s
from streams.errors import OperatorError
from streams.stopping import GROUP_LEAVE_TIMEOUT_S, exit_now

if TYPE_CHECKING:
    import faust
    from clickhouse_connect.driver.client import Client

    from streams.settings import Settings

log = structlog.get_logger(__name__)

RETRY_FIRST_S = 0.5
RETRY_MAX_S = 5.0
PING_TIMEOUT_S = 2
# The projection writes about once a second, and tries again after 15 s at the latest.
WAITING_MAX_S = 20.0


class LateClient:
    """Stands for a client that is connected later; until then, using it raises what a server that is away raises."""

    def __init__(self) -> None:
        self.connected: Client | None = None

    def __getattr__(self, name: str) -> Any:
        if self.connected is None:
            raise OperationalError("ClickHouse has not answered yet")
        return getattr(self.connected, name)


class Projection:
    """Connects, migrates, folds: `run` does it until `stop`; everything else may be asked at any time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._place = shown_place(settings)
        self._is_server = not clickhouse_url(settings).startswith("chdb:")
        self._app: faust.App | None = None
        self._waits = "it is being started"
        self._own = LateClient()
        self._pinging = LateClient()
        self._lent: list[LateClient] = []
        self._stopping = asyncio.Event()
        self.tried = asyncio.Event()
        """Set when it folds, or when it is known that ClickHouse is away."""

    def client(self) -> Client:
        """One more client, for one use; ask before `run`."""
        self._lent.append(LateClient())
        return cast("Client", self._lent[-1])

    async def run(self) -> None:
        """Fold the ledger until `stop`. Raises `OperatorError` when it cannot go on."""
        try:
            if await self._connected():
                await self._fold()
        finally:
            await asyncio.to_thread(self._close)

    def stop(self) -> None:
        """Have `run` end."""
        self._stopping.set()

    def waits(self) -> str | None:
        """Why what is in ClickHouse cannot be asked, or falls behind; None when all is well."""
        if self._app is None:
            return self._waits
        if self._is_server and not self._pinging.ping(PING_TIMEOUT_S):
            return f"ClickHouse does not answer at {self._place}"
        waited_s = waiting_s(self._app, time.monotonic())
        return None if waited_s < WAITING_MAX_S else f"nothing was written for {waited_s:.0f} s; the log says why"

    def ended(self) -> str | None:
        """Why it does not fold any more; None while it does, or will."""
        if self._app is None or not self._app.crashed:
            return None
        return f"the projection ended: {self._app.crash_reason!r}"

    async def _connected(self) -> bool:
        """Whether everything is connected; False when it was stopped before."""
        pause_s = RETRY_FIRST_S
        while not self._stopping.is_set():
            missing = await asyncio.to_thread(self._connect)
            if missing is None:
                return not self._stopping.is_set()
            self._waits = f"waiting for ClickHouse: {missing}"
            log.warning("waiting for ClickHouse", place=self._place, error=missing, again_in_s=pause_s)
            self.tried.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)
        return False

    async def _fold(self) -> None:
        """Run the app; it is stopped also when it has not come up yet."""
        assert self._own.connected is not None
        app = build_projection_app(self._settings, self._own.connected)
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

    def _connect(self) -> str | None:
        """Connect every client, and migrate; what is missing, or None. What is connected stays so for the next try."""
        from clickhouse_migrations.exceptions import MigrationException

        try:
            for late in (self._own, self._pinging):
                late.connected = late.connected or connect(self._settings)
            assert self._own.connected is not None
            applied = migrate(self._own.connected)
            # Only now: a question that came earlier would meet tables that are not there yet.
            for late in self._lent:
                late.connected = late.connected or connect(self._settings)
        except ClickHouseDamagedError as error:
            raise OperatorError(
                f"ClickHouse's folder is damaged ({error})",
                "run `credits rebuild`, which makes it again from the ledger",
            ) from error
        except ClickHouseUnavailableError as error:
            if not self._is_server:
                raise OperatorError(
                    f"ClickHouse cannot be had ({error})",
                    "a chDB folder belongs to one process: another `serve` may have it; or set CREDITS_CLICKHOUSE_URL",
                ) from error
            return str(error)
        except OSError as error:
            raise OperatorError(
                f"ClickHouse's folder cannot be had ({error})", "set CREDITS_CLICKHOUSE_URL or CREDITS_DATA_DIR"
            ) from error
        except ClickHouseError as error:
            if not is_passing(error):
                remedy = "check CREDITS_CLICKHOUSE_URL and the user's rights"
                if not self._is_server:
                    remedy = "run `credits rebuild`, which makes the folder again from the ledger"
                raise OperatorError(f"ClickHouse refuses ({first_line(error)})", remedy) from error
            return first_line(error)
        except MigrationException as error:
            raise OperatorError(
                f"the ClickHouse database at {self._place} was made by another version of this program ({error})",
                "use that version, or have the database dropped and run `credits rebuild`",
            ) from error
        if applied:
            log.info("ClickHouse migrated", versions=applied)
        return None

    def _close(self) -> None:
        for late in (self._own, self._pinging, *self._lent):
            if late.connected is not None:
                late.connected.close()
