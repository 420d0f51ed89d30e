"""What the ledger keeps of the price topic: what is in force does not depend on what compaction left (fault 34)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from projections.sink import Sink
from schemas.amounts import NANOS
from schemas.codec import encode_one
from schemas.enums import DeadLetterCode
from schemas.kept_prices import JUDGED, position_headers
from schemas.partitioner import partition_of
from schemas.records import bundled_id
from streams.kafka.inbound import Inbound
from streams.processing.history import History, _read_judged_prices
from streams.processing.prices import PriceRecords
from streams.seals import NO_SEALS, Seals
from streams.settings import Settings
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
        self.book.prices.records = PriceRecords(1, SCHEMAS, TOPICS)
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
        records = PriceRecords(1, SCHEMAS, TOPICS)
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
    records = PriceRecords(4, SCHEMAS, TOPICS)
    value = encode_one("price", listed("p", model="m"), PRICE_ID)
    records.take([Message(number, b"p", value, (), number) for number in range(4)], ())
    assert len(records.unjudged["p"]) == 1
    records.take([Message(9, b"p", None, (), (records.unjudged["p"][0].published.partition + 1) % 4)], ())
    assert in_force(records) == {"p": 1}


WHERE = position_headers((1, 0, 2), (4, 0, 5))
KEY = "a key of the ledger"


def kept_value(price_id: str, **fields: Any) -> bytes:
    return encode_one("price", {**LISTED, "unit_price_nanos": NANOS, "price_id": price_id, **fields}, PRICE_ID)


FOREIGN = {
    "no headers": Message(7, b"p", kept_value("p", model="m")),
    "headers of something else": Message(7, b"p", kept_value("p", model="m"), [("a", b"1")]),
    "two numbers": Message(7, b"p", kept_value("p", model="m"), [("credits.price.published", b"1 2")]),
    "words": Message(7, b"p", kept_value("p", model="m"), [("credits.price.published", b"a b c")]),
    "a place beyond 64 bits": Message(7, b"p", b"", position_headers((1, 0, 2), (4, 0, 10**20))),
    "headers that are no text": Message(7, b"p", b"", [("credits.price.published", b"\xff")]),
    "a null without headers": Message(7, b"p", None),
    "another schema": Message(7, b"p", b"\x00\x00\x00\x00\x01zz", WHERE),
    "another record": Message(7, b"p", usage("e1").value, WHERE),
    "no record": Message(7, b"p", GARBAGE, WHERE),
    "a price that is none": Message(7, b"p", kept_value("p", operation=""), WHERE),
    "the price of another id": Message(7, b"p", kept_value("q", model="m"), WHERE),
    "a key that is no text": Message(7, b"\xff\xfe", None, WHERE),
    "no key": Message(7, None, None, WHERE),
}


def history_of(messages: Sequence[Message], partitions: int = 1, seals: Seals = NO_SEALS) -> int:
    """Up to where `credits rebuild --accounts` finds the prices judged."""
    log = SimpleNamespace(number=0, partitions=partitions, seals=seals, records=lambda _topic: [messages])
    history = History()
    _read_judged_prices(log, TOPICS, history)  # type: ignore[arg-type]
    return history.named[PRICES].last


def projected(messages: Sequence[Message], partitions: int = 1, seals: Seals = NO_SEALS) -> list[str]:
    """The price ids of the rows that the projection makes of them."""
    columns = ([each.place for each in messages], [0] * len(messages), [each.its_key for each in messages])
    values, headers = [each.its_value for each in messages], [each.its_headers for each in messages]
    inbound = Inbound(KEPT, 0, 0, len(messages), *columns, values, headers)
    sink = Sink(None, TOPICS, SCHEMAS, None, partitions, seals)  # type: ignore[arg-type]
    return [row for table in sink._kept_prices(inbound) for row in table.column("price_id").to_pylist()]


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_record_that_no_worker_wrote_stops_nobody_and_changes_nothing(kind: str) -> None:
    own = Message(
        3, b"p", kept_value("p", model="m", unit_price_nanos=3 * NANOS), position_headers((1, 0, 1), (1, 0, 1))
    )
    records = PriceRecords(1, SCHEMAS, TOPICS)
    with structlog.testing.capture_logs() as logged:
        records.take((), [own, FOREIGN[kind]])
    assert in_force(records) == {"p": 3}
    assert set(records.kept) == {"p"}
    places = [(each["topic"], each["partition"], each["offset"]) for each in logged]
    assert places == [(KEPT, 0, 7)], "the warning says where it is"
    assert projected([own, FOREIGN[kind]]) == ["p"]
    if kind not in {"another schema", "another record", "no record", "a price that is none", "the price of another id"}:
        assert history_of([own, FOREIGN[kind]]) == 1


def test_a_kept_price_counts_in_the_partition_of_its_key_alone() -> None:
    key = next(name for name in map(str, range(100)) if partition_of(name.encode(), 4) == 1)
    foreign = Message(7, key.encode(), kept_value(key, model="m"), position_headers((1, 1, 2), (4, 0, 5)))
    own = replace(foreign, its_partition=1)
    records = PriceRecords(4, SCHEMAS, TOPICS)
    records.take((), [foreign])
    assert in_force(records) == {}
    assert projected([foreign], 4) == []
    records.take((), [own])
    assert in_force(records) == {key: 1}
    home = next(name for name in map(str, range(100)) if partition_of(name.encode(), 4) == 0)
    at_home = Message(8, home.encode(), None, position_headers((1, 0, 3), (1, 0, 3)))
    assert history_of([foreign, at_home], 4) == 3


def sealed(keys: str) -> Seals:
    return Seals.of(Settings(_env_file=None, internal_key=SecretStr(keys)))


def kept_by(seals: Seals, *, value: bytes | None = None) -> Message:
    """What a worker with these keys writes when the price `p` is published."""
    book = MemoryLedger(FixedPrices([]))
    book.state.seals = seals
    book.prices.records = PriceRecords(1, SCHEMAS, TOPICS, seals)
    published = Message(0, b"p", kept_value("p", model="m") if value is None else value)
    book.prices.records.take([published], ())
    book.feed([Sent(PRICES, published.its_key, published.its_value, published.timestamp()[1] * 1_000)])
    ((key, written, headers),) = book.written[KEPT]
    return Message(0, key, written, list(headers.items()))


def test_with_a_key_a_kept_price_counts_only_with_its_checksum() -> None:
    seals = sealed(KEY)
    own = kept_by(seals)
    later = [(name, b"4 0 5" if name == JUDGED else text) for name, text in own.its_headers]
    forged = [
        kept_by(NO_SEALS),
        kept_by(sealed("another key than ours")),
        replace(own, its_value=kept_value("p", model="m", unit_price_nanos=9 * NANOS)),
        replace(own, its_value=None),
        replace(own, its_headers=later),
        replace(own, its_key=b"q"),
    ]
    for each in forged:
        records = PriceRecords(1, SCHEMAS, TOPICS, seals)
        records.take((), [own, each])
        assert (in_force(records), set(records.kept)) == ({"p": 1}, {"p"})
        assert projected([own, each], seals=seals) == ["p"]
        assert history_of([own, replace(each, place=1)], seals=seals) == 0
    assert projected([own]) == ["p"], "a reader without the key, which decides nothing, shows it"


def test_kept_prices_are_sealed_again_with_the_first_prices_after_a_change_of_the_key() -> None:
    new, both = "the new key of the ledger", f"the new key of the ledger,{KEY},none"
    for before in (kept_by(NO_SEALS), kept_by(sealed(KEY))):
        book = MemoryLedger(FixedPrices([]))
        book.state.seals = sealed(both)
        book.prices.records = PriceRecords(1, SCHEMAS, TOPICS, sealed(both))
        book._offsets[PRICES] = 1
        value = kept_value("q", model="n")
        book.prices.records.take([Message(1, b"q", value)], [before])
        book.feed([Sent(PRICES, b"q", value, NOW_US + 1_000)])
        written = [Message(at, key, val, list(each.items())) for at, (key, val, each) in enumerate(book.written[KEPT])]
        records = PriceRecords(1, SCHEMAS, TOPICS, sealed(new))
        records.take((), written)
        assert in_force(records) == {"p": 1, "q": 1}
        assert all(each.sealed for each in records.kept.values())
        assert records.kept["p"].judged == PriceRecords(1, SCHEMAS, TOPICS)._kept(before)[1].judged  # type: ignore[index]
