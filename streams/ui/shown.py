"""How amounts, counts and times look on a page. Pure.

The rules of this file:
1. An amount has two decimals and groups of three digits; below a hundredth it has all that it has, so that a cost is
   never shown as nothing. `exact` has all nine decimals, for hovering.
2. Minus is the sign of its own (U+2212), which is as wide as a plus and is not broken off.
3. A time is in the zone that it is shown with, in the order year, month, day. What is relative stands beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

from schemas.enums import Health

HUNDREDTH: Final = Decimal("0.01")
NANO: Final = Decimal("0.000000001")
NONE: Final = "–"

STATUS: Final = {
    "ok": ("●", "good"),
    "low": ("▼", "warn"),
    "limit_reached": ("■", "bad"),
    "depleted": ("○", "bad"),
    "negative": ("−", "bad"),
    "blocked": ("✕", "bad"),
}
"""Icon and colour of a wallet's status; its word stands beside them."""

HEALTH: Final = {
    "green": ("●", "good", "more than 75 % left"),
    "yellow": ("◐", "warn", "25–75 % left"),
    "orange": ("◆", "warn", "above the alert threshold"),
    "red": ("◔", "bad", "less than 25 % left"),
    "triangle": ("▲", "bad", "nothing left"),
}
"""Icon, colour and words of a wallet's health (product rule 14)."""
MONTH_USED_UP: Final = ("■", "bad", "month limit reached")
"""Red has two causes; this is the other one."""


def number_of(value: Any) -> Decimal | None:
    """An amount as a number; None for none."""
    if value is None or value == "":
        return None
    try:
        return value if isinstance(value, Decimal) else Decimal(str(value))
    except InvalidOperation:
        return None


def amount(value: Any) -> str:
    """An amount to read: 1,234.50."""
    number = number_of(value)
    if number is None:
        return NONE
    if number and abs(number) < HUNDREDTH:
        text = f"{abs(number).quantize(NANO):f}".rstrip("0")
    else:
        text = f"{abs(number).quantize(HUNDREDTH, ROUND_HALF_UP):,f}"
    return f"−{text}" if number < 0 else text


def exact(value: Any, unit: str = "") -> str:
    """An amount with all nine decimals and its unit."""
    number = number_of(value)
    if number is None:
        return ""
    text = f"{abs(number).quantize(NANO):,f}"
    return f"{'−' if number < 0 else ''}{text} {unit}".rstrip()


def count(value: Any) -> str:
    """A whole number in groups of three digits."""
    return NONE if value is None else f"{int(value):,}"


def words(name: Any) -> str:
    """A name of the wire to read: `limit_reached` is "limit reached"."""
    return str(name).replace("_", " ")


def health_of(wallet: Mapping[str, Any]) -> tuple[str, str, str]:
    """Icon, colour and words of the health of a wallet with `health`, `available` and `allocation`."""
    available, allocation = number_of(wallet["available"]), number_of(wallet["allocation"])
    if wallet["health"] == Health.RED and available is not None and allocation and available * 4 >= allocation:
        return MONTH_USED_UP
    return HEALTH[wallet["health"]]


def setting_text(body: str) -> str:
    """The fields of a setting in one line: `alert threshold 30, allowed limit 60`."""
    try:
        fields = json.loads(body)
    except ValueError:
        return body
    return ", ".join(f"{words(name)} {_plain(value)}" for name, value in fields.items())


def _plain(value: Any) -> str:
    if isinstance(value, list) and not any(isinstance(each, dict | list) for each in value):
        return " and ".join(map(str, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def moment(value: Any, zone: str = "UTC") -> str:
    """A time to the second, in `zone`: 2026-11-28 14:03:07."""
    at = _time(value)
    return NONE if at is None else at.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S")


def day(value: Any, zone: str = "UTC") -> str:
    """The day of a time, in `zone`."""
    return moment(value, zone)[:10]


def ago(value: Any, now: datetime) -> str:
    """How long ago a time was, in the largest unit that fits: `4 s`, `3 min`, `2 days`."""
    at = _time(value)
    if at is None:
        return NONE
    seconds = max(0, int((now - at).total_seconds()))
    for size, name in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {name}"
    return f"{seconds} s"


def segment(text: str) -> str:
    """A text as one segment of an address; see `streams.api.paths`."""
    return quote(text, safe="") if text.strip(".") else text.replace(".", "%2E")


def _time(value: Any) -> datetime | None:
    if value is None or value == "":
        return None
    if isinstance(value, int):
        return datetime.fromtimestamp(value / 1_000_000, UTC)
    found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
