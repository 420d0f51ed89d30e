"""A partition's state, read back from Kafka by its new owner.

The rules of this file:
1. Order: fence the previous owner first, read after. What it had in flight is then committed or aborted for good.
2. Only committed records are read, to the end as it is after the fencing.
3. What Kafka holds must agree with itself: a position record where the ledger has entries; exactly the accounts and
   the seen ids that the position record counts; each output topic ends with the record that the position record names.
   Where it does not, `StateLostError`: never a silent zero.
4. What cannot be read is `StateLostError` with its offset. Nothing under no key is believed or missed: no account is.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import Message

from streams.engine.accounts import Accounts, accounts_checksum, frame_commit, is_frame
from streams.engine.failures import StateLostError
from streams.engine.internal_topics import changelog_topic, seen_topic
from streams.engine.ports import Partition, SeenWindow
from streams.engine.positions import (
    POSITION_KEY,
    REBUILDING,
    OutputEnd,
    PositionError,
    PositionRecord,
    PositionVersionError,
    decode_position,
    record_digest,
)
from streams.engine.seen import Blob, BlobError, SeenMemory
from streams.engine.transaction import PartitionProducer
from streams.kafka.reader import CommittedReader
from streams.seals import SealError, Seals, position_owner
from streams.settings import Settings

log = logging.getLogger(__name__)

# How many records of an output topic that goes on beyond the state are read, to say how far it goes.
TAIL_RECORDS_MAX = 10_000
REBUILD = "restore copies of one moment, or make the state again from the ledger with `credits rebuild --accounts`"


@dataclass(slots=True)
class Restored:
    """One partition, ready to be served.

    `changelog_end`: the offset after the last one of its changelog. `accounts_checksum`: of the accounts as read.
    `output_ends`: per output topic, the end of the partition's log. `stale_seals`: accounts that are not sealed as they
    would be written now. `stale_position`: the same of the position record.
    """

    partition: Partition
    accounts: Accounts
    seen: dict[str, SeenMemory]
    position: PositionRecord
    producer: PartitionProducer
    changelog_end: int
    seconds: float
    accounts_checksum: int = 0
    output_ends: Mapping[str, int] = field(default_factory=dict)
    stale_seals: Sequence[str] = ()
    stale_position: bool = False


@dataclass(frozen=True, slots=True)
class OwnTopics:
    """The topics that make up a partition's state, or must agree with it. `outputs` includes `ledger_topic`."""

    ledger_topic: str
    outputs: Sequence[str]
    windows: Sequence[SeenWindow]


def restore(settings: Settings, number: int, topics: OwnTopics, wanted: Callable[[], bool]) -> Restored:
    """Take over partition `number`. Blocks; for a worker thread. Gives up when it is no longer `wanted`.

    1. Fence the previous owner. 2. Read the changelog. 3. Read the ends of the output topics. 4. Read the seen ids.
    All are checked against the position record. A crash in between costs nothing: nothing is written but the fence.

    Raises `KafkaUnavailableError` (try again), `StateLostError`, `CommitRefusedError`.
    """
    started = time.monotonic()
    changelog, seals = changelog_topic(settings.app_id), Seals.of(settings)
    producer = PartitionProducer.open(settings, number, wanted)
    reader = CommittedReader(settings, "restore", wanted)
    try:
        framed, position, changelog_end, stale, stale_position = _read_changelog(reader, changelog, number, seals)
        ranges = {topic: reader.ends(topic, number) for topic in topics.outputs}
        if position is None:
            if framed or _has_record(reader, topics.ledger_topic, number, *ranges[topics.ledger_topic]):
                raise _position_missing(number, topics.ledger_topic)
            position = PositionRecord(seed=secrets.randbits(63), outputs={})
        _check_outputs(reader, changelog, number, position, ranges)
        checksum = _check_accounts(changelog, number, framed, position)
        seen = {
            window.name: _read_seen(reader, seen_topic(settings.app_id, window.name), number, window, position, seals)
            for window in topics.windows
        }
    except BaseException:
        producer.close()
        raise
    finally:
        reader.close()
    accounts = Accounts(framed)
    partition = Partition(
        number,
        accounts,
        seen,
        clock_at=position.clock_at,
        seed=position.seed,
        ledger_end=ranges[topics.ledger_topic][1],
    )
    return Restored(
        partition=partition,
        accounts=accounts,
        seen=seen,
        position=position,
        producer=producer,
        changelog_end=changelog_end,
        seconds=time.monotonic() - started,
        accounts_checksum=checksum,
        output_ends={topic: end for topic, (_, end) in ranges.items()},
        stale_seals=stale,
        stale_position=stale_position,
    )


