"""The HTTP application, put together from its routers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, FastAPI

from streams.api.balance_routes import balance_router
from streams.api.callers import EVERY_ROLE, READS_BALANCES, READS_STATEMENTS, NotAuthorizedError, allowed
from streams.api.health import Check, health_router
from streams.api.openapi import describe
from streams.api.paths import Segments
from streams.api.problems import install_problems, problem
from streams.api.refused_calls import RefusedCalls, add_refused
from streams.api.registry_routes import RegistryAnswer, RegistryProblem, registry_router

if TYPE_CHECKING:
    from fastapi import Request
    from fastapi.responses import JSONResponse

    from streams.kafka.balances import BalanceReader
    from streams.kafka.registry_topic import TopicRegistry


PROJECTED: dict[int | str, dict[str, Any]] = {
    404: {"description": "unknown_org"},
    503: {"description": "clickhouse_unavailable"},
}
"""What every call that asks ClickHouse may be answered."""


def build_api(
    *,
    balances: BalanceReader,
    registry: TopicRegistry | None,
    live: Mapping[str, Check],
    ready: Mapping[str, Check],
    statements: Iterable[APIRouter] = (),
    others: Iterable[APIRouter] = (),
) -> FastAPI:
    """The application. `registry` None: another registry is used, and its routes are not served here.

    `statements`: routers of what analysts and the payment service read; `others` say themselves who may call them.
    Calls without a right are counted and logged. They are recorded, too, where `record_refused_calls` has said how.
    """
    api = FastAPI(
        title="credits",
        version=version("credits-ledger"),
        description="An exact ledger of prepaid usage credits. Amounts are decimal strings, times ISO 8601 in UTC.",
        docs_url="/docs",
        redoc_url=None,
        redirect_slashes=False,  # an address has one form, and a redirect would repeat what `Host` says
    )
    api.state.refused_calls = RefusedCalls(None)
    api.add_middleware(Segments)
    install_problems(api)

    @api.exception_handler(RegistryProblem)
    async def _registry_problem(_: Request, error: RegistryProblem) -> RegistryAnswer:
        return error.answer()

    @api.exception_handler(NotAuthorizedError)
    async def _not_authorized(request: Request, error: NotAuthorizedError) -> JSONResponse:
        add_refused(request, error.caller.name, request.path_params.get("org", ""), error.detail)
        return problem(error.status, error.code, error.detail)

    api.include_router(health_router(live, ready))
    api.include_router(balance_router(balances), dependencies=[Depends(allowed(READS_BALANCES))])
    for router in statements:
        api.include_router(router, dependencies=[Depends(allowed(READS_STATEMENTS))], responses=PROJECTED)
    for router in others:
        api.include_router(router)
    if registry is not None:
        api.include_router(registry_router(registry), dependencies=[Depends(allowed(EVERY_ROLE))])
    describe(api)
    return api


def record_refused_calls(api: FastAPI, refused_calls: RefusedCalls) -> None:
    """Record calls without a right with these from now on."""
    api.state.refused_calls = refused_calls
