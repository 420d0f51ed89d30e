"""The entries of an organisation, a page at a time, and its balance cards (product rules 29 and 30).

Rules of this file:
1. A page goes on behind the last entry's number. Entries that are booked meanwhile have higher numbers, so a walk in
   either order meets each entry once, and what was there at its start without a gap.
2. Without `kinds` a list holds what moved a settled balance; with them, every entry of those kinds.
3. Time is the time of booking, as on a statement. An item of a day is listed by when the usage occurred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from projections.queries import Query
from projections.reads import PAGE, Document, Reads, document_of, page_of, read_cursor, write_cursor
from projections.spans import DAY_US, Granularity, cut, local_text
from projections.usage_reports import FUTURE_US, OF_USAGE
from schemas.settings_bodies import WalletBody
from schemas.times import format_time

LATEST_MAX: Final = 5
"""Movements on a card."""
WALLETS_MAX: Final = 100
"""Cards of one org; an answer asks for the movements of each."""


class Order(StrEnum):
    """Which entry comes first."""

    NEWEST_FIRST = "desc"
    OLDEST_FIRST = "asc"


class Flow(StrEnum):
    """Which way an entry moved the balance."""

    IN = "in"
    OUT = "out"


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries are listed; None and empty: all. Times: microseconds UTC, the end not included."""

    kinds: Sequence[str] = ()
    wallet: str | None = None
    direction: Flow | None = None
    starts_at: int | None = None
    ends_at: int | None = None
    order: Order = Order.NEWEST_FIRST


_COLUMNS: Final = (
    "seq", "kind", "reason", "wallet", "amount", "balance", "available", "held",
    "toUnixTimestamp64Micro(occurred_at) AS occurred_at_us", "toUnixTimestamp64Micro(recorded_at) AS recorded_at_us",
    "event_id", "correlation_id", "hold_id", "counterparty_org_id", "actor",
    "operation", "category", "project_id", "user_id", "team", "department", "model", "tool", "provider", "endpoint",
    "deployment", "input_tokens", "output_tokens", "quantity", "billing_unit", "unit_price", "output_unit_price",
    "revision", "slices",
)  # fmt: skip

_ITEM_COLUMNS: Final = (
    "seq", "toUnixTimestamp64Micro(occurred_at) AS occurred_at_us", "kind", "wallet", "category", "operation", "model",
    "tool", "user_id", "project_id", "input_tokens", "output_tokens", "quantity", "billing_unit", "unit_price",
    "output_unit_price", "-amount AS cost", "event_id",
)  # fmt: skip


def transactions(org_id: str, wanted: EntryFilter, after: int | None, rows_max: int) -> Query:
    """A page of entries behind the entry `after` in the order asked for."""
    conditions, parameters = ["org_id = {org:String}"], {"org": org_id, "rows": rows_max}
    if wanted.kinds:
        conditions.append("kind IN {kinds:Array(String)}")
    elif wanted.direction is None:
        conditions.append("amount != 0")
    if wanted.direction is not None:
        conditions.append("amount > 0" if wanted.direction is Flow.IN else "amount < 0")
    if wanted.wallet is not None:
        conditions.append("wallet = {wallet:String}")
    for column, operator, value in (("starts", ">=", wanted.starts_at), ("ends", "<", wanted.ends_at)):
        if value is not None:
            conditions.append(f"recorded_at {operator} fromUnixTimestamp64Micro({{{column}:Int64}}, 'UTC')")
            parameters[column] = value
    if after is not None:
        conditions.append("seq < {after:UInt64}" if wanted.order is Order.NEWEST_FIRST else "seq > {after:UInt64}")
    given: dict[str, Any] = {"kinds": list(wanted.kinds), "wallet": wanted.wallet, "after": after}
    order = wanted.order.value.upper()
    return Query(
        f"SELECT {', '.join(_COLUMNS)} FROM ledger WHERE {' AND '.join(conditions)}"
        f" ORDER BY org_id {order}, seq {order} LIMIT 1 BY org_id, seq LIMIT {{rows:UInt64}}",
        parameters | {name: value for name, value in given.items() if value is not None},
    )


def latest_movements(org_id: str, wallet: str) -> Query:
    """The latest movements of a wallet: read from the end of the org's entries, so its age does not matter."""
    columns = "seq, kind, reason, amount, balance, toUnixTimestamp64Micro(recorded_at) AS recorded_at_us, event_id"
    return Query(
        f"SELECT {columns} FROM ledger WHERE org_id = {{org:String}} AND wallet = {{wallet:String}} AND amount != 0"
        f" ORDER BY org_id DESC, seq DESC LIMIT 1 BY org_id, seq LIMIT {LATEST_MAX}",
        {"org": org_id, "wallet": wallet},
    )


