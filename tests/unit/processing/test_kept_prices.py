"""What the ledger keeps of the price topic: what is in force does not depend on what compaction left (fault 34)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from schemas.amounts import NANOS
from schemas.codec import encode_one
from schemas.enums import DeadLetterCode
from schemas.kept_prices import place_headers, places_of
from schemas.records import bundled_id
from streams.processing.prices import PriceRecords
from tests.model.memory import NOW_US, SCHEMAS, TOPICS, FixedPrices, MemoryLedger, Sent
from tests.unit.processing.test_prices import LISTED, listed
from tests.unit.processing.test_step import usage

PRICES, KEPT = TOPICS.name("prices"), TOPICS.name("kept_prices")
GARBAGE = b"not a price"


@dataclass(frozen=True)
class Message:
    """As Kafka's client gives it."""

    place: int
    its_key: bytes | None
    its_value: bytes | None
    its_headers: Any = ()
    its_partition: int = 0

    def key(self) -> bytes | None:
        return self.its_key

    def value(self) -> bytes | None:
        return self.its_value

    def offset(self) -> int:
        return self.place

    def partition(self) -> int:
        return self.its_partition

    def headers(self) -> Any:
        return self.its_headers

    def timestamp(self) -> tuple[int, int]:
        return 1, NOW_US // 1_000 + self.place


class PriceTopic:
    """A price topic, the ledger that owns its partition, and what a reader makes of what is left of it."""

    def __init__(self) -> None:
        self.log: list[Message] = []
        self.book = MemoryLedger(FixedPrices([]))
        self.book.prices.records = PriceRecords(1, SCHEMAS)
        self._kept_read = 0

    def publish(self, price_id: str, value: bytes | dict[str, Any] | None, *, judge: bool = True) -> None:
        """A record comes; everybody has read it when its owner judges it."""
        if isinstance(value, dict):
            value = encode_one("price", {**LISTED, "unit_price_nanos": NANOS, "price_id": price_id, **value}, PRICE_ID)
        message = Message(len(self.log), price_id.encode(), value)
        self.log.append(message)
        self.book.prices.records.take([message], ())
        if judge:
            self.judge()

    def judge(self) -> None:
        """The owner gets the newest record."""
        last = self.log[-1]
        self.book._offsets[PRICES] = last.place
        self.book.feed([Sent(PRICES, last.its_key, last.its_value, last.timestamp()[1] * 1_000)])
        self.book.prices.records.take((), self.kept()[self._kept_read :])
        self._kept_read = len(self.kept())

    def kept(self) -> list[Message]:
        written = self.book.written.get(KEPT, [])
        return [
            Message(place, key, value, list(headers.items())) for place, (key, value, headers) in enumerate(written)
        ]

    def after_compaction(self) -> dict[str, int]:
        """The prices in force of a worker that starts when Kafka has dropped all it may drop."""
        records = PriceRecords(1, SCHEMAS)
        records.take(newest(self.log), newest(self.kept()))
        return in_force(records)

    def live(self) -> dict[str, int]:
        """The prices in force of a worker that saw everything."""
        return in_force(self.book.prices.records)


PRICE_ID = bundled_id("price")


def newest(log: list[Message]) -> list[Message]:
    by_key = {message.its_key: message for message in log}
    return sorted((each for each in by_key.values() if each.its_value is not None), key=lambda each: each.place)


def in_force(records: PriceRecords) -> dict[str, int]:
    return {price.price_id: price.unit_price_nanos // NANOS for price in records.log.prices}


def test_garbage_under_the_key_of_a_good_price_changes_nothing() -> None:
    topic = PriceTopic()
    topic.publish("p", {"model": "m"})
    topic.publish("p", GARBAGE)
    assert topic.book.dead_letters() == [(DeadLetterCode.UNDECODABLE, GARBAGE)]
    assert topic.live() == topic.after_compaction() == {"p": 1}


def test_a_price_that_ties_changes_nothing_under_its_own_id() -> None:
    topic = PriceTopic()
    topic.publish("other", {"model": "n"})
    topic.publish("p", {"model": "m", "unit_price_nanos": 3 * NANOS})
    topic.publish("p", {"model": "n", "unit_price_nanos": 9 * NANOS}, judge=False)
    assert topic.live() == {"other": 1, "p": 3}, "before it is judged, too"
    topic.judge()
    assert [code for code, _ in topic.book.dead_letters()] == [DeadLetterCode.INVALID_FIELD]
    assert topic.live() == topic.after_compaction() == {"other": 1, "p": 3}
    topic.publish("other", None)
    assert topic.live() == topic.after_compaction() == {"p": 3}, "refused is refused"


def test_a_refused_price_of_which_nothing_stood_before_stays_refused() -> None:
    topic = PriceTopic()
    topic.publish("other", {"model": "m"})
    topic.publish("p", {"model": "m"})
    topic.publish("other", None)
    assert topic.live() == topic.after_compaction() == {}
    topic.publish("p", {"model": "m", "unit_price_nanos": 2 * NANOS})
    assert topic.live() == topic.after_compaction() == {"p": 2}


def test_prices_are_replaced_taken_away_and_published_again() -> None:
    topic = PriceTopic()
    topic.publish("p", {"model": "m"})
    topic.publish("p", {"model": "m", "unit_price_nanos": 2 * NANOS})
    assert topic.live() == topic.after_compaction() == {"p": 2}
    topic.publish("p", None)
    assert topic.live() == topic.after_compaction() == {}
    topic.publish("p", {"model": "m", "unit_price_nanos": 4 * NANOS})
    assert topic.live() == topic.after_compaction() == {"p": 4}


def test_an_installation_that_kept_nothing_yet_keeps_its_prices_with_the_first_record_after_them() -> None:
    topic = PriceTopic()
    topic.publish("p", {"model": "m"}, judge=False)
    topic.publish("q", {"model": "n", "unit_price_nanos": 5 * NANOS}, judge=False)
    topic.publish("tie", {"model": "m"}, judge=False)
    topic.publish("p", GARBAGE)
    assert topic.live() == topic.after_compaction() == {"p": 1, "q": 5}


def test_a_published_price_is_in_force_before_its_owner_has_judged_it() -> None:
    topic = PriceTopic()
    topic.publish("p", {"model": "m"}, judge=False)
    topic.book.feed([usage("e1", model="m", input_tokens=1_000)])
    assert [row["amount_nanos"] for row in topic.book.rows("ledger")] == [-NANOS]


def test_a_record_in_another_keys_partition_is_no_price() -> None:
    records = PriceRecords(4, SCHEMAS)
    value = encode_one("price", listed("p", model="m"), PRICE_ID)
    records.take([Message(number, b"p", value, (), number) for number in range(4)], ())
    assert len(records.unjudged["p"]) == 1
    records.take([Message(9, b"p", None, (), (records.unjudged["p"][0].published.partition + 1) % 4)], ())
    assert in_force(records) == {"p": 1}


@pytest.mark.parametrize(
    "headers", [[], [("credits.price.published", b"1 2")], [("credits.price.published", b"a b c")]]
)
def test_nobody_else_writes_what_is_kept(headers: list[tuple[str, bytes]]) -> None:
    with pytest.raises(ValueError, match=r"not a place|invalid literal"):
        places_of(headers)
    assert places_of(place_headers((1, 2, 3), (4, 5, 6))) == ((1, 2, 3), (4, 5, 6))
