"""The whole demonstration as data: phases of waves, from one seed.

Rules of this file: a pure function of (seed, number of usage events, base time). The base time moves every
`occurred_at` and `expires_at` alike, and chooses time zones in which it is day, and nothing else: counts, sums and ids
are the same on every day. All times lie in one day of every time zone that an organisation has, so that no window and
no month ends in between. What is expected is said where the records are made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from schemas.amounts import NANOS
from schemas.enums import (
    ActorRole,
    EntryKind,
    EntryReason,
    InputKind,
    PurchaseStatus,
    RefundTarget,
    RejectReason,
    SettingKind,
)
from streams.demo.corrections import corrected
from streams.demo.debts import asks, asks_again, debtor_purchases, debtor_settings, pays, spends_first, spends_then
from streams.demo.holds import agent_purchases, agent_settings, asked_by_agents, late_work
from streams.demo.limits import limit_settings, reached
from streams.demo.organisations import (
    ACTIVE,
    QUIET,
    QUIET_PURCHASE_NANOS,
    SLEEPING,
    Settings,
    alert_settings,
    bought_nanos,
    opening_purchases,
    opening_settings,
    org_id,
    purchase,
    time_zones,
    transfer_pairs,
)
from streams.demo.topups import card_purchases, card_round, topup_settings
from streams.demo.usage import Booked, usage_wave
from streams.loadgen.price_list import USD, has_own_price, own_prices, price_list
from streams.loadgen.tally import EXPIRIES
from streams.loadgen.waves import Expected, Phase, Wave, wave_of

WINDOW_US = 6 * 3600 * 1_000_000
"""The usage spreads over so much time before the base time."""

LIVE_PERCENT = 20
"""Part of the usage that is sent at a steady rate; the rest goes as fast as it can."""

TRANSFER_NANOS = 5 * NANOS
TOO_MUCH_NANOS = 10**6 * NANOS
QUIET_REFUND_NANOS = 20 * NANOS


def script(seed: int, usage_events: int, base_at: int) -> list[Phase]:
    """The phases in sending order. `base_at`: the time of the run, in microseconds."""
    prefix = f"d{seed}"
    start_at = base_at - WINDOW_US
    live_events = usage_events * LIVE_PERCENT // 100
    middle_at = start_at + (base_at - start_at) * LIVE_PERCENT // 100
    live = usage_wave(seed, f"{prefix}-live", live_events, start_at, middle_at)
    burst = usage_wave(seed + 1, f"{prefix}-burst", usage_events - live_events, middle_at, base_at)
    limits = reached(live.spent + burst.spent, usage_events)
    burst.expected.add(limits)
    phases = [
        _prices(),
        _settings(prefix, usage_events, start_at, time_zones(base_at)),
        _purchases(prefix, usage_events, start_at, base_at),
        _rules(prefix, usage_events, start_at),
        _first_work(prefix, start_at),
        _holds(prefix, start_at, base_at),
        Phase("live", "usage at a steady rate", [live.wave], live.expected, paced=True, settled=True),
        _moves(prefix, live.sample[::2], middle_at),
        _second_thoughts(prefix, live.sample[1::2], middle_at),
        Phase("burst", "usage as fast as it goes", [burst.wave], burst.expected, settled=True),
        _last_thoughts(prefix, burst.sample[1::2], base_at),
        _closing(prefix, usage_events, burst.sample[::2], base_at),
    ]
    for phase in phases:
        phase.waves = [wave for wave in phase.waves if len(wave)]
    return phases


def _prices() -> Phase:
    records = list(price_list())
    return Phase("prices", "the price list", [wave_of(InputKind.PRICE, records)], Expected(records=len(records)))


def _settings(prefix: str, usage_events: int, at: int, zones: Sequence[str]) -> Phase:
    """Organisations and wallets, prices of their own; and some who try what they may not, or write nonsense."""
    settings = Settings(f"{prefix}-try", at)
    for number in (7, 17, 27):
        body = {"unit": USD, "allowance": "1000000"}
        settings.add(org_id(number), SettingKind.WALLET, body, role=ActorRole.MEMBER, actor="mallory")
    for number in (8, 18):
        settings.add(org_id(number), SettingKind.WALLET, {"unit": USD, "alowance": "5"})
    settings.add(org_id(28), SettingKind.MONTH_LIMITS, {"unit": USD, "alert_threshold": "9", "allowed_limit": "8"})
    own = Settings(f"{prefix}-own", at)
    for number in filter(has_own_price, range(1, ACTIVE + 1)):
        for body in own_prices():
            own.add(org_id(number), SettingKind.PRICE_OVERRIDE, body)
    records = opening_settings(f"{prefix}-open", usage_events, at, zones) + settings.records + own.records
    records += agent_settings(f"{prefix}-agent", at) + debtor_settings(f"{prefix}-debtor", at)
    expected = Expected(records=len(records))
    expected.rejected[RejectReason.NOT_AUTHORIZED.value] = 3
    expected.rejected[RejectReason.INVALID_SETTING.value] = 3
    return Phase("settings", "500 organisations and their wallets", [wave_of(InputKind.SETTING, records)], expected)


def _purchases(prefix: str, usage_events: int, at: int, base_at: int) -> Phase:
    """What everybody buys and is given; every tenth purchase of the first hundred is sent twice."""
    records = opening_purchases(prefix, usage_events, at)
    for record in records:
        if "welcome" in record["purchase_id"]:
            record["expires_at"] += base_at - at
    records += agent_purchases(prefix, at) + card_purchases(prefix, at) + debtor_purchases(prefix, at)
    expected = Expected(records=len(records))
    expected.entries[EntryKind.PURCHASE.value] += len(records)
    expected.entries[EntryKind.EXPIRY.value] += SLEEPING
    expected.at_work[EXPIRIES] = Counter({EntryReason.GRANT_EXPIRED.value: SLEEPING})
    for record in records:
        expected.added_nanos[record["wallet"]] += record["amount_nanos"]
    wave = wave_of(InputKind.PURCHASE, records)
    _repeat(wave, expected, range(0, 100, 10))
    return Phase("purchases", "purchases, free trials, expiring gifts", [wave], expected)


def _repeat(wave: Wave, expected: Expected, positions: range) -> None:
    """Send the records at these positions once more, at the end."""
    for earlier in positions:
        position = len(wave)
        for column in wave.columns.values():
            column.append(column[earlier])
        wave.repeats[position] = earlier
        expected.records += 1
        expected.duplicates += 1


def _refund(refund_id: str, number: int, target: RefundTarget, target_id: str, nanos: int, at: int) -> dict[str, Any]:
    return {
        "refund_id": refund_id,
        "org_id": org_id(number),
        "occurred_at": at,
        "target": target.value,
        "target_id": target_id,
        "amount_nanos": nanos,
        "reason": "demonstration",
    }


def _rules(prefix: str, usage_events: int, at: int) -> Phase:
    """Alert rules and limits of the active, auto top-up of the cards; the quiet give back a part of what they bought,
    some more than they have."""
    records = []
    expected = Expected()
    for number in range(ACTIVE + 1, ACTIVE + QUIET + 1):
        bought = f"{prefix}-first-{org_id(number)}"
        back_id = f"{prefix}-back-{org_id(number)}"
        records.append(_refund(back_id, number, RefundTarget.PURCHASE, bought, QUIET_REFUND_NANOS, at))
        expected.taken_back_nanos[USD] += QUIET_REFUND_NANOS
        if number % 10 == 0:
            more = f"{prefix}-more-{org_id(number)}"
            records.append(_refund(more, number, RefundTarget.PURCHASE, bought, QUIET_PURCHASE_NANOS, at))
            expected.rejected[RejectReason.EXCEEDS_REFUNDABLE.value] += 1
        if number % 10 == 5:
            lost = f"{prefix}-lost-{org_id(number)}"
            records.append(_refund(lost, number, RefundTarget.PURCHASE, "never-bought", NANOS, at))
            expected.rejected[RejectReason.UNKNOWN_PURCHASE.value] += 1
    settings = alert_settings(f"{prefix}-rules", at) + topup_settings(f"{prefix}-card", at)
    settings += limit_settings(f"{prefix}-limit", usage_events, at)
    expected.records = len(records) + len(settings)
    waves = [wave_of(InputKind.REFUND, records), wave_of(InputKind.SETTING, settings)]
    return Phase("rules", "alert rules, limits, refunds of purchases", waves, expected)


def _first_work(prefix: str, at: int) -> Phase:
    """The cards' first round; the debtors spend more than they have."""
    expected = Expected()
    records = card_round(prefix, 0, at, expected) + spends_first(prefix, at, expected)
    return Phase("first work", "auto top-up, and a debt", [wave_of(InputKind.USAGE, records)], expected)


