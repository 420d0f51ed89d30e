"""What resolves a hold and is read after its end, but arrived before it: no order between topics ends it (rule 18)."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.amounts import NANOS
from schemas.enums import EntryKind, HoldAction
from streams.ledger.holds import TIMED_OUT_KEPT_US, TIMED_OUT_MAX
from streams.processing.validation import FUTURE_TOLERANCE_US
from tests.model.memory import NOW_US, FixedPrices, MemoryLedger, Sent, sent
from tests.unit.processing.test_step import usage

SECOND_US = 1_000_000
ENDS_AT = NOW_US + 60 * SECOND_US


def hold(action: HoldAction, at: int, amount: int = 5 * NANOS, **more: str) -> Sent:
    fields = {"hold_id": "h", "org_id": "acme", "action": action.value, "wallet": "USD", "amount_nanos": amount, **more}
    return sent("hold", fields | ({"expires_at": ENDS_AT} if action is HoldAction.PLACE else {}), at)


def usage_at(org: str, event_id: str, at: int, **fields: Any) -> Sent:
    """Usage that arrives at `at`."""
    sent_now = usage(event_id, org, **{"cost_nanos": 1, "wallet": "USD", **fields})
    return Sent(sent_now.topic, sent_now.key, sent_now.value, at)


@pytest.fixture
def ledger() -> MemoryLedger:
    """100 USD, 5 of them held, and a clock that another organisation has moved beyond the hold's end."""
    book = MemoryLedger(FixedPrices([]))
    bought = {"purchase_id": "p", "org_id": "acme", "wallet": "USD", "amount_nanos": 100 * NANOS}
    at = ENDS_AT + SECOND_US
    book.feed([sent("purchase", bought), hold(HoldAction.PLACE, NOW_US), usage_at("other", "u", at)])
    assert book.partition.clock_at == at
    return book


def kinds(book: MemoryLedger) -> list[EntryKind]:
    return [EntryKind(row["kind"]) for row in book.rows("ledger") if row["org_id"] == "acme"][2:]


@pytest.mark.parametrize(
    ("action", "expected"),
    [(HoldAction.CAPTURE, [EntryKind.USAGE]), (HoldAction.RELEASE, [EntryKind.HOLD_RELEASE])],
)
def test_what_arrived_before_the_end_is_decided_before_it(
    ledger: MemoryLedger, action: HoldAction, expected: list[EntryKind]
) -> None:
    ledger.feed([hold(action, ENDS_AT - 1_000)])
    assert kinds(ledger) == expected
    assert [row["allowed"] for row in ledger.rows("decisions")] == [True, True]
    assert ledger.account("acme").wallets["USD"].held == 0


def test_usage_that_names_the_hold_draws_what_the_hold_kept_of_an_ended_grant() -> None:
    book = MemoryLedger(FixedPrices([]))
    bought = {"purchase_id": "p", "org_id": "acme", "wallet": "USD", "amount_nanos": 100 * NANOS}
    book.feed([sent("purchase", bought | {"expires_at": ENDS_AT - 30 * SECOND_US}), hold(HoldAction.PLACE, NOW_US)])
    book.tick(ENDS_AT - 20 * SECOND_US)
    assert book.account("acme").wallets["USD"].settled == 5 * NANOS
    book.feed([usage_at("other", "u", ENDS_AT + SECOND_US)])
    book.feed([usage_at("acme", "late", ENDS_AT - SECOND_US, cost_nanos=5 * NANOS, hold_id="h")])
    wallet = book.account("acme").wallets["USD"]
    assert (wallet.settled, wallet.overdraft, wallet.held) == (0, 0, 0)
    assert kinds(book)[-1] is EntryKind.USAGE


def test_usage_that_names_the_hold_and_arrived_at_its_end_comes_after_it(ledger: MemoryLedger) -> None:
    ledger.feed([usage_at("acme", "late", ENDS_AT, cost_nanos=5 * NANOS, hold_id="h")])
    assert kinds(ledger) == [EntryKind.HOLD_RELEASE, EntryKind.USAGE]


def test_what_arrived_at_the_end_comes_after_it(ledger: MemoryLedger) -> None:
    ledger.feed([hold(HoldAction.CAPTURE, ENDS_AT)])
    assert kinds(ledger) == [EntryKind.HOLD_RELEASE, EntryKind.REJECTED]