def low_thresholds(org_id: str) -> Query:
    """wallet, threshold: the available balance at or below which a wallet counts as low, where a setting says one."""
    return Query(
        "SELECT subject AS wallet, coalesce("
        "maxIf(toNullable(ifNull(toDecimal128OrNull(JSONExtractString(body, 'threshold'), 9), toDecimal128(0, 9))),"
        " kind = 'auto_topup' AND JSONExtractBool(body, 'enabled')),"
        " maxIf(toDecimal128OrNull(JSONExtractString(body, 'low_balance_threshold'), 9), kind = 'wallet')) AS threshold"
        " FROM v_settings WHERE org_id = {org:String} AND kind IN ('auto_topup', 'wallet') GROUP BY wallet",
        {"org": org_id},
    )


def day_items(org_id: str, starts_at: int, ends_at: int, after: int, rows_max: int) -> Query:
    """The usage that occurred in a span of time, in the order of booking, behind the entry `after`."""
    return Query(
        f"SELECT {', '.join(_ITEM_COLUMNS)} FROM ledger WHERE org_id = {{org:String}} AND seq > {{after:UInt64}}"
        " AND occurred_at >= fromUnixTimestamp64Micro({starts:Int64}, 'UTC')"
        " AND occurred_at < fromUnixTimestamp64Micro({ends:Int64}, 'UTC')"
        f" AND recorded_at >= fromUnixTimestamp64Micro({{booked:Int64}}, 'UTC') AND {OF_USAGE}"
        " ORDER BY org_id, seq LIMIT 1 BY org_id, seq LIMIT {rows:UInt64}",
        {
            "org": org_id,
            "after": after,
            "starts": starts_at,
            "ends": ends_at,
            "booked": max(0, starts_at - FUTURE_US),
            "rows": rows_max,
        },
    )


class Transactions:
    """Lists over a `Reads`. Each is None where no entry of the org is projected."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def page(
        self, org_id: str, wanted: EntryFilter, cursor: str | None = None, rows_max: int = PAGE
    ) -> Document | None:
        """A page: `org_id`, `as_of`, `transactions`, `next_cursor` (null: none follow). Raises `CursorError`."""
        kind = f"transactions-{wanted.order}"
        after = None if cursor is None else max(0, read_cursor(kind, cursor, int)[0])
        freshness = self._reads.freshness(org_id)
        if freshness is None:
            return None
        rows, more = page_of(self._reads.rows(transactions(org_id, wanted, after, rows_max + 1)), rows_max)
        return {
            "org_id": org_id,
            "as_of": format_time(freshness.as_of),
            "transactions": [_transaction(row) for row in rows],
            "next_cursor": write_cursor(kind, rows[-1]["seq"]) if more else None,
        }

    def day(self, org_id: str, starts_at: int, time_zone: str, cursor: str | None, rows_max: int) -> Document | None:
        """The items of the local day that begins at `starts_at`. Raises `CursorError`."""
        after = 0 if cursor is None else max(0, read_cursor("day", cursor, int)[0])
        freshness = self._reads.freshness(org_id)
        if freshness is None:
            return None
        ends_at = cut(Granularity.DAY, starts_at, starts_at + 3 * DAY_US, time_zone, spans_max=5)[1]
        found = self._reads.rows(day_items(org_id, starts_at, ends_at, after, rows_max + 1))
        rows, more = page_of(found, rows_max)
        return {
            "org_id": org_id,
            "as_of": format_time(freshness.as_of),
            "day": local_text(starts_at, time_zone)[:10],
            "time_zone": time_zone,
            "from": format_time(starts_at),
            "to": format_time(ends_at),
            "items": [document_of(row) for row in rows],
            "next_cursor": write_cursor("day", rows[-1]["seq"]) if more else None,
        }

    def cards(self, org_id: str, balance: Mapping[str, Any]) -> list[Document]:
        """A card for each wallet of a balance, as `GET /v1/orgs/{org}/balance` says it (product rule 29)."""
        thresholds = {row["wallet"]: row["threshold"] for row in self._reads.rows(low_thresholds(org_id))}
        return [
            card(
                wallet,
                thresholds.get(wallet["unit"]),
                [document_of(row) for row in self._reads.rows(latest_movements(org_id, wallet["unit"]))],
            )
            for wallet in balance["wallets"][:WALLETS_MAX]
        ]


def card(wallet: Mapping[str, Any], threshold: Decimal | None, movements: Sequence[Document]) -> Document:
    """A wallet's card. `low`: at or below its low balance threshold, though the status may say something worse."""
    status = wallet["status"]
    line = _default_threshold() if threshold is None else threshold
    is_low = status in ("low", "depleted", "negative") or (
        status in ("limit_reached", "blocked") and Decimal(wallet["available"]) <= line
    )
    names = ("unit", "settled", "held", "available", "lifetime_added", "lifetime_spent", "status", "health")
    return {**{name: wallet[name] for name in names}, "low": is_low, "movements": list(movements)}


def _default_threshold() -> Decimal:
    return Decimal(WalletBody.model_fields["low_balance_threshold_nanos"].default).scaleb(-9)


def _transaction(row: Mapping[str, Any]) -> Document:
    slices = [
        {"grant_id": each["grant_id"], "kind": each["kind"], "amount": document_of({"a": each["amount"]})["a"]}
        for each in row["slices"]
    ]
    return document_of({name: value for name, value in row.items() if name != "slices"}) | {"slices": slices}
