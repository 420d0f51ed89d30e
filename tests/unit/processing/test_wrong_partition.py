"""A record in a partition that is not its key's, or under no key: a dead letter, for every topic of the ledger."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from schemas.amounts import NANOS
from schemas.enums import DeadLetterCode
from schemas.partitioner import KEY_BYTES_MAX, KEYS_MAX, REMEDY, partition_of
from streams.processing.notices import LINE_INTERVAL_S, NoticeLog
from streams.processing.own_keys import OwnKeys
from tests.model.memory import NOW_US, TOPICS, FixedPrices, MemoryLedger, Sent, sent
from tests.unit.processing.test_legs import leg
from tests.unit.processing.test_step import PRICE_LIST, purchase, setting, usage

PARTITIONS = 8
HOME = partition_of(b"acme", PARTITIONS)
AWAY = (HOME + 3) % PARTITIONS

EVERY_KIND = {
    "usage": usage("e1", model="m0"),
    "usage with a key that is no org's": replace(usage("e1", "x" * 600, model="m0"), key=b"x" * 600),
    "purchase": purchase("p1"),
    "transfer": sent(
        "transfer",
        {
            "transfer_id": "t1",
            "org_id": "acme",
            "target_org_id": "bolt",
            "wallet": "USD",
            "amount_nanos": 1,
            "actor": "ann",
        },
    ),
    "refund": sent(
        "refund", {"refund_id": "r1", "org_id": "acme", "target": "usage", "target_id": "e1", "amount_nanos": 1}
    ),
    "hold": sent(
        "hold", {"hold_id": "h1", "org_id": "acme", "action": "place", "wallet": "USD", "amount_nanos": NANOS}
    ),
    "setting": setting("s1", "org", '{"tier": "pro"}'),
    "price": replace(sent("price", {**PRICE_LIST[0], "price_id": "acme"})),
    "price taken away": Sent(TOPICS.name("prices"), b"acme", None, NOW_US),
    "leg": leg(),
}


def ledger(number: int) -> MemoryLedger:
    """Partition `number` of 8."""
    return MemoryLedger(FixedPrices(PRICE_LIST), number=number, partitions=PARTITIONS)


def neighbour(number: int) -> str:
    """An org whose partition is `number`."""
    return next(name for name in (f"org-{each}" for each in range(1_000)) if home(name) == number)


def home(org_id: str) -> int:
    return partition_of(org_id.encode(), PARTITIONS)


@pytest.mark.parametrize("kind", [kind for kind in EVERY_KIND if "no org" not in kind])
def test_a_record_in_anothers_partition_is_a_dead_letter_and_its_neighbours_are_booked(kind: str) -> None:
    record, book, near = EVERY_KIND[kind], ledger(AWAY), neighbour(AWAY)
    batch = [purchase("p0", near), usage("e0", near, model="m0"), record, usage("e9", near, model="m0")]
    book.feed(batch)
    assert book.dead_letters() == [(DeadLetterCode.WRONG_PARTITION, record.value)]
    assert book.notices == {record.topic: {"wrong_partition": 1}}
    assert [row["event_id"] for row in book.rows("ledger")] == ["p0", "e0", "e9"]
    assert set(book.accounts) == {near}


@pytest.mark.parametrize("kind", [kind for kind in EVERY_KIND if "no org" not in kind])
def test_in_its_own_partition_it_is_none(kind: str) -> None:
    book = ledger(HOME)
    book.feed([EVERY_KIND[kind]])
    assert DeadLetterCode.WRONG_PARTITION not in [code for code, _ in book.dead_letters()]
    assert book.notices == {}


def test_a_price_is_not_taken_away_under_a_key_that_is_no_text() -> None:
    key = next(key for key in (b"\xff%d" % each for each in range(100)) if partition_of(key, PARTITIONS) == HOME)
    book = ledger(HOME)
    book.feed([Sent(TOPICS.name("prices"), key, None, NOW_US)])
    assert book.dead_letters() == [(DeadLetterCode.KEY_MISMATCH, None)]
    assert TOPICS.name("kept_prices") not in book.written


def test_a_key_that_is_too_long_for_an_id_is_an_invalid_field() -> None:
    book = ledger(AWAY)
    book.feed([EVERY_KIND["usage with a key that is no org's"]])
    assert [code for code, _ in book.dead_letters()] == [DeadLetterCode.INVALID_FIELD]


@pytest.mark.parametrize("kind", [kind for kind in EVERY_KIND if "no org" not in kind])
@pytest.mark.parametrize("number", [HOME, AWAY])
def test_a_record_under_no_key_is_a_key_mismatch(kind: str, number: int) -> None:
    """A producer puts it anywhere, so its partition says nothing; its neighbours are booked."""
    record, near = replace(EVERY_KIND[kind], key=None), neighbour(number)
    book = ledger(number)
    book.feed([usage("e0", near, model="m0"), record, usage("e9", near, model="m0")])
    assert book.dead_letters() == [(DeadLetterCode.KEY_MISMATCH, record.value)]
    assert [row["event_id"] for row in book.rows("ledger")] == ["e0", "e9"]
    assert set(book.accounts) == {near}


def test_a_batch_of_both_is_told_apart_and_says_where_a_record_belongs() -> None:
    orgs = [f"org-{number}" for number in range(60)]
    book = ledger(AWAY)
    book.feed([usage(f"e-{org}", org, model="m0") for org in orgs])
    assert set(book.accounts) == {org for org in orgs if home(org) == AWAY}
    away = [org for org in orgs if home(org) != AWAY]
    letters = book.written["credits.dead-letters.v1"]
    assert [key for key, _, _ in letters] == [org.encode() for org in away]
    message = letters[0][2]["__streams.errors.message"].decode()
    assert f"belongs to partition {home(away[0])} of 8, and the record is in {AWAY}" in message


def test_a_dead_letter_replayed_to_its_partition_is_booked_there_once() -> None:
    record, wrong, right = usage("e1", model="m0"), ledger(AWAY), ledger(HOME)
    wrong.feed([record])
    ((key, value, _),) = wrong.written["credits.dead-letters.v1"]
    right.feed([Sent(record.topic, key, value, record.at)])
    right.feed([Sent(record.topic, key, value, record.at)])
    assert right.outcomes == {record.topic: {"entries": 1, "duplicates": 1}}


def test_known_keys_are_not_hashed_again_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []

    def all_ours(keys: list[bytes], _: int) -> list[int]:
        hashed.append(len(keys))
        return [0] * len(keys)

    monkeypatch.setattr("schemas.partitioner.partitions_of", all_ours)
    own = OwnKeys(0, PARTITIONS)
    keys: list[bytes | None] = [b"%d" % number for number in range(100)]
    for _ in range(3):
        assert not own.foreign(keys)
    assert hashed == [100]
    own.foreign([b"more-%d" % number for number in range(3 * KEYS_MAX)])
    assert len(own._own) <= KEYS_MAX + 1
    assert not own.foreign([b"x" * (KEY_BYTES_MAX + 1)])


def test_a_single_key_is_judged_like_a_column() -> None:
    for number in range(PARTITIONS):
        own = OwnKeys(number, PARTITIONS)
        refusal = own.refuse(b"acme")
        if number == HOME:
            assert refusal is None
        else:
            assert refusal is not None
            assert refusal.code is DeadLetterCode.WRONG_PARTITION
            assert f"belongs to partition {HOME} of 8" in refusal.message
        assert own.refuse(None) is None


def test_the_log_has_one_line_a_minute_with_topic_partition_cause_and_remedy(caplog: pytest.LogCaptureFixture) -> None:
    notices = NoticeLog(logging.getLogger("streams.processing"), 72)
    with caplog.at_level(logging.WARNING):
        for second in range(int(LINE_INTERVAL_S) + 1):
            notices.committed(5, {"credits.usage.v1": {"wrong_partition": 2}}, float(second))
        notices.committed(6, {"credits.usage.v1": {"old_id": 1}}, 0.0)
    first, second_line, old = caplog.messages
    assert first.startswith("credits.usage.v1 partition 5: 2 records lie in a partition that is not their key's")
    assert REMEDY in first
    assert "murmur2_random" in first
    assert second_line.startswith(f"credits.usage.v1 partition 5: {2 * int(LINE_INTERVAL_S)} records")
    assert "CREDITS_USAGE_WINDOW_HOURS" in old
