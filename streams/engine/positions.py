"""What a partition's state contains: how far each input was read, and the few numbers that must move with it.

The rules of this file:
1. The position record is in the same transaction as the effects of what it says was read. It is the only truth about
   positions; group offsets are for lag displays.
2. It is stored in the account changelog under `POSITION_KEY`, which no org id can be (ids are printable).
3. Positions only grow.
4. It says what it belongs to: the end of each output topic, and a checksum of all accounts. A copy of a topic that is
   older or newer than the record is found at the next start.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import msgspec

from streams.engine.ports import OutcomeName

POSITION_KEY = b"\x00partition"
REBUILDING = b"\x00rebuilding"
"""Stands instead of a position record while the partition's state is being made again: no owner may start."""
POSITION_VERSION = 2
POSITION_VERSIONS_READ = (1, 2)
"""Version 1 is of programs that know no frames with a commit number (`accounts`): they must not read ours."""


class PositionError(ValueError):
    """Bytes under `POSITION_KEY` that this code cannot read."""


class PositionVersionError(PositionError):
    """A position record of another version of the program."""


class OutputEnd(msgspec.Struct, frozen=True, array_like=True):
    """The last record that a partition wrote to one output topic, in its own partition of it.

    `offset`: the record is at this offset or after it. Offsets are not known before the commit: this one is counted
    from the end of the log at the last restore, with one marker a transaction, and Kafka may only add markers.
    `digest`: `record_digest` of its key and value. `commit`: the number of the transaction that wrote it.
    `deleted`: it has no value, so that compaction may take it. `shared`: records of others in the topic are passed
    over by its readers, and may follow it.
    """

    offset: int
    digest: bytes
    commit: int
    deleted: bool = False
    shared: bool = False


def record_digest(key: bytes | None, value: bytes | None) -> bytes:
    """16 bytes that tell one record from another."""
    hashed = blake2b(b"" if value is None else value, digest_size=16)
    hashed.update(b"\0" if key is None else b"\1" + key)
    return hashed.digest()


class PositionRecord(msgspec.Struct):
    """The state of a partition that is not an account.

    `next_offsets`: per input topic, the offset to read next; everything below it is in the state. `starts`: the first
    offset that was ever read of each. `clock_at`: the partition's clock in microseconds. `commit`: number of
    transactions so far. `seed`: of the hashes of seen ids. `counters`: outcomes per input topic. `seen`: ids per
    window and bucket. `pending`: blobs of seen ids, by window, that are not on their topic yet. `accounts`: how many
    accounts have a state. `accounts_checksum`: of all of them (`accounts_checksum`). `outputs`: per output topic, its
    last record; a topic without one was not written to since the field exists. The last three are None in a record of
    an older program, and are then not checked. Fields that it does not know, it leaves out (`memory`, which was never
    filled).
    """

    version: int = POSITION_VERSION
    next_offsets: dict[str, int] = {}
    starts: dict[str, int] = {}
    clock_at: int = 0
    commit: int = 0
    seed: int = 0
    counters: dict[str, dict[str, int]] = {}
    seen: dict[str, dict[int, int]] = {}
    pending: dict[str, list[bytes]] = {}
    accounts: int | None = None
    accounts_checksum: int | None = None
    outputs: dict[str, OutputEnd] | None = None

    def encode(self) -> bytes:
        """The record's value."""
        return _ENCODER.encode(self)

    def advanced(
        self,
        next_offsets: Mapping[str, int],
        clock_at: int,
        outcomes: Mapping[str, Mapping[OutcomeName, int]],
        outputs: Mapping[str, OutputEnd],
    ) -> PositionRecord:
        """The record after one more transaction. Raises `ValueError` when a position or the clock would go back.

        `outputs`: the ends of the topics that this transaction writes to. What the state comes to (`seen`, `pending`,
        `accounts`) is for the caller to replace.
        """
        positions = dict(self.next_offsets)
        for topic, offset in next_offsets.items():
            if offset < positions.get(topic, 0):
                raise ValueError(f"the position in {topic} would go back from {positions[topic]} to {offset}")
            positions[topic] = offset
        if clock_at < self.clock_at:
            raise ValueError(f"the clock would go back from {self.clock_at} to {clock_at}")
        counters = dict(self.counters)
        for topic, ends in outcomes.items():
            counted = counters[topic] = dict(counters.get(topic, {}))
            for outcome, records in ends.items():
                counted[outcome] = counted.get(outcome, 0) + records
        return msgspec.structs.replace(
            self,
            next_offsets=positions,
            clock_at=clock_at,
            commit=self.commit + 1,
            counters=counters,
            outputs={**(self.outputs or {}), **outputs},
        )


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(PositionRecord)


def decode_position(value: bytes) -> PositionRecord:
    """The position record of a changelog value; raises `PositionError`."""
    try:
        record = _DECODER.decode(value)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise PositionError(f"the position record cannot be read: {error}") from error
    if record.version not in POSITION_VERSIONS_READ:
        raise PositionVersionError(
            f"the position record has version {record.version}, this program reads {POSITION_VERSION}"
        )
    return record
