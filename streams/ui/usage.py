"""What an organisation uses: one metric, one grouping, one range of time, in its own time zone (product rule 31).

The rules of this file:
1. The address holds everything: metric, by, from, to, grain, wallet, filters. `to` is the last day that is shown.
2. The chart and the table show the same numbers: the six largest values of the grouping, and all others together.
   Units are never added up: where there are several wallets, one is chosen.
3. Spans without usage are zero where the ledger is projected; what lies ahead is not drawn. A span that is not over yet
   is marked as open.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from projections.reads import Reads
from projections.spans import Granularity, cut, local_midnight, local_text
from projections.usage_reports import DIMENSIONS, SPANS_MAX, UsageQuestion, UsageReports
from schemas.times import to_datetime
from streams.api.callers import READS_STATEMENTS, Caller, allowed
from streams.api.paths import ORG, OrgId
from streams.api.problems import ProblemError
from streams.ui.parts import Parts, address
from streams.ui.shown import segment
from streams.ui.tables import csv_answer

METRICS: Final = {
    "cost": ("Cost", "net_cost"),
    "requests": ("Requests", "requests"),
    "input_tokens": ("Input tokens", "input_tokens"),
    "output_tokens": ("Output tokens", "output_tokens"),
    "refunded": ("Refunded", "refunded"),
}
SHOWN: Final = 6
OTHERS: Final = "other"
FILTERS_MAX: Final = 20
DAYS: Final = 28
VALUES_MAX: Final = 200
FIRST_YEAR: Final = 2000


class UsageParameters(BaseModel):
    """The question as it stands in an address."""

    metric: str = Field("cost", max_length=64)
    by: str = Field("model", max_length=64)
    first: str = Field("", alias="from", max_length=10)
    last: str = Field("", alias="to", max_length=10)
    grain: str = Field("", max_length=8)
    wallet: str = Field("", max_length=128)
    filters: list[str] = Field([], alias="filter", max_length=FILTERS_MAX)


Allowed = Annotated[Caller, Depends(allowed(READS_STATEMENTS))]
Text = Annotated[str, Query(max_length=128)]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address asks for, with defaults."""

    metric: str
    by: str
    first: date
    last: date
    grain: Granularity
    wallet: str
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def query(self) -> dict[str, Any]:
        """For addresses."""
        return {
            "metric": self.metric,
            "by": self.by,
            "from": self.first.isoformat(),
            "to": self.last.isoformat(),
            "grain": self.grain.value,
            "wallet": self.wallet,
            "filter": [f"{name}:{value}" for name, values in self.filters.items() for value in values],
        }


def usage_router(router: APIRouter, parts: Parts) -> None:
    """Add the page to `router`."""

    @router.get(f"/orgs/{ORG}/usage")
    async def usage(
        request: Request, org: OrgId, _: Allowed, given: Annotated[UsageParameters, Query()], format: Text = ""
    ) -> Response:
        """The page, or its numbers as CSV."""
        now = time.time_ns() // 1_000

        def question(reads: Reads) -> dict[str, Any] | None:
            zone = reads.zone(org)
            asked = asked_of(given, zone, now)
            found = UsageReports(reads).of_org(org, _question(asked, zone))
            return (
                None
                if found is None
                else {"asked": asked, "zone": zone, "as_of": found["as_of"], "rows": found["usage"]}
            )

        found = await parts.desk.about(org, question)
        asked, rows = found["asked"], found["rows"]
        units = sorted({row["wallet"] for row in rows})
        unit = asked.wallet or max(units, key=lambda each: sum(row["wallet"] == each for row in rows), default="")
        rows = [row for row in rows if row["wallet"] == unit]
        path = f"/ui/orgs/{segment(org)}/usage"
        if format == "csv":
            columns = [(name, name) for name in ("start", "wallet", *([asked.by] if asked.by else []), *COLUMNS)]
            return csv_answer(columns, rows, f"{org}-usage")
        table = table_of(rows, asked, found["zone"], now)
        shows = {"org": org, "zone": found["zone"], "as_of": found["as_of"], "unit": unit, "units": units}
        return parts.shell.page(request, "usage.html", **shows, **_shows(path, asked, table, unit, found["zone"]))


