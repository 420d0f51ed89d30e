"""`POST /v1/query`: SQL over the published tables and views, for analysts (`projections.sql_gate`).

The rules of this file:
1. A query may read of every organisation, so it needs a key that is for all of them.
2. Queries run one after the other on a client of their own; at most `WAITING_MAX` wait, and the rest are told to come
   again. Reports and pages do not wait for them.
3. The answer is JSON; CSV with `Accept: text/csv`, Parquet with `Accept: application/vnd.apache.parquet`.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, Final

from clickhouse_connect.driver.exceptions import ClickHouseError
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from projections import sql
from projections.reads import TooWideError
from projections.sql_gate import ROWS_MAX, SECONDS_MAX, TEXT_CHARACTERS_MAX, SqlRefusedError
from streams.api.callers import Caller, NotAuthorizedError, allowed
from streams.api.problems import AsciiJson, ProblemError
from streams.kafka.api_keys import KeyRole

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

ASKS: Final = frozenset({KeyRole.ANALYST})
WAITING_MAX: Final = 8
ANSWER_WAIT_S: Final = 2.0 * SECONDS_MAX
CSV: Final = "text/csv"
PARQUET: Final = "application/vnd.apache.parquet"


class QueryBody(BaseModel):
    """What is asked."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(description="one SELECT", max_length=TEXT_CHARACTERS_MAX, examples=["SELECT * FROM v_balances"])
    rows_max: int = Field(ROWS_MAX, ge=1, le=ROWS_MAX, description="rows of the answer; `truncated` says if more were")


class QueryColumn(BaseModel):
    """A column of the answer."""

    name: str
    type: str = Field(description="the type of ClickHouse")


class QueryAnswer(BaseModel):
    """The rows, in the order of the columns: amounts are decimal strings, times ISO 8601."""

    columns: list[QueryColumn]
    rows: list[list[Any]]
    row_count: int
    truncated: bool
    elapsed_ms: int


class QueryDesk:
    """Runs queries one after the other."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sql")
        self._waiting = 0

    async def ask(self, text: str, rows_max: int = ROWS_MAX) -> sql.Answer:
        """The answer; raises `ProblemError`."""
        if self._waiting >= WAITING_MAX:
            raise ProblemError(503, "busy", "too many queries at once: try again")
        self._waiting += 1
        try:
            async with asyncio.timeout(ANSWER_WAIT_S):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._thread, sql.run, self._client, text, rows_max)
        except SqlRefusedError as error:
            raise ProblemError(422, "query_refused", str(error)) from error
        except TooWideError as error:
            raise ProblemError(422, "too_wide", str(error)) from error
        except TimeoutError:
            raise ProblemError(503, "busy", "other queries take long: try again") from None
        except ClickHouseError as error:
            raise ProblemError(503, "clickhouse_unavailable", "ClickHouse does not answer; try again") from error
        finally:
            self._waiting -= 1


def may_ask(caller: Caller) -> bool:
    """Whether the caller may run SQL."""
    return caller.may(ASKS) and caller.is_for_all


def query_router(desk: QueryDesk) -> APIRouter:
    """The route."""
    router = APIRouter(prefix="/v1", tags=["usage"])

    @router.post("/query", response_model=None, responses=ANSWERS, openapi_extra=BODY)
    async def query(request: Request, body: QueryBody, caller: Annotated[Caller, Depends(allowed(ASKS))]) -> Response:
        """Run one SELECT over the tables and views of the data dictionary, within limits of time, memory and rows."""
        if not caller.is_for_all:
            raise NotAuthorizedError(caller, "SQL reads of every organisation: it needs a key for all of them")
        answer = await desk.ask(body.query, body.rows_max)
        accept = request.headers.get("accept", "")
        if CSV in accept:
            return Response(await asyncio.to_thread(sql.csv_of, answer), media_type=f"{CSV}; charset=utf-8")
        if PARQUET in accept:
            return Response(await asyncio.to_thread(sql.parquet_of, answer), media_type=PARQUET)
        return AsciiJson(await asyncio.to_thread(sql.document, answer))

    return router


BODY: Final = {
    "requestBody": {"content": {"application/json": {"example": {"query": "SELECT org_id FROM v_balances LIMIT 1"}}}}
}
_PROBLEM: Final[dict[str, Any]] = {"content": {"application/problem+json": {}}}
ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": QueryAnswer, "content": {CSV: {}, PARQUET: {}}},
    401: {"description": "unauthorized, key_expired, key_revoked", **_PROBLEM},
    403: {"description": "not_authorized", **_PROBLEM},
    422: {"description": "invalid_field, query_refused, too_wide", **_PROBLEM},
    503: {"description": "clickhouse_unavailable, busy; `Retry-After` says when", **_PROBLEM},
}
