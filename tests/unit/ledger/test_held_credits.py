"""Holds are honoured by everything: refunds, expiry, the turn of the month, transfers (product rule 18)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from schemas.amounts import NANOS
from schemas.enums import AlertKind, EntryKind, EntryReason, HoldAction, RefundTarget, SettingKind
from streams.ledger.account import Wallet
from streams.ledger.entry import Entry, Outcome
from streams.ledger.refusals import BrokenLedger
from tests.unit.ledger.world import DAY, START, World, fold

PLACE, CAPTURE, RELEASE = HoldAction.PLACE, HoldAction.CAPTURE, HoldAction.RELEASE
HOUR = DAY // 24


def wallet_of(world: World) -> Wallet:
    return world.account().wallets["USD"]


def amounts(entries: list[Entry] | tuple[Entry, ...]) -> list[tuple[str, float]]:
    """Kind and amount in units of what moved something."""
    return [(entry.kind.value, entry.amount_nanos / NANOS) for entry in entries if entry.amount_nanos]


def drawn(outcome: Outcome) -> dict[str, float]:
    """What the first entry took from each grant."""
    return {part.grant_id: part.amount_nanos / NANOS for part in outcome.entries[0].slices}


def ending(held: str = "80", much: str = "100") -> World:
    """Credits that end in an hour, a part of them held for two."""
    world = World()
    world.buy(much, purchase_id="p", expires_at=world.at + HOUR)
    world.hold(PLACE, "h", held, expires_at=world.at + 2 * HOUR)
    return world


@pytest.mark.fault(
    "refund-under-hold",
    title="a purchase is refunded while its credits are held",
    provoked="100 bought, 80 held, refunds of 100 and of a nano-credit more than 20, then of 20; a capture of 80",
    holds="at most what is not held is refunded, and the capture leaves nothing owed",
    faults_row=17,
)
def test_a_refund_leaves_what_is_held(seen: Callable[[str], None]) -> None:
    world = World()
    world.buy("100", purchase_id="p")
    world.hold(PLACE, "h", "80")
    for much in ("100", "20.000000001"):
        (refused,) = world.refund(RefundTarget.PURCHASE, "p", much).entries
        assert (refused.kind, refused.reason) == (EntryKind.REJECTED, "exceeds_refundable")
    assert amounts(world.refund(RefundTarget.PURCHASE, "p", "20").entries) == [("refund", -20)]
    world.hold(CAPTURE, "h", "80")
    assert (wallet_of(world).settled, wallet_of(world).overdraft) == (0, 0)
    world.check()
    seen("both refused as exceeds_refundable; 20 refunded; the balance is 0 after the capture")


def test_a_refund_may_take_what_other_credits_make_up_for() -> None:
    world = World()
    world.buy("100", purchase_id="p")
    world.buy("100", purchase_id="q")
    world.hold(PLACE, "h", "80")
    assert amounts(world.refund(RefundTarget.PURCHASE, "p", "100").entries) == [("refund", -100)]
    assert world.refund(RefundTarget.PURCHASE, "q", "20.000000001").entries[0].reason == "exceeds_refundable"
    world.check()


@pytest.mark.fault(
    "expiry-under-hold",
    title="credits expire while they are held",
    provoked="100 that end in an hour, 80 of them held for two; captures of 0, 50, 80 and 90, a release, a time-out",
    holds="20 expire at the end, the 80 stay for the hold alone; what it does not take expires when it is resolved",
    faults_row=17,
)
@pytest.mark.parametrize("captured", ["0", "50", "80", "90"])
def test_what_is_held_stays_until_it_is_captured(captured: str, seen: Callable[[str], None]) -> None:
    world = ending()
    assert amounts(world.tick(HOUR)) == [("expiry", -20)]
    assert (wallet_of(world).settled, wallet_of(world).held) == (80 * NANOS, 80 * NANOS)
    outcome = world.hold(CAPTURE, "h", captured)
    spent, left = float(captured), max(0.0, 80 - float(captured))
    assert amounts(outcome.entries) == [("usage", -spent)] * bool(spent) + [("expiry", -left)] * bool(left)
    assert wallet_of(world).settled == round(min(0.0, 80 - spent) * NANOS)
    if spent:
        assert drawn(outcome)["purchase/p"] == min(spent, 80)
    assert not wallet_of(world).ended
    world.check()
    seen("20 expired; the capture was paid from the 80 that stayed, and their rest expired with it")


def test_what_a_release_gives_back_of_an_expired_grant_is_gone() -> None:
    world = ending()
    world.tick(HOUR)
    world.tick(HOUR // 2)
    released = world.hold(RELEASE, "h", "0").entries
    assert amounts(released) == [("expiry", -80)]
    assert (released[-1].occurred_at, released[-1].reason) == (world.at, EntryReason.GRANT_EXPIRED)
    assert wallet_of(world).settled == 0
    world.check()


def test_what_a_time_out_gives_back_of_an_expired_grant_is_gone_then() -> None:
    world = ending()
    entries = world.tick(5 * HOUR)
    assert [(entry.kind.value, entry.occurred_at - START) for entry in entries] == [
        ("rollover", HOUR),
        ("expiry", HOUR),
        ("hold_release", 2 * HOUR),
        ("expiry", 2 * HOUR),
    ]
    assert (entries[0].reason, entries[0].details) == ("grant_held", '{"kept_nanos":{"purchase/p":80000000000}}')
    assert world.alerts[-1].kind is AlertKind.BALANCE_DEPLETED
    world.check()


def test_a_hold_of_all_lets_nothing_expire_before_it_is_resolved() -> None:
    world = ending("100")
    assert amounts(world.tick(HOUR)) == []
    assert amounts(world.hold(RELEASE, "h", "0").entries) == [("expiry", -100)]
    world.check()


def test_other_usage_does_not_draw_what_stays_for_a_hold() -> None:
    world = ending()
    world.tick(HOUR)
    assert drawn(world.use("5")) == {"overdraft": 5}
    world.buy("50", purchase_id="q")
    assert world.account().wallets["USD"].grants[0].remaining == 45 * NANOS, "the overdraft is paid by what came"
    world.use("1")
    assert wallet_of(world).fast_path_limit > 0, "the fast way is open on what is not kept"
    assert drawn(world.use("2")) == {"purchase/q": 2}
    assert drawn(world.hold(CAPTURE, "h", "81")) == {"purchase/p": 80, "purchase/q": 1}
    world.check()


def test_what_has_expired_is_not_refunded_though_it_is_kept() -> None:
    world = ending()
    world.buy("100", purchase_id="q")
    world.tick(HOUR)
    assert world.refund(RefundTarget.PURCHASE, "p", "1").entries[0].reason == "exceeds_refundable"
    assert amounts(world.refund(RefundTarget.PURCHASE, "q", "100").entries) == [("refund", -100)]
    world.check()


def test_it_stays_for_the_holds_that_covered_it_and_no_other() -> None:
    """The hold placed first covers what is drawn first; one that is placed after the end has no part in it."""
    world = World()
    world.buy("100", purchase_id="p", expires_at=world.at + HOUR)
    world.buy("100", purchase_id="q")
    world.hold(PLACE, "first", "70")
    world.hold(PLACE, "second", "70")
    assert amounts(world.tick(HOUR)) == []
    world.hold(PLACE, "third", "30")
    assert amounts(world.hold(RELEASE, "second", "0").entries) == [("expiry", -30)]
    assert drawn(world.hold(CAPTURE, "third", "30")) == {"purchase/q": 30}
    assert drawn(world.hold(CAPTURE, "first", "75")) == {"purchase/p": 70, "purchase/q": 5}
    world.check()


def test_a_hold_covers_what_would_be_drawn_first() -> None:
    world = World()
    world.give("100", purchase_id="g", priority=90, expires_at=world.at + HOUR)
    world.buy("100", purchase_id="p")
    world.hold(PLACE, "h", "80")
    assert amounts(world.tick(HOUR)) == [("expiry", -100)]
    world.hold(CAPTURE, "h", "80")
    assert wallet_of(world).settled == 20 * NANOS
    world.check()


def test_what_is_given_back_of_earlier_usage_expires_at_once_beside_what_is_kept() -> None:
    world = World()
    world.buy("100", purchase_id="p", expires_at=world.at + HOUR)
    world.use("20", event_id="u")
    world.hold(PLACE, "h", "50")
    world.tick(HOUR)
    assert amounts(world.refund(RefundTarget.USAGE, "u", "20").entries) == [("refund", 20), ("expiry", -20)]
    assert wallet_of(world).settled == 50 * NANOS
    assert drawn(world.hold(CAPTURE, "h", "50")) == {"purchase/p": 50}
    world.check()


def test_a_usage_in_another_wallet_lets_all_of_it_go() -> None:
    world = ending()
    world.buy("10", unit="EUR")
    world.tick(HOUR)
    outcome = world.use("5", unit="EUR", hold_id="h")
    assert amounts(outcome.entries) == [("usage", -5), ("expiry", -80)]
    world.check()


@pytest.mark.parametrize(("rollover", "carried", "kept"), [("0", 0, 80), ("15", 15, 80), ("50", 50, 50)])
def test_an_allowance_under_a_hold_lapses_when_the_hold_is_resolved(rollover: str, carried: int, kept: int) -> None:
    """What is carried is what is drawn last, a hold covers what is drawn first: nobody loses it because of a hold."""
    world = World()
    world.tick(30 * DAY + 12 * HOUR - (world.at - START))
    world.set(SettingKind.WALLET, {"unit": "USD", "allowance": "100", "rollover_max": rollover})
    month = wallet_of(world).month
    turn = wallet_of(world).month_ends_at
    world.tick(turn - HOUR - world.at)
    world.hold(PLACE, "h", "80")
    entries = world.tick(2 * HOUR)
    assert wallet_of(world).month == month + 1
    lapsed = 100 - carried - kept
    assert amounts(entries) == [("expiry", -lapsed)] * bool(lapsed) + [("allowance", 100)]
    assert wallet_of(world).allocation == (200 - lapsed) * NANOS
    assert amounts(world.hold(RELEASE, "h", "0").entries) == [("expiry", -kept)]
    assert wallet_of(world).settled == (100 + carried) * NANOS
    world.check()


def test_a_transfer_leaves_what_is_held() -> None:
    world = ending()
    world.set(SettingKind.ORG, {"administrators": ["alice"]})
    world.set(SettingKind.ORG, {"administrators": ["alice"]}, "beta")
    world.buy("10", purchase_id="q")
    world.tick(HOUR)
    assert world.send("10.000000001", "acme", "beta").entries[0].reason == "insufficient_credits"
    assert drawn(world.send("10", "acme", "beta")) == {"purchase/q": 10}
    world.deliver()
    world.check()


def test_a_ledger_written_before_holds_were_honoured_folds_as_it_was_written() -> None:
    """What stays is what the entry says: where none says so, all of the grant goes."""
    world = ending()
    before = list(world.entries["acme"])
    expiry = next(entry for entry in world.tick(HOUR) if entry.kind is EntryKind.EXPIRY)
    whole = msgspec.structs.replace(
        expiry,
        seq=len(before) + 1,
        amount_nanos=-100 * NANOS,
        balance_nanos=0,
        available_nanos=-80 * NANOS,
        slices=(msgspec.structs.replace(expiry.slices[0], amount_nanos=100 * NANOS),),
    )
    account, _ = fold("acme", [*before, whole])
    assert (account.wallets["USD"].settled, account.wallets["USD"].held) == (0, 80 * NANOS)


def test_an_entry_that_says_more_stays_than_is_held_does_not_fold() -> None:
    world = ending()
    before = list(world.entries["acme"])
    held = world.tick(HOUR)[0]
    wrong = msgspec.structs.replace(held, details='{"kept_nanos":{"purchase/p":90000000000}}')
    with pytest.raises(BrokenLedger):
        fold("acme", [*before, wrong])
