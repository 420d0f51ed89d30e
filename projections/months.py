"""The months of an organisation: used, alert threshold, limit, remaining, day by day; burn rate and forecast.

Product rules 30 and 31. Rules of this file:
1. A month is the statement's (`projections.statements`): it begins once, by the zone in force then.
2. Usage is in the month and on the day in which it occurred, net of corrections and refunds. `used` of the current
   month is the ledger's own count, which the limit is compared with; it counts by the time of booking where a month has
   ended, so the two may differ by late usage.
3. Threshold and limit of a month are those that were in force at its end; of the current month, those now in force.
4. The burn rate is the usage of the last `BURN_DAYS` days, divided by as many days, or by the days since the first
   usage of the wallet if that is less. The forecast goes on at that rate; it knows of no purchase and no allowance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from projections.invoices import decimal_text
from projections.queries import Query
from projections.reads import Document, Reads, Row
from projections.spans import DAY_US, HOUR_US, Granularity, begin, local_text
from projections.statements import FIRST_YEAR, UTC, Month, month, month_at
from projections.usage_reports import UsageQuestion, usage
from schemas.times import TIME_MAX, format_time

BURN_DAYS: Final = 7
DAYS_SINCE_MONDAY: Final = 3
"""1970-01-01 was a Thursday."""


def month_limits(org_id: str, ends_at: int) -> Query:
    """wallet, body: the limits in force before an instant (microseconds)."""
    return Query(
        "SELECT subject AS wallet, argMax(JSONExtractRaw(details, 'body'), seq) AS body FROM activity"
        " WHERE org_id = {org:String} AND kind = 'setting' AND action = 'month_limits'"
        " AND recorded_at < fromUnixTimestamp64Micro({ends:Int64}, 'UTC') GROUP BY subject",
        {"org": org_id, "ends": ends_at},
    )


def limit_amounts(org_id: str, ends_at: int) -> Query:
    """wallet, alert_threshold, allowed_limit of `month_limits`, as amounts; NULL: none."""
    inner = month_limits(org_id, ends_at)
    amounts = ", ".join(
        f"toDecimal128OrNull(JSONExtractString(body, '{name}'), 9) AS {name}"
        for name in ("alert_threshold", "allowed_limit")
    )
    return Query(f"SELECT wallet, {amounts} FROM ({inner.sql})", inner.parameters)


def counted(org_id: str) -> Query:
    """wallet, used, available, status, health: what the ledger itself says of the current month."""
    return Query(
        "SELECT wallet, month_spent AS used, available, status, health FROM v_balances"
        " WHERE org_id = {org:String} ORDER BY wallet",
        {"org": org_id},
    )


def spent_since(org_id: str, starts_at: int, day_starts_at: int) -> Query:
    """wallet, last_day, last_week, first_us: usage since two instants, and the first of it, from the hours."""
    hour = "toDateTime({week:Int64}, 'UTC')"
    return Query(
        "SELECT wallet, sumIf(net_cost, hour >= toDateTime({day:Int64}, 'UTC')) AS last_day,"
        " sum(net_cost) AS last_week, toInt64(toUnixTimestamp(minIf(hour, cost > 0))) * 1000000 AS first_us"
        f" FROM v_usage_hourly WHERE org_id = {{org:String}} AND hour >= {hour} GROUP BY wallet",
        {"org": org_id, "week": starts_at // 10**6, "day": day_starts_at // 10**6},
    )


def paid(org_id: str) -> Query:
    """purchases: how many completed purchases of credits there are."""
    return Query(
        "SELECT count() AS purchases FROM purchases WHERE org_id = {org:String} AND status = 'completed'"
        " AND grant_kind = 'purchased'",
        {"org": org_id},
    )


class Months:
    """Month views over a `Reads`. Each is None where no entry of the org is projected."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def month(self, org_id: str, now: int, number: int | None = None) -> Document | None:
        """One month (None: the one that `now` is in): for each wallet what was used, its limits, and its days."""
        freshness = self._reads.freshness(org_id)
        if freshness is None:
            return None
        zones = self._reads.zones(org_id)
        of = month_at(now, zones) if number is None else month(number, zones)
        by_day = self._spent(org_id, Granularity.DAY, of)
        wallets = self._wallets(org_id, of, now, _totals(by_day))
        for wallet in wallets:
            wallet["days"] = [{"day": day, **_counts(row)} for day, unit, row in by_day if unit == wallet["wallet"]]
        return {"org_id": org_id, "as_of": format_time(freshness.as_of), **_span(of), "wallets": wallets}

    def history(self, org_id: str, now: int, months_max: int) -> Document | None:
        """The last months up to the current one, the newest first: for each wallet used, limits, remaining."""
        freshness = self._reads.freshness(org_id)
        if freshness is None:
            return None
        zones = self._reads.zones(org_id)
        last = month_at(now, zones)
        found = []
        for number in range(last.number, max(last.number - months_max, FIRST_YEAR * 12 - 1), -1):
            of = month(number, zones)
            totals = _totals(self._spent(org_id, Granularity.MONTH, of))
            wallets = self._wallets(org_id, of, now, totals)
            found.append({**_span(of), "wallets": wallets})
        return {"org_id": org_id, "as_of": format_time(freshness.as_of), "months": found}

    def burn_rate(self, org_id: str, now: int) -> Document | None:
        """For each wallet what it spends a day, and when it is used up if that goes on."""
        freshness = self._reads.freshness(org_id)
        if freshness is None:
            return None
        hour = now // HOUR_US * HOUR_US
        query = spent_since(org_id, hour - BURN_DAYS * DAY_US, hour - DAY_US)
        spent = {row["wallet"]: row for row in self._reads.rows(query)}
        wallets = [_forecast(row, spent.get(row["wallet"]), now) for row in self._reads.rows(counted(org_id))]
        return {"org_id": org_id, "as_of": format_time(freshness.as_of), "wallets": wallets}

    def spending(self, org_id: str, wallet: str, now: int) -> dict[str, Any]:
        """What a wallet has spent today, this week and this month (UTC), the month's limit, and whether it paid."""
        day = begin(Granularity.DAY, now, UTC)
        week = day - (day // DAY_US + DAYS_SINCE_MONDAY) % 7 * DAY_US
        month_start = begin(Granularity.MONTH, now, UTC)
        question = UsageQuestion(Granularity.DAY, min(week, month_start), day + DAY_US, UTC, (), {"wallet": [wallet]})
        found = self._reads.rows(usage(question, [org_id]))
        spent = [(row["span"], row["cost_sum"] - row["refunded_sum"]) for row in found]
        limits = {row["wallet"]: row for row in self._reads.rows(limit_amounts(org_id, TIME_MAX))}
        starts = {"daily": day, "weekly": week, "monthly": month_start}
        return {
            **{name: sum((cost for at, cost in spent if at >= start), Decimal(0)) for name, start in starts.items()},
            "allowed_limit": limits[wallet]["allowed_limit"] if wallet in limits else None,
            "has_paid": bool(self._reads.rows(paid(org_id))[0]["purchases"]),
        }

    def _spent(self, org_id: str, granularity: Granularity, of: Month) -> list[tuple[str, str, Row]]:
        """Local day or month, wallet and sums, in order."""
        question = UsageQuestion(granularity, of.starts_at, of.ends_at, of.time_zone)
        rows = self._reads.rows(usage(question, [org_id]))
        return [(local_text(row["span"], of.time_zone)[:10], row["wallet"], row) for row in rows]

    def _wallets(self, org_id: str, of: Month, now: int, totals: Mapping[str, Row]) -> list[Document]:
        is_current = of.starts_at <= now < of.ends_at
        ends_at = TIME_MAX if is_current else of.ends_at
        limits = {row["wallet"]: row for row in self._reads.rows(limit_amounts(org_id, ends_at))}
        by_ledger = {row["wallet"]: row["used"] for row in self._reads.rows(counted(org_id))} if is_current else {}
        return [
            _wallet(unit, totals.get(unit), limits.get(unit), by_ledger.get(unit))
            for unit in sorted(totals.keys() | by_ledger.keys())
        ]


def _wallet(unit: str, total: Row | None, limits: Row | None, by_ledger: Decimal | None) -> Document:
    occurred = Decimal(0) if total is None else total["cost_sum"] - total["refunded_sum"]
    used = occurred if by_ledger is None else by_ledger
    threshold = None if limits is None else limits["alert_threshold"]
    allowed = None if limits is None else limits["allowed_limit"]
    return {
        "wallet": unit,
        "used": decimal_text(used),
        "alert_threshold": _text(threshold),
        "allowed_limit": _text(allowed),
        "remaining": _text(None if allowed is None else allowed - used),
        "level": _level(used, threshold, allowed),
    }


def _level(used: Decimal, threshold: Decimal | None, allowed: Decimal | None) -> str:
    """As the bar of the month is coloured (product rule 14): `red` at the limit, `orange` at the alert threshold."""
    if allowed is not None and used >= allowed:
        return "red"
    return "orange" if threshold is not None and used >= threshold else "green"


def _forecast(balance: Row, spent: Row | None, now: int) -> Document:
    week = Decimal(0) if spent is None else spent["last_week"]
    first = now if spent is None or spent["first_us"] <= 0 else spent["first_us"]
    days = min(max(-(-(now - first) // DAY_US), 1), BURN_DAYS)
    per_day = max(week / days, Decimal(0))
    left = None if per_day == 0 else max(balance["available"] / per_day, Decimal(0))
    depletes_at = None if left is None else now + int(left * DAY_US)
    return {
        "wallet": balance["wallet"],
        "available": decimal_text(balance["available"]),
        "spent_last_day": decimal_text(Decimal(0) if spent is None else spent["last_day"]),
        "spent_last_week": decimal_text(week),
        "spent_per_day": decimal_text(round(per_day, 9)),
        "days_left": None if left is None else float(round(left, 1)),
        "depletes_at": None if depletes_at is None or depletes_at > TIME_MAX else format_time(depletes_at),
    }


def _totals(spent: Sequence[tuple[str, str, Row]]) -> dict[str, Row]:
    """The sums of each wallet."""
    found: dict[str, Row] = {}
    for _, unit, row in spent:
        total = found.setdefault(unit, dict.fromkeys(row, Decimal(0)))
        for name, value in row.items():
            if name.endswith("_sum"):
                total[name] += value
    return found


def _counts(row: Row) -> Document:
    return {
        "used": decimal_text(row["cost_sum"] - row["refunded_sum"]),
        "requests": int(row["requests_sum"]),
        "input_tokens": int(row["input_tokens_sum"]),
        "output_tokens": int(row["output_tokens_sum"]),
    }


def _span(of: Month) -> dict[str, Any]:
    return {
        "month": of.name,
        "time_zone": of.time_zone,
        "from": format_time(of.starts_at),
        "to": format_time(of.ends_at),
    }


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else decimal_text(amount)
