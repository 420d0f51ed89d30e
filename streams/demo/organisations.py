"""The 500 organisations of the demonstration: who they are, how they pay, what their rules are.

Rules of this file: pure functions of the number of usage events and of the base time. The parts of the 500:

- active ones (`org-001` to `org-410`) use models and tools; a few have much of the traffic. What they paid is a share
  of what they will spend, from half of it (they run dry) to twenty times. Some have budgets (`limits`), some month
  limits, some prices of their own.
- quiet ones (`org-411` to `org-440`) buy credits, give some back, and pass some on to an active one.
- sleeping ones (`org-441` to `org-470`) got free credits that expire a moment after the start, and do nothing.
- agents (`org-471` to `org-480`) hold credits before they work (`holds`), cards (`org-481` to `org-490`) top up by
  themselves (`topups`), debtors (`org-491` to `org-500`) may go below zero (`debts`).

It is the middle of the day in every organisation's time zone, so no day and no month ends anywhere during a run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from schemas.amounts import NANOS, format_amount
from schemas.enums import ActorRole, Channel, PurchaseKind, SettingKind
from streams.loadgen.price_list import MODEL_CREDITS, TOOL_RUNS, USD

ACTIVE = 410
QUIET = 30
SLEEPING = 30
ORGS = 500
AGENTS = range(471, 481)
CARDS = range(481, 491)
DEBTORS = range(491, 501)

CENT_NANOS = NANOS // 100
AVERAGE_COST_NANOS = 7_300_000
"""What one usage event costs on average, over all kinds: it sets how much the organisations buy."""

FUNDING_PERCENT = (50, 95, 101, 104, 120, 150, 200, 500, 2_000)
"""How much of its expected spend an active organisation has bought, by turns."""

ALLOWANCE_NANOS = NANOS
FREE_TRIAL_NANOS = 5 * NANOS
QUIET_PURCHASE_NANOS = 500 * NANOS
TIERS = ("free", "pro", "scale")
TIME_ZONES = (
    "UTC",
    "Europe/Madrid",
    "America/New_York",
    "Asia/Tokyo",
    "America/Los_Angeles",
    "Australia/Sydney",
    "Asia/Kolkata",
    "America/Sao_Paulo",
    "Asia/Dubai",
    "Pacific/Honolulu",
    "Pacific/Auckland",
    "Asia/Bangkok",
)
DAYTIME_HOURS = range(7, 23)
ZONES_USED = 4
SLEEPERS_EXPIRE_AFTER_US = 12_000_000
PERCENT_LEVELS = (20, 50, 70, 80, 90, 100)


def org_id(number: int) -> str:
    """Id of the organisation with this number (from 1)."""
    return f"org-{number:03d}"


def traffic_weight(number: int) -> int:
    """Share of the traffic of an active organisation: the n-th has about 1/n of it."""
    return 10**9 // (number + 10)


TRAFFIC_TOTAL = sum(traffic_weight(number) for number in range(1, ACTIVE + 1))


def time_zones(base_at: int) -> tuple[str, ...]:
    """Four time zones in which the six hours before the run and the hour after it are of one day."""
    now = datetime.fromtimestamp(base_at // 1_000_000, UTC)
    daytime = [zone for zone in TIME_ZONES if now.astimezone(ZoneInfo(zone)).hour in DAYTIME_HOURS]
    return tuple(daytime[:ZONES_USED])


@dataclass(frozen=True, slots=True)
class TransferPair:
    """A quiet organisation that gives, an active one that takes, and who administers both."""

    source: int
    target: int
    actor: str


def transfer_pairs() -> list[TransferPair]:
    """One for each quiet organisation; no organisation takes part twice, so that the order does not matter."""
    return [TransferPair(ACTIVE + 1 + index, 9 * (1 + index), f"treasurer-{index + 1:02d}") for index in range(QUIET)]


def spend_nanos(number: int, usage_events: int) -> int:
    """What an active organisation is going to spend, about."""
    return usage_events * AVERAGE_COST_NANOS * traffic_weight(number) // TRAFFIC_TOTAL


def bought_nanos(number: int, usage_events: int) -> int:
    """What an active organisation buys before its usage: a share of what it is going to spend, at least 1 dollar."""
    percent = FUNDING_PERCENT[number % len(FUNDING_PERCENT)]
    return max(NANOS, spend_nanos(number, usage_events) * percent // 100 // CENT_NANOS * CENT_NANOS)


def has_allowance(number: int) -> bool:
    """Whether the organisation has a monthly allowance in dollars."""
    return number % 4 == 0


class Settings:
    """Makes setting records with running ids."""

    def __init__(self, prefix: str, at: int) -> None:
        self._prefix = prefix
        self._at = at
        self.records: list[dict[str, Any]] = []

    def add(
        self,
        org: str,
        kind: SettingKind,
        body: dict[str, Any],
        *,
        role: ActorRole = ActorRole.SYSTEM,
        actor: str = "onboarding",
    ) -> None:
        """One more setting; the body goes as JSON with sorted keys."""
        self.records.append(
            {
                "setting_id": f"{self._prefix}-{len(self.records) + 1:05d}",
                "org_id": org,
                "occurred_at": self._at,
                "actor": actor,
                "actor_role": role.value,
                "kind": kind.value,
                "body": json.dumps(body, sort_keys=True, separators=(",", ":")),
            }
        )


def opening_settings(prefix: str, usage_events: int, at: int, zones: Sequence[str]) -> list[dict[str, Any]]:
    """Time zone, administrators and tier of every organisation, and the wallets of the active ones."""
    settings = Settings(prefix, at)
    treasurers = {pair.source: pair.actor for pair in transfer_pairs()}
    treasurers |= {pair.target: pair.actor for pair in transfer_pairs()}
    for number in range(1, ORGS + 1):
        administrators = [f"admin-{(number + 9) // 10:02d}"]
        if number in treasurers:
            administrators.append(treasurers[number])
        body = {
            "time_zone": zones[number % len(zones)],
            "administrators": administrators,
            "tier": TIERS[number % len(TIERS)],
        }
        settings.add(org_id(number), SettingKind.ORG, body)
        if number <= ACTIVE:
            low_nanos = bought_nanos(number, usage_events) // 5 // CENT_NANOS * CENT_NANOS
            dollars = {"unit": USD, "default": True, "low_balance_threshold": format_amount(low_nanos)}
            if has_allowance(number):
                dollars["allowance"] = format_amount(ALLOWANCE_NANOS)
            settings.add(org_id(number), SettingKind.WALLET, dollars)
            settings.add(org_id(number), SettingKind.WALLET, {"unit": TOOL_RUNS, "allowance": "10000"})
            settings.add(org_id(number), SettingKind.WALLET, {"unit": MODEL_CREDITS, "allowance": "75"})
    return settings.records


def alert_settings(prefix: str, at: int) -> list[dict[str, Any]]:
    """Alert rules of every second active organisation: percent used, as banners and mails, and an amount."""
    settings = Settings(prefix, at)
    for number in range(2, ACTIVE + 1, 2):
        rules = [
            {
                "rule_id": f"used-{level}",
                "type": "used_percent",
                "level": str(level),
                "channels": [Channel.BANNER.value, Channel.EMAIL.value],
                "dismissable": level < 100,
            }
            for level in PERCENT_LEVELS
        ]
        amount = {
            "rule_id": "last-dime",
            "type": "balance_at_or_below",
            "level": "0.1",
            "channels": [Channel.WEBHOOK.value],
            "dismissable": False,
        }
        settings.add(org_id(number), SettingKind.THRESHOLDS, {"unit": USD, "rules": [*rules, amount]})
    return settings.records


def purchase(number: int, name: str, amount_nanos: int, at: int, **fields: Any) -> dict[str, Any]:
    """A purchase record; `name` is unique within the organisation."""
    record: dict[str, Any] = {
        "purchase_id": f"{name}-{org_id(number)}",
        "org_id": org_id(number),
        "occurred_at": at,
        "wallet": USD,
        "amount_nanos": amount_nanos,
        "kind": PurchaseKind.PURCHASED.value,
        "price_paid_nanos": amount_nanos,
        "currency": USD,
    }
    record.update(fields)
    return record


def opening_purchases(prefix: str, usage_events: int, at: int) -> list[dict[str, Any]]:
    """What everybody has when the usage begins: purchases, free trials, and free credits that expire."""
    gift: dict[str, Any] = {"kind": PurchaseKind.PROMOTIONAL.value, "price_paid_nanos": None, "currency": None}
    records = []
    for number in range(1, ACTIVE + 1):
        records.append(purchase(number, f"{prefix}-first", bought_nanos(number, usage_events), at))
        if number % 5 == 0:
            month_us = 30 * 24 * 3600 * 1_000_000
            trial = {**gift, "expires_at": at + month_us}
            records.append(purchase(number, f"{prefix}-trial", FREE_TRIAL_NANOS, at, **trial))
    quiet = range(ACTIVE + 1, ACTIVE + QUIET + 1)
    records += [purchase(number, f"{prefix}-first", QUIET_PURCHASE_NANOS, at) for number in quiet]
    for number in range(ACTIVE + QUIET + 1, ACTIVE + QUIET + SLEEPING + 1):
        expiring = {**gift, "expires_at": at + SLEEPERS_EXPIRE_AFTER_US}
        records.append(purchase(number, f"{prefix}-welcome", FREE_TRIAL_NANOS, at, **expiring))
    return records
