"""The ledger against the auditor: the same operations, line by line and alert by alert.

The auditor (tests/model/auditor.py) is written from the rules and shares no code with the ledger. Whatever the
sequence, both must say the same amounts, balances, refusals, draws by kind of grant, and alerts.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.amounts import parse_amount
from schemas.enums import AlertKind, EntryKind, RefundTarget, SettingKind
from streams.ledger.entry import Alert, Entry, Leg
from tests.model.auditor import ARRIVED, NOTHING_LEFT, Alarm, Auditor, Line
from tests.unit.ledger.world import DAY, World

ORGS = ("acme", "beta", "gone")
UNITS = ("USD", "EUR")
ZONES = ("UTC", "Asia/Tokyo", "America/Los_Angeles", "Pacific/Kiritimati")

# What the auditor speaks of.
SPOKEN = {
    AlertKind.THRESHOLD_CROSSED,
    AlertKind.BALANCE_LOW,
    AlertKind.RESOLVED,
    AlertKind.FREE_EXPIRED,
    AlertKind.BALANCE_DEPLETED,
    AlertKind.BALANCE_RESTORED,
}

org = st.sampled_from(ORGS)
unit = st.sampled_from(UNITS)
amount = st.sampled_from(("0.000000001", "0.5", "1", "2.5", "7", "10", "19.999999999", "40", "100"))
days = st.sampled_from((None, 0, 1, 3, 20, 40))
level = st.sampled_from(("0", "5", "20", "50", "80", "100"))
kinds = st.sampled_from(("balance_at_or_below", "used_percent", "left_percent", "month_spend_above"))

operation = st.one_of(
    st.tuples(st.just("use"), org, unit, amount),
    st.tuples(st.just("use"), org, unit, amount),
    st.tuples(st.just("buy"), org, unit, amount, days),
    st.tuples(st.just("give"), org, unit, amount, days, st.integers(0, 100)),
    st.tuples(st.just("adjust"), org, unit, amount, st.booleans()),
    st.tuples(st.just("send"), org, org, unit, amount, st.sampled_from(("alice", "mallory"))),
    st.tuples(st.just("deliver")),
    st.tuples(st.just("refund purchase"), org, st.integers(0, 9), amount),
    st.tuples(st.just("refund usage"), org, st.integers(0, 9), amount),
    st.tuples(st.just("tick"), st.integers(0, 35 * DAY)),
    st.tuples(st.just("wallet"), org, unit, st.sampled_from(("0", "10", "50")), st.sampled_from(("0", "5")), level),
    st.tuples(st.just("rules"), org, unit, st.lists(st.tuples(kinds, level), max_size=4)),
    st.tuples(st.just("org"), org, st.booleans(), st.sampled_from(ZONES)),
)


class Both:
    """The ledger and the auditor, fed alike."""

    def __init__(self) -> None:
        self.world = World()
        self.auditor = Auditor()
        self.seen_alerts = 0
        self.number = 0

    def perform(self, step: tuple[object, ...]) -> None:
        self.number += 1
        self.auditor.lines.clear()
        self.auditor.alarms.clear()
        before = {name: len(entries) for name, entries in self.world.entries.items()}
        self._do(step)
        entries = [entry for name in self.world.entries for entry in self.world.entries[name][before.get(name, 0) :]]
        alerts = self.world.alerts[self.seen_alerts :]
        self.seen_alerts = len(self.world.alerts)
        said = Counter(line for entry in entries if (line := _line(entry)) is not None)
        if any(line.reason == NOTHING_LEFT for line in self.auditor.lines):
            said = Counter(map(_nothing_left, said.elements()))
        assert said == Counter(self.auditor.lines), step
        assert Counter(_alarm(alert) for alert in alerts if alert.kind in SPOKEN) == Counter(self.auditor.alarms), step

    def _do(self, step: tuple[object, ...]) -> None:
        world, auditor, at, name = self.world, self.auditor, self.world.at, f"n{self.number}"
        match step:
            case ("use", str(who), str(where), str(much)):
                world.use(much, who, where, event_id=name)
                auditor.use(who, name, where, parse_amount(much), at)
            case ("buy", str(who), str(where), str(much), valid):
                expires_at = at + valid * DAY if isinstance(valid, int) else None
                world.buy(much, who, where, purchase_id=name, expires_at=expires_at)
                auditor.buy(who, name, where, parse_amount(much), at, expires_at=expires_at)
            case ("give", str(who), str(where), str(much), valid, int(priority)):
                expires_at = at + valid * DAY if isinstance(valid, int) else None
                world.give(much, who, where, purchase_id=name, expires_at=expires_at, priority=priority)
                auditor.buy(who, name, where, parse_amount(much), at, "promotional", expires_at, priority)
            case ("adjust", str(who), str(where), str(much), bool(up)):
                text = much if up else f"-{much}"
                world.buy(text, who, where, purchase_id=name, kind="adjustment")
                auditor.buy(who, name, where, parse_amount(text), at, "adjustment")
            case ("send", str(source), str(target), str(where), str(much), str(actor)):
                transfer_id = f"t{world._offset + 1}"
                world.send(much, source, target, actor, where)
                auditor.send(transfer_id, source, target, where, parse_amount(much), actor, at)
            case ("deliver",):
                self._deliver()
            case ("tick", int(micros)):
                world.tick(micros)
                for who in list(world.accounts):
                    auditor.settle(who, world.at)
            case _:
                self._refer_or_set(step, at)

    def _refer_or_set(self, step: tuple[object, ...], at: int) -> None:
        world, auditor = self.world, self.auditor
        match step:
            case ("refund purchase", str(who), int(number), str(much)):
                wanted = self._nth(who, EntryKind.PURCHASE, number)
                world.refund(RefundTarget.PURCHASE, wanted, much, who)
                auditor.refund_purchase(who, wanted, parse_amount(much), at)
            case ("refund usage", str(who), int(number), str(much)):
                wanted = self._nth(who, EntryKind.USAGE, number)
                world.refund(RefundTarget.USAGE, wanted, much, who)
                auditor.refund_usage(who, wanted, parse_amount(much), at)
            case ("wallet", str(who), str(where), str(allowance), str(rollover), str(low)):
                body = {"unit": where, "allowance": allowance, "rollover_max": rollover, "low_balance_threshold": low}
                world.set(SettingKind.WALLET, body, who)
                granted, kept, warned = map(parse_amount, (allowance, rollover, low))
                auditor.set_wallet(who, where, granted, kept, warned, at)
            case ("rules", str(who), str(where), list(wanted_rules)):
                rules = [(f"r{n}", kind, text) for n, (kind, text) in enumerate(wanted_rules)]
                body_rules = [{"rule_id": rule_id, "type": kind, "level": text} for rule_id, kind, text in rules]
                world.set(SettingKind.THRESHOLDS, {"unit": where, "rules": body_rules}, who)
                auditor.set_rules(who, where, [(name, kind, parse_amount(text)) for name, kind, text in rules], at)
            case ("org", str(who), bool(closed), str(zone)):
                world.set(SettingKind.ORG, {"closed": closed, "time_zone": zone, "administrators": ["alice"]}, who)
                auditor.set_org(who, zone, closed, ["alice"], at)
            case _:
                raise AssertionError(step)

    def _deliver(self) -> None:
        """Hand on legs until none travels; the auditor follows each."""
        world, auditor = self.world, self.auditor
        while world.legs:
            leg: Leg = world.legs.pop(0)
            answers = len(world.legs)
            world.do(leg)
            match leg.kind.value:
                case "credit":
                    taken = auditor.arrive(leg.transfer_id, world.at)
                    answer = world.legs[answers]
                    assert answer.kind.value == ("acknowledge" if taken else "return")
                case "return":
                    auditor.come_back(leg.transfer_id, world.at)
                case _:
                    auditor.acknowledged(leg.source_org_id, world.at)

    def _nth(self, who: str, kind: EntryKind, number: int) -> str:
        ids = [entry.event_id for entry in self.world.entries[who] if entry.kind is kind and entry.amount_nanos]
        return ids[number % len(ids)] if ids else "nothing"


def _line(entry: Entry) -> Line | None:
    """The entry as the auditor would say it; None for one that only notes something."""
    if not entry.amount_nanos and entry.kind not in (EntryKind.REJECTED, EntryKind.USAGE):
        return None
    drawn: Counter[str] = Counter()
    if entry.amount_nanos < 0 and entry.kind is not EntryKind.EXPIRY:
        for part in entry.slices:
            drawn[part.kind.value] += part.amount_nanos
    told = entry.kind in (EntryKind.REJECTED, EntryKind.EXPIRY)
    return Line(
        entry.org_id,
        entry.kind.value,
        entry.wallet,
        entry.amount_nanos,
        entry.balance_nanos,
        str(entry.reason) if told else None,
        tuple(sorted(drawn.items())),
    )


def _nothing_left(line: Line) -> Line:
    either = line.reason in NOTHING_LEFT.split(" or ") if line.reason else False
    return dataclasses.replace(line, unit="", balance=0, reason=NOTHING_LEFT) if either else line


def _alarm(alert: Alert) -> Alarm:
    rule = ARRIVED if alert.rule_id is not None and alert.rule_id.startswith(ARRIVED) else alert.rule_id
    return Alarm(alert.org_id, alert.wallet, alert.kind.value, rule, frozenset(alert.thresholds_left))


sequences = st.integers(1, 50).flatmap(lambda size: st.lists(operation, min_size=size, max_size=size))


def _follow(steps: list[tuple[object, ...]]) -> None:
    both = Both()
    for who in ORGS[:2]:
        both.perform(("org", who, False, "UTC"))
    for step in steps:
        both.perform(step)


@settings(max_examples=2_000)
@given(sequences)
def test_the_ledger_says_what_the_rules_say(steps: list[tuple[object, ...]]) -> None:
    _follow(steps)


@pytest.mark.slow
@pytest.mark.timeout(7_200)
@settings(max_examples=100_000)
@given(sequences)
def test_the_ledger_says_what_the_rules_say_for_long(steps: list[tuple[object, ...]]) -> None:
    _follow(steps)
