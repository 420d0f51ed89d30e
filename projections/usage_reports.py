"""Usage by hour, day or month of an organisation's own time zone, by any dimension (product rule 31).

Rules of this file:
1. A report is summed from the coarsest table that has no cut inside a bucket (`projections.spans`): in the end from the
   ledger's entries, by the same rules as the buckets (`projections.buckets`). Which it was never changes a number.
2. Units are never added up: `wallet` is always a group. `quantity` is shown where `billing_unit` is one, too.
3. A report has `ROWS_MAX` rows at most, and more is refused: half a report would look like a whole one.
4. `cost` is net of corrections, `refunded` stands beside it, `net_cost` is the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from projections.buckets import DIMENSIONS as BUCKET_DIMENSIONS
from projections.queries import Query
from projections.reads import Document, Reads, TooWideError, document_of
from projections.spans import DAY_US, SECOND_US, Granularity, Source, TooManySpansError, cut, local_text, source_of
from schemas.meters import TOKENS_PER_UNIT
from schemas.times import format_time

DIMENSIONS: Final = tuple(name for name in BUCKET_DIMENSIONS if name != "org_id")
"""What a report of an org may be grouped and filtered by."""

ROWS_MAX: Final = 10_000
SPANS_MAX: Final = 2_000
FUTURE_US: Final = DAY_US
"""By how much an entry may be booked before it occurred: clocks that are ahead. The ledger accepts two hours."""

_MEASURES: Final = ("requests", "input_tokens", "output_tokens", "quantity", "cost", "refunded")
_TIMES: Final = {
    Source.MONTHLY: "toInt64(toUInt16(month)) * 86400",
    Source.DAILY: "toInt64(toUInt16(day)) * 86400",
    Source.HOURLY: "toInt64(toUnixTimestamp(hour))",
    Source.ENTRIES: "toUnixTimestamp64Micro(occurred_at)",
}
_TOKEN_UNITS: Final = ", ".join(f"'{unit}'" for unit in ("", *TOKENS_PER_UNIT))

OF_USAGE: Final = "(kind IN ('usage', 'correction') OR (kind = 'refund' AND reason = 'usage_refunded'))"
"""The entries that count as usage: the others move credits."""

_ENTRY_MEASURES: Final = f"""
    multiIf(kind = 'usage', 1, kind = 'correction', -1, 0) AS of_requests,
    of_requests * toDecimal128(input_tokens, 0) AS of_input_tokens,
    of_requests * toDecimal128(output_tokens, 0) AS of_output_tokens,
    of_requests * ifNull(quantity, toDecimal128(billing_unit NOT IN ({_TOKEN_UNITS}), 9)) AS of_quantity,
    if(kind = 'refund', 0, -amount) AS of_cost,
    if(kind = 'refund', amount, 0) AS of_refunded"""


@dataclass(frozen=True, slots=True)
class UsageQuestion:
    """What is asked. `starts_at` to before `ends_at`: microseconds UTC. `filters`: the values allowed by dimension."""

    granularity: Granularity
    starts_at: int
    ends_at: int
    time_zone: str = "UTC"
    group_by: Sequence[str] = ()
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)


def usage(question: UsageQuestion, org_ids: Sequence[str] | None) -> Query:
    """The rows of a report: `span` (microseconds), the groups, `_MEASURES`. `org_ids` None: of all orgs."""
    try:
        cuts = cut(question.granularity, question.starts_at, question.ends_at, question.time_zone, spans_max=SPANS_MAX)
    except TooManySpansError as error:
        raise TooWideError(f"{error}: take a shorter range, or a coarser granularity") from error
    source = source_of(cuts)
    unit_us = 1 if source is Source.ENTRIES else SECOND_US
    groups = _groups(question.group_by)
    parameters: dict[str, Any] = {}
    conditions = [_range(question, source), *_filters(question.filters, parameters)]
    if org_ids is not None:
        parameters["orgs"] = list(org_ids)
        conditions.append("org_id IN {orgs:Array(String)}")
    measures = _ENTRY_MEASURES if source is Source.ENTRIES else ", ".join(f"{name} AS of_{name}" for name in _MEASURES)
    inner = ", ".join(dict.fromkeys([*groups, "org_id"]))
    starts = ", ".join(str(each // unit_us) for each in cuts[:-1])
    return Query(
        f"SELECT roundDown(at, [{starts}]) * {unit_us} AS span, {', '.join(groups)},"
        f" {', '.join(f'sum(of_{name}) AS {name}_sum' for name in _MEASURES)}"
        f" FROM (SELECT {_TIMES[source]} AS at, {inner}, {measures}"
        f" FROM {source.value} FINAL WHERE {' AND '.join(conditions)})"
        f" GROUP BY span, {', '.join(groups)} ORDER BY span, {', '.join(groups)} LIMIT {ROWS_MAX + 1}",
        parameters,
    )


class UsageReports:
    """Reports over a `Reads`."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def of_org(self, org_id: str, question: UsageQuestion) -> Document | None:
        """The usage of an org; None: no entry of it is projected. Raises `TooWideError`."""
        freshness = self._reads.freshness(org_id)
        if freshness is None:
            return None
        return {"org_id": org_id, **self._document(question, [org_id], freshness.as_of)}

    def of_orgs(self, question: UsageQuestion, org_ids: Sequence[str] | None) -> Document:
        """The usage of these orgs together, or of all; `org_id` may be among the groups. Raises `TooWideError`."""
        freshness = self._reads.freshness_of_all()
        return self._document(question, org_ids, None if freshness is None else freshness.as_of)

    def _document(self, question: UsageQuestion, org_ids: Sequence[str] | None, as_of: int | None) -> Document:
        found = self._reads.rows(usage(question, org_ids))
        if len(found) > ROWS_MAX:
            raise TooWideError(
                f"more than {ROWS_MAX:,} rows: take a shorter range, a coarser granularity, fewer groups, or a filter"
            )
        return {
            "as_of": None if as_of is None else format_time(as_of),
            "from": format_time(question.starts_at),
            "to": format_time(question.ends_at),
            "granularity": question.granularity.value,
            "time_zone": question.time_zone,
            "group_by": list(question.group_by),
            "usage": [_row(row, question) for row in found],
        }