def _holds(prefix: str, at: int, base_at: int) -> Phase:
    """Credits held before work, in every way that it can go."""
    expected = Expected()
    records = asked_by_agents(f"{prefix}-h", at, base_at, expected) + asks(f"{prefix}-h", at, expected)
    return Phase("holds", "holds: placed, refused, captured, released", [wave_of(InputKind.HOLD, records)], expected)


def _moves(prefix: str, sample: list[Booked], at: int) -> Phase:
    """Transfers from the quiet to the dry, some that must be refused; refunds of usage of everybody else. The cards'
    second round; a hold taken by usage; the debtors cross their limit."""
    pairs = transfer_pairs()
    expected = Expected()
    records = [
        _transfer(f"{prefix}-t{p.source}", p.source, org_id(p.target), p.actor, TRANSFER_NANOS, at) for p in pairs
    ]
    refused = RejectReason.SAME_ORG, RejectReason.INSUFFICIENT_CREDITS, RejectReason.NOT_AUTHORIZED
    for pair in pairs[:5]:
        target = org_id(pair.target)
        name = f"{prefix}-no{pair.source}"
        records.append(_transfer(f"{name}-same", pair.source, org_id(pair.source), pair.actor, NANOS, at))
        records.append(_transfer(f"{name}-much", pair.source, target, pair.actor, TOO_MUCH_NANOS, at))
        records.append(_transfer(f"{name}-who", pair.source, target, "mallory", NANOS, at))
        expected.rejected.update(reason.value for reason in refused)
    apart = {pair.target for pair in pairs}
    refunds = _usage_refunds(prefix, [booked for booked in sample if booked.number not in apart], at, expected)
    transfers = wave_of(InputKind.TRANSFER, records)
    expected.records += len(records) + len(refunds)
    _repeat(transfers, expected, range(0, 3))
    work = card_round(prefix, 1, at, expected) + late_work(f"{prefix}-h", at, expected)
    work += spends_then(prefix, at, expected)
    waves = [transfers, wave_of(InputKind.REFUND, refunds), wave_of(InputKind.USAGE, work)]
    return Phase("moves", "transfers, refunds of usage, a second top-up", waves, expected)


