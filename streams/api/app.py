"""The HTTP application, put together from its routers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, FastAPI

from streams.api.balance_routes import balance_router
from streams.api.callers import EVERY_ROLE, READS_BALANCES, READS_STATEMENTS, NotAuthorizedError, allowed
from streams.api.health import Check, health_router
from streams.api.paths import Segments
from streams.api.problems import install_problems, problem
from streams.api.refusals import refusals
from streams.api.registry_routes import RegistryAnswer, RegistryProblem, registry_router

if TYPE_CHECKING:
    from fastapi import Request
    from fastapi.responses import JSONResponse

    from streams.kafka.balances import BalanceReader
    from streams.kafka.registry_topic import TopicRegistry


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
    """
    api = FastAPI(
        title="credits",
        version=version("credits-ledger"),
        description="An exact ledger of prepaid usage credits. Amounts are decimal strings, times ISO 8601 in UTC.",
        docs_url="/docs",
        redoc_url=None,
        redirect_slashes=False,  # an address has one form, and a redirect would repeat what `Host` says
    )
    api.add_middleware(Segments)
    install_problems(api)

    @api.exception_handler(RegistryProblem)
    async def _registry_problem(_: Request, error: RegistryProblem) -> RegistryAnswer:
        return error.answer()

    @api.exception_handler(NotAuthorizedError)
    async def _not_authorized(request: Request, error: NotAuthorizedError) -> JSONResponse:
        refusals.add(error.code, error.caller.name, request.url.path)
        return problem(error.status, error.code, error.detail)

    api.include_router(health_router(live, ready))
    api.include_router(balance_router(balances), dependencies=[Depends(allowed(READS_BALANCES))])
    for router in statements:
        api.include_router(router, dependencies=[Depends(allowed(READS_STATEMENTS))])
    for router in others:
        api.include_router(router)
    if registry is not None:
        api.include_router(registry_router(registry), dependencies=[Depends(allowed(EVERY_ROLE))])
    return api
