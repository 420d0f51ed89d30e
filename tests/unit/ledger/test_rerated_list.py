"""A price list that was wrong and is corrected: what the ledger's entries say of it, the corrections, a second run."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.amounts import NANOS
from schemas.enums import BillingUnit, RefundTarget, SettingKind
from schemas.events import Refund as RefundRecord
from streams.ledger.commands import Refund, Usage
from streams.ledger.price import Price
from streams.ledger.rating import PriceList
from streams.rerating.booked import BookedUsages, Filter, Skipped
from streams.rerating.corrections import by_org, corrections, price_set
from tests.unit.ledger.test_rerating import checked
from tests.unit.ledger.world import World

FOREVER = Filter(0, 2**62)


def price(meter: str, per_million: str, price_id: str | None = None, **more: Any) -> Price:
    nanos = round(float(per_million) * NANOS)
    fields = {"operation": "chat", "billing_unit": BillingUnit.MILLION_TOKENS, "wallet": "USD", "valid_from": 0}
    return Price(price_id=price_id or meter, unit_price_nanos=nanos, meter=meter, **{**fields, **more})


WRONG = PriceList([price("input_tokens", "3"), price("output_tokens", "15")])
RIGHT = PriceList([price("input_tokens", "2"), price("output_tokens", "15"), price("cache_read_tokens", "0.2")])


def worked(**more: Any) -> World:
    world = World(WRONG)
    world.buy("100")
    work(world, "u1", 1_000_000, 400_000, 1_000)
    work(world, "u2", 10_000, 0, 0, model="other", **more)
    return world


def work(world: World, event_id: str, tokens: int, cached: int, output: int, **more: Any) -> None:
    fields = {"input_tokens": tokens, "cache_read_tokens": cached, "output_tokens": output, "model": "opus", **more}
    world.do(
        msgspec.convert(
            {"event_id": event_id, "org_id": "acme", "occurred_at": world.at, "operation": "chat", **fields}, Usage
        )
    )


def found(world: World, prices: PriceList, meant: Filter = FOREVER) -> BookedUsages:
    usages = BookedUsages(meant, prices)
    for entry in world.entries["acme"]:
        usages.add(entry)
    return usages


def records(world: World, prices: PriceList, meant: Filter = FOREVER) -> list[RefundRecord]:
    return list(corrections(found(world, prices, meant), price_set(prices), world.at, None))


def book(world: World, sent: list[RefundRecord]) -> None:
    for record in sent:
        fields = {name: value for name, value in record.to_record().items() if value is not None}
        world.do(msgspec.convert(fields, Refund))


def test_what_was_booked_wrong_is_corrected_and_a_second_run_changes_nothing() -> None:
    world = worked()
    assert world.settled() == 100 * NANOS - 3_015_000_000 - 30_000_000
    sent = records(world, RIGHT)
    assert [(record.target_id, record.amount_nanos) for record in sent] == [
        ("u1", 3_015_000_000 - (600_000 * 2_000 + 400_000 * 200 + 1_000 * 15_000)),
        ("u2", 10_000_000),
    ]
    assert sent[0].refund_id == f"rerate:{price_set(RIGHT)}:2"
    assert sent[0].target is RefundTarget.RERATED_USAGE
    book(world, sent)
    assert world.settled() == 100 * NANOS - 1_295_000_000 - 20_000_000
    assert records(world, RIGHT) == []
    checked(world)


def test_components_tell_the_difference_and_add_up_to_it() -> None:
    world = worked()
    (first, _) = records(world, RIGHT)
    parts = {(part.meter, part.unit_price_nanos): (part.quantity_nanos, part.amount_nanos) for part in first.components}
    assert parts == {
        ("input_tokens", 3 * NANOS): (-1_000_000 * NANOS, -3_000_000_000),
        ("input_tokens", 2 * NANOS): (600_000 * NANOS, 1_200_000_000),
        ("cache_read_tokens", NANOS // 5): (400_000 * NANOS, 80_000_000),
    }
    assert sum(part.amount_nanos for part in first.components) == -first.amount_nanos


def test_a_list_that_goes_back_takes_the_corrections_back() -> None:
    world = worked()
    before = world.settled()
    book(world, records(world, RIGHT))
    book(world, records(world, WRONG))
    assert world.settled() == before
    assert records(world, WRONG) == []
    assert [usage.difference_parts() for usage in found(world, WRONG)] == [(), ()]
    checked(world)


def test_a_void_after_it_leaves_nothing_once_it_runs_again() -> None:
    world = worked()
    book(world, records(world, RIGHT))
    work(world, "u1", 0, 0, 0, revision=1, voided=True)
    book(world, records(world, RIGHT))
    assert world.settled() == 100 * NANOS - 20_000_000
    assert records(world, RIGHT) == []


def test_an_amendment_and_a_refund_before_it_are_what_counts() -> None:
    world = worked()
    work(world, "u1", 2_000_000, 0, 0, revision=1)  # 6 by the wrong list
    world.refund(RefundTarget.USAGE, "u1", "1")
    sent = records(world, RIGHT)
    assert {record.target_id: record.amount_nanos for record in sent} == {"u1": 2 * NANOS, "u2": 10_000_000}
    book(world, sent)
    assert records(world, RIGHT) == [], "a refund is a decision of its own and stays"


def test_only_what_is_meant() -> None:
    world = worked()
    at = world.at
    assert [each.target_id for each in records(world, RIGHT, Filter(at, at + 1, models=frozenset({"other"})))] == ["u2"]
    assert records(world, RIGHT, Filter(at + 1, at + 2)) == []
    assert records(world, RIGHT, Filter(0, at + 1, orgs=frozenset({"beta"}))) == []


def test_the_plan_tier_of_its_time_counts() -> None:
    pro = price("input_tokens", "1", "pro-input", tier="pro")
    world = World(WRONG)
    world.buy("100")
    world.set(SettingKind.ORG, {"tier": "pro"})
    work(world, "u1", 1_000_000, 0, 0)
    world.set(SettingKind.ORG, {"tier": "free"})
    sent = records(world, PriceList([*WRONG, pro]))
    assert [record.amount_nanos for record in sent] == [2 * NANOS]


def test_what_is_not_rated_again() -> None:
    world = worked()
    world.use("5", event_id="upstream")
    other = PriceList([price("input_tokens", "3", wallet="EUR"), price("output_tokens", "15", wallet="EUR")])
    skipped = {usage.entry.event_id: usage.skipped for usage in found(world, other)}
    assert skipped == {"u1": Skipped.OTHER_WALLET, "u2": Skipped.OTHER_WALLET, "upstream": Skipped.UPSTREAM}
    assert records(world, other) == []
    graduated = PriceList([price("input_tokens", "3", free_quantity_nanos=5 * NANOS), *list(WRONG)[1:]])
    assert {usage.skipped for usage in found(world, graduated)} == {Skipped.BY_VOLUME, Skipped.UPSTREAM}
    assert {usage.skipped for usage in found(world, PriceList())} == {Skipped.NO_PRICE, Skipped.UPSTREAM}


def test_who_would_cross_a_limit() -> None:
    world = worked()
    world.set(SettingKind.MONTH_LIMITS, {"unit": "USD", "alert_threshold": "3", "allowed_limit": "4"})
    dearer = PriceList([price("input_tokens", "120"), price("output_tokens", "15")])
    wallet = world.account().wallets["USD"]
    balance = {
        "unit": "USD",
        "settled_nanos": wallet.settled,
        "available_nanos": wallet.settled,
        "month_spent_nanos": wallet.used,
    }
    (row,) = by_org(found(world, dearer), {"acme": {"wallets": [balance]}})
    assert (row.rated_count, row.changed, row.before, row.after) == (2, 2, 3_045_000_000, 121_215_000_000)
    assert row.crosses == ["the month's allowed limit", "below 0"]


def test_a_price_set_is_the_prices_and_not_their_order() -> None:
    assert price_set(PriceList(reversed(list(RIGHT)))) == price_set(RIGHT)
    assert price_set(WRONG) != price_set(RIGHT)
