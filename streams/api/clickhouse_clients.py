"""The ClickHouse clients of a process that serves HTTP, which work as soon as ClickHouse does.

The rules of this file:
1. A ClickHouse server that is away is waited for, for as long as it takes: the ledger, the balances and the answers
   before work do not need it. What waiting does not fix (a wrong login, a chDB folder of another process) ends the
   process, with a sentence.
2. A client is for one use, and runs one statement at a time: questions must not make each other wait.
3. This process changes nothing in ClickHouse: its clients work once the projection has migrated the tables to the
   newest version that this program knows. `streams.api.projection` migrates itself.
4. Later, ClickHouse may go away and come back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError

from projections.clickhouse import (
    ClickHouseDamagedError,
    ClickHouseUnavailableError,
    clickhouse_url,
    connect,
    first_line,
    is_passing,
    missing_migrations,
    shown_place,
)
from streams.api.problems import ProblemError
from streams.errors import OperatorError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from streams.api.health import Check
    from streams.settings import Settings

log = structlog.get_logger(__name__)

RETRY_FIRST_S = 0.5
RETRY_MAX_S = 5.0
PING_TIMEOUT_S = 2


class ClickHousePart(Protocol):
    """What a process has of ClickHouse: it runs beside HTTP until it is stopped."""

    tried: asyncio.Event
    """Set when it works, or when it is known that ClickHouse is away."""

    def client(self) -> Client:
        """One more client, for one use; ask before `run`."""
        ...

    async def run(self) -> None:
        """Connect, and work until `stop`. Raises `OperatorError` when it cannot go on."""
        ...

    def stop(self) -> None:
        """Have `run` end."""
        ...

    @property
    def live(self) -> Mapping[str, Check]:
        """What `/livez` looks at."""
        ...

    @property
    def ready(self) -> Mapping[str, Check]:
        """What `/readyz` looks at beside."""
        ...


class LateClient:
    """Stands for a client that is connected later; until then, using it raises what a server that is away raises."""

    def __init__(self) -> None:
        self.connected: Client | None = None

    def __getattr__(self, name: str) -> Any:
        if self.connected is None:
            raise OperationalError("ClickHouse has not answered yet")
        return getattr(self.connected, name)


class ClickHouseClients:
    """Clients for questions: `run` connects them, and waits until `stop`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._place = shown_place(settings)
        self._is_server = not clickhouse_url(settings).startswith("chdb:")
        self._waits: str | None = "it is being started"
        self._pinging = LateClient()
        self._lent: list[LateClient] = []
        self._stopping = asyncio.Event()
        self.tried = asyncio.Event()
        """See `ClickHousePart`."""

    def client(self) -> Client:
        """One more client, for one use; ask before `run`."""
        self._lent.append(LateClient())
        return cast("Client", self._lent[-1])

    async def run(self) -> None:
        """Connect, and work until `stop`. Raises `OperatorError` when it cannot go on."""
        try:
            if await self._connected():
                await self._work()
        finally:
            await asyncio.to_thread(self._close)

    def stop(self) -> None:
        """Have `run` end."""
        self._stopping.set()

    def waits(self) -> str | None:
        """Why what is in ClickHouse cannot be asked; None when all is well."""
        return self._waits if self._waits is not None else self._silent()

    @property
    def live(self) -> Mapping[str, Check]:
        """Nothing here ends by itself."""
        return {}

    @property
    def ready(self) -> Mapping[str, Check]:
        """Whether questions about the past are answered."""
        return {"clickhouse": self.waits}

    async def _work(self) -> None:
        """What is done once every client is connected, until `stop`."""
        self._waits = None
        self.tried.set()
        await self._stopping.wait()

    def _prepare(self) -> str | None:
        """See to what must be so before a question is asked; what is missing, or None."""
        missing = missing_migrations(self._settings)
        return f"`credits projector` has not made its tables yet (version {missing[-1]})" if missing else None

    def _silent(self) -> str | None:
        """Why ClickHouse cannot be asked at this moment."""
        if self._is_server and not self._pinging.ping(PING_TIMEOUT_S):
            return f"ClickHouse does not answer at {self._place}"
        return None

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

    def _connect(self) -> str | None:
        """Connect every client; what is missing, or None. What is connected stays so for the next try."""
        from clickhouse_migrations.exceptions import MigrationException

        try:
            missing = self._prepare()
            if missing is not None:
                return missing
            # Only now: a question that came earlier would meet tables that are not there yet.
            for late in (self._pinging, *self._lent):
                late.connected = late.connected or connect(self._settings, create=False)
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
        return None

    def _close(self) -> None:
        for late in (self._pinging, *self._lent):
            if late.connected is not None:
                late.connected.close()


class NoClickHouse:
    """For a process without ClickHouse: a question about the past is answered 503, everything else works."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()
        self.tried = asyncio.Event()
        """See `ClickHousePart`."""

    def client(self) -> Client:
        """A client that refuses every use."""
        return cast("Client", _RefusedClient())

    async def run(self) -> None:
        """Wait until `stop`."""
        self.tried.set()
        await self._stopping.wait()

    def stop(self) -> None:
        """Have `run` end."""
        self._stopping.set()

    @property
    def live(self) -> Mapping[str, Check]:
        """Nothing runs that could end."""
        return {}

    @property
    def ready(self) -> Mapping[str, Check]:
        """Nothing is waited for."""
        return {}


class _RefusedClient:
    """Stands for a client where there is none."""

    def __getattr__(self, name: str) -> NoReturn:
        detail = "this process answers no questions about the past: CREDITS_CLICKHOUSE_URL names no server"
        raise ProblemError(503, "clickhouse_unavailable", detail)
