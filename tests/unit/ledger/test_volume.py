"""Graduated prices and free quantities: what an org has used of them, and how that moves (product rule 38)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.amounts import NANOS, format_amount, parse_amount
from schemas.enums import BillingUnit, DeadLetterCode, RefundTarget, SettingKind
from streams.ledger import volume
from streams.ledger.account import encode_account
from streams.ledger.commands import Usage
from streams.ledger.entry import Entry
from streams.ledger.rating import Price, PriceList, PriceTier
from streams.ledger.refusals import DeadLetter
from tests.unit.ledger.test_usage_batch import book, entries_of
from tests.unit.ledger.world import DAY, World

GRADUATED = Price(
    "images",
    "image",
    parse_amount("1.32"),
    BillingUnit.UNIT,
    "USD",
    0,
    meter="images",
    tiers=(PriceTier(10_000 * NANOS, parse_amount("1.40")),),
)
FREE = Price("pages", "page", NANOS, BillingUnit.UNIT, "USD", 0, meter="pages", free_quantity_nanos=100 * NANOS)


@pytest.fixture
def world() -> World:
    world = World(PriceList([GRADUATED, FREE]))
    world.buy("100000")
    return world


def use(world: World, count: int, event_id: str = "", meter: str = "images", **more: Any) -> list[Entry]:
    operation = {"images": "image", "pages": "page"}[meter]
    event_id = event_id or f"u{world.commands}"
    usage = Usage(event_id, "acme", world.at, operation, quantities={meter: count * NANOS}, **more)
    return world.do(usage).entries


def used(world: World, price_id: str = "images") -> int:
    return world.account().counters[price_id].used // NANOS


def spent(world: World) -> str:
    return format_amount(100_000 * NANOS - world.settled())


def test_in_one_event_or_in_many() -> None:
    for counts in ([10_500], [500] * 21):
        world = World(PriceList([GRADUATED]))
        world.buy("100000")
        for count in counts:
            use(world, count)
        assert (spent(world), used(world)) == ("14660", 10_500)
        world.check()


def test_a_void_moves_the_counter_back(world: World) -> None:
    use(world, 10_000, "first")
    use(world, 500)
    use(world, 0, "first", revision=1, voided=True)
    assert used(world) == 500
    use(world, 9_500)
    assert (used(world), spent(world)) == (10_000, format_amount(parse_amount("660") + 9_500 * parse_amount("1.4")))
    world.check()


def test_an_amendment_is_rated_as_if_it_had_been_right_at_once(world: World) -> None:
    use(world, 10_000, "first")
    use(world, 12_000, "first", revision=1)
    assert (used(world), spent(world)) == (12_000, format_amount(10_000 * parse_amount("1.4") + parse_amount("2640")))
    use(world, 500, "first", revision=2)
    assert (used(world), spent(world)) == (500, "700")
    world.check()


def test_a_refund_moves_it_back_by_its_share_and_shares_add_up(world: World) -> None:
    use(world, 100, "first")  # 140
    for amount, left in (("46.666666666", 67), ("46.666666667", 34), ("46.666666667", 0)):
        world.refund(RefundTarget.USAGE, "first", amount)
        assert -(-world.account().counters["images"].used // NANOS) == left
    assert world.account().counters["images"].used == 0
    world.check()


def test_a_void_after_a_refund_takes_back_the_rest(world: World) -> None:
    use(world, 100, "first")
    world.refund(RefundTarget.USAGE, "first", "35")
    assert used(world) == 75
    use(world, 0, "first", revision=1, voided=True)
    assert (used(world), spent(world)) == (0, "0")
    world.check()


def test_free_quantities_that_are_voided_are_free_again(world: World) -> None:
    use(world, 100, "first", "pages")
    assert (spent(world), used(world, "pages")) == ("0", 100)
    use(world, 0, "first", "pages", revision=1, voided=True)
    use(world, 100, meter="pages")
    assert (spent(world), used(world, "pages")) == ("0", 100)
    world.check()


def test_a_month_begins_anew_in_the_zone_of_the_org(world: World) -> None:
    world.set(SettingKind.ORG, {"time_zone": "America/New_York"})
    june = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp()) * 1_000_000
    world.tick(june - world.at)
    use(world, 10_000)
    assert used(world) == 10_000  # in New York it is still May
    world.tick(4 * 3_600 * 1_000_000)
    use(world, 1)
    assert used(world) == 1
    world.check()


def test_a_new_zone_never_turns_a_month_back(world: World) -> None:
    june = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp()) * 1_000_000
    world.tick(june - world.at)
    use(world, 10_000)
    world.set(SettingKind.ORG, {"time_zone": "America/New_York"})
    use(world, 1)
    assert used(world) == 10_001
    world.check()


def test_usage_of_the_month_before_is_taken_back_there(world: World) -> None:
    world.tick(30 * DAY)
    use(world, 11_000, "may")
    world.tick(DAY)
    use(world, 5)
    assert used(world) == 5
    use(world, 10_001, "may", revision=1)
    assert (used(world), world.account().counters["images"].used_before // NANOS) == (5, 10_001)
    assert spent(world) == format_amount(10_000 * parse_amount("1.4") + parse_amount("1.32") + 5 * parse_amount("1.4"))
    world.check()


def test_months_that_are_over_make_room_and_one_counter_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume, "COUNTERS_MAX", 2)
    prices = [
        Price(f"p{n}", f"op{n}", 1, BillingUnit.UNIT, "USD", 0, meter="n", tiers=(PriceTier(1, 2),)) for n in range(4)
    ]
    world = World(PriceList(prices))
    world.buy("1")

    def take(number: int) -> None:
        world.do(Usage(f"u{world.commands}", "acme", world.at, f"op{number}", quantities={"n": NANOS}))

    take(0)
    take(1)
    before = encode_account(world.account())
    with pytest.raises(DeadLetter, match="at most 2 graduated prices") as refusal:
        take(2)
    assert refusal.value.code is DeadLetterCode.INVALID_FIELD
    assert encode_account(world.account()) == before
    world.tick(31 * DAY)
    take(0)
    world.tick(31 * DAY)
    take(2)
    assert list(world.account().counters) == ["p0", "p2"]
    world.check()


def test_a_batch_goes_by_what_its_rows_have_used(world: World) -> None:
    records = [{"event_id": f"e{n}", "operation": "image", "quantities": {"images": 500 * NANOS}} for n in range(21)]
    booked = book(records, world)
    entries = entries_of(booked, len(records))
    assert sum(-entry.amount_nanos for entry in entries) == parse_amount("14660")
    assert used(world) == 10_500