def _row(row: Mapping[str, Any], question: UsageQuestion) -> Document:
    groups = {name: row[name] for name in _groups(question.group_by)}
    sums = {name: row[f"{name}_sum"] for name in _MEASURES}
    counts = {name: int(sums.pop(name)) for name in ("requests", "input_tokens", "output_tokens")}
    quantity = sums.pop("quantity")
    if "billing_unit" in question.group_by:
        sums["quantity"] = quantity
    net_cost = sums["cost"] - sums["refunded"]
    start = local_text(row["span"], question.time_zone)
    return {"start": start, **groups, **counts, **document_of(sums | {"net_cost": net_cost})}


def _groups(group_by: Sequence[str]) -> list[str]:
    """The columns of a row: the wallet, then what was asked for. Only known names: they stand in the statement."""
    unknown = set(group_by) - set(BUCKET_DIMENSIONS)
    assert not unknown, f"no dimensions: {unknown}"
    return list(dict.fromkeys(["wallet", *group_by]))


def _filters(filters: Mapping[str, Sequence[str]], parameters: dict[str, Any]) -> list[str]:
    conditions = []
    for name, values in filters.items():
        assert name in BUCKET_DIMENSIONS, f"no dimension: {name}"
        parameters[f"only_{name}"] = list(values)
        conditions.append(f"{name} IN {{only_{name}:Array(String)}}")
    return conditions


def _range(question: UsageQuestion, source: Source) -> str:
    """The condition on time, in the table's own column."""
    first, last = question.starts_at, question.ends_at
    match source:
        case Source.MONTHLY | Source.DAILY:
            column = "month" if source is Source.MONTHLY else "day"
            return f"{column} >= toDate({first // DAY_US}) AND {column} < toDate({last // DAY_US})"
        case Source.HOURLY:
            return f"hour >= toDateTime({first // SECOND_US}, 'UTC') AND hour < toDateTime({last // SECOND_US}, 'UTC')"
        case Source.ENTRIES:
            # By the time of booking, too: that is what the table is partitioned by.
            return (
                f"occurred_at >= {_moment(first)} AND occurred_at < {_moment(last)}"
                f" AND recorded_at >= {_moment(max(0, first - FUTURE_US))} AND {OF_USAGE}"
            )


def _moment(at: int) -> str:
    return f"fromUnixTimestamp64Micro(toInt64({at}), 'UTC')"
