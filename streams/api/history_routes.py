"""What happened to an organisation's credits: cards, entries, usage, months (product rules 29 to 31 and 34).

The rules of this file: every answer says as of when it is true; the balance in a card is from memory and does not lag
behind the ledger, all else is projected; a list goes on behind its last line, so new entries move nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from projections.months import Months
from projections.reads import Document, Reads
from projections.spans import Granularity, begin
from projections.statements import parse_month
from projections.transactions import Transactions
from projections.usage_reports import UsageReports
from schemas.times import format_time
from streams.api.callers import READS_STATEMENTS, Caller, allowed
from streams.api.paths import ORG, OrgId
from streams.api.problems import AsciiJson, ProblemError
from streams.api.reading import ReadingDesk, answers
from streams.api.reading_models import (
    AllUsageAnswer,
    BurnRateAnswer,
    CardAnswer,
    DayAnswer,
    MonthAnswer,
    MonthsAnswer,
    TransactionsAnswer,
    UsageAnswer,
)
from streams.api.reading_parameters import (
    AllUsageParameters,
    DayParameters,
    MonthsParameters,
    OrgUsageParameters,
    TransactionParameters,
    moment,
    zone_of,
)
from streams.api.statements import wall_clock
from streams.kafka.balances import BalanceReader, balance_document

Allowed = Annotated[Caller, Depends(allowed(READS_STATEMENTS))]
MonthName = Annotated[str, Path(max_length=7, description="such as 2026-05", examples=["2026-05"])]
DayName = Annotated[str, Path(max_length=10, description="such as 2026-05-01", examples=["2026-05-01"])]
ORGS_MAX: Final = 10_000
"""Organisations in one report."""

Clock = Callable[[], int]


def history_router(desk: ReadingDesk, balances: BalanceReader, clock: Clock = wall_clock) -> APIRouter:
    """The routes, over a desk and a reader of balances that has been started. `clock`: now, in microseconds."""
    router = APIRouter(prefix="/v1", tags=["history"])
    _add_card(router, desk, balances)
    _add_transactions(router, desk)
    _add_usage(router, desk, clock)
    _add_usage_of_all(router, desk, clock)
    _add_months(router, desk, clock)
    _add_days(router, desk)
    return router


def _add_card(router: APIRouter, desk: ReadingDesk, balances: BalanceReader) -> None:
    @router.get(f"/orgs/{ORG}", response_model=None, responses=answers(CardAnswer))
    async def card(org: OrgId, _: Allowed) -> Response:
        """The balance card of each wallet: balance, low badge, lifetime, and the five latest movements."""
        found = await balances.latest(org)
        if found is None:
            raise ProblemError(404, "unknown_org", f"the ledger has no entry of {org!r}")
        balance = balance_document(found)

        def cards(reads: Reads) -> Document:
            freshness = reads.freshness(org)
            return {
                **{name: balance[name] for name in ("org_id", "seq", "as_of")},
                "projected_as_of": None if freshness is None else format_time(freshness.as_of),
                "wallets": Transactions(reads).cards(org, balance),
            }

        return AsciiJson(await desk.ask(cards))


def _add_transactions(router: APIRouter, desk: ReadingDesk) -> None:
    @router.get(f"/orgs/{ORG}/transactions", response_model=None, responses=answers(TransactionsAnswer, tagged=True))
    async def transactions(
        request: Request, org: OrgId, _: Allowed, given: Annotated[TransactionParameters, Query()]
    ) -> Response:
        """The entries that moved the balance, or those of the kinds that are asked for, a page at a time."""

        def page(reads: Reads) -> Document | None:
            wanted = given.filter(_zone(reads, org, given.from_, given.to))
            return Transactions(reads).page(org, wanted, given.cursor, given.limit)

        return await desk.tagged(request, org, page)


def _add_usage(router: APIRouter, desk: ReadingDesk, clock: Clock) -> None:
    @router.get(f"/orgs/{ORG}/usage", response_model=None, responses=answers(UsageAnswer, tagged=True))
    async def usage(
        request: Request, org: OrgId, _: Allowed, given: Annotated[OrgUsageParameters, Query()]
    ) -> Response:
        """Requests, tokens and cost by hour, day or month of the organisation's own time zone, and by dimension.

        Without `from` it goes back 2 days by hour, 30 days by day, a year by month.
        """
        zone = None if given.time_zone is None else zone_of(given.time_zone)

        def report(reads: Reads) -> Document | None:
            question = given.question(reads.zone(org) if zone is None else zone, clock())
            return UsageReports(reads).of_org(org, question)

        if given.from_ is None or given.to is None:  # the answer depends on the time of the question
            return AsciiJson(await desk.about(org, report))
        return await desk.tagged(request, org, report)

    @router.get(f"/orgs/{ORG}/burn-rate", response_model=None, responses=answers(BurnRateAnswer))
    async def burn_rate(org: OrgId, _: Allowed) -> Response:
        """What each wallet spends a day, and when it is used up if that goes on."""
        return AsciiJson(await desk.about(org, lambda reads: Months(reads).burn_rate(org, clock())))


def _add_usage_of_all(router: APIRouter, desk: ReadingDesk, clock: Clock) -> None:
    @router.get("/usage", response_model=None, responses=answers(AllUsageAnswer, unknown=""))
    async def usage_of_all(caller: Allowed, given: Annotated[AllUsageParameters, Query()]) -> Response:
        """The same over all organisations that the key is for; `time_zone` is UTC where it is not given."""
        question = given.question("UTC" if given.time_zone is None else zone_of(given.time_zone), clock())
        orgs = _orgs(caller, given.org_id)
        return AsciiJson(await desk.ask(lambda reads: UsageReports(reads).of_orgs(question, orgs)))


def _add_months(router: APIRouter, desk: ReadingDesk, clock: Clock) -> None:
    @router.get(f"/orgs/{ORG}/months", response_model=None, responses=answers(MonthsAnswer))
    async def months(org: OrgId, _: Allowed, given: Annotated[MonthsParameters, Query()]) -> Response:
        """The last months, newest first: used, alert threshold, allowed limit, remaining."""
        return AsciiJson(await desk.about(org, lambda reads: Months(reads).history(org, clock(), given.months)))

    @router.get(f"/orgs/{ORG}/months/{{month}}", response_model=None, responses=answers(MonthAnswer))
    async def month(org: OrgId, month: MonthName, _: Allowed) -> Response:
        """A month of the organisation: used, alert threshold, allowed limit, remaining, and each day."""
        try:
            number = parse_month(month)
        except ValueError as error:
            raise ProblemError(422, "invalid_field", f"month: {error}", field="month") from error
        return AsciiJson(await desk.about(org, lambda reads: Months(reads).month(org, clock(), number)))


def _add_days(router: APIRouter, desk: ReadingDesk) -> None:
    @router.get(f"/orgs/{ORG}/days/{{day}}", response_model=None, responses=answers(DayAnswer, tagged=True))
    async def day(
        request: Request, org: OrgId, day: DayName, _: Allowed, given: Annotated[DayParameters, Query()]
    ) -> Response:
        """Each usage of a day: time, category, operation, quantity, unit price, cost."""

        def items(reads: Reads) -> Document | None:
            zone = reads.zone(org)
            at = moment("day", day, zone)
            assert at is not None
            if begin(Granularity.DAY, at, zone) != at or len(day) != len("2026-05-01"):
                raise ProblemError(422, "invalid_field", "day: is a date such as 2026-05-01", field="day")
            return Transactions(reads).day(org, at, zone, given.cursor, given.limit)

        return await desk.tagged(request, org, items)


def _zone(reads: Reads, org: str, *times: Any) -> str:
    """The org's zone, asked for only where a time is given: a date is its local midnight."""
    return reads.zone(org) if any(time is not None for time in times) else "UTC"


def _orgs(caller: Caller, named: list[str]) -> list[str] | None:
    """The organisations of a report: those named that the key is for, or all of the key's. None: all there are."""
    if caller.is_for_all:
        return named or None
    return [org for org in named if caller.is_for(org)] if named else sorted(caller.organisations)[:ORGS_MAX]
