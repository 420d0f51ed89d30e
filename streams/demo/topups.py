"""Cards of the demonstration: organisations that top up by themselves, and what that must come to.

Rules of this file: pure. Usage comes in rounds; each takes every card below its threshold with its last event, and the
next begins when the ledger's requests are answered (`payments`). So what is asked for is known beforehand: once a
round, once more after a charge that failed, and not where the month's cap stands in the way.
"""

from __future__ import annotations

from typing import Any

from schemas.amounts import NANOS, format_amount
from schemas.enums import EntryKind, SettingKind
from streams.demo.organisations import CARDS, Settings, org_id, purchase
from streams.loadgen.price_list import USD
from streams.loadgen.tally import TOPUPS
from streams.loadgen.waves import Expected

BOUGHT_NANOS = 60 * NANOS
THRESHOLD_NANOS = 10 * NANOS
TOPUP_NANOS = 50 * NANOS
MONTHLY_CAP_NANOS = 500 * NANOS
SMALL_CAP_NANOS = 120 * NANOS
"""Room for two top-ups."""

BACKOFF_SECONDS = 2
ROUND_EVENT_NANOS = (11 * NANOS, 10 * NANOS, 10 * NANOS)
EVENTS_A_ROUND = 5

DECLINED = CARDS[:2]
"""Whose first charge fails."""
ANSWERED_TWICE = CARDS[5:7]
"""Whose charges are reported twice, byte for byte, as a payment service does that is not sure."""
CAPPED = CARDS[-3:]


def topup_settings(prefix: str, at: int) -> list[dict[str, Any]]:
    """Auto top-up of every card; to be sent when their first purchase is booked."""
    settings = Settings(prefix, at)
    for number in CARDS:
        body = {
            "unit": USD,
            "enabled": True,
            "threshold": format_amount(THRESHOLD_NANOS),
            "purchase_amount": format_amount(TOPUP_NANOS),
            "monthly_cap": format_amount(SMALL_CAP_NANOS if number in CAPPED else MONTHLY_CAP_NANOS),
            "backoff_seconds": BACKOFF_SECONDS,
        }
        settings.add(org_id(number), SettingKind.AUTO_TOPUP, body)
    return settings.records


def card_purchases(prefix: str, at: int) -> list[dict[str, Any]]:
    """What the cards have."""
    return [purchase(number, f"{prefix}-first", BOUGHT_NANOS, at) for number in CARDS]


def card_round(prefix: str, turn: int, at: int, expected: Expected) -> list[dict[str, Any]]:
    """The usage of a round (0, 1, 2) in the order of sending, and all that its top-ups must bring."""
    cost_nanos = ROUND_EVENT_NANOS[turn]
    records = [
        {
            "event_id": f"{prefix}-card{turn}-{event}-{org_id(number)}",
            "org_id": org_id(number),
            "occurred_at": at,
            "operation": "partner.call",
            "category": "partner",
            "cost_nanos": cost_nanos,
            "wallet": USD,
        }
        for event in range(EVENTS_A_ROUND)
        for number in CARDS
    ]
    expected.usage_cost_nanos[USD] += cost_nanos * len(records)
    capped = [number for number in CAPPED if (turn + 1) * TOPUP_NANOS > SMALL_CAP_NANOS]
    charged = [number for number in CARDS if number not in capped]
    declined = DECLINED if turn == 0 else ()
    twice = [number for number in charged if number in ANSWERED_TWICE]
    expected.works(TOPUPS, asked_for=len(charged) + len(declined), charged=len(charged))
    expected.works(TOPUPS, failed=len(declined), asked_again=len(declined), stopped_by_the_cap=len(capped))
    expected.added_nanos[USD] += TOPUP_NANOS * len(charged)
    expected.entries[EntryKind.PURCHASE.value] += len(charged) + len(declined)
    expected.duplicates += len(twice)
    expected.records += len(records) + len(charged) + len(declined) + len(twice)
    return records
