"""Legs that no ledger can have written: a dead letter, and the orgs beside it go on (fault 1)."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.amounts import NANOS
from schemas.codec import encode_one
from schemas.enums import DeadLetterCode
from schemas.records import bundled_id
from tests.model.memory import NOW_US, TOPICS, FixedPrices, MemoryLedger, Sent, legs, sent
from tests.unit.processing.test_step import purchase, setting

LEG: dict[str, Any] = {
    "leg_id": "credit-1",
    "transfer_id": "t9",
    "kind": "credit",
    "org_id": "acme",
    "source_org_id": "bolt",
    "target_org_id": "acme",
    "wallet": "USD",
    "amount_nanos": 5,
    "actor": "ann",
    "occurred_at": NOW_US,
    "grants": [{"grant_id": "g", "kind": "purchased", "amount_nanos": 5, "priority": 50}],
}


def leg(key: str = "acme", **fields: Any) -> Sent:
    value = encode_one("leg", {**LEG, **fields}, bundled_id("leg"))
    return Sent(TOPICS.name("transfer_legs"), key.encode(), value, NOW_US)


def on_the_way() -> tuple[MemoryLedger, Sent]:
    """A ledger of two orgs, and the leg that brings 7 from bolt to acme."""
    book = MemoryLedger(FixedPrices([]))
    for org in ("acme", "bolt"):
        book.feed([setting(f"s-{org}", "org", '{"administrators": ["ann"]}', org), purchase(f"p-{org}", org)])
    moved = {"transfer_id": "t1", "org_id": "bolt", "target_org_id": "acme", "wallet": "USD", "actor": "ann"}
    book.feed([sent("transfer", {**moved, "amount_nanos": 7})])
    (good,) = legs(book)
    return book, good


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (leg(kind="furlong"), DeadLetterCode.INVALID_FIELD),
        (leg(grants=[{**LEG["grants"][0], "kind": "furlong"}]), DeadLetterCode.INVALID_FIELD),
        (leg(key="bolt"), DeadLetterCode.KEY_MISMATCH),
        (Sent(TOPICS.name("transfer_legs"), b"acme", b"leg", NOW_US), DeadLetterCode.UNDECODABLE),
        (Sent(TOPICS.name("transfer_legs"), b"acme", None, NOW_US), DeadLetterCode.NULL_VALUE),
    ],
)
def test_a_leg_that_is_none_is_a_dead_letter_and_its_neighbours_are_booked(bad: Sent, code: DeadLetterCode) -> None:
    book, good = on_the_way()
    book.feed([bad, good])
    assert book.dead_letters() == [(code, bad.value)]
    assert [row["kind"] for row in book.rows("ledger") if row["org_id"] == "acme"][-1] == "transfer_in"


def published(book: MemoryLedger, org: str) -> list[tuple[int, int]]:
    """Settled and on the way of the balances that were published of an org."""
    rows = [row["wallets"][0] for row in book.rows("balances") if row["org_id"] == org]
    return [(wallet["settled_nanos"], wallet["on_the_way_nanos"]) for wallet in rows]


@pytest.mark.parametrize("closed", [False, True])
def test_what_is_on_the_way_is_published_until_the_answer_is_in(closed: bool) -> None:
    book, good = on_the_way()
    if closed:
        book.feed([setting("closed", "org", '{"administrators": ["ann"], "closed": true}', "acme")])
    assert published(book, "bolt")[-2:] == [(10 * NANOS, 0), (10 * NANOS - 7, 7)]
    book.feed([good])
    assert published(book, "bolt")[-1] == (10 * NANOS - 7, 7)
    book.feed(legs(book)[1:])
    assert published(book, "bolt")[-1] == ((10 * NANOS, 0) if closed else (10 * NANOS - 7, 0))


def test_a_leg_that_is_sent_again_by_hand_is_booked_once() -> None:
    book, good = on_the_way()
    book.feed([good, good])
    book.feed([good])
    arrived = [row for row in book.rows("ledger") if row["kind"] == "transfer_in"]
    assert [row["amount_nanos"] for row in arrived] == [7]
    assert book.dead_letters() == []
