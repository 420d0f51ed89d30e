"""What a partition's state contains: how far each input was read, and the few numbers that must move with it.

The rules of this file:
1. The position record is in the same transaction as the effects of what it says was read. It is the only truth about
   positions; group offsets are for lag displays.
2. It is stored in the account changelog under `POSITION_KEY`, which no org id can be (ids are printable).
3. Positions only grow.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from streams.engine.ports import OutcomeName

POSITION_KEY = b"\x00partition"
POSITION_VERSION = 1


class PositionError(ValueError):
    """Bytes under `POSITION_KEY` that this code cannot read."""


class PositionRecord(msgspec.Struct):
    """The state of a partition that is not an account.

    `next_offsets`: per input topic, the offset to read next; everything below it is in the state. `starts`: the first
    offset that was ever read of each. `clock_at`: the partition's clock in microseconds. `commit`: number of
    transactions so far. `seed`: of the hashes of seen ids. `counters`: outcomes per input topic. `seen`: ids per
    window and bucket. `memory`: the processor's own bytes by name. `pending`: blobs of seen ids, by window, that are
    not on their topic yet. `accounts`: how many accounts have a state; None in a record of an older program.
    """

    version: int = POSITION_VERSION
    next_offsets: dict[str, int] = {}
    starts: dict[str, int] = {}
    clock_at: int = 0
    commit: int = 0
    seed: int = 0
    counters: dict[str, dict[str, int]] = {}
    seen: dict[str, dict[int, int]] = {}
    memory: dict[str, bytes] = {}
    pending: dict[str, list[bytes]] = {}
    accounts: int | None = None

    def encode(self) -> bytes:
        """The record's value."""
        return _ENCODER.encode(self)

    def advanced(
        self,
        *,
        next_offsets: Mapping[str, int],
        clock_at: int,
        outcomes: Mapping[str, Mapping[OutcomeName, int]],
        memory: Mapping[str, bytes | None],
        seen: dict[str, dict[int, int]],
        pending: dict[str, list[bytes]],
        accounts: int,
    ) -> PositionRecord:
        """The record after one more transaction. Raises `ValueError` when a position or the clock would go back."""
        positions = dict(self.next_offsets)
        for topic, offset in next_offsets.items():
            if offset < positions.get(topic, 0):
                raise ValueError(f"the position in {topic} would go back from {positions[topic]} to {offset}")
            positions[topic] = offset
        if clock_at < self.clock_at:
            raise ValueError(f"the clock would go back from {self.clock_at} to {clock_at}")
        counters = self.counters
        if outcomes:
            counters = dict(counters)
            for topic, ends in outcomes.items():
                counted = dict(counters.get(topic, {}))
                for outcome, records in ends.items():
                    counted[outcome] = counted.get(outcome, 0) + records
                counters[topic] = counted
        kept = self.memory
        if memory:
            merged = {**kept, **memory}
            kept = {name: value for name, value in merged.items() if value is not None}
        return PositionRecord(
            next_offsets=positions,
            starts=self.starts,
            clock_at=clock_at,
            commit=self.commit + 1,
            seed=self.seed,
            counters=counters,
            seen=seen,
            memory=kept,
            pending=pending,
            accounts=accounts,
        )


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(PositionRecord)


def decode_position(value: bytes) -> PositionRecord:
    """The position record of a changelog value; raises `PositionError`."""
    try:
        record = _DECODER.decode(value)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise PositionError(f"the position record cannot be read: {error}") from error
    if record.version != POSITION_VERSION:
        raise PositionError(f"the position record has version {record.version}, this program reads {POSITION_VERSION}")
    return record
