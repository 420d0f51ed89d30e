"""What ClickHouse holds, for `credits verify` on the same machine: the chDB folder belongs to the process of `serve`.

Loopback only: the answer names every org.
"""

from __future__ import annotations

import ipaddress
import threading
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request

from streams.api.problems import ProblemError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

ORGS_MAX = 10_000


def audit_router(client: Client) -> APIRouter:
    """The route, on a ClickHouse client that nobody else uses."""
    router = APIRouter(prefix="/internal", include_in_schema=False)
    asking = threading.Lock()

    @router.get("/clickhouse/audit")
    def audit(
        request: Request, after_org: str = "", orgs_max: Annotated[int, Query(ge=1, le=ORGS_MAX)] = ORGS_MAX
    ) -> dict[str, Any]:
        """One page of `projections.verify.clickhouse_audit`."""
        from projections.verify import clickhouse_audit

        if not is_loopback(request.client.host if request.client else ""):
            raise ProblemError(403, "forbidden", "asked for from this machine only")
        with asking:
            return clickhouse_audit(client, after_org=after_org, orgs_max=orgs_max)

    return router


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
