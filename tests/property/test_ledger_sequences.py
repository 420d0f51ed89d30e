"""Any sequence of operations, over three orgs and two units: what must hold after each of them.

Conservation per unit, numbers without gaps, no grant below zero, the fold of the ledger is the account to the byte, and
gives the same alerts with ids that never repeat.
"""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.enums import AlertKind, EntryKind, RefundTarget, SettingKind
from streams.ledger.account import encode_account
from streams.ledger.entry import Entry
from streams.ledger.usage import refresh_headroom
from tests.unit.ledger.world import DAY, World

ORGS = ("acme", "beta", "gone")
UNITS = ("USD", "EUR")
ZONES = ("UTC", "Asia/Tokyo", "America/Los_Angeles", "Pacific/Kiritimati")

org = st.sampled_from(ORGS)
unit = st.sampled_from(UNITS)
amount = st.sampled_from(("0.000000001", "1", "2.5", "7", "10", "19.999999999", "40", "100"))
days = st.sampled_from((None, 0, 1, 3, 20, 40))
level = st.sampled_from(("0", "5", "20", "50", "80", "100"))

rules = st.lists(
    st.tuples(
        st.sampled_from(("balance_at_or_below", "used_percent", "left_percent", "month_spend_above")),
        level,
    ),
    max_size=5,
)

operation = st.one_of(
    st.tuples(st.just("use"), org, unit, amount),
    st.tuples(st.just("use"), org, unit, amount),
    st.tuples(st.just("use"), org, unit, st.just("0")),
    st.tuples(st.just("buy"), org, unit, amount, days),
    st.tuples(st.just("give"), org, unit, amount, days, st.integers(0, 100)),
    st.tuples(st.just("adjust"), org, unit, amount, st.booleans()),
    st.tuples(st.just("send"), org, org, unit, amount),
    st.tuples(st.just("deliver")),
    st.tuples(st.just("deliver one")),
    st.tuples(st.just("refund purchase"), org, st.integers(0, 9), amount),
    st.tuples(st.just("refund usage"), org, st.integers(0, 9), amount),
    st.tuples(st.just("tick"), st.integers(0, 35 * DAY)),
    st.tuples(
        st.just("wallet"), org, unit, st.sampled_from(("0", "10", "50")), st.sampled_from(("0", "5", "100")), level
    ),
    st.tuples(st.just("rules"), org, unit, rules),
    st.tuples(st.just("org"), org, st.booleans(), st.sampled_from(ZONES)),
)


sequences = st.integers(1, 60).flatmap(lambda size: st.lists(operation, min_size=size, max_size=size))


def perform(world: World, step: tuple[object, ...]) -> None:
    match step:
        case ("use", str(who), str(where), str(much)):
            world.use(much, who, where)
        case ("buy", str(who), str(where), str(much), valid):
            world.buy(much, who, where, expires_at=_later(world, valid))
        case ("give", str(who), str(where), str(much), valid, int(priority)):
            world.give(much, who, where, expires_at=_later(world, valid), priority=priority)
        case ("adjust", str(who), str(where), str(much), bool(up)):
            world.buy(much if up else f"-{much}", who, where, kind="adjustment")
        case ("send", str(source), str(target), str(where), str(much)):
            world.send(much, source, target, unit=where)
        case ("deliver",):
            world.deliver()
        case ("deliver one",):
            if world.legs:
                world.do(world.legs.pop(0))
        case ("refund purchase", str(who), int(number), str(much)):
            world.refund(RefundTarget.PURCHASE, _nth(world, who, EntryKind.PURCHASE, number), much, who)
        case ("refund usage", str(who), int(number), str(much)):
            world.refund(RefundTarget.USAGE, _nth(world, who, EntryKind.USAGE, number), much, who)
        case ("tick", int(micros)):
            world.tick(micros)
        case ("wallet", str(who), str(where), str(allowance), str(rollover), str(low)):
            body = {"unit": where, "allowance": allowance, "rollover_max": rollover, "low_balance_threshold": low}
            world.set(SettingKind.WALLET, body, who)
        case ("rules", str(who), str(where), list(wanted)):
            watched = {
                "unit": where,
                "rules": [{"rule_id": f"r{n}", "type": kind, "level": at} for n, (kind, at) in enumerate(wanted)],
            }
            world.set(SettingKind.THRESHOLDS, watched, who)
        case ("org", str(who), bool(closed), str(zone)):
            terms = {"closed": closed, "time_zone": zone, "administrators": ["alice"]}
            world.set(SettingKind.ORG, terms, who)
        case _:
            raise AssertionError(step)


