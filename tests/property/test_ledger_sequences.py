"""Any sequence of operations, over three orgs and two units: what must hold after each of them.

Conservation per unit, numbers without gaps, no grant below zero, the fold of the ledger is the account to the byte, and
gives the same alerts with ids that never repeat.
"""

from __future__ import annotations

import os

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.amounts import format_amount
from schemas.enums import AlertKind, EntryKind, HoldAction, PurchaseStatus, RefundTarget, SettingKind
from streams.ledger import grants
from streams.ledger.account import encode_account
from streams.ledger.entry import Entry
from streams.ledger.months import month_of, month_starts_at
from streams.ledger.refusals import DeadLetter
from streams.ledger.usage import refresh_fast_path_limit
from tests.laws import examples
from tests.unit.ledger.world import DAY, World

TIMES = int(os.environ.get("CREDITS_TEST_PROPERTY_TIMES", "1"))
"""The default run is some 800 sequences; `CREDITS_TEST_PROPERTY_TIMES=130` makes it 100,000."""

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
        st.sampled_from(
            ("balance_at_or_below", "used_percent", "left_percent", "month_spend_above", "days_left_below")
        ),
        level,
    ),
    max_size=5,
)

user = st.sampled_from((None, "ann", "bob"))
model = st.sampled_from((None, "gpt", "mini"))
hold_id = st.sampled_from(("h1", "h2", "h3"))
scope = st.fixed_dictionaries({}, optional={"user_id": st.just("ann"), "model": st.just("gpt")})

