"""The HTTP application, put together from its routers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI

from streams.api.balance_routes import balance_router
from streams.api.health import Check, health_router
from streams.api.paths import Segments
from streams.api.problems import install_problems
from streams.api.registry_routes import RegistryAnswer, RegistryProblem, registry_router

if TYPE_CHECKING:
    from fastapi import Request

    from streams.kafka.balances import BalanceReader
    from streams.kafka.registry_topic import TopicRegistry


def build_api(
    *,
    balances: BalanceReader,
    registry: TopicRegistry | None,
    live: Mapping[str, Check],
    ready: Mapping[str, Check],
    routers: Iterable[APIRouter] = (),
) -> FastAPI:
    """The application. `registry` None: another registry is used, and its routes are not served here."""
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

    api.include_router(health_router(live, ready))
    api.include_router(balance_router(balances))
    for router in routers:
        api.include_router(router)
    if registry is not None:
        api.include_router(registry_router(registry))
    return api
