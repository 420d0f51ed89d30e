"""What ClickHouse holds, for `credits verify` on the same machine: the chDB folder belongs to the process of `serve`.

The answer names every org. So it is given only for the key that lies in the data folder (`streams.local.api_key`), and
not by the address that asks: behind a proxy on this machine everybody comes from loopback.
"""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request

from streams.api.problems import ProblemError
from streams.local.api_key import HEADER

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

ORGS_MAX = 10_000


def audit_router(client: Client, key: str) -> APIRouter:
    """The route, on a ClickHouse client that nobody else uses, for who has the `key`."""
    router = APIRouter(prefix="/internal", include_in_schema=False)
    asking = threading.Lock()

    @router.get("/clickhouse/audit")
    def audit(
        request: Request, after_org: str = "", orgs_max: Annotated[int, Query(ge=1, le=ORGS_MAX)] = ORGS_MAX
    ) -> dict[str, Any]:
        """One page of `projections.verify.clickhouse_audit`."""
        from projections.verify import clickhouse_audit

        if not secrets.compare_digest(request.headers.get(HEADER, "").encode(), key.encode()):
            raise ProblemError(403, "forbidden", "for programs of this machine, with the key in the data folder")
        with asking:
            return clickhouse_audit(client, after_org=after_org, orgs_max=orgs_max)

    return router