def _shows(path: str, asked: Asked, table: Mapping[str, Any], unit: str, zone: str) -> dict[str, Any]:
    """What the page shows of a question and its table."""
    return {
        "asked": asked,
        "metrics": METRICS,
        "others": [each for each in ("requests", "input_tokens", "output_tokens") if each != asked.metric],
        "metric_name": METRICS[asked.metric][0],
        "is_amount": asked.metric in ("cost", "refunded"),
        "dimensions": DIMENSIONS,
        "grains": [each.value for each in Granularity],
        "table": table,
        "chart": chart_of(table, asked, unit, zone) if len(table["spans"]) > 1 else None,
        "given": asked.query(),
        "links": links_of(path, asked, table),
        "removals": removals_of(path, asked),
        "csv": address(path, asked.query(), format="csv"),
    }


COLUMNS: Final = ("requests", "input_tokens", "output_tokens", "cost", "refunded", "net_cost")


def asked_of(given: UsageParameters, zone: str, now: int) -> Asked:
    """The question of an address; raises `ProblemError` that says what is wrong with it."""
    metric, by, grain = given.metric, given.by, given.grain
    if metric not in METRICS:
        raise ProblemError(422, "invalid_field", f"metric: one of {', '.join(METRICS)}")
    if by and by not in DIMENSIONS:
        raise ProblemError(422, "invalid_field", f"by: one of {', '.join(DIMENSIONS)}")
    today = to_datetime(now).astimezone(ZoneInfo(zone)).date()
    last = _date("to", given.last) or today
    first = _date("from", given.first) or last - timedelta(days=DAYS - 1)
    if first > last:
        raise ProblemError(422, "invalid_field", "from: must not be after to")
    try:
        granularity = Granularity(grain) if grain else _grain(first, last)
    except ValueError:
        raise ProblemError(422, "invalid_field", f"grain: one of {', '.join(Granularity)}") from None
    wanted: dict[str, list[str]] = {}
    for each in given.filters:
        name, colon, value = each.partition(":")
        if not colon or name not in DIMENSIONS:
            raise ProblemError(422, "invalid_field", "filter: write it as dimension:value")
        wanted.setdefault(name, []).append(value)
    return Asked(metric, by, first, last, grain=granularity, wallet=given.wallet, filters=wanted)


def _grain(first: date, last: date) -> Granularity:
    days = (last - first).days + 1
    if days <= 2:
        return Granularity.HOUR
    return Granularity.DAY if days <= 92 else Granularity.MONTH


def _date(name: str, text: str) -> date | None:
    if not text:
        return None
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = date.min
    if not FIRST_YEAR <= found.year < 2200:
        raise ProblemError(422, "invalid_field", f"{name}: a day such as 2026-05-01")
    return found


def _question(asked: Asked, zone: str) -> UsageQuestion:
    after = asked.last + timedelta(days=1)
    return UsageQuestion(
        asked.grain,
        local_midnight(asked.first.year, asked.first.month, asked.first.day, zone),
        local_midnight(after.year, after.month, after.day, zone),
        zone,
        group_by=[asked.by] if asked.by else [],
        filters={**asked.filters, **({"wallet": [asked.wallet]} if asked.wallet else {})},
    )


