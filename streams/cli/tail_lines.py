"""What `credits tail` follows, as lines for people: one a record, in columns, the sentence and the id last.

Rules of this file: pure; a row holds a record's fields and `recorded_at`, in microseconds. A column that means
nothing in a record stays empty (an entry that is about no wallet has no balance).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from schemas.amounts import format_amount
from schemas.enums import EntryKind
from schemas.times import format_time

Row = dict[str, Any]

ORG_WIDTH, WALLET_WIDTH, AMOUNT_WIDTH = 16, 13, 14
HOLDS = (EntryKind.HOLD, EntryKind.HOLD_RELEASE)


class What(StrEnum):
    """What can be followed."""

    LEDGER = "ledger"
    ALERTS = "alerts"
    DEAD_LETTERS = "dead-letters"
    DECISIONS = "decisions"
    TOPUP_REQUESTS = "topup-requests"


def entry_line(row: Row) -> str:
    """A ledger entry: its org and number, what it did to the wallet, and why."""
    head = f"{_clock(row)}  {row['org_id']:<{ORG_WIDTH}} {row['seq']:>7}  {row['kind']:<15}"
    money = " " * (2 * AMOUNT_WIDTH + WALLET_WIDTH + 10)
    if row["wallet"]:
        moved, left = format_amount(row["amount_nanos"]), format_amount(row["balance_nanos"])
        money = f"{moved:>{AMOUNT_WIDTH}} {row['wallet']:<{WALLET_WIDTH}} balance {left:>{AMOUNT_WIDTH}}"
    details = _details(row)
    return _joined(f"{head} {money} ", _held(row, details), *_happened(row, details), row["event_id"])


def _details(row: Row) -> Mapping[str, Any]:
    details = json.loads(row["details"]) if row["details"] else {}
    return details if isinstance(details, dict) else {}


def _held(row: Row, details: Mapping[str, Any]) -> str:
    """What is held and what that leaves, where a hold is the subject or anything is held; of a hold its own amount."""
    if row["kind"] not in HOLDS and not row["held_nanos"]:
        return ""
    own = f"for {format_amount(details['amount_nanos'])}, " if "asked_nanos" in details else ""
    return f"{own}held {format_amount(row['held_nanos'])}, available {format_amount(row['available_nanos'])};"


def _happened(row: Row, details: Mapping[str, Any]) -> list[str]:
    """Why, or with what, in the words of the kind."""
    dimensions = [row[name] or "" for name in ("operation", "model", "tool")]
    other, reason = row["counterparty_org_id"], row["reason"] or ""
    match row["kind"]:
        case EntryKind.SETTING:
            return [f"{details.get('kind', '')} by {row['actor']}"]
        case EntryKind.REJECTED:
            about = f"{details['kind']} by {row['actor']}:" if "body" in details else ""
            return [*dimensions, about, _with(reason, details.get("message"))]
        case EntryKind.TRANSFER_OUT:
            return [f"to {other}" if row["amount_nanos"] else f"arrived at {other}"]
        case EntryKind.TRANSFER_IN:
            return [f"from {other}"]
        case EntryKind.TRANSFER_RETURN:
            return [f"back from {other}:" if reason else f"back from {other}", reason]
        case EntryKind.PURCHASE:
            return [_with(reason, details.get("failure_reason"))]
        case EntryKind.USAGE | EntryKind.CORRECTION:
            return [*dimensions, reason, how_it_came(row["components"])]
        case _:
            return [*dimensions, reason]


def how_it_came(components: Sequence[Row]) -> str:
    """How a cost came to be: each quantity, its unit price and what it costs; empty where it was given upstream."""
    told = "; ".join(
        f"{part['meter']} {format_amount(part['quantity_nanos'])} at {format_amount(part['unit_price_nanos'])}"
        f" a {part['billing_unit']} = {format_amount(part['amount_nanos'])}"
        for part in components
    )
    return f"({told})" if told else ""


def _with(reason: str, sentence: object) -> str:
    return f"{reason}: {sentence}" if sentence else reason


def alert_line(row: Row) -> str:
    """An alert: which line was crossed, and what is left."""
    level = f" at {row['level']}" if row["level"] else ""
    head = f"{_clock(row)}  {row['org_id']:<{ORG_WIDTH}} {row['wallet']:<{WALLET_WIDTH}} {row['kind']}{level}"
    return _joined(head, f" available {format_amount(row['available_nanos'])} ", row["message"])


def letter_line(row: Row) -> str:
    """A dead letter: why, and from where."""
    head = f"{_clock(row)}  {row['id']:<10} {row['code']:<34} {row['topic']}"
    return f"{head}  {row['org_id']}  {row['message']}".rstrip()


def decision_line(row: Row) -> str:
    """The answer to a hold: allowed or why not, how much was granted, and what is available."""
    answer = f"{'allowed' if row['allowed'] else row['code']} {row['http_status']}"
    head = f"{_clock(row)}  {row['org_id']:<{ORG_WIDTH}} {row['action']:<7} {answer:<25}"
    granted, available = format_amount(row["granted_nanos"]), format_amount(row["available_nanos"])
    money = f"granted {granted:>{AMOUNT_WIDTH}} available {available:>{AMOUNT_WIDTH}}"
    limit, message = row["limit_id"] or "", row["message"] or ""
    named = f"limit {limit}:" if limit not in message else ""  # most sentences name it
    return _joined(f"{head} {money} ", named, message, row["hold_id"])


def request_line(row: Row) -> str:
    """A top-up request: how much the payment service is asked to charge, and why."""
    head = f"{_clock(row)}  {row['org_id']:<{ORG_WIDTH}} {row['wallet']:<{WALLET_WIDTH}}"
    return f"{head} {format_amount(row['amount_nanos']):>{AMOUNT_WIDTH}}  {row['reason']:<18} {row['topup_request_id']}"


LINES: Mapping[What, Callable[[Row], str]] = {
    What.LEDGER: entry_line,
    What.ALERTS: alert_line,
    What.DEAD_LETTERS: letter_line,
    What.DECISIONS: decision_line,
    What.TOPUP_REQUESTS: request_line,
}
"""The line of each."""


def _clock(row: Row) -> str:
    return format_time(row["recorded_at"])[:19].replace("T", " ")


def _joined(*words: str) -> str:
    return " ".join(word for word in words if word).rstrip()
