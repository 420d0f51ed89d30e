"""The demonstration's script: the same for the same seed, whatever the day; and what it expects adds up."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from schemas.amounts import NANOS, div_half_up, parse_amount
from schemas.enums import BillingUnit, Direction, InputKind
from schemas.events import INPUTS
from streams.demo.limits import Limit, alert_level_nanos, has_limits, level_nanos, reached
from streams.demo.organisations import ORGS, TIME_ZONES, ZONES_USED, time_zones, transfer_pairs
from streams.demo.payments import answers
from streams.demo.script import WINDOW_US, script
from streams.demo.usage import usage_wave
from streams.loadgen.price_list import MODELS, TOKENS_PER_MILLION, has_own_price, own_prices, price_list
from streams.loadgen.waves import Damage, Expected, Phase

DAY_US = 86_400 * 1_000_000
JUNE = int(datetime(2026, 6, 17, 12, 30, tzinfo=UTC).timestamp()) * 1_000_000
SMALL = 2_000


def moved(phases: list[Phase]) -> list[object]:
    """Everything of a script but the times, and the time zones that are chosen by them."""
    zone = re.compile("|".join(f'"{name}"' for name in TIME_ZONES))
    return [
        (
            phase.name,
            wave.kind,
            {
                name: [zone.sub("zone", body) for body in column] if name == "body" else column
                for name, column in wave.columns.items()
                if not name.endswith("_at")
            },
        )
        for phase in phases
        for wave in phase.waves
    ]


def expected(phases: list[Phase]) -> Expected:
    total = Expected()
    for phase in phases:
        total.add(phase.expected)
    return total


def test_the_same_seed_says_the_same_on_another_day() -> None:
    one, other = script(3, SMALL, JUNE), script(3, SMALL, JUNE + 400 * DAY_US + 9 * 3600 * 1_000_000 + 12_345)
    assert moved(one) == moved(other)
    assert expected(one) == expected(other)
    assert [wave.repeats for phase in one for wave in phase.waves] == [w.repeats for p in other for w in p.waves]


def test_another_seed_says_something_else() -> None:
    assert moved(script(3, SMALL, JUNE)) != moved(script(4, SMALL, JUNE))


def test_the_default_script_is_what_the_documents_say() -> None:
    """These numbers stand in the README: a change of the script changes them there."""
    total = expected(script(42, 200_000, JUNE))
    assert total.records >= 200_000
    assert total.applied + total.duplicates + total.rejected.total() + total.dead_letters.total() == total.records
    orgs = {
        name for phase in script(42, SMALL, JUNE) for wave in phase.waves for name in wave.columns.get("org_id", [])
    }
    assert len(orgs) == ORGS == 500


def test_records_that_are_not_spoilt_are_what_the_contract_allows() -> None:
    for phase in script(5, SMALL, JUNE):
        for wave in phase.waves:
            model = INPUTS[wave.kind]
            for position in range(len(wave)):
                fields = {name: column[position] for name, column in wave.columns.items()}
                if position in wave.damage or fields.get("input_tokens") == -1:
                    continue
                model.model_validate({name: value for name, value in fields.items() if value is not None})


def test_repeats_name_earlier_records_that_are_whole() -> None:
    for phase in script(6, 20_000, JUNE):
        for wave in phase.waves:
            for position, earlier in wave.repeats.items():
                assert earlier < position
                assert earlier not in wave.damage
                assert earlier not in wave.repeats


def test_every_kind_of_damage_is_done() -> None:
    usage = usage_wave(1, "u", 60_000, JUNE - WINDOW_US, JUNE)
    assert set(usage.wave.damage.values()) == set(Damage)


def test_usage_costs_what_the_price_list_says() -> None:
    """The generator multiplies; here each record is rated from the published prices, with fractions."""
    made = usage_wave(2, "u", 5_000, JUNE - WINDOW_US, JUNE)
    rows = [
        {name: column[position] for name, column in made.wave.columns.items()} for position in range(len(made.wave))
    ]
    dead = Counter(made.expected.dead_letters)
    own = 0
    costs: Counter[str] = Counter()
    seen: set[str] = set()
    for position, row in enumerate(rows):
        spoilt = position in made.wave.damage or row["event_id"] in seen or row["input_tokens"] == -1
        out_of_time = not JUNE - 3 * DAY_US < row["occurred_at"] < JUNE + DAY_US // 12
        if spoilt or out_of_time or row["model"] == "gpt-9-preview":
            continue
        seen.add(row["event_id"])
        unit, cost = rated(row)
        if has_own_price(int(row["org_id"].removeprefix("org-"))) and row["model"] == "gpt-4o":
            prices = {price["direction"]: parse_amount(price["unit_price"]) for price in own_prices()}
            tokens = row["input_tokens"] * prices["input"] + row["output_tokens"] * prices["output"]
            unit, cost = "USD", div_half_up(tokens, TOKENS_PER_MILLION)
            own += 1
        costs[unit] += cost
    assert costs == made.expected.usage_cost_nanos
    assert own == made.expected.own_prices > 0
    assert dead.total() > 0


def rated(row: dict[str, object]) -> tuple[str, int]:
    """Wallet and cost by the price list as published."""
    if row["cost_nanos"] is not None:
        return str(row["wallet"]), int(str(row["cost_nanos"]))
    numerator = {Direction.INPUT.value: 0, Direction.OUTPUT.value: 0}
    for price in price_list():
        if price["operation"] != row["operation"] or price.get("model") not in (None, row["model"]):
            continue
        if price["billing_unit"] == BillingUnit.MILLION_TOKENS.value:
            for direction, name in ((Direction.INPUT, "input_tokens"), (Direction.OUTPUT, "output_tokens")):
                if price["direction"] in (direction.value, Direction.ANY.value):
                    numerator[direction.value] += int(str(row[name] or 0)) * price["unit_price_nanos"]
        else:
            times = int(str(row["replicas"] or 1)) if price["billing_unit"] == BillingUnit.GPU_HOUR.value else 1
            cost = price["unit_price_nanos"] * int(str(row["quantity_nanos"])) * times
            return str(price["wallet"]), div_half_up(cost, 10**9)
    return "USD", div_half_up(sum(numerator.values()), TOKENS_PER_MILLION)


def test_no_token_price_is_ever_rounded() -> None:
    for price in price_list():
        if price["billing_unit"] == BillingUnit.MILLION_TOKENS.value:
            assert price["unit_price_nanos"] % TOKENS_PER_MILLION == 0
    assert sum(model.share for model in MODELS) == 1_000


def test_no_organisation_takes_part_in_two_transfers() -> None:
    """Only then does the order of arrival not matter."""
    pairs = transfer_pairs()
    parties = [party for pair in pairs for party in (pair.source, pair.target)]
    assert len(set(parties)) == len(parties)


@pytest.mark.parametrize("hour", range(24))
@pytest.mark.parametrize("day", [(2026, 1, 1), (2026, 2, 28), (2026, 3, 29), (2026, 6, 17), (2026, 10, 31)])
def test_it_is_day_in_every_zone_so_nothing_ends_during_a_run(day: tuple[int, int, int], hour: int) -> None:
    base = datetime(*day, hour, 29, 59, tzinfo=UTC)
    zones = time_zones(int(base.timestamp()) * 1_000_000)
    assert len(zones) == len(set(zones)) == ZONES_USED
    window = timedelta(microseconds=WINDOW_US)
    for zone in map(ZoneInfo, zones):
        days = {at.astimezone(zone).date() for at in (base - window, base, base + timedelta(minutes=30))}
        assert len(days) == 1, zone


def test_limits_are_reached_on_the_line_and_by_spending_alone() -> None:
    month, user = Limit(6, "month"), Limit(3, "user")
    level, alert = level_nanos(month, SMALL), alert_level_nanos(month, SMALL)
    assert alert < level
    assert reached(Counter({month: alert - 1}), SMALL).at_work["limits"] == Counter()
    assert reached(Counter({month: alert}), SMALL).at_work["limits"] == Counter(credit_limit_alert=1)
    both = Counter(credit_limit_alert=1, credit_limit_reached=1)
    assert reached(Counter({month: level}), SMALL).at_work["limits"] == both
    assert reached(Counter({user: level_nanos(user, SMALL) - 1}), SMALL).at_work["limits"] == Counter()
    spent = Counter({user: level_nanos(user, SMALL)})
    assert reached(spent, SMALL).at_work["limits"] == Counter(budget_reached=1)


def test_nothing_is_given_back_where_limits_are_counted() -> None:
    for phase in script(9, 20_000, JUNE):
        for wave in phase.waves:
            given_back = wave.kind is InputKind.REFUND or any(wave.columns.get("revision", []))
            if given_back:
                numbers = {int(org.removeprefix("org-")) for org in wave.columns["org_id"]}
                assert not any(has_limits(number) and number <= 410 for number in numbers), phase.name


def test_every_rule_has_something_to_do() -> None:
    at_work = expected(script(42, 200_000, JUNE)).at_work
    assert {line: set(counts) for line, counts in at_work.items()} == {
        "holds": {
            "placed",
            "placed for less",
            "captured for less",
            "captured as held",
            "captured for more",
            "released",
            "timed out",
        },
        "holds refused": {
            "held by other work",
            "out of credits",
            "limit_reached",
            "model_not_allowed",
            "blocked",
            "already_resolved",
            "unknown_hold",
        },
        "top-ups": {"asked for", "charged", "failed", "asked again", "stopped by the cap"},
        "limits": {
            "budget_reached",
            "credit_limit_alert",
            "credit_limit_reached",
            "credit_negative_limit_crossed",
        },
        "corrections": {"amended", "voided"},
        "expiries": {"grant_expired"},
    }


def test_the_payment_service_answers_by_the_request_alone() -> None:
    request = {
        "topup_request_id": "topup-1",
        "org_id": "org-481",
        "wallet": "USD",
        "amount_nanos": 50 * NANOS,
        "occurred_at": JUNE,
    }
    (declined,) = answers(request, first=True)
    (charged,) = answers(request, first=False)
    assert (declined["status"], charged["status"]) == ("failed", "completed")
    assert declined["topup_request_id"] == charged["topup_request_id"] == "topup-1"
    twice = answers({**request, "org_id": "org-486"}, first=True)
    assert len(twice) == 2
    assert twice[0] == twice[1]


def test_waves_of_a_phase_touch_no_organisation_twice_where_order_would_matter() -> None:
    """Refunds, transfers, holds and usage of one phase are sent side by side: no organisation has two of them."""
    for phase in script(9, 20_000, JUNE):
        orgs = [
            set(wave.columns["org_id"]) | set(wave.columns.get("target_org_id", []))
            for wave in phase.waves
            if wave.kind is not InputKind.PRICE
        ]
        assert sum(map(len, orgs)) == len(set().union(*orgs)), phase.name