@pytest.fixture
def timed_out() -> MemoryLedger:
    """100 USD; a hold of 5 for `u1`, which a usage of the same organisation has ended."""
    book = MemoryLedger(FixedPrices([]))
    bought = {"purchase_id": "p", "org_id": "acme", "wallet": "USD", "amount_nanos": 100 * NANOS}
    book.feed([sent("purchase", bought), hold(HoldAction.PLACE, NOW_US, user_id="u1")])
    book.feed([usage_at("acme", "u", ENDS_AT + 1_000)])
    assert kinds(book) == [EntryKind.HOLD_RELEASE, EntryKind.USAGE]
    return book


def test_a_capture_in_time_is_booked_although_another_record_has_ended_its_hold(timed_out: MemoryLedger) -> None:
    timed_out.feed([hold(HoldAction.CAPTURE, ENDS_AT - 1_000, amount=7 * NANOS)])
    row = timed_out.rows("ledger")[-1]
    assert (row["kind"], row["amount_nanos"], row["hold_id"], row["user_id"]) == ("usage", -7 * NANOS, "h", "u1")
    decision = timed_out.rows("decisions")[-1]
    assert (decision["allowed"], decision["code"], decision["granted_nanos"]) == (True, "ok", 7 * NANOS)
    wallet = timed_out.account("acme").wallets["USD"]
    assert (wallet.settled, wallet.held) == (93 * NANOS - 1, 0)
    timed_out.feed([hold(HoldAction.CAPTURE, ENDS_AT - 1_000, amount=8 * NANOS)])
    assert timed_out.rows("decisions")[-1]["code"] == "already_resolved"


def test_the_same_in_one_batch_gives_the_same_account(timed_out: MemoryLedger) -> None:
    capture = hold(HoldAction.CAPTURE, ENDS_AT - 1_000)
    timed_out.feed([capture])
    book = MemoryLedger(FixedPrices([]))
    bought = {"purchase_id": "p", "org_id": "acme", "wallet": "USD", "amount_nanos": 100 * NANOS}
    placed = hold(HoldAction.PLACE, NOW_US, user_id="u1")
    book.feed([sent("purchase", bought), placed, usage_at("acme", "u", ENDS_AT + 1_000), capture])
    assert book.account("acme") == timed_out.account("acme")


def test_a_capture_at_the_end_of_a_hold_that_timed_out_is_refused(timed_out: MemoryLedger) -> None:
    timed_out.feed([hold(HoldAction.CAPTURE, ENDS_AT)])
    assert kinds(timed_out)[2:] == [EntryKind.REJECTED]


def test_usage_that_names_a_hold_that_timed_out_stands_for_its_capture(timed_out: MemoryLedger) -> None:
    timed_out.feed([usage_at("acme", "late", ENDS_AT - 1_000, hold_id="h"), hold(HoldAction.CAPTURE, ENDS_AT - 1_000)])
    assert kinds(timed_out)[2:] == [EntryKind.USAGE, EntryKind.REJECTED]


def test_a_hold_placed_long_after_an_end_forgets_it(timed_out: MemoryLedger) -> None:
    assert TIMED_OUT_KEPT_US == FUTURE_TOLERANCE_US, "so far ahead of its arrival a hold's time may be"
    other = {"hold_id": "h2", "org_id": "acme", "action": "place", "wallet": "USD", "amount_nanos": NANOS}
    timed_out.feed([sent("hold", other, ENDS_AT + TIMED_OUT_KEPT_US - SECOND_US)])
    assert list(timed_out.account("acme").holds_timed_out) == ["h"]
    timed_out.feed([sent("hold", other | {"hold_id": "h3"}, ENDS_AT + TIMED_OUT_KEPT_US)])
    assert not timed_out.account("acme").holds_timed_out


def test_as_many_that_timed_out_are_remembered_as_may_be() -> None:
    book = MemoryLedger(FixedPrices([]))
    placed = {"org_id": "acme", "action": "place", "wallet": "USD", "amount_nanos": 1, "on_shortage": "overflow"}
    ends = [sent("hold", placed | {"hold_id": f"h{n}", "expires_at": ENDS_AT + n}) for n in range(TIMED_OUT_MAX + 1)]
    book.feed(ends)
    book.tick(ENDS_AT + SECOND_US)
    assert list(book.account("acme").holds_timed_out) == [f"h{n}" for n in range(1, TIMED_OUT_MAX + 1)]


def test_a_capture_that_cannot_be_booked_leaves_the_end_as_it_was(ledger: MemoryLedger) -> None:
    ledger.feed([hold(HoldAction.CAPTURE, ENDS_AT - 1_000, amount=-1)])
    assert len(ledger.dead_letters()) == 1
    ledger.tick(ledger.partition.clock_at)
    (row,) = [row for row in ledger.rows("ledger") if row["kind"] == "hold_release"]
    assert row["occurred_at"] == ENDS_AT