def _position_missing(number: int, ledger_topic: str) -> StateLostError:
    return StateLostError(
        f"partition {number} has entries in {ledger_topic}, but no position in its account changelog", REBUILD
    )


def _read_changelog(
    reader: CommittedReader, topic: str, number: int, seals: Seals
) -> tuple[dict[str, bytes], PositionRecord | None, int, list[str], bool]:
    """The frames of the accounts, the position record, the end of the log; and what is to be sealed again: which
    accounts, and whether the position record is. Only the last record of each key counts."""
    low, high = reader.ends(topic, number)
    newest: dict[bytes, bytes | None] = {}
    offsets: dict[bytes, int] = {}
    """Of those that may have to be named: all where there are seals, else those that can be no account."""
    for records in reader.read(topic, number, low, high):
        for record in records:
            key, value = _bytes(record.key()), _bytes(record.value())
            if key is None:
                log.warning("Passed over: a record without a key in %s/%s at offset %s", topic, number, record.offset())
                continue
            newest[key] = value
            if seals.checks or key == POSITION_KEY or not value or not is_frame(value) or not _is_org(key):
                offsets[key] = record.offset() or 0
            else:
                offsets.pop(key, None)
    has_position, position = POSITION_KEY in newest, newest.pop(POSITION_KEY, None)
    if position == REBUILDING:
        raise StateLostError(
            f"the state of partition {number} was being made again, and that was not finished",
            "run `credits rebuild --accounts` to its end",
        )
    framed = {}
    for key, value in newest.items():
        if value is None:
            continue
        if not _is_org(key):
            raise _unreadable(topic, number, offsets.get(key), f"its key {key!r} is no organisation's")
        framed[key.decode()] = value
    by_org = {key.decode(): offset for key, offset in offsets.items() if _is_org(key)}
    stale = _open_accounts(framed, topic, number, by_org, seals)
    if not has_position:
        return framed, None, high, stale, False
    record, sealed = _open_position(position, topic, number, offsets.get(POSITION_KEY), seals)
    return framed, record, high, stale, not sealed


def _open_position(
    value: bytes | None, topic: str, number: int, offset: int | None, seals: Seals
) -> tuple[PositionRecord, bool]:
    """The position record, and whether it is sealed as it would be written now."""
    if value is None:
        raise _unreadable(topic, number, offset, "the position record has no value")
    try:
        bare, sealed = seals.open("position", position_owner(number), value)
        return decode_position(bare), sealed
    except SealError as error:
        raise _not_ours(topic, number, offset, "the position", error) from error
    except PositionVersionError as error:
        raise StateLostError(
            f"partition {number}: {error}", "start the version of this program that wrote it"
        ) from error
    except PositionError as error:
        raise _unreadable(topic, number, offset, str(error)) from error


def _is_org(key: bytes) -> bool:
    """Whether a key may be an organisation's id."""
    try:
        return bool(key.decode())
    except UnicodeDecodeError:
        return False


def _open_accounts(
    framed: dict[str, bytes], topic: str, number: int, offsets: Mapping[str, int], seals: Seals
) -> list[str]:
    """Takes the seals off all frames; the accounts to seal again. Only the last record of each counts."""
    stale = []
    for org_id, value in framed.items():
        try:
            framed[org_id], current = seals.open("account", org_id.encode(), value)
        except SealError as error:
            raise _not_ours(topic, number, offsets.get(org_id), f"account {org_id!r}", error) from error
        if not is_frame(framed[org_id]):
            raise _unreadable(topic, number, offsets.get(org_id), f"the value of account {org_id!r} is too short")
        if not current:
            stale.append(org_id)
    return stale


def _unreadable(topic: str, number: int, offset: int | None, error: str) -> StateLostError:
    return StateLostError(f"{_place(topic, number, offset)}: {error}", REBUILD)


def _place(topic: str, number: int, offset: int | None) -> str:
    return f"{topic}/{number}" if offset is None else f"{topic}/{number} at offset {offset}"


def _not_ours(topic: str, number: int, offset: int | None, what: str, error: SealError) -> StateLostError:
    return StateLostError(
        f"{_place(topic, number, offset)}: the record of {what} is refused, {error}",
        "set CREDITS_INTERNAL_KEY to the keys it was written with (several: commas between); if another program "
        "wrote it, find out which, then `credits rebuild --accounts`",
    )


