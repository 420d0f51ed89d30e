"""`/livez`, `/readyz` and `/metrics`.

Live means: every part that must make progress does; when it is not, a restart is due. Ready means: an answer would be
complete and current.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

NOT_WELL: dict[int | str, dict[str, Any]] = {
    503: {
        "description": "a part does not do its work",
        "content": {"application/json": {"example": {"ok": False, "parts": {"balances": "ok", "kafka": "is away"}}}},
    }
}
METRICS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"example": "python_info 1.0"}}}}


class Check(Protocol):
    """Looks at one part: None when it is well, else one sentence what is wrong. Must not take long."""

    def __call__(self) -> str | None: ...


def health_router(live: Mapping[str, Check], ready: Mapping[str, Check]) -> APIRouter:
    """The routes; each check is named after the part that it looks at."""
    router = APIRouter(tags=["health"])

    def answer(checks: Mapping[str, Check]) -> JSONResponse:
        faults = {name: fault for name, check in checks.items() if (fault := check()) is not None}
        document: dict[str, Any] = {"ok": not faults, "parts": {name: faults.get(name, "ok") for name in checks}}
        return JSONResponse(document, status_code=503 if faults else 200)

    @router.get("/livez", responses=NOT_WELL)
    def livez() -> JSONResponse:
        """200 while every part makes progress, else 503."""
        return answer(live)

    @router.get("/readyz", responses=NOT_WELL)
    def readyz() -> JSONResponse:
        """200 when answers are complete and current, else 503."""
        return answer({**live, **ready})

    @router.get("/metrics", response_class=Response, responses=METRICS)
    def metrics() -> Response:
        """Prometheus metrics."""
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    return router