def _nth(world: World, who: str, kind: EntryKind, number: int) -> str:
    """The id of one of the org's purchases or usages; of none at all when there is none."""
    ids = [entry.event_id for entry in world.entries[who] if entry.kind is kind]
    return ids[number % len(ids)] if ids else "nothing"


def _later(world: World, valid: object) -> int | None:
    return world.at + valid * DAY if isinstance(valid, int) else None


def run(steps: list[tuple[object, ...]], world: World) -> World:
    for who in ORGS[:2]:
        world.set(SettingKind.ORG, {"administrators": ["alice"]}, who)
    for step in steps:
        perform(world, step)
    return world


@settings(max_examples=300, deadline=None)
@given(sequences)
def test_what_must_always_hold(steps: list[tuple[object, ...]]) -> None:
    world = run(steps, World())
    world.check()
    world.deliver()
    world.check()
    assert not any(account.transits for account in world.accounts.values())


@settings(max_examples=150, deadline=None)
@given(sequences)
def test_crossings_alternate_with_leaving(steps: list[tuple[object, ...]]) -> None:
    """A line of one version is crossed in epochs 1, 2, 3…; depletion and restoration take turns."""
    world = run(steps, World())
    epochs: dict[tuple[str, str, str, str | None, int], int] = {}
    depleted: dict[tuple[str, str], bool] = {}
    for alert in world.alerts:
        if alert.kind in (AlertKind.THRESHOLD_CROSSED, AlertKind.BALANCE_LOW, AlertKind.BALANCE_DEPLETED):
            key = (alert.org_id, alert.wallet, alert.kind.value, alert.rule_id, alert.rule_version)
            assert alert.epoch == epochs.get(key, 0) + 1
            epochs[key] = alert.epoch
        where = (alert.org_id, alert.wallet)
        if alert.kind is AlertKind.BALANCE_DEPLETED:
            assert not depleted.get(where, False)
            depleted[where] = True
        if alert.kind is AlertKind.BALANCE_RESTORED:
            assert depleted[where]
            depleted[where] = False


@settings(max_examples=200, deadline=None)
@given(sequences)
def test_the_fast_way_is_the_slow_way(steps: list[tuple[object, ...]]) -> None:
    """The same entries and alerts, and the same account to the byte, headroom included."""
    fast, slow = run(steps, World()), run(steps, World(fast=False))
    assert fast.entries == slow.entries
    assert fast.alerts == slow.alerts
    for who, account in slow.accounts.items():
        for wallet in account.wallets.values():
            refresh_headroom(wallet)
        assert encode_account(account) == encode_account(fast.account(who))


@settings(max_examples=200, deadline=None)
@given(sequences)
def test_it_makes_no_difference_when_timers_run(steps: list[tuple[object, ...]]) -> None:
    """What falls due is written in the same order, in time or late; only `recorded_at` differs."""
    prompt, late = run(steps, World()), run(steps, World(timers=False))
    for who in ORGS:
        prompt.settle(who)
        late.settle(who)
        assert _timeless(prompt.entries[who]) == _timeless(late.entries[who])
    assert {alert.alert_id for alert in prompt.alerts} == {alert.alert_id for alert in late.alerts}


def _timeless(entries: list[Entry]) -> list[Entry]:
    return [msgspec.structs.replace(entry, recorded_at=0, details=None) for entry in entries]