def _second_thoughts(prefix: str, sample: list[Booked], at: int) -> Phase:
    """Corrections of the steady usage; the debtors ask and are refused."""
    expected = Expected()
    waves = [wave_of(InputKind.USAGE, corrected(sample, expected))]
    waves.append(wave_of(InputKind.HOLD, asks_again(f"{prefix}-h", at, expected)))
    return Phase("second thoughts", "corrections of usage", waves, expected)


def _last_thoughts(prefix: str, sample: list[Booked], at: int) -> Phase:
    """Corrections of the fast usage; the cards' third round, which the cap stops for some."""
    expected = Expected()
    waves = [wave_of(InputKind.USAGE, corrected(sample, expected))]
    waves.append(wave_of(InputKind.USAGE, card_round(prefix, 2, at, expected)))
    return Phase("last thoughts", "more corrections, a third top-up", waves, expected)


def _transfer(transfer_id: str, number: int, target_org_id: str, actor: str, nanos: int, at: int) -> dict[str, Any]:
    return {
        "transfer_id": transfer_id,
        "org_id": org_id(number),
        "target_org_id": target_org_id,
        "occurred_at": at,
        "wallet": USD,
        "amount_nanos": nanos,
        "actor": actor,
        "reason": "demonstration",
    }


def _usage_refunds(prefix: str, sample: list[Booked], at: int, expected: Expected) -> list[dict[str, Any]]:
    """Sampled usage is refunded: a half, then the rest, then a nano-unit more, by turns less far."""
    records = []
    for turn, booked in enumerate(sample):
        half_nanos = booked.cost_nanos // 2
        parts = [half_nanos, booked.cost_nanos - half_nanos, 1][: turn % 3 + 1]
        for part, nanos in enumerate(parts):
            refund_id = f"{prefix}-r{part}-{booked.event_id}"
            records.append(_refund(refund_id, booked.number, RefundTarget.USAGE, booked.event_id, nanos, at))
            if part < 2:
                expected.refunded_nanos[USD] += nanos
            else:
                expected.rejected[RejectReason.EXCEEDS_REFUNDABLE.value] += 1
    lost = _refund(f"{prefix}-r-lost", 1, RefundTarget.USAGE, f"{prefix}-never-happened", NANOS, at)
    expected.rejected[RejectReason.UNKNOWN_USAGE.value] += 1
    return [*records, lost]


def _closing(prefix: str, usage_events: int, sample: list[Booked], at: int) -> Phase:
    """The dry buy again, debtors pay; one charge fails; sampled usage of the burst of the others goes back."""
    expected = Expected()
    dry = [number for number in range(1, ACTIVE + 1) if number % 9 == 0]
    buys = [purchase(number, f"{prefix}-again", bought_nanos(number, usage_events), at) for number in dry]
    buys += pays(prefix, at)
    for record in buys:
        expected.added_nanos[USD] += record["amount_nanos"]
    failed = {"status": PurchaseStatus.FAILED.value, "failure_reason": "card_declined"}
    buys.append(purchase(dry[0], f"{prefix}-declined", 10 * NANOS, at, **failed))
    refunds = _usage_refunds(f"{prefix}-late", [booked for booked in sample if booked.number % 9], at, expected)
    expected.records = len(buys) + len(refunds)
    expected.entries[EntryKind.PURCHASE.value] += len(buys)
    waves = [wave_of(InputKind.PURCHASE, buys), wave_of(InputKind.REFUND, refunds)]
    return Phase("closing", "the dry buy again; late refunds", waves, expected, settled=True)
