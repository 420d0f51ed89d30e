"""What a hold says of the work: budgets and prices go by it, its entries carry it (product rules 9, 11, 13, 17)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from schemas.amounts import NANOS
from schemas.enums import BillingUnit, DecisionCode, EntryKind, HoldAction, SettingKind
from streams.ledger.account import decode_account, encode_account
from streams.ledger.budgets import Scope
from streams.ledger.entry import HoldDecision, Outcome
from streams.ledger.rating import Price, PriceList
from tests.unit.ledger.world import DAY, START, World

PLACE, CAPTURE, RELEASE = HoldAction.PLACE, HoldAction.CAPTURE, HoldAction.RELEASE
WORDS = (*Scope._fields, "operation", "category", "provider")


def rich(prices: PriceList | None = None) -> World:
    world = World() if prices is None else World(prices)
    world.buy("100")
    return world


def answer(outcome: Outcome) -> HoldDecision:
    (only,) = outcome.decisions
    return only


def dimensions_of(outcome: Outcome) -> list[dict[str, Any]]:
    """The dimensions of each entry, as far as it has any."""
    return [{name: value for name in WORDS if (value := getattr(entry, name)) is not None} for entry in outcome.entries]


@pytest.mark.parametrize("field", Scope._fields)
def test_a_budget_of_any_field_refuses_a_hold_and_counts_what_is_held_and_captured(field: str) -> None:
    world = rich()
    body = {"budget_id": "b", "unit": "USD", "scope": {field: "x"}, "window": "day", "limit": "20"}
    world.set(SettingKind.BUDGET, body)
    too_much = answer(world.hold(PLACE, "h1", "20.000000001", **{field: "x"}))
    assert (too_much.code, too_much.http_status) == (DecisionCode.LIMIT_REACHED, 402)
    assert (too_much.limit_id, too_much.limit_window, too_much.limit_ends_at) == ("b", "day", START + DAY)
    assert answer(world.hold(PLACE, "h2", "15", **{field: "x"})).allowed
    assert answer(world.hold(PLACE, "h3", "6", **{field: "x"})).limit_id == "b"  # 15 of 20 are held
    assert answer(world.hold(PLACE, "h4", "6", **{field: "y"})).allowed
    assert answer(world.hold(PLACE, "h5", "6")).allowed
    world.hold(CAPTURE, "h2", "12")
    assert answer(world.hold(PLACE, "h6", "9", **{field: "x"})).limit_id == "b"  # 12 of 20 are spent
    assert answer(world.hold(PLACE, "h7", "8", **{field: "x"})).allowed
    world.check()


def test_every_entry_of_a_hold_carries_what_it_said() -> None:
    world = rich()
    words = {name: f"{name}-1" for name in WORDS}
    assert dimensions_of(world.hold(PLACE, "h1", "10", **words)) == [words]
    captured = world.hold(CAPTURE, "h1", "4")
    assert [entry.kind for entry in captured.entries] == [EntryKind.USAGE, EntryKind.HOLD_RELEASE]
    assert dimensions_of(captured) == [words, words]
    world.hold(PLACE, "h2", "10", **words)
    assert dimensions_of(world.hold(RELEASE, "h2")) == [words]
    assert dimensions_of(world.hold(PLACE, "h3", "1000", **words)) == [words]  # refused
    world.hold(PLACE, "h4", "10", **words)
    (entry,) = world.tick(DAY)
    assert (entry.reason, entry.team, entry.provider) == ("hold_timed_out", "team-1", "provider-1")
    world.check()


@pytest.mark.parametrize("field", ["category", "model", "tool", "provider"])
def test_work_is_free_where_its_price_names_what_the_hold_says(field: str) -> None:
    price: dict[str, Any] = {"billing_unit": BillingUnit.REQUEST, "wallet": "USD", "valid_from": 0}
    listed = [
        msgspec.convert({"price_id": "any", "operation": "run", "unit_price_nanos": NANOS, **price}, Price),
        msgspec.convert(
            {"price_id": "free", "operation": "run", "unit_price_nanos": 0, "free": True, field: "x", **price}, Price
        ),
    ]
    world = World(PriceList(listed))
    free = answer(world.hold(PLACE, "h1", "5", operation="run", **{field: "x"}))
    assert (free.allowed, free.granted_nanos, free.available_nanos) == (True, 0, 0)
    for more in ({}, {field: "y"}):
        paid = answer(world.hold(PLACE, f"h2{more}", "5", operation="run", **more))
        assert paid.code is DecisionCode.CREDITS_NOT_AVAILABLE
    world.check()


def test_a_hold_kept_before_it_could_say_more_is_read_as_saying_nothing_of_it() -> None:
    world = rich()
    world.hold(PLACE, "h", "10", user_id="ann", operation="chat")
    new = encode_account(world.account())
    kept = msgspec.msgpack.decode(new)
    holds = next(field for field in kept if isinstance(field, dict) and "h" in field)
    assert holds["h"][6:] == [None, None, {}]
    holds["h"] = holds["h"][:6]
    assert encode_account(decode_account(msgspec.msgpack.encode(kept))) == new
