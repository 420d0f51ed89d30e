"""The monthly statement of an org (product rule 24): opening, movements by kind, closing. Pure.

Rules of this file:
1. A month is a calendar month in the org's time zone, and begins once: at the first instant that is in it by the zone
   in force then. A zone that changes moves no month that has begun, so a statement of the past stays what it was.
2. An entry belongs to the month in which it was booked (`recorded_at`), as on a bank's statement: so the closing is the
   balance at that time, and the next month's opening. Late usage is in the month in which it came.
3. It adds up or it is not shown: opening + movements = closing, where opening and closing are the balances that the
   entries themselves say, and the movements are summed from their amounts.
4. Amounts are settled balances (product rule 6): credits on hold are still in them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from projections.invoices import decimal_text
from schemas.enums import EntryKind, EntryReason
from schemas.times import TIME_MAX, format_time
from streams.ledger.months import month_name, month_of, month_starts_at

UTC = "UTC"
FIRST_YEAR, LAST_YEAR = 1970, 2299

MOVEMENT_NAMES = {
    EntryKind.PURCHASE.value: "Credits bought",
    "promotional": "Free credits",
    EntryKind.ALLOWANCE.value: "Monthly allowance",
    EntryKind.ROLLOVER.value: "Allowance rolled over",
    EntryKind.TRANSFER_IN.value: "Transfers from other organisations",
    EntryKind.TRANSFER_RETURN.value: "Transfers that came back",
    EntryReason.USAGE_REFUNDED.value: "Refunds of usage",
    EntryKind.ADJUSTMENT.value: "Adjustments",
    EntryKind.CORRECTION.value: "Corrections of usage",
    EntryKind.USAGE.value: "Usage",
    EntryKind.TRANSFER_OUT.value: "Transfers to other organisations",
    EntryReason.PURCHASE_REFUNDED.value: "Refunds of purchases",
    EntryKind.EXPIRY.value: "Credits expired",
}
"""Kinds of movement and their names for people, in the order of a statement: what mostly adds, then what takes away."""


class StatementBrokenError(Exception):
    """Opening and movements do not add up to the closing: what is projected is not the ledger."""


@dataclass(frozen=True, slots=True)
class Month:
    """A month of an org: `number` as `streams.ledger.months` counts, from `starts_at` to before `ends_at` (UTC, µs).

    `time_zone`: the one in force at its end, or the latest that is known.
    """

    number: int
    time_zone: str
    starts_at: int
    ends_at: int

    @property
    def name(self) -> str:
        """ "2026-05"."""
        return month_name(self.number)


@dataclass(frozen=True, slots=True)
class Movement:
    """All movements of one kind in a month: how many entries, and their sum."""

    kind: str
    entries: int
    amount: Decimal


def parse_month(text: str) -> int:
    """The number of the month "2026-05"; ValueError, with a sentence for people, for anything else."""
    match = re.fullmatch(r"(\d{4})-(\d{2})", text, re.ASCII)
    if match is None or not 1 <= int(match[2]) <= 12 or not FIRST_YEAR <= int(match[1]) <= LAST_YEAR:
        raise ValueError(f"{text[:16]!r} is not a month such as 2026-05")
    return int(match[1]) * 12 + int(match[2]) - 1


def month(number: int, zones: Sequence[tuple[int, str]]) -> Month:
    """The month of an org. `zones`: (from when, time zone) in order of time, as its settings said; UTC before."""
    starts_at, ends_at = _starts_at(number, zones), _starts_at(number + 1, zones)
    return Month(number, zone_at(ends_at - 1, zones), starts_at, ends_at)


def month_at(at: int, zones: Sequence[tuple[int, str]]) -> Month:
    """The month of an org that an instant is in."""
    number = month_of(at, zone_at(at, zones))
    while _starts_at(number + 1, zones) <= at:  # the zone moved west after the month had begun
        number += 1
    return month(number, zones)


def zone_at(at: int, zones: Sequence[tuple[int, str]]) -> str:
    """The time zone in force at an instant."""
    return next((zone for since, zone in reversed(zones) if since <= at), UTC)


def _starts_at(number: int, zones: Sequence[tuple[int, str]]) -> int:
    """The first instant that is in the month or after it, by the zone in force at that instant."""
    spans = [(0, UTC), *zones]
    ends = [since for since, _ in zones]
    for (since, zone), until in zip(spans, [*ends, None], strict=True):
        starts_at = max(since, month_starts_at(number, zone))
        if until is None or starts_at < until:
            return min(starts_at, TIME_MAX)
    raise AssertionError("the last span has no end")


def wallet_statement(wallet: str, opening: Decimal, closing: Decimal, movements: Sequence[Movement]) -> dict[str, Any]:
    """A wallet's part of the statement. Raises `StatementBrokenError` where it does not add up."""
    moved = sum((each.amount for each in movements), Decimal(0))
    if opening + moved != closing:
        raise StatementBrokenError(f"{wallet}: {opening} and {moved} do not add up to {closing}")
    ordered = sorted(movements, key=lambda each: (_place(each.kind), each.kind))
    return {
        "wallet": wallet,
        "opening": decimal_text(opening),
        "movements": [
            {"kind": each.kind, "entries": each.entries, "amount": decimal_text(each.amount)} for each in ordered
        ],
        "movement": decimal_text(moved),
        "closing": decimal_text(closing),
    }


def statement_document(org_id: str, of: Month, as_of: int, wallets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The JSON of a statement. `as_of`: everything that was booked before that is in it, µs (product rule 34)."""
    return {
        "org_id": org_id,
        "month": of.name,
        "time_zone": of.time_zone,
        "from": format_time(of.starts_at),
        "to": format_time(of.ends_at),
        "as_of": format_time(as_of),
        "wallets": list(wallets),
    }


def _place(kind: str) -> int:
    kinds = list(MOVEMENT_NAMES)
    return kinds.index(kind) if kind in MOVEMENT_NAMES else len(kinds)
