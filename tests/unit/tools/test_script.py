"""The demonstration's script: the same for the same seed, whatever the day; and what it expects adds up."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest

from schemas.amounts import div_half_up
from schemas.enums import BillingUnit, Direction, InputKind
from schemas.events import INPUTS
from streams.demo.organisations import ORGS, TIME_ZONES, transfer_pairs
from streams.demo.pricelist import MODELS, TOKENS_PER_MILLION, price_list
from streams.demo.script import WINDOW_US, script, window_start
from streams.demo.usage import usage_wave
from streams.demo.waves import Damage, Expected, Phase

DAY_US = 86_400 * 1_000_000
JUNE = int(datetime(2026, 6, 17, 12, 30, tzinfo=UTC).timestamp()) * 1_000_000
SMALL = 2_000


def moved(phases: list[Phase]) -> list[object]:
    """Everything of a script but the times."""
    return [
        (phase.name, wave.kind, {name: column for name, column in wave.columns.items() if not name.endswith("_at")})
        for phase in phases
        for wave in phase.waves
    ]


def expected(phases: list[Phase]) -> Expected:
    total = Expected()
    for phase in phases:
        total.add(phase.expected)
    return total


def test_the_same_seed_says_the_same_on_another_day() -> None:
    one, other = script(3, SMALL, JUNE), script(3, SMALL, JUNE + 400 * DAY_US + 12_345)
    assert moved(one) == moved(other)
    assert expected(one) == expected(other)
    assert [wave.repeats for phase in one for wave in phase.waves] == [w.repeats for p in other for w in p.waves]


def test_another_seed_says_something_else() -> None:
    assert moved(script(3, SMALL, JUNE)) != moved(script(4, SMALL, JUNE))


def test_the_default_script_is_what_the_documents_say() -> None:
    """These numbers stand in the README: whoever changes the script changes them there."""
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
    costs: Counter[str] = Counter()
    seen: set[str] = set()
    for position, row in enumerate(rows):
        spoilt = position in made.wave.damage or row["event_id"] in seen or row["input_tokens"] == -1
        out_of_time = not JUNE - 3 * DAY_US < row["occurred_at"] < JUNE + DAY_US // 12
        if spoilt or out_of_time or row["model"] == "gpt-9-preview":
            continue
        seen.add(row["event_id"])
        unit, cost = rated(row)
        costs[unit] += cost
    assert costs == made.expected.usage_cost_nanos
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


@pytest.mark.parametrize(
    "now",
    [
        datetime(2026, 3, 1, 0, 0, 30, tzinfo=UTC),
        datetime(2026, 2, 28, 15, 5, tzinfo=UTC),  # the month has begun in Tokyo
        datetime(2026, 7, 31, 22, 10, tzinfo=UTC),  # and in Madrid
        datetime(2026, 6, 17, 12, 0, tzinfo=UTC),
    ],
)
def test_no_event_lies_before_the_month_anywhere(now: datetime) -> None:
    from zoneinfo import ZoneInfo

    base_at = int(now.timestamp()) * 1_000_000
    start = window_start(base_at)
    assert base_at - WINDOW_US <= start <= base_at
    for zone in TIME_ZONES:
        first = datetime.fromtimestamp(start // 1_000_000, UTC).astimezone(ZoneInfo(zone))
        last = now.astimezone(ZoneInfo(zone))
        assert (first.year, first.month) == (last.year, last.month)


def test_waves_of_a_phase_touch_no_organisation_twice_where_order_would_matter() -> None:
    """Refunds and transfers are sent side by side: no organisation has both."""
    for phase in script(9, 20_000, JUNE):
        orgs = [
            set(wave.columns["org_id"]) | set(wave.columns.get("target_org_id", []))
            for wave in phase.waves
            if wave.kind is not InputKind.PRICE
        ]
        assert sum(map(len, orgs)) == len(set().union(*orgs)), phase.name