def table_of(rows: Sequence[Mapping[str, Any]], asked: Asked, zone: str, now: int) -> dict[str, Any]:
    """Rows by span and columns by value of the grouping: the largest ones, and all others together."""
    name = METRICS[asked.metric][1]
    question = _question(asked, zone)
    cuts = cut(asked.grain, question.starts_at, question.ends_at, zone, spans_max=SPANS_MAX)
    starts = {local_text(each, zone): each for each in cuts[:-1]}
    totals: dict[str, dict[str, Decimal]] = {}
    for row in rows:
        total = totals.setdefault(_value(row, asked), dict.fromkeys(COLUMNS, Decimal(0)))
        for column in COLUMNS:
            total[column] += Decimal(row[column])
    ranked = sorted(totals, key=lambda each: (-abs(totals[each][name]), each))
    shown, others = ranked[:SHOWN], set(ranked[SHOWN:])
    columns = [*shown, *([OTHERS] if others else [])]
    cells: dict[str, dict[str, Decimal]] = {start: dict.fromkeys(columns, Decimal(0)) for start in starts}
    for row in rows:
        value = _value(row, asked)
        cells.setdefault(row["start"], dict.fromkeys(columns, Decimal(0)))[OTHERS if value in others else value] += (
            Decimal(row[name])
        )
    spans: list[dict[str, Any]] = [
        {
            "start": start,
            "label": _label(start, asked.grain),
            "at": starts[start] // 1_000_000,
            "open": starts[start] <= now < following,
            "cells": [cells[start][each] for each in columns],
            "sum": sum(cells[start].values(), Decimal(0)),
        }
        for start, following in zip(starts, cuts[1:], strict=True)
        if starts[start] <= now
    ]
    return {
        "columns": columns,
        "spans": spans,
        "sums": [sum((span["cells"][i] for span in spans), Decimal(0)) for i in range(len(columns))],
        "sum": sum((each[name] for each in totals.values()), Decimal(0)),
        "values": _values(totals, ranked, name),
        "left_out": max(0, len(ranked) - VALUES_MAX),
    }


def _values(totals: Mapping[str, Mapping[str, Decimal]], ranked: Sequence[str], name: str) -> list[dict[str, Any]]:
    """A line for each value of the grouping, the largest first, with its share and the colour it has in the chart."""
    everything = sum((each[name] for each in totals.values()), Decimal(0))
    return [
        {
            "value": each,
            "key": min(place, SHOWN) + 1,
            **{column: totals[each][column] for column in COLUMNS},
            "metric": totals[each][name],
            "share": float(totals[each][name] / everything * 100) if everything else None,
        }
        for place, each in enumerate(ranked[:VALUES_MAX])
    ]


def chart_of(table: Mapping[str, Any], asked: Asked, unit: str, zone: str) -> dict[str, Any]:
    """What the browser draws."""
    spans = table["spans"]
    return {
        "times": [span["at"] for span in spans],
        "series": [
            {"label": column or f"no {asked.by}", "values": [float(span["cells"][i]) for span in spans]}
            for i, column in enumerate(table["columns"])
        ],
        "unit": unit,
        "zone": zone,
        "grain": asked.grain.value,
        "open_from": next((span["at"] for span in spans if span["open"]), None),
    }


def links_of(path: str, asked: Asked, table: Mapping[str, Any]) -> dict[str, str]:
    """Where a click on a value of the grouping leads: the same, for that value only."""
    if not asked.by:
        return {}
    query = asked.query()
    return {
        each["value"]: address(path, {**query, "filter": [*query["filter"], f"{asked.by}:{each['value']}"]})
        for each in table["values"]
    }


def removals_of(path: str, asked: Asked) -> list[tuple[str, str]]:
    """Each filter, and the address without it."""
    query = asked.query()
    return [
        (each, address(path, {**query, "filter": [other for other in query["filter"] if other != each]}))
        for each in query["filter"]
    ]


def _value(row: Mapping[str, Any], asked: Asked) -> str:
    return str(row[asked.by] or "") if asked.by else "all"


def _label(start: str, grain: Granularity) -> str:
    at = datetime.fromisoformat(start)
    return {Granularity.HOUR: at.strftime("%Y-%m-%d %H:%M"), Granularity.MONTH: at.strftime("%Y-%m")}.get(
        grain, at.strftime("%Y-%m-%d")
    )
