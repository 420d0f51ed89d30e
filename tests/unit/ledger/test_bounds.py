"""No input makes an account larger than one message may be, and nothing is lost at a limit (product rule 16)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from schemas.amounts import NANOS, parse_amount
from schemas.codec import encode_one
from schemas.enums import (
    DeadLetterCode,
    DecisionCode,
    EntryKind,
    HoldAction,
    OnShortage,
    PurchaseStatus,
    RefundTarget,
    SettingKind,
)
from schemas.fields import ATTRIBUTE_VALUE_CHARACTERS_MAX, ATTRIBUTES_MAX, ID_CHARACTERS_MAX, NAME_CHARACTERS_MAX
from schemas.records import bundled_id
from schemas.topics import ACCOUNT_BYTES_MAX, RECORD_BYTES_MAX
from streams.ledger.account import Account, encode_account
from streams.ledger.bounds import (
    FULL_BYTES,
    GRANTS_MAX,
    MEMBERS_MAX,
    REFUNDED_MAX,
    TRANSFERS_IN_TRANSIT_MAX,
    WALLETS_MAX,
    refuse_full_account,
)
from streams.ledger.commands import Purchase
from streams.ledger.corrections import CORRECTED_MAX
from streams.ledger.entry import Outcome
from streams.ledger.refusals import DeadLetter
from streams.ledger.usage import book_usage, wallet_for
from tests.unit.ledger.world import DAY, World

WIDE = "\N{GRINNING FACE}"
"""A character of four bytes."""


def wide(number: int, characters: int = ID_CHARACTERS_MAX) -> str:
    """A text as long as may be, in characters and in bytes."""
    return f"{number:08d}" + WIDE * (characters - 8)


def reasons(outcome: Outcome) -> list[str | None]:
    return [entry.reason for entry in outcome.entries if entry.kind is EntryKind.REJECTED]


def pair(world: World) -> None:
    """Two orgs with one administrator."""
    for org in ("acme", "beta"):
        world.set(SettingKind.ORG, {"administrators": ["alice"]}, org)


def with_wallets() -> World:
    """An org with all the wallets it may have, the first of them USD."""
    world = World()
    pair(world)
    for number in range(WALLETS_MAX):
        world.buy("10", unit=f"unit-{number}" if number else "USD")
    return world


def set_wallet(world: World) -> Outcome:
    return world.set(SettingKind.WALLET, {"unit": "more"})


def fail_charge(world: World) -> Outcome:
    return world.buy("10", unit="more", status=PurchaseStatus.FAILED)


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        (lambda world: world.buy("10", unit="more"), "too_many_wallets"),
        (lambda world: world.give("10", unit="more"), "too_many_wallets"),
        (fail_charge, "too_many_wallets"),
        (set_wallet, "invalid_setting"),
        (lambda world: world.set(SettingKind.THRESHOLDS, {"unit": "more", "rules": []}), "invalid_setting"),
        (lambda world: world.set(SettingKind.MONTH_LIMITS, {"unit": "more"}), "invalid_setting"),
        (lambda world: world.set(SettingKind.AUTO_TOPUP, {"unit": "more"}), "invalid_setting"),
        (
            lambda world: world.hold(HoldAction.PLACE, "h", "1", unit="more", on_shortage=OnShortage.OVERFLOW),
            "limit_reached",
        ),
    ],
)
def test_a_wallet_too_many_is_refused(do: Callable[[World], Outcome], reason: str) -> None:
    world = with_wallets()
    assert reasons(do(world)) == [reason]
    assert len(world.account().wallets) == WALLETS_MAX
    assert reasons(world.buy("10", unit="USD")) == []
    world.check()


def test_usage_in_a_wallet_too_many_is_a_dead_letter_and_the_others_go_on() -> None:
    world = with_wallets()
    before = encode_account(world.account())
    for cost in ("1", "0"):
        with pytest.raises(DeadLetter) as refusal:
            world.use(cost, unit="more")
        assert refusal.value.code is DeadLetterCode.INVALID_FIELD
    assert isinstance(book_usage(world.account(), wallet_for(world.account(), "more"), NANOS, world.at), DeadLetter)
    with pytest.raises(DeadLetter):
        world.use("1", unit="more", revision=1)
    assert encode_account(world.account()) == before
    world.use("11", unit="USD")
    assert world.settled() == -NANOS
    world.check()


def test_a_transfer_into_a_wallet_too_many_comes_back() -> None:
    world = with_wallets()
    world.buy("10", "beta", "more")
    world.send("4", "beta", "acme", unit="more")
    world.deliver()
    assert reasons(world_last(world, "acme")) == ["too_many_wallets"]
    assert world.settled("beta", "more") == 10 * NANOS
    world.check()


def world_last(world: World, org: str) -> Outcome:
    """The last entry of an org, as an outcome."""
    return Outcome(entries=world.entries[org][-1:])


def test_a_grant_too_many_is_refused_until_one_is_used_up() -> None:
    world = World()
    pair(world)
    for _ in range(GRANTS_MAX - 1):
        world.give("1")
    world.give("1", unit="EUR")
    assert reasons(world.buy("1")) == reasons(world.buy("1", unit="GBP")) == ["too_many_grants"]
    world.buy("3", "beta")
    world.send("2", "beta", "acme")
    world.deliver()
    assert reasons(world_last(world, "acme")) == ["too_many_grants"]
    assert world.settled("beta") == 3 * NANOS
    used = world.use("1").entries[0]
    assert reasons(world.buy("1")) == []
    refund = world.refund(RefundTarget.USAGE, used.event_id, "1")
    assert reasons(refund) == ["too_many_grants"], "its grant is empty, and another took its place"
    assert reasons(world.use("2", event_id=used.event_id, revision=1)) == ["too_many_grants"]
    world.use("1")
    assert reasons(world.refund(RefundTarget.USAGE, used.event_id, "1")) == []
    world.set(SettingKind.WALLET, {"unit": "USD", "allowance": "5"})
    assert world.account().wallets["USD"].grants[0].kind == "allowance", "the allowance is given all the same"
    world.check()


def test_grants_on_their_way_count_for_they_may_come_back() -> None:
    world = World()
    pair(world)
    for _ in range(GRANTS_MAX):
        world.give("1")
    world.send(str(GRANTS_MAX), "acme", "gone")
    assert reasons(world.buy("1")) == ["too_many_grants"]
    world.deliver()
    assert world.settled() == GRANTS_MAX * NANOS
    world.check()


def test_a_transfer_too_many_is_refused_until_one_has_arrived() -> None:
    world = World()
    pair(world)
    world.buy("5000")
    for _ in range(TRANSFERS_IN_TRANSIT_MAX):
        assert reasons(world.send("1", "acme", "beta")) == []
    assert reasons(world.send("1", "acme", "beta")) == ["too_many_transfers"]
    world.deliver()
    assert reasons(world.send("1", "acme", "beta")) == []


def test_a_refund_too_many_waits_for_the_oldest_to_be_forgotten() -> None:
    world = World()
    world.buy("100000")
    used = [world.use("2").entries[0].event_id for _ in range(REFUNDED_MAX + 1)]
    for event_id in used[:-1]:
        world.refund(RefundTarget.USAGE, event_id, "1")
    assert reasons(world.refund(RefundTarget.USAGE, used[-1], "1")) == ["too_many_refunds"]
    assert reasons(world.refund(RefundTarget.USAGE, used[0], "1")) == [], "one that is remembered takes no more room"
    world.tick(36 * DAY)
    later = world.use("2").entries[0].event_id
    assert reasons(world.refund(RefundTarget.USAGE, later, "1")) == []
    assert len(world.account().refunded) == 1


def test_a_revision_too_many_waits_for_the_oldest_to_be_forgotten() -> None:
    world = World()
    world.buy("100000")
    for _ in range(CORRECTED_MAX):
        world.use("2", revision=1)
    with pytest.raises(DeadLetter) as refusal:
        world.use("2", revision=1)
    assert refusal.value.code is DeadLetterCode.INVALID_FIELD
    world.tick(36 * DAY)
    world.use("2", revision=1)
    assert len(world.account().corrected) == 1


def test_a_member_too_many_is_refused_until_one_is_taken_off() -> None:
    world = World()
    for number in range(MEMBERS_MAX):
        world.set(SettingKind.MEMBER, {"user_id": f"u{number}", "role": "member"})
    more = {"user_id": "more", "role": "member"}
    assert reasons(world.set(SettingKind.MEMBER, more)) == ["invalid_setting"]
    assert reasons(world.set(SettingKind.MEMBER, {"user_id": "u0", "role": "admin"})) == []
    assert reasons(world.set(SettingKind.MEMBER, {"user_id": "u0", "role": "none"})) == []
    assert reasons(world.set(SettingKind.MEMBER, more)) == []


def test_those_barred_first_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.ledger.settings.BARRED_MAX", 2)
    world = World()
    for name in ("a", "member", "b", "c"):
        world.set(SettingKind.MEMBER, {"user_id": name, "role": "member" if name == "member" else "none"})
    assert list(world.account().members) == ["member", "b", "c"]


def budget(world: World, number: int) -> Outcome:
    scope = {name: wide(number) for name in ("user_id", "project_id", "model", "tool", "team", "department")}
    body = {"budget_id": wide(number), "unit": "USD", "scope": scope, "window": "day", "limit": "5"}
    return world.set(SettingKind.BUDGET, body)


def own_price(world: World, number: int) -> Outcome:
    name = wide(number, NAME_CHARACTERS_MAX)
    dimensions = {"category": name, "model": name, "tool": name, "provider": name, "tier": name}
    body = {
        "price_id": wide(number),
        "operation": wide(number),
        "unit_price": "1",
        "billing_unit": "unit",
        "wallet": wide(0),
        "display_name": WIDE * 2_000,
        **dimensions,
    }
    return world.set(SettingKind.PRICE_OVERRIDE, body)


def index(world: World, number: int) -> Outcome:
    name = wide(number, NAME_CHARACTERS_MAX)
    dimensions = {"user_id": name, "project_id": name, "model": name, "tool": name, "operation": name}
    return world.hold(HoldAction.PLACE, wide(number), "0.000000001", **dimensions)


def full_of_holds() -> World:
    """An org that is full: of holds with the longest texts."""
    world = World()
    world.buy("100000")
    pair(world)
    number = 0
    while refuse_full_account(world.account()) is None:
        assert index(world, number).decisions[0].allowed
        number += 1
    return world


def test_long_texts_fill_an_account_and_what_lets_go_is_never_refused() -> None:
    world = full_of_holds()
    account = world.account()
    placed = len(account.holds)
    assert FULL_BYTES * 3 // 4 < len(encode_account(account)) <= FULL_BYTES + 64 * 1024
    refused = index(world, placed).decisions[0]
    assert (refused.code, refused.limit_id) == (DecisionCode.LIMIT_REACHED, "account_full")
    assert reasons(world.buy("1")) == reasons(world.send("1", "acme", "beta")) == ["account_full"]
    assert reasons(budget(world, 1)) == reasons(own_price(world, 1)) == ["invalid_setting"]
    assert reasons(world.set(SettingKind.MEMBER, {"user_id": "ann", "role": "admin"})) == ["invalid_setting"]
    with pytest.raises(DeadLetter):
        world.use("1", revision=1)
    assert reasons(world.set(SettingKind.ORG, {"closed": True, "administrators": ["alice"]})) == []
    world.set(SettingKind.ORG, {"administrators": ["alice"]})
    world.use("1")
    world.hold(HoldAction.CAPTURE, wide(0), "1")
    for number in range(1, placed // 2):
        assert reasons(world.hold(HoldAction.RELEASE, wide(number))) == []
    assert refuse_full_account(account) is None
    assert index(world, placed).decisions[0].allowed
    world.check()


@pytest.mark.parametrize("grow", [budget, own_price, index])
def test_a_full_account_is_far_below_the_largest_message(grow: Callable[[World, int], Outcome]) -> None:
    world = World()
    world.buy("100000")
    number = 0
    while refuse_full_account(world.account()) is None and not reasons(grow(world, number)):
        number += 1
    replace_all(world)
    assert len(encode_account(world.account())) < ACCOUNT_BYTES_MAX * 7 // 8
    assert reasons(grow(world, number + 1)) == ["limit_reached" if grow is index else "invalid_setting"]


def replace_all(world: World) -> None:
    """The largest settings of the kinds that a full account takes, for they replace what was there."""
    most = 50_000 // ID_CHARACTERS_MAX
    world.set(SettingKind.ORG, {"administrators": [wide(number) for number in range(most)]})
    world.set(SettingKind.MODEL_ACCESS, {"deny": [wide(number) for number in range(most)]})
    for number in range(WALLETS_MAX):
        rules = [{"rule_id": wide(rule), "type": "left_percent", "level": "5"} for rule in range(20)]
        world.set(SettingKind.THRESHOLDS, {"unit": wide(number), "rules": rules})


def test_the_largest_entry_and_leg_fit_into_a_record() -> None:
    """Usage with every attribute, and a transfer, that draw on all the grants an org may have."""
    world = World()
    pair(world)
    for number in range(GRANTS_MAX):
        grant = Purchase(wide(number), "acme", world.at, "USD", NANOS, currency=wide(1), price_paid_nanos=NANOS)
        world.do(grant)
    names = {name: wide(0, NAME_CHARACTERS_MAX) for name in ("user_id", "model", "tool", "team", "endpoint")}
    attributes = {wide(number): WIDE * ATTRIBUTE_VALUE_CHARACTERS_MAX for number in range(ATTRIBUTES_MAX)}
    world.send(str(GRANTS_MAX), "acme", "beta")
    assert len(encode_one("leg", world.legs[0].to_record(), bundled_id("leg"))) < RECORD_BYTES_MAX
    world.deliver()
    arrived = world.entries["beta"][-1]
    assert len(arrived.grants) == GRANTS_MAX
    assert len(encode_one("entry", arrived.to_record(), bundled_id("entry"))) < RECORD_BYTES_MAX
    used = world.use(str(GRANTS_MAX), "beta", attributes=attributes, **names).entries[0]
    assert len(used.slices) == GRANTS_MAX
    assert len(encode_one("entry", used.to_record(), bundled_id("entry"))) < RECORD_BYTES_MAX
    world.check()


def test_a_small_account_that_changes_for_ever_is_never_full() -> None:
    world = World()
    world.buy("100")
    text = {"administrators": [wide(number) for number in range(300)]}
    for _ in range(40):  # each entry is 0.2 MiB, the account too
        assert reasons(world.set(SettingKind.ORG, text)) == []
        assert refuse_full_account(world.account()) is None
    assert world.account().size_bound_bytes < FULL_BYTES
    world.check()


def held(account: Account) -> int:
    return sum(wallet.held for wallet in account.wallets.values())


def test_an_amount_that_is_held_when_the_account_is_full_still_times_out() -> None:
    world = full_of_holds()
    assert held(world.account()) == len(world.account().holds)
    world.tick(DAY)
    assert held(world.account()) == 0
    assert parse_amount("100000") == world.settled()
    world.check()
