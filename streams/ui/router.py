"""All pages, put together."""

from __future__ import annotations

from fastapi import APIRouter

from streams.api.problems import ProblemError
from streams.ui.changes import changes_router
from streams.ui.doors import doors_router
from streams.ui.history import history_router
from streams.ui.listings import listings_router
from streams.ui.overview import overview_router
from streams.ui.parts import Parts
from streams.ui.shell import page_route
from streams.ui.sql_page import sql_router
from streams.ui.status import status_router
from streams.ui.usage import usage_router

ADDERS = (
    doors_router,
    status_router,
    overview_router,
    history_router,
    listings_router,
    usage_router,
    sql_router,
    changes_router,
)


def ui_router(parts: Parts) -> APIRouter:
    """The routes below `/ui`."""
    router = APIRouter(prefix="/ui", include_in_schema=False, route_class=page_route(parts.shell))
    for add in ADDERS:
        add(router, parts)

    @router.get("/{rest:path}")
    async def nothing(rest: str) -> None:
        """What is not there is a page, too."""
        raise ProblemError(404, "not_found", f"there is no page {rest[:100]!r}")

    return router
