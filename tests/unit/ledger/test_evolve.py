"""The fold takes only what follows, and an account survives its bytes."""

from __future__ import annotations

import msgspec
import pytest

from schemas.enums import DeadLetterCode, SettingKind
from streams.ledger.account import decode_account, encode_account, new_account
from streams.ledger.commands import Usage
from streams.ledger.decide import Context, Source, decide
from streams.ledger.entry import Entry
from streams.ledger.evolve import evolve
from streams.ledger.refusals import BrokenLedger, DeadLetter
from tests.unit.ledger.world import DAY, PRICES, World, fold


def ledger() -> list[Entry]:
    world = World()
    world.set(SettingKind.WALLET, {"unit": "USD", "allowance": "10"})
    world.buy("5")
    world.use("2")
    world.use("3")
    return world.entries["acme"]


@pytest.mark.parametrize(
    "change",
    [
        {"org_id": "other"},
        {"seq": 7},
        {"seq": 4},
        {"balance_nanos": 0},
        {"held_nanos": 1},
        {"slices": ()},
        {"amount_nanos": -1},
    ],
)
def test_an_entry_that_does_not_follow_stops_the_fold(change: dict[str, object]) -> None:
    entries = ledger()
    account, _ = fold("acme", entries[:-1])
    with pytest.raises(BrokenLedger):
        evolve(account, msgspec.structs.replace(entries[-1], **change))


def test_an_entry_out_of_order_stops_the_fold() -> None:
    with pytest.raises(BrokenLedger):
        evolve(new_account("acme"), ledger()[1])


def test_an_account_survives_its_bytes() -> None:
    account, _ = fold("acme", ledger())
    data = encode_account(account)
    assert decode_account(data) == account
    assert encode_account(decode_account(data)) == data


def test_an_account_with_one_grant_is_small() -> None:
    """100,000 of them are 20 MB."""
    world = World()
    world.buy("100")
    world.use("1")
    assert len(encode_account(world.account())) <= 205


def test_nothing_is_decided_while_something_is_due() -> None:
    world = World()
    world.give("5", expires_at=world.at + DAY)
    usage = Usage("u", "acme", world.at, "chat", cost_nanos=1)
    with pytest.raises(BrokenLedger):
        decide(world.account(), usage, Context(world.at + DAY, PRICES, Source("t", 0, 1)))


@pytest.mark.parametrize(
    ("usage", "code"),
    [
        ({"operation": "unheard of"}, DeadLetterCode.UNKNOWN_PRICE),
        ({"cost_nanos": -1}, DeadLetterCode.INVALID_FIELD),
        ({"cost_nanos": 9 * 10**18 + 1}, DeadLetterCode.AMOUNT_OUT_OF_RANGE),
    ],
)
def test_a_dead_letter_leaves_no_trace(usage: dict[str, object], code: DeadLetterCode) -> None:
    world = World()
    world.buy("5")
    before = encode_account(world.account())
    fields = {"event_id": "u", "org_id": "acme", "occurred_at": world.at, "operation": "chat", **usage}
    with pytest.raises(DeadLetter) as refusal:
        world.do(Usage.from_record(fields))
    assert refusal.value.code is code
    assert encode_account(world.account()) == before


def test_usage_by_the_price_list_carries_its_price() -> None:
    world = World()
    world.buy("5")
    usage = Usage("u", "acme", world.at, "chat", model="gpt", input_tokens=100, output_tokens=50, user_id="ann")
    (entry,) = world.do(usage).entries
    assert entry.amount_nanos == -(100 * 2_500 + 50 * 10_000)
    assert (entry.unit_price_nanos, entry.output_unit_price_nanos, entry.billing_unit) == (2_500, 10_000, "token")
    assert (entry.user_id, entry.model, entry.input_tokens) == ("ann", "gpt", 100)
    world.check()
