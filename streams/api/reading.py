"""How routes ask ClickHouse about the past: few questions at once, none without an end, answers as documents.

The rules of this file:
1. A question has a client of ClickHouse for itself and a thread of its own pool, so that questions neither wait for
   each other's connection nor take the threads that balances and writing need.
2. At most `WAITING_MAX` questions wait, and none longer than `ANSWER_WAIT_S`: then the answer is 503 (`busy`).
3. Without ClickHouse the answer is 503 (`clickhouse_unavailable`) with `Retry-After`. What asks for too much is 422
   (`too_wide`) and says what to narrow.
4. `If-None-Match` with the `ETag` of an answer costs one small question, and is 304 while nothing was projected since.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from clickhouse_connect.driver.exceptions import ClickHouseError
from fastapi import Request, Response
from pydantic import BaseModel

from projections.clickhouse import is_passing
from projections.reads import CursorError, Document, Reads, TooWideError
from streams.api.problems import AsciiJson, ProblemError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

CLIENTS: Final = 2
"""Questions at once in one process; each may use several cores of ClickHouse."""
WAITING_MAX: Final = 32
ANSWER_WAIT_S: Final = 15.0

Answer = TypeVar("Answer")


class ReadingDesk:
    """Asks for the routes. `clients`: of ClickHouse, each for one question at a time."""

    def __init__(self, clients: Sequence[Client], ledger_topic: str) -> None:
        self._free: queue.SimpleQueue[Reads] = queue.SimpleQueue()
        for client in clients:
            self._free.put(Reads(client, ledger_topic))
        self._threads = ThreadPoolExecutor(len(clients), thread_name_prefix="reading")
        self._waiting = 0

    async def ask(self, question: Callable[[Reads], Answer]) -> Answer:
        """The answer to a question; raises `ProblemError` where there is none."""
        if self._waiting >= WAITING_MAX:
            raise ProblemError(503, "busy", "too many questions about the past at once: try again")
        self._waiting += 1
        try:
            async with asyncio.timeout(ANSWER_WAIT_S):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, question)
        except TimeoutError:
            raise ProblemError(503, "busy", "other questions about the past take long: try again") from None
        finally:
            self._waiting -= 1

    async def about(self, org: str, question: Callable[[Reads], Document | None]) -> Document:
        """The answer to a question about one organisation; 404 where none of its entries is projected."""
        found = await self.ask(question)
        if found is None:
            raise ProblemError(404, "unknown_org", f"no entry of {org!r} is projected")
        return found

    async def tagged(self, request: Request, org: str, question: Callable[[Reads], Document | None]) -> Response:
        """The answer with an `ETag`, or 304: for what depends on the org's entries and the address alone."""

        def position(reads: Reads) -> int | None:
            freshness = reads.freshness(org)
            return None if freshness is None else freshness.position

        known = await self.ask(position)
        seen = hashlib.sha256(f"{known} {request.url.path}?{request.url.query}".encode("utf-8", "replace")).hexdigest()
        headers = {"ETag": f'W/"{seen[:24]}"'}
        if known is not None and headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return AsciiJson(await self.about(org, question), headers=headers)

    def _answer(self, question: Callable[[Reads], Answer]) -> Answer:
        reads = self._free.get()
        try:
            with _problems():
                return question(reads)
        finally:
            self._free.put(reads)


@contextlib.contextmanager
def _problems() -> Iterator[None]:
    try:
        yield
    except TooWideError as error:
        raise ProblemError(422, "too_wide", str(error)) from error
    except CursorError as error:
        raise ProblemError(422, "invalid_field", str(error), field="cursor") from error
    except ClickHouseError as error:
        if not is_passing(error):
            raise
        raise ProblemError(503, "clickhouse_unavailable", "ClickHouse does not answer; try again") from error


_PROBLEM: Final[dict[str, Any]] = {"content": {"application/problem+json": {}}}


def answers(
    model: type[BaseModel], *, unknown: str = "unknown_org", tagged: bool = False
) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of a call that reads: the model of its answer, and its problems by status."""
    return {
        200: {"model": model},
        **({304: {"description": "nothing was projected since If-None-Match"}} if tagged else {}),
        400: {"description": "bad_request", **_PROBLEM},
        401: {"description": "unauthorized, key_expired, key_revoked", **_PROBLEM},
        403: {"description": "not_authorized", **_PROBLEM},
        **({404: {"description": unknown, **_PROBLEM}} if unknown else {}),
        422: {"description": "invalid_field, too_wide", **_PROBLEM},
        429: {"description": "rate_limited; `Retry-After` says when", **_PROBLEM},
        503: {"description": "clickhouse_unavailable, busy; `Retry-After` says when", **_PROBLEM},
    }
