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
    record_digest,
)
from streams.engine.rebuild import COMMIT, RebuiltState, position_of

RECORD = PositionRecord(
    next_offsets={"usage": 10, "holds": 0},
    starts={"usage": 3, "holds": 0},
    clock_at=1_000,
    commit=7,
    seed=99,
    counters={"usage": {"entries": 5, "duplicates": 2}},
    seen={"usage": {3: 17}},
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
        outputs={"ledger": OutputEnd(43, b"e" * 16, 8)},
    )
    assert after.next_offsets == {"usage": 12, "holds": 0}
    assert after.counters == {"usage": {"entries": 6, "duplicates": 2, "dead_letters": 1}}
    assert (after.commit, after.clock_at, after.seed, after.starts) == (8, 1_001, 99, RECORD.starts)
    assert (after.seen, after.pending) == (RECORD.seen, RECORD.pending)
    assert (after.accounts, after.accounts_checksum) == (3, 2**64 - 1)
    assert after.outputs == {"ledger": OutputEnd(43, b"e" * 16, 8), "alerts": OutputEnd(2, b"d" * 16, 5)}
    assert RECORD.counters == {"usage": {"entries": 5, "duplicates": 2}}
    assert RECORD.next_offsets["usage"] == 10


@pytest.mark.parametrize(
    ("next_offsets", "clock_at", "message"),
    [({"usage": 9}, 1_000, "position in usage would go back"), ({}, 999, "clock would go back")],
)
def test_nothing_goes_back(next_offsets: dict[str, int], clock_at: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RECORD.advanced(next_offsets=next_offsets, clock_at=clock_at, outcomes={}, outputs={})


def test_a_record_of_an_older_program_is_read_and_has_nothing_to_check() -> None:
    record = decode_position(msgspec.msgpack.encode({"version": 1, "next_offsets": {"usage": 4}, "commit": 3}))
    assert (record.commit, record.accounts, record.accounts_checksum, record.outputs) == (3, None, None, None)


def test_digests_tell_keys_and_values_apart() -> None:
    records = [(b"k", b"v"), (b"kv", b""), (None, b"v"), (b"", b"v"), (b"v", b"k"), (None, None)]
    assert len({record_digest(key, value) for key, value in records}) == len(records)


def test_a_rebuilt_record_counts_what_it_is_given() -> None:
    accounts = {"a": (5, b"state"), "b": (0, b"other")}
    framed = {org: frame_account(due_at, state, COMMIT) for org, (due_at, state) in accounts.items()}
    offsets = {"usage": 10, "holds": 2}
    state = RebuiltState(
        accounts=accounts, seen={}, next_offsets=offsets, starts={"usage": 3}, clock_at=5, seed=77, counters={}
    )
    record = position_of(state, framed)
    assert (record.accounts, record.accounts_checksum) == (2, accounts_checksum(framed, 77))
    assert record.starts == {"usage": 3, "holds": 0}
    assert (record.next_offsets, record.commit, record.outputs) == (offsets, COMMIT, {})


OLDER = bytes.fromhex(
    "8da776657273696f6e02ac6e6578745f6f66667365747382a575736167650aa5686f6c647300a673746172747382a5757361676503a5686f6c"
    "647300a8636c6f636b5f6174cd03e8a6636f6d6d697407a47365656463a8636f756e7465727381a5757361676582a7656e747269657305aa64"
    "75706c69636174657302a47365656e81a57573616765810311a66d656d6f727982a46e6f7465c4016ea56f74686572c4016fa770656e64696e"
    "6782a5757361676591c4076561726c696572a56d6f6e657991c4016da86163636f756e747303b16163636f756e74735f636865636b73756dcf"
    "ffffffffffffffffa76f75747075747382a66c65646765729328c4107369787465656e2062797465732e2e2107a6616c657274739302c41064"
    "64646464646464646464646464646405"
)
"""`RECORD` as a program wrote it that had one field more, `memory`, with something in it."""


def test_a_record_with_a_field_that_is_no_more_is_read() -> None:
    assert b"memory" in OLDER
    assert b"memory" not in RECORD.encode()
    assert decode_position(OLDER) == RECORD


@pytest.mark.parametrize(
    "value", [b"", b"\xc1", msgspec.msgpack.encode({"version": 3}), msgspec.msgpack.encode({"clock_at": "soon"})]
)
def test_what_cannot_be_read_is_refused(value: bytes) -> None:
    with pytest.raises(PositionError):
        decode_position(value)
