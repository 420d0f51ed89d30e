"""What a dead letter holds of its record (of one that no topic would take, a part), and which of many is sent again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import Message

from projections.rows import dead_letter_rows
from schemas.dead_letters import (
    DEAD_LETTER_HEADERS,
    HEADERS_KEPT_BYTES,
    KEY_KEPT_BYTES,
    VALUE_KEPT_BYTES,
    WHOLE_BYTES_MAX,
    record_bytes,
)
from schemas.enums import DeadLetterCode
from schemas.topics import DEAD_LETTER_BYTES_MAX
from streams.client.dead_letters import DeadLetter, dead_letter_of, newest_of_each
from streams.engine.ports import Keyed
from streams.engine.transaction import MESSAGE_BYTES_MAX
from streams.kafka.inbound import Inbound
from streams.processing.dead_letters import dead_letter

Headers = Sequence[tuple[str, bytes]]


def letter(key: bytes | None, value: bytes | None, headers: Headers = ()) -> Keyed:
    inbound = Inbound("usage", 3, 7, 8, [7], [0], [key], [value], [list(headers)] if headers else [])
    return dead_letter("dead", inbound, 0, DeadLetterCode.UNDECODABLE, "why")


def read(written: Keyed) -> DeadLetter:
    """As a reader of the topic has it."""
    got = SimpleNamespace(
        partition=lambda: 3,
        offset=lambda: 1,
        timestamp=lambda: (0, 0),
        headers=lambda: list(written.headers),
        key=lambda: written.key,
        value=lambda: written.value,
    )
    return dead_letter_of(cast(Message, got))


def fits(written: Keyed) -> bool:
    """Whether the topic and its producer take it, however badly it compresses."""
    room = 1_000  # what Kafka adds to a batch of one record, several times over
    return record_bytes(written.key, written.value, written.headers) + room <= min(
        DEAD_LETTER_BYTES_MAX, MESSAGE_BYTES_MAX
    )


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (b"acme", b"\0" * 100, [("a", b"1"), ("a", b"2")]),
        (None, None, []),
        (b"acme", b"x" * (WHOLE_BYTES_MAX - 4), []),
        (b"k" * 5_000_000, b"v", [("h", b"x" * 3_000_000)]),
    ],
)
def test_what_fits_is_whole(key: bytes | None, value: bytes | None, headers: Headers) -> None:
    written = letter(key, value, headers)
    assert fits(written)
    got = read(written)
    assert (got.key, got.value, list(got.headers)) == (key, value, headers)
    assert not got.cut
    assert got.refusal is None


def test_a_value_that_no_topic_takes_is_cut_and_says_what_it_was() -> None:
    value = bytes(20_000_000)
    written = letter(b"acme", value, [("h", b"1")])
    assert fits(written)
    got = read(written)
    assert (got.key, got.value, got.headers) == (b"acme", value[:VALUE_KEPT_BYTES], (("h", b"1"),))
    assert got.code == DeadLetterCode.UNDECODABLE
    assert got.cut == {"credits.value.bytes": "20000000", "credits.value.sha256": sha256(value).hexdigest()}
    assert got.refusal == (
        "dead letter 3:1 holds only a part of its record: the first 1,048,576 of 20,000,000 bytes of the value"
    )


def test_a_key_and_headers_that_no_topic_takes_are_cut() -> None:
    key = b"k" * 9_000_000
    headers = [(f"h{number}", b"x" * 1_000) for number in range(9_000)]
    written = letter(key, b"small", headers)
    assert fits(written)
    got = read(written)
    assert (got.key, got.value) == (key[:KEY_KEPT_BYTES], b"small")
    assert list(got.headers) == headers[: len(got.headers)]
    assert record_bytes(None, None, got.headers) <= HEADERS_KEPT_BYTES
    assert got.cut["credits.key.sha256"] == sha256(key).hexdigest()
    assert got.cut["credits.headers.left_out"] == str(9_000 - len(got.headers))
    assert "of the headers" in str(got.refusal)


def test_every_header_that_is_added_is_documented() -> None:
    written = letter(bytes(9_000_000), bytes(9_000_000), [("h", bytes(100_000))])
    assert [name for name, _ in written.headers] == list(DEAD_LETTER_HEADERS)


def test_very_many_small_headers_are_no_small_record() -> None:
    assert fits(letter(b"k", b"v", [("h", b"")] * 1_000_000))


def test_a_record_may_have_headers_of_the_same_names() -> None:
    """They are its own, and say nothing about the dead letter."""
    own = [("credits.value.bytes", b"99999999"), ("credits.key.sha256", b"no number")]
    got = read(letter(b"k", b"v", own))
    assert not got.cut
    assert list(got.headers) == own


@pytest.mark.parametrize(
    ("value", "headers", "size"),
    [
        (b"abc", [], 3),
        (bytes(20_000_000), [], 20_000_000),
        (b"abc", [("credits.value.bytes", b"two")], 3),
        (b"abc", [("credits.value.bytes", b"9" * 40)], 3),
    ],
)
def test_the_projection_has_the_size_of_the_whole_value(value: bytes, headers: Headers, size: int) -> None:
    written = letter(b"k", value, headers)
    rows: Any = dead_letter_rows(3, [1], [0], [written.key], [written.value], [written.headers])
    assert rows.column("value_bytes").to_pylist() == [size]


def failed(offset: int, value: bytes | None = b"v", *, topic: str = "usage", key: bytes | None = b"acme") -> DeadLetter:
    """A letter of a record; a later offset is a later letter."""
    return DeadLetter(0, offset, 1_000, DeadLetterCode.UNKNOWN_PRICE, "why", topic, 0, offset, key, value, (), {})


def test_a_record_that_fails_again_and_again_is_sent_once_each_time() -> None:
    """Each replay makes one letter more; counted by letters, it would be 1, 2, 4, 8."""
    letters = [failed(0, b"one"), failed(1, b"two")]
    for times in range(4):
        chosen, older = newest_of_each(letters, lambda letter: True)
        assert [letter.value for letter in chosen] == [b"one", b"two"]
        assert [letter.offset for letter in chosen] == [2 * times, 2 * times + 1]
        assert older == 2 * times
        letters += [failed(len(letters) + place, letter.value) for place, letter in enumerate(chosen)]


def test_records_of_another_topic_key_or_value_are_others() -> None:
    letters = [
        failed(0),
        failed(1, topic="purchases"),
        failed(2, key=b"bolt"),
        failed(3, key=None),
        failed(4, b"w"),
        failed(5, None),
        failed(6, b""),
        failed(7, b"4:acme", key=b""),
        failed(8, b"", key=b"4:acme"),
    ]
    assert newest_of_each(letters, lambda letter: True) == (letters, 0)


def test_partitions_may_be_read_in_any_order() -> None:
    old, new = failed(0), failed(1)
    assert newest_of_each([new, old], lambda letter: True) == ([new], 1)


def test_an_older_letter_is_left_out_though_only_the_older_is_wanted() -> None:
    """Chosen by a code that the record no longer fails with."""
    old, new = failed(0), replace(failed(1), code=DeadLetterCode.TOO_OLD)
    assert newest_of_each([old, new], lambda letter: letter.code == DeadLetterCode.UNKNOWN_PRICE) == ([], 1)
    assert newest_of_each([old, new], lambda letter: letter.code == DeadLetterCode.TOO_OLD) == ([new], 0)


def test_the_newest_is_known_by_its_bytes_and_not_by_a_header_that_any_producer_may_write() -> None:
    victim = failed(0, b"one")
    forged = replace(failed(1, b"two"), headers=(("credits.replayed", victim.name.encode()),))
    assert newest_of_each([victim, forged], lambda letter: True) == ([victim, forged], 0)


def test_parts_of_records_are_each_left_to_be_told() -> None:
    """What was cut may be of different records though the first bytes are the same."""
    parts = [replace(failed(offset), cut={"credits.value.bytes": "20000000"}) for offset in range(2)]
    assert newest_of_each(parts, lambda letter: True) == (parts, 0)
