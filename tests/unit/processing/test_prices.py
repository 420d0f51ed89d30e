"""Prices as a worker takes them: a tie is a dead letter, and the end of the topic is asked for no more than needed."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from schemas.amounts import NANOS
from schemas.enums import DeadLetterCode
from streams.processing.coalesced_call import CoalescedCall
from tests.model.memory import NOW_US, FixedPrices, MemoryLedger, Sent, sent
from tests.unit.processing.test_step import setting, usage

LISTED = {"operation": "chat", "billing_unit": "1000_tokens", "wallet": "USD", "valid_from": 0}


def listed(price_id: str, **more: Any) -> dict[str, Any]:
    return {**LISTED, "price_id": price_id, "unit_price_nanos": NANOS, **more}


def test_a_price_that_ties_with_an_earlier_one_is_a_dead_letter() -> None:
    book = MemoryLedger(FixedPrices([]))
    first, second = listed("first", model="m"), listed("second", model="m", unit_price_nanos=9 * NANOS)
    records = [sent("price", first), sent("price", second)]
    for record, fields in zip(records, (first, second), strict=True):
        book.prices.publish([fields], record.at)
    book.feed([*records, usage("e1", model="m", input_tokens=1_000)])
    assert book.dead_letters() == [(DeadLetterCode.INVALID_FIELD, records[1].value)]
    assert [row["amount_nanos"] for row in book.rows("ledger")] == [-NANOS]


def test_prices_are_judged_by_what_was_published_before_them() -> None:
    """The worker may have read the topic further than the batch goes."""
    book = MemoryLedger(FixedPrices([]))
    first, second = listed("first", model="m"), listed("second", model="m")
    one = sent("price", first)
    book.prices.publish([first], one.at)
    book.prices.publish([second], one.at + 1_000)
    book.feed([one])
    assert book.dead_letters() == []
    book.feed([sent("price", second, one.at + 1_000)])
    assert [code for code, _ in book.dead_letters()] == [DeadLetterCode.INVALID_FIELD]


def test_a_price_is_judged_when_all_before_it_have_been_read() -> None:
    book = MemoryLedger(FixedPrices([], later=[listed("first", model="m")]))
    book.feed([sent("price", listed("second", model="m"), NOW_US + 1_000)])
    assert [code for code, _ in book.dead_letters()] == [DeadLetterCode.INVALID_FIELD]


OVERRIDE = '{"price_id":"own","operation":"chat","model":"m","unit_price":"1","billing_unit":"token","wallet":"USD"}'


@pytest.mark.parametrize(
    ("prices", "own"),
    [
        ([listed("pro", model="m", tier="pro")], setting("s", "org", '{"tier": "pro"}')),
        ([listed("acme's", model="m", org_id="acme")], setting("s", "org", "{}")),
        ([], setting("s", "price_override", OVERRIDE)),
    ],
)
def test_usage_with_a_price_of_its_orgs_own_asks_nobody(prices: list[dict[str, Any]], own: Sent) -> None:
    book = MemoryLedger(FixedPrices(prices))
    book.feed([own])
    book.feed([usage("e1", model="m", input_tokens=1)])
    assert book.prices.caught_up == 0
    book.feed([usage("e2", "bolt", model="m", input_tokens=1)])
    assert book.prices.caught_up == 1
    assert [code for code, _ in book.dead_letters()] == [DeadLetterCode.UNKNOWN_PRICE]


def test_beside_settings_a_price_of_the_orgs_own_is_no_reason_not_to_ask() -> None:
    """The setting may come before the usage, and take the tier away."""
    book = MemoryLedger(FixedPrices([listed("pro", model="m", tier="pro")], later=[listed("later", model="m")]))
    book.feed([setting("s1", "org", '{"tier": "pro"}')])
    book.feed([setting("s2", "org", "{}"), usage("e1", model="m", input_tokens=1_000)])
    assert book.prices.caught_up == 1
    assert book.dead_letters() == []


def test_usage_is_not_rated_by_prices_that_may_be_out_of_date() -> None:
    changed = listed("p", model="m", unit_price_nanos=3 * NANOS)
    book = MemoryLedger(FixedPrices([listed("p", model="m")], later=[changed]))
    book.feed([usage("e1", model="m", input_tokens=1_000)])
    assert book.prices.caught_up == 0
    book.prices.is_current = False
    book.feed([sent("purchase", {"purchase_id": "p1", "org_id": "acme", "wallet": "USD", "amount_nanos": NANOS})])
    assert book.prices.caught_up == 0, "a purchase needs no prices"
    book.feed([usage("e2", model="m", input_tokens=1_000)])
    book.feed([usage("e3", model="m", input_tokens=1_000)])
    assert book.prices.caught_up == 1
    amounts = [row["amount_nanos"] for row in book.rows("ledger") if row["kind"] == "usage"]
    assert amounts == [-NANOS, -3 * NANOS, -3 * NANOS]


class Questions:
    """A broker that answers when it is told to, and a clock that moves by pausing."""

    def __init__(self) -> None:
        self.now = 0.0
        self.begun_at: list[float] = []
        self.begun = threading.Semaphore(0)
        self.answer = threading.Semaphore(0)
        self.fails = False
        self.shared = CoalescedCall(self._ask, self._pause, lambda: self.now)

    def _ask(self) -> None:
        self.begun_at.append(self.now)
        self.begun.release()
        assert self.answer.acquire(timeout=10)
        if self.fails:
            raise TimeoutError

    def _pause(self, seconds: float) -> None:
        self.now += seconds

    def ask(self) -> threading.Thread:
        thread = threading.Thread(target=self.shared.refresh, args=(0.05,))
        thread.start()
        return thread


def test_who_asks_while_another_question_is_open_waits_for_the_next_one_and_shares_it() -> None:
    broker = Questions()
    first = broker.ask()
    assert broker.begun.acquire(timeout=10)
    others = [broker.ask() for _ in range(5)]
    while broker.shared.waiting < 5:
        others[0].join(0.001)
    broker.answer.release()
    first.join(10)
    assert broker.begun.acquire(timeout=10), "the open question began before they asked"
    assert all(other.is_alive() for other in others)
    broker.answer.release()
    for other in others:
        other.join(10)
    assert not any(other.is_alive() for other in others)
    assert len(broker.begun_at) == 2


def test_questions_begin_at_least_an_interval_apart() -> None:
    broker = Questions()
    broker.answer.release(4)
    for _ in range(4):
        broker.shared.refresh(0.05)
    assert broker.begun_at == pytest.approx([0.0, 0.05, 0.1, 0.15])


def test_a_question_that_fails_is_told_and_the_next_one_asks_again() -> None:
    broker = Questions()
    broker.fails = True
    broker.answer.release()
    with pytest.raises(TimeoutError):
        broker.shared.refresh(0.05)
    broker.fails = False
    broker.answer.release()
    broker.shared.refresh(0.05)
    assert len(broker.begun_at) == 2
