"""Lists: alerts and their dismissal, activity, settings, members, prices, organisations (product rules 25, 30-33).

The rules of this file:
1. A key for some organisations sees those only, in lists too; of prices it sees the list and its organisations' own.
2. An alert that may not be dismissed is 409 (`not_dismissable`). A dismissal is a record in Kafka, is in the activity
   log with its author, and is shown at once in the process that took it. A second one changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from projections.listings import Listings
from projections.reads import Document, Reads
from schemas.dismissals import Dismissal
from schemas.times import format_time
from streams.api.callers import EVERY_ROLE, READS_ALERTS, READS_STATEMENTS, Caller, allowed, require_org
from streams.api.paths import ORG, OrgId
from streams.api.problems import AsciiJson, ProblemError
from streams.api.reading import ReadingDesk, answers
from streams.api.reading_models import (
    ActivityAnswer,
    AlertsAnswer,
    DismissedAnswer,
    MembersAnswer,
    OrgsAnswer,
    PricesAnswer,
    SettingsAnswer,
)
from streams.api.reading_parameters import (
    ActivityParameters,
    AlertParameters,
    OrgParameters,
    Parameters,
    PriceParameters,
)
from streams.api.statements import wall_clock
from streams.kafka.dismissals import Dismissals

AlertReader = Annotated[Caller, Depends(allowed(READS_ALERTS))]
Analyst = Annotated[Caller, Depends(allowed(READS_STATEMENTS))]
Anyone = Annotated[Caller, Depends(allowed(EVERY_ROLE))]
AlertId = Annotated[str, Path(min_length=1, max_length=256, description="`alert_id` of the alert")]

Clock = Callable[[], int]


def listing_router(desk: ReadingDesk, dismissals: Dismissals, clock: Clock = wall_clock) -> APIRouter:
    """The routes, over a desk and dismissals that are followed."""
    router = APIRouter(prefix="/v1", tags=["lists"])
    _add_alerts(router, desk, dismissals)
    _add_dismissal(router, desk, dismissals, clock)
    _add_activity(router, desk)
    _add_settings(router, desk)
    _add_prices(router, desk)
    _add_orgs(router, desk)
    return router


def _add_alerts(router: APIRouter, desk: ReadingDesk, dismissals: Dismissals) -> None:
    @router.get(f"/orgs/{ORG}/alerts", response_model=None, responses=answers(AlertsAnswer))
    async def alerts(org: OrgId, _: AlertReader, given: Annotated[AlertParameters, Query()]) -> Response:
        """The alerts of an organisation, newest first, with who has dismissed each."""

        def page(reads: Reads) -> Document | None:
            wanted = given.filter(reads.zone(org) if given.from_ or given.to else "UTC")
            return Listings(reads).alerts(org, wanted, given.cursor, given.limit)

        found = await desk.about(org, page)
        shown = [_with_dismissal(each, dismissals.find(org, each["alert_id"])) for each in found["alerts"]]
        found["alerts"] = [each for each in shown if given.dismissed is not False or each["dismissed_at"] is None]
        return AsciiJson(found)


def _add_dismissal(router: APIRouter, desk: ReadingDesk, dismissals: Dismissals, clock: Clock) -> None:
    problems: dict[int | str, dict[str, Any]] = {
        409: {"description": "not_dismissable", "content": {"application/problem+json": {}}}
    }

    @router.post(
        f"/orgs/{ORG}/alerts/{{alert_id}}/dismiss",
        response_model=None,
        responses=answers(DismissedAnswer, unknown="unknown_alert") | problems,
    )
    async def dismiss(request: Request, org: OrgId, alert_id: AlertId, caller: AlertReader) -> Response:
        """Remove the banner of an alert, for everyone. `Credits-Actor` says for whom; without it, it is the key."""
        known = dismissals.find(org, alert_id)
        if known is None:
            found = await desk.ask(lambda reads: Listings(reads).dismissal(org, alert_id))
            if found is None:
                raise ProblemError(404, "unknown_alert", f"{org!r} has no alert {alert_id!r}, or none yet: try again")
            if not found.dismissable:
                raise ProblemError(409, "not_dismissable", "this alert stays until what it is about has changed")
            known = found.dismissal
        if known is None:
            actor = unquote(request.headers.get("credits-actor", "")) or caller.name
            wanted = Dismissal(org, alert_id, clock(), actor[:128])
            known = await asyncio.to_thread(dismissals.dismiss, wanted)
        names = {"org_id": org, "alert_id": alert_id}
        return AsciiJson({**names, "dismissed_at": format_time(known.dismissed_at), "dismissed_by": known.actor})


def _add_activity(router: APIRouter, desk: ReadingDesk) -> None:
    @router.get(f"/orgs/{ORG}/activity", response_model=None, responses=answers(ActivityAnswer))
    async def activity(org: OrgId, _: Analyst, given: Annotated[ActivityParameters, Query()]) -> Response:
        """Who did what, when, with what before and after; tries that were refused, too."""

        def page(reads: Reads) -> Document | None:
            wanted = given.filter(reads.zone(org) if given.from_ or given.to else "UTC")
            return Listings(reads).activity(org, wanted, given.cursor, given.limit)

        return AsciiJson(await desk.about(org, page))


def _add_settings(router: APIRouter, desk: ReadingDesk) -> None:
    @router.get(f"/orgs/{ORG}/settings", response_model=None, responses=answers(SettingsAnswer))
    async def settings(org: OrgId, _: Analyst, __: Annotated[Parameters, Query()]) -> Response:
        """The settings in force, as the ledger has taken them."""
        return AsciiJson(await desk.about(org, lambda reads: Listings(reads).settings(org)))

    @router.get(f"/orgs/{ORG}/members", response_model=None, responses=answers(MembersAnswer))
    async def members(org: OrgId, _: Analyst, __: Annotated[Parameters, Query()]) -> Response:
        """The members of an organisation and their roles."""
        return AsciiJson(await desk.about(org, lambda reads: Listings(reads).members(org)))


def _add_prices(router: APIRouter, desk: ReadingDesk) -> None:
    @router.get("/prices", response_model=None, responses=answers(PricesAnswer, unknown=""))
    async def prices(caller: Anyone, given: Annotated[PriceParameters, Query()]) -> Response:
        """The price list: search by name, and what applies at a time."""
        if given.org_id is not None:
            require_org(caller, given.org_id)
        wanted, orgs = given.filter(), _orgs_of(caller)
        return AsciiJson(await desk.ask(lambda reads: Listings(reads).prices(wanted, orgs, given.cursor, given.limit)))


def _add_orgs(router: APIRouter, desk: ReadingDesk) -> None:
    @router.get("/orgs", response_model=None, responses=answers(OrgsAnswer, unknown=""))
    async def orgs(caller: Analyst, given: Annotated[OrgParameters, Query()]) -> Response:
        """The organisations that the key is for and that have a wallet, with the balance of each wallet."""
        status = None if given.status is None else given.status.value
        allowed_orgs = _orgs_of(caller)
        return AsciiJson(
            await desk.ask(
                lambda reads: Listings(reads).organisations(
                    given.search, status, allowed_orgs, given.cursor, given.limit
                )
            )
        )


def _orgs_of(caller: Caller) -> list[str] | None:
    """The organisations of a key; None: all."""
    return None if caller.is_for_all else sorted(caller.organisations)


def _with_dismissal(alert: Document, dismissal: Dismissal | None) -> Document:
    """The alert with a dismissal that is not projected yet."""
    if dismissal is None or alert["dismissed_at"] is not None:
        return alert
    return alert | {"dismissed_at": format_time(dismissal.dismissed_at), "dismissed_by": dismissal.actor}