operation = st.one_of(
    st.tuples(st.just("use for"), org, unit, amount, user, model),
    st.tuples(st.just("use for"), org, unit, amount, user, model),
    st.tuples(st.just("use held"), org, unit, amount, hold_id),
    st.tuples(
        st.just("place"),
        org,
        unit,
        amount,
        st.sampled_from(("reject", "cap", "overflow")),
        st.sampled_from((None, 1, 30)),
        user,
    ),
    st.tuples(st.just("end under a hold"), org, unit, amount, amount, st.sampled_from((0, 50, 100))),
    st.tuples(st.just("before the turn"), st.integers(0, 20)),
    st.tuples(st.just("capture"), org, amount, hold_id),
    st.tuples(st.just("release"), org, hold_id),
    st.tuples(st.just("amend"), org, st.integers(0, 9), amount, unit),
    st.tuples(st.just("void"), org, st.integers(0, 9)),
    st.tuples(st.just("revision first"), org, unit, amount, st.integers(0, 2), st.sampled_from(("e1", "e2")), hold_id),
    st.tuples(
        st.just("budget"),
        org,
        unit,
        scope,
        st.sampled_from(("day", "week", "month")),
        level,
        st.sampled_from(("b1", "b2")),
    ),
    st.tuples(st.just("limits"), org, unit, st.sampled_from((None, "5", "20")), st.sampled_from((None, "20", "80"))),
    st.tuples(st.just("topup"), org, unit, st.booleans(), st.sampled_from((None, "50", "100")), level),
    st.tuples(st.just("answer"), st.booleans()),
    st.tuples(st.just("answer"), st.booleans()),
    st.tuples(st.just("member"), org, st.sampled_from(("owner", "billing", "none"))),
    st.tuples(st.just("access"), org, st.sampled_from(("*", "gpt"))),
    st.tuples(st.just("override"), org, st.sampled_from(("1", "0.5"))),
    st.tuples(st.just("rated"), org, st.integers(0, 1_000_000)),
    st.tuples(st.just("negative"), org, unit, level),
    st.tuples(st.just("hours"), st.integers(0, 60)),
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


LINES = frozenset(
    {
        AlertKind.THRESHOLD_CROSSED,
        AlertKind.DAYS_LEFT,
        AlertKind.BALANCE_LOW,
        AlertKind.BALANCE_DEPLETED,
        AlertKind.NEGATIVE_LIMIT_CROSSED,
        AlertKind.LIMIT_ALERT,
        AlertKind.LIMIT_REACHED,
        AlertKind.BUDGET_REACHED,
    }
)
"""Kinds of alert that tell of a line that is crossed, once an epoch."""

sequences = st.integers(1, 60).flatmap(lambda size: st.lists(operation, min_size=size, max_size=size))


def perform(world: World, step: tuple[object, ...]) -> None:
    match step:
        case ("use", str(who), str(where), str(much)):
            world.use(much, who, where)
        case ("use for", str(who), str(where), str(much), user_id, model_id):
            world.use(much, who, where, user_id=user_id, model=model_id)
        case ("hours", int(number)):
            world.tick(number * DAY // 24)
        case ("rated", str(who), int(tokens)):
            fields = {"cost_nanos": None, "model": "gpt", "input_tokens": tokens}
            world.use("0", who, None, **fields)
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
            perform_more(world, step)


def perform_more(world: World, step: tuple[object, ...]) -> None:
    """Holds, corrections, limits, top-ups."""
    match step:
        case ("use held", str(who), str(where), str(much), str(hold)):
            world.use(much, who, where, hold_id=_latest(world, who, hold))
        case ("place", str(who), str(where), str(much), str(shortage), hours, user_id):
            number = len(world.decisions)
            ends_at = None if hours is None else world.at + int(str(hours)) * DAY // 24
            more = {"on_shortage": shortage, "expires_at": ends_at, "user_id": user_id}
            world.hold(HoldAction.PLACE, f"h{number % 3 + 1}/{number}", much, who, where, **more)
        case ("end under a hold", str(who), str(where), str(much), str(held), int(priority)):
            world.give(much, who, where, expires_at=world.at + DAY // 24, priority=priority)
            number = len(world.decisions)
            ends_at = world.at + DAY // 6
            more = {"on_shortage": "overflow", "expires_at": ends_at}
            world.hold(HoldAction.PLACE, f"h{number % 3 + 1}/{number}", held, who, where, **more)
            world.tick(DAY // 12)
        case ("before the turn", int(number)):
            world.tick(max(0, month_starts_at(month_of(world.at, "UTC") + 1, "UTC") - world.at - number * DAY // 24))
        case ("capture", str(who), str(much), str(hold)):
            world.hold(HoldAction.CAPTURE, _latest(world, who, hold), much, who)
        case ("release", str(who), str(hold)):
            world.hold(HoldAction.RELEASE, _latest(world, who, hold), "0", who)
        case ("amend", str(who), int(number), str(much), str(where)):
            revision = world.commands + 1
            world.use(much, who, where, event_id=_nth(world, who, EntryKind.USAGE, number), revision=revision)
        case ("void", str(who), int(number)):
            revision = world.commands + 1
            world.use("0", who, event_id=_nth(world, who, EntryKind.USAGE, number), revision=revision, voided=True)
        case ("revision first", str(who), str(where), str(much), int(revision), str(event), str(hold)):
            _use_in_any_order(world, who, where, much, f"{who}/{event}", revision, _latest(world, who, hold))
        case ("answer", bool(paid)):
            _answer(world, paid)
        case ("override", str(who), str(price)):
            terms = {"price_id": "own", "operation": "chat", "unit_price": price, "billing_unit": "1000_tokens"}
            world.set(SettingKind.PRICE_OVERRIDE, {**terms, "wallet": "EUR", "model": "gpt"}, who)
        case _:
            _set(world, step)


def _set(world: World, step: tuple[object, ...]) -> None:
    match step:
        case ("budget", str(who), str(where), dict(named), str(window), str(limit), str(budget)):
            body = {"budget_id": budget, "unit": where, "scope": named, "window": window, "limit": limit}
            world.set(SettingKind.BUDGET, body, who)
        case ("limits", str(who), str(where), alert, allowed):
            world.set(
                SettingKind.MONTH_LIMITS, {"unit": where, "alert_threshold": alert, "allowed_limit": allowed}, who
            )
        case ("topup", str(who), str(where), bool(enabled), cap, str(low)):
            terms = {"unit": where, "enabled": enabled, "threshold": low, "purchase_amount": "50", "monthly_cap": cap}
            world.set(SettingKind.AUTO_TOPUP, terms, who)
        case ("member", str(who), str(role)):
            world.set(SettingKind.MEMBER, {"user_id": "bob", "role": role}, who)
        case ("access", str(who), str(pattern)):
            world.set(SettingKind.MODEL_ACCESS, {"allow": [pattern], "deny": ["mini"]}, who)
        case ("negative", str(who), str(where), str(limit)):
            world.set(SettingKind.WALLET, {"unit": where, "negative_limit": limit, "default": True}, who)
        case _:
            raise AssertionError(step)


def _latest(world: World, who: str, prefix: str) -> str:
    """The latest hold of the org under that prefix, active or not; or one that never was."""
    placed = [entry.hold_id for entry in world.entries[who] if entry.kind is EntryKind.HOLD]
    return next((hold for hold in reversed(placed) if hold and hold.startswith(f"{prefix}/")), "nothing")


def _use_in_any_order(world: World, who: str, where: str, much: str, event_id: str, revision: int, hold: str) -> None:
    """Revisions as they come: one that is not higher than what is booked changes nothing."""
    booked = [entry.revision for entry in world.entries[who] if entry.event_id == event_id]
    if 0 in booked and not revision:
        return  # a record that was here before never gets to the core
    world.settle(who)
    known = event_id in world.account(who).corrected
    before = encode_account(world.account(who))
    try:
        world.use(much, who, where, event_id=event_id, revision=revision, hold_id=hold)
    except DeadLetter:
        assert known
        assert revision <= max(booked)
        if world.fast:
            assert encode_account(world.account(who)) == before


def _answer(world: World, paid: bool) -> None:
    """The payment service answers the oldest request that waits; what is due by then is known to it."""
    for who in list(world.accounts):
        world.settle(who)
    if world.topup_requests:
        number = sum(
            purchase.startswith("answer") for entries in world.entries.values() for purchase in _purchases(entries)
        )
        if number < len(world.topup_requests):
            request = world.topup_requests[number]
            fields = {"purchase_id": f"answer/{number}", "topup_request_id": request.topup_request_id}
            status = PurchaseStatus.COMPLETED if paid else PurchaseStatus.FAILED
            world.buy(format_amount(request.amount_nanos), request.org_id, request.wallet, status=status, **fields)


def _purchases(entries: list[Entry]) -> list[str]:
    return [entry.event_id for entry in entries if entry.kind is EntryKind.PURCHASE]


def _nth(world: World, who: str, kind: EntryKind, number: int) -> str:
    """The id of one of the org's purchases or usages; of none at all when there is none."""
    ids = [entry.event_id for entry in world.entries[who] if entry.kind is kind]
    return ids[number % len(ids)] if ids else "nothing"


def _later(world: World, valid: object) -> int | None:
    return world.at + valid * DAY if isinstance(valid, int) else None


def test_a_gift_that_comes_back_expires_again_under_another_alert_id() -> None:
    """Found by the sequences below: a refund to an expired grant."""
    world = World()
    world.give("1", expires_at=world.at + DAY)
    world.use("0.5", event_id="u")
    world.tick(2 * DAY)
    world.refund(RefundTarget.USAGE, "u", "0.5")
    assert [alert.kind for alert in world.alerts].count(AlertKind.FREE_EXPIRED) == 2
    world.check()


def run(steps: list[tuple[object, ...]], world: World) -> World:
    for who in ORGS[:2]:
        world.set(SettingKind.ORG, {"administrators": ["alice"]}, who)
    for step in steps:
        perform(world, step)
    return world


@settings(max_examples=examples(300) * TIMES, deadline=None)
@given(sequences)
def test_what_must_always_hold(steps: list[tuple[object, ...]]) -> None:
    world = run(steps, World())
    world.check()
    world.deliver()
    world.check()
    assert not any(account.in_transit for account in world.accounts.values())


@settings(max_examples=examples(120) * TIMES, deadline=None)
@given(sequences)
def test_what_must_always_hold_when_empty_grants_are_soon_forgotten(steps: list[tuple[object, ...]]) -> None:
    """As above with one empty grant remembered: nearly all that is given back goes to a grant that was forgotten."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grants, "EXHAUSTED_MAX", 1)
        world = run(steps, World())
        world.check()
        world.deliver()
        world.check()


@settings(max_examples=examples(120) * TIMES, deadline=None)
@given(sequences)
def test_crossings_alternate_with_leaving(steps: list[tuple[object, ...]]) -> None:
    """A line of one version is crossed in epochs 1, 2, 3…; depletion and restoration take turns."""
    world = run(steps, World())
    epochs: dict[tuple[str, str, str, str | None, int], int] = {}
    depleted: dict[tuple[str, str], bool] = {}
    for alert in world.alerts:
        if alert.kind in LINES:
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


@settings(max_examples=examples(120) * TIMES, deadline=None)
@given(sequences)
def test_the_fast_way_is_the_slow_way(steps: list[tuple[object, ...]]) -> None:
    """The same entries and alerts, and the same account to the byte, fast-path limits included."""
    fast, slow = run(steps, World()), run(steps, World(fast=False))
    assert fast.entries == slow.entries
    assert fast.alerts == slow.alerts
    for who, account in slow.accounts.items():
        for wallet in account.wallets.values():
            refresh_fast_path_limit(wallet)
        assert encode_account(account) == encode_account(fast.account(who))


@settings(max_examples=examples(120) * TIMES, deadline=None)
@given(sequences)
def test_it_makes_no_difference_when_timers_run(steps: list[tuple[object, ...]]) -> None:
    """What falls due is written in the same order, in time or late; only `recorded_at` differs."""
    prompt, late = run(steps, World()), run(steps, World(timers=False))
    for who in ORGS:
        prompt.settle(who)
        late.settle(who)
        assert _timeless(prompt.entries[who]) == _timeless(late.entries[who])
    assert set(prompt.alerts) == set(late.alerts)


def _timeless(entries: list[Entry]) -> list[Entry]:
    return [msgspec.structs.replace(entry, recorded_at=0, details=None) for entry in entries]
