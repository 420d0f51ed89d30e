"""SQL with the data dictionary at its side; the address holds the query (`streams.api.query_routes`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from projections import sql
from projections.queries import Query as Sql
from projections.sql_gate import PUBLISHED, ROWS_MAX, TEXT_CHARACTERS_MAX
from streams.api.callers import EVERY_ROLE, Caller, NotAuthorizedError, allowed
from streams.api.problems import ProblemError
from streams.api.query_routes import PARQUET, may_ask
from streams.ui.parts import Parts, address
from streams.ui.shell import HEADERS

if TYPE_CHECKING:
    from projections.reads import Reads

SHOWN: Final = 1_000
ADDRESS_CHARACTERS_MAX: Final = 8_000
NUMBERS: Final = ("Int", "Decimal", "Float")
FIRST: Final = """\
SELECT status, count() AS wallets, sum(available) AS available
FROM v_balances
WHERE wallet = 'USD'
GROUP BY status
ORDER BY wallets DESC"""


def sql_router(router: APIRouter, parts: Parts) -> None:
    """Add the page to `router`."""

    @router.get("/sql")
    async def page(
        request: Request,
        caller: Annotated[Caller, Depends(allowed(EVERY_ROLE))],
        q: Annotated[str, Query(max_length=min(ADDRESS_CHARACTERS_MAX, TEXT_CHARACTERS_MAX))] = "",
        format: Annotated[str, Query(max_length=8)] = "",
    ) -> Response:
        """The form, and the answer to what the address asks."""
        if not may_ask(caller):
            detail = "SQL reads of every organisation: it needs a key with the role analyst for all of them"
            raise NotAuthorizedError(caller, detail)
        answer: sql.Answer | None = None
        fault = ""
        if q.strip():
            try:
                answer = await parts.queries.ask(q, ROWS_MAX if format else SHOWN)
            except ProblemError as error:
                if error.status != 422 or format:
                    raise
                fault = error.detail
        if answer is not None and format in ("csv", "parquet"):
            return _file(answer, format)
        return parts.shell.page(
            request,
            "sql.html",
            status=422 if fault else 200,
            q=q or FIRST,
            asked=bool(q.strip()),
            fault=fault,
            answer=answer,
            right=[any(each in kind for each in NUMBERS) for kind in answer.types] if answer else [],
            plain=sql.plain,
            dictionary=await parts.desk.ask(_dictionary),
            csv=address("/ui/sql", {"q": q, "format": "csv"}),
            parquet=address("/ui/sql", {"q": q, "format": "parquet"}),
        )


def columns_of() -> Sql:
    """Every column of what is published: table, name, type."""
    return Sql(
        "SELECT table, groupArray((name, type)) AS columns FROM (SELECT table, name, type FROM system.columns"
        " WHERE database = currentDatabase() AND table IN {tables:Array(String)} ORDER BY table, position)"
        " GROUP BY table ORDER BY startsWith(table, 'v_') DESC, table",
        {"tables": sorted(PUBLISHED)},
    )


def _dictionary(reads: Reads) -> list[dict[str, Any]]:
    return reads.rows(columns_of())


def _file(answer: sql.Answer, kind: str) -> Response:
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="query.{kind}"'}
    if kind == "csv":
        return Response(sql.csv_of(answer), media_type="text/csv; charset=utf-8", headers=headers)
    return Response(sql.parquet_of(answer), media_type=PARQUET, headers=headers)
