"""The position record: only forward, and readable by the next owner."""

from __future__ import annotations

import msgspec
import pytest

from streams.engine.accounts import accounts_checksum, frame_account
from streams.engine.positions import (
    OutputEnd,
    PositionError,
    PositionRecord,
    decode_position,
    rebuilt_position,
    record_digest,
)

RECORD = PositionRecord(
    next_offsets={"usage": 10, "holds": 0},
    starts={"usage": 3, "holds": 0},
    clock_at=1_000,
    commit=7,
    seed=99,
    counters={"usage": {"entries": 5, "duplicates": 2}},
    seen={"usage": {3: 17}},
    memory={"note": b"n", "other": b"o"},
    pending={"usage": [b"earlier"], "money": [b"m"]},
    accounts=3,
    accounts_checksum=2**64 - 1,
    outputs={"ledger": OutputEnd(40, b"sixteen bytes..!", 7), "alerts": OutputEnd(2, b"d" * 16, 5)},
)


def test_it_comes_back_whole() -> None:
    assert decode_position(RECORD.encode()) == RECORD


def test_one_more_transaction() -> None:
    after = RECORD.advanced(
        next_offsets={"usage": 12},
        clock_at=1_001,
        outcomes={"usage": {"entries": 1, "dead_letters": 1}},
        memory={"note": None, "third": b"t"},
        seen={"usage": {3: 18}},
        pending={"usage": [b"blob"]},
        accounts=4,
        accounts_checksum=17,
        outputs={"ledger": OutputEnd(43, b"e" * 16, 8)},
    )
    assert after.next_offsets == {"usage": 12, "holds": 0}
    assert after.counters == {"usage": {"entries": 6, "duplicates": 2, "dead_letters": 1}}
    assert (after.commit, after.clock_at, after.seed, after.starts) == (8, 1_001, 99, RECORD.starts)
    assert after.pending == {"usage": [b"blob"]}
    assert (after.accounts, after.accounts_checksum) == (4, 17)
    assert after.outputs == {"ledger": OutputEnd(43, b"e" * 16, 8), "alerts": OutputEnd(2, b"d" * 16, 5)}
    assert after.memory == {"other": b"o", "third": b"t"}
    assert RECORD.counters == {"usage": {"entries": 5, "duplicates": 2}}
    assert RECORD.next_offsets["usage"] == 10


@pytest.mark.parametrize(
    ("next_offsets", "clock_at", "message"),
    [({"usage": 9}, 1_000, "position in usage would go back"), ({}, 999, "clock would go back")],
)
def test_nothing_goes_back(next_offsets: dict[str, int], clock_at: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RECORD.advanced(
            next_offsets=next_offsets,
            clock_at=clock_at,
            outcomes={},
            memory={},
            seen={},
            pending={},
            accounts=3,
            accounts_checksum=0,
            outputs={},
        )


def test_a_record_of_an_older_program_is_read_and_has_nothing_to_check() -> None:
    record = decode_position(msgspec.msgpack.encode({"version": 1, "next_offsets": {"usage": 4}, "commit": 3}))
    assert (record.commit, record.accounts, record.accounts_checksum, record.outputs) == (3, None, None, None)


def test_digests_tell_keys_and_values_apart() -> None:
    records = [(b"k", b"v"), (b"kv", b""), (None, b"v"), (b"", b"v"), (b"v", b"k"), (None, None)]
    assert len({record_digest(key, value) for key, value in records}) == len(records)


def test_a_rebuilt_record_counts_what_it_is_given() -> None:
    framed = {"a": frame_account(5, b"state", 3), "b": frame_account(0, b"other", 9)}
    record = rebuilt_position(
        framed,
        next_offsets={"usage": 10, "holds": 2},
        clock_at=5,
        commit=9,
        seed=77,
        counters={},
        seen={},
        memory={},
        outputs={},
        starts={"usage": 3},
    )
    assert (record.accounts, record.accounts_checksum) == (2, accounts_checksum(framed, 77))
    assert record.starts == {"usage": 3, "holds": 0}
    assert record.outputs == {}


@pytest.mark.parametrize(
    "value", [b"", b"\xc1", msgspec.msgpack.encode({"version": 3}), msgspec.msgpack.encode({"clock_at": "soon"})]
)
def test_what_cannot_be_read_is_refused(value: bytes) -> None:
    with pytest.raises(PositionError):
        decode_position(value)