def _check_outputs(
    reader: CommittedReader,
    changelog: str,
    number: int,
    position: PositionRecord,
    ranges: Mapping[str, tuple[int, int]],
) -> None:
    """Every output topic ends with the record that the position record names.

    Retention may have taken it: then the log begins behind it. Compaction keeps the newest record of each key, so the
    only one that it may have taken is a record without a value.
    """
    for topic, ours in (position.outputs or {}).items():
        if topic not in ranges:
            continue  # an older program wrote to it
        low, high = ranges[topic]
        behind = StateLostError(
            f"{topic}/{number} ends before transaction {ours.commit}, which {changelog}/{number} includes: "
            f"it is an older copy, or has lost its end (offset {ours.offset} is needed, the log ends at {high})",
            REBUILD,
        )
        if high <= ours.offset:
            raise behind
        found = _tail(reader, topic, number, max(low, ours.offset), high)
        if low > ours.offset or ours.deleted:
            missing = False
        elif ours.shared:
            missing = not any(_is(record, ours) for record in found)
        else:
            missing = not found
        if missing:
            raise behind
        if not found or ours.shared or _is(found[-1], ours):
            continue
        if ours.deleted and not any(_is(record, ours) for record in found):
            continue
        if any(_is(record, ours) for record in found) or low > ours.offset:
            raise StateLostError(
                f"{changelog}/{number} ends at transaction {position.commit}, but {topic}/{number} has later records, "
                f"up to offset {found[-1].offset()}: the changelog is an older copy, or has lost its end",
                REBUILD,
            )
        raise StateLostError(
            f"{topic}/{number} does not hold the record at offset {ours.offset} that transaction {ours.commit} of "
            f"{changelog}/{number} wrote: they are copies of different histories",
            REBUILD,
        )


def _is(record: Message, end: OutputEnd) -> bool:
    return record_digest(_bytes(record.key()), _bytes(record.value())) == end.digest


def _bytes(value: str | bytes | None) -> bytes | None:
    assert value is None or isinstance(value, bytes)
    return value


def _tail(reader: CommittedReader, topic: str, number: int, start: int, end: int) -> list[Message]:
    """The committed records from `start` on: one, where all is well; the first lists, where it is not."""
    found: list[Message] = []
    reading = reader.read(topic, number, start, end)
    for records in reading:
        found += records
        if len(found) >= TAIL_RECORDS_MAX:
            reading.close()
            break
    return found


def _check_accounts(topic: str, number: int, framed: Mapping[str, bytes], position: PositionRecord) -> int:
    """Exactly the accounts that the position record was written with; their checksum."""
    if position.accounts is not None and position.accounts != len(framed):
        raise StateLostError(
            f"the account changelog of partition {number} holds {len(framed)} accounts, "
            f"its position record says {position.accounts}",
            REBUILD,
        )
    checksum = accounts_checksum(framed, position.seed)
    if position.accounts_checksum not in (None, checksum):
        newer = sorted(org_id for org_id, frame in framed.items() if frame_commit(frame) > position.commit)
        if newer:
            raise StateLostError(
                f"{len(newer)} accounts in {topic}/{number} are newer than its position record of transaction "
                f"{position.commit}, the first {newer[0]!r} of transaction {frame_commit(framed[newer[0]])}: "
                "a transaction was torn",
                REBUILD,
            )
        raise StateLostError(
            f"the accounts in {topic}/{number} are not those that its position record of transaction "
            f"{position.commit} was written with: one is older, or another's",
            REBUILD,
        )
    return checksum


def _read_seen(
    reader: CommittedReader, topic: str, number: int, window: SeenWindow, position: PositionRecord, seals: Seals
) -> SeenMemory:
    memory = SeenMemory(window.window_us)
    counted = position.seen.get(window.name, {})
    if not counted:
        return memory
    oldest = min(counted)  # older ones were forgotten, and may be on the topic still
    low, high = reader.ends(topic, number)
    pending = [Blob.decode(value) for value in position.pending.get(window.name, ())]
    blobs = [blob for blob in pending if blob.bucket >= oldest]
    last_commit = 0
    for records in reader.read(topic, number, low, high):
        for record in records:
            value = _bytes(record.value())
            if value is None:
                raise _unreadable(topic, number, record.offset(), "a record of ids has no value")
            try:
                blob = Blob.decode(seals.open("seen", position_owner(number), value)[0])
            except SealError as error:
                raise _not_ours(topic, number, record.offset(), "ids", error) from error
            except BlobError as error:
                raise StateLostError(f"{topic}/{number} at {record.offset()}: {error}", REBUILD) from error
            last_commit = max(last_commit, blob.commit)
            if blob.bucket >= oldest:
                blobs.append(blob)
    memory.load(blobs, 0)
    if last_commit > position.commit or memory.counts != counted:
        raise StateLostError(
            f"{topic}/{number} holds {len(memory)} ids up to transaction {last_commit}, "
            f"the state says {sum(counted.values())} up to {position.commit}",
            REBUILD,
        )
    return memory


def _has_record(reader: CommittedReader, topic: str, number: int, low: int, high: int) -> bool:
    return any(records for records in reader.read(topic, number, low, high))
