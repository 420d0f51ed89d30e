"""Replaces a partition's lost state by the rebuilt one, so that no half of it is ever used.

The rules of this file:
1. No worker may run: what it has committed since the outputs were read would be lost. `refuse_while_working` asks the
   consumer group; and the partition's transactional id is taken over, so that a worker that was not seen is fenced.
2. The first thing written is a mark instead of the position record, the last the new position record. Between the
   two a worker refuses to start, and `credits rebuild --accounts` does it all again.
3. What was there before goes: seen ids are deleted, since they were hashed with another seed, and accounts that are
   not among the new ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from streams.engine.accounts import accounts_checksum, frame_account
from streams.engine.failures import FencedError, PartitionLostError
from streams.engine.internal_topics import changelog_topic, seen_topic
from streams.engine.positions import POSITION_KEY, REBUILDING, OutputEnd, PositionRecord
from streams.engine.seen import Blob
from streams.engine.transaction import Messages, PartitionProducer, Writes
from streams.errors import KafkaUnavailableError, OperatorError
from streams.kafka.clients import admin_config
from streams.kafka.groups import ASK_PAUSE_S, group_members
from streams.kafka.reader import CommittedReader
from streams.seals import Seals, position_owner
from streams.settings import Settings

ANSWER_TIMEOUT_S = 30.0
# One transaction: well within its time-out of 10 s.
WRITE_BYTES_MAX = 4 * 1024 * 1024
# A worker with a name stays a member of the group until its session has run out.
SESSION_MARGIN_S = 1.0
ATTEMPTS_MAX = 5
COMMIT = 1
"""The number of the one transaction that a rebuilt state counts as; all its accounts and ids are of it."""


class WorkerAtWorkError(OperatorError):
    """A worker of the installation runs, so its state cannot be replaced under it."""

    code = "worker_at_work"


@dataclass(slots=True)
class RebuiltState:
    """The state of one partition. `accounts`: due time (0: never) and bytes by org. `seen`: the ids of each window.

    The rest is as in `PositionRecord`; `outputs` are the last records of outputs that it was made from.
    """

    accounts: Mapping[str, tuple[int, bytes]]
    seen: Mapping[str, Sequence[Blob]]
    next_offsets: Mapping[str, int]
    starts: Mapping[str, int]
    clock_at: int
    seed: int
    counters: dict[str, dict[str, int]]
    outputs: Mapping[str, OutputEnd] = field(default_factory=dict)


def refuse_while_working(settings: Settings, waits: Callable[[float], None] = lambda _seconds: None) -> None:
    """Raises `WorkerAtWorkError` while the workers' consumer group has members.

    A worker that was stopped may stay a member for one session. That is waited for, and `waits` is called.
    """
    session_s = settings.session_timeout_ms / 1000 + SESSION_MARGIN_S
    deadline = time.monotonic() + session_s
    # Kept in a variable: a client that is collected never answers.
    admin = AdminClient({**admin_config(settings), "log_level": 0})
    members = group_members(admin, settings.app_id)
    if members:
        waits(session_s)
    while members:
        if time.monotonic() > deadline:
            raise WorkerAtWorkError(
                f"{len(members)} workers run in the consumer group {settings.app_id} ({', '.join(members[:3])})",
                "stop every `credits worker` and `credits up`, and run this again (`credits broker` runs Kafka alone)",
            )
        time.sleep(ASK_PAUSE_S)
        members = group_members(admin, settings.app_id)


def fence(settings: Settings) -> None:
    """Take every partition from its writer, and wait until its open transaction is aborted or committed."""
    for number in range(settings.partitions):
        PartitionProducer.open(settings, number, lambda: True).close()


def replace_state(settings: Settings, number: int, reader: CommittedReader, state: RebuiltState) -> None:
    """Replace a partition's state.

    1. Take the partition over. 2. Mark it as being rebuilt. 3. Delete the old ids. 4. Write the new ids, then the
    accounts, taking away those that are no more. 5. Write the position record. A crash before 5 leaves the mark, with
    which no worker starts; all is written again by the next rebuild.

    A producer that must not be used again (`transaction`) is such a crash: all is written again, a few times at most.
    Raises `WorkerAtWorkError` when a worker takes the partition meanwhile, `KafkaUnavailableError`.
    """
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            _replace(settings, number, reader, state)
        except FencedError as error:
            raise WorkerAtWorkError(
                f"a worker has started while partition {number} was rebuilt", "stop it, and run this again"
            ) from error
        except PartitionLostError as error:
            if attempt == ATTEMPTS_MAX:
                raise KafkaUnavailableError(
                    f"the state of partition {number} was not written to its end ({error})", "run this again"
                ) from error
        else:
            return


def _replace(settings: Settings, number: int, reader: CommittedReader, state: RebuiltState) -> None:
    topic, seals, owner = changelog_topic(settings.app_id), Seals.of(settings), position_owner(number)
    producer = PartitionProducer.open(settings, number, lambda: True)
    try:
        old = _keys(reader, topic, number)
        _write(producer, [(topic, [{"key": POSITION_KEY, "value": REBUILDING}])])
        for window in state.seen:
            _delete_records(settings, reader, seen_topic(settings.app_id, window), number)
        for window, blobs in state.seen.items():
            for messages in _chunks({"value": seals.seal("seen", owner, blob.encode())} for blob in blobs):
                _write(producer, [(seen_topic(settings.app_id, window), messages)])
        framed = {org: frame_account(due_at, value, COMMIT) for org, (due_at, value) in state.accounts.items()}
        gone = old - {POSITION_KEY} - {org.encode() for org in framed}
        sealed = {key: seals.seal("account", key, value) for org, value in framed.items() if (key := org.encode())}
        for messages in _chunks({"key": key, "value": value} for key, value in sealed.items()):
            _write(producer, [(topic, messages)])
        for messages in _chunks({"key": key, "value": None} for key in sorted(gone)):
            _write(producer, [(topic, messages)])
        position = position_of(state, framed)
        _write(producer, [(topic, [{"key": POSITION_KEY, "value": seals.seal("position", owner, position.encode())}])])
    finally:
        producer.close()


def position_of(state: RebuiltState, framed: Mapping[str, bytes]) -> PositionRecord:
    """The position record of a state. `framed`: its accounts as they are written, by a commit of at most `COMMIT`.

    An output that is not among the state's is not checked until it is written to.
    """
    return PositionRecord(
        next_offsets=dict(state.next_offsets),
        starts={topic: state.starts.get(topic, 0) for topic in state.next_offsets},
        clock_at=state.clock_at,
        commit=COMMIT,
        seed=state.seed,
        counters=state.counters,
        seen={window: _counts(blobs) for window, blobs in state.seen.items()},
        accounts=len(framed),
        accounts_checksum=accounts_checksum(framed, state.seed),
        outputs=dict(state.outputs),
    )


def _write(producer: PartitionProducer, batches: list[tuple[str, Messages]]) -> None:
    producer.write(Writes(batches, ()))
    producer.commit()


def _chunks(messages: Iterable[dict[str, Any]]) -> Iterator[Messages]:
    """Messages in lists of about `WRITE_BYTES_MAX`."""
    chunk: Messages = []
    size = 0
    for message in messages:
        chunk.append(message)
        size += len(message["value"] or b"") + 100
        if size >= WRITE_BYTES_MAX:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _counts(blobs: Sequence[Blob]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for blob in blobs:
        counts[blob.bucket] = counts.get(blob.bucket, 0) + len(blob.contents)
    return counts


def _keys(reader: CommittedReader, topic: str, number: int) -> set[bytes]:
    """Of everything in the changelog that is not taken away already."""
    keys: set[bytes] = set()
    for records in reader.read(topic, number, *reader.ends(topic, number)):
        for record in records:
            key = record.key()
            if not isinstance(key, bytes):
                continue  # no account's, and no restore believes it
            if record.value() is None:
                keys.discard(key)
            else:
                keys.add(key)
    return keys


def _delete_records(settings: Settings, reader: CommittedReader, topic: str, number: int) -> None:
    low, high = reader.ends(topic, number)
    if low == high:
        return
    admin = AdminClient(admin_config(settings))
    try:
        for future in admin.delete_records([TopicPartition(topic, number, high)]).values():
            future.result(ANSWER_TIMEOUT_S)
    except KafkaException as failure:
        raise KafkaUnavailableError(
            f"the old ids of {topic}/{number} cannot be deleted: {failure.args[0].str()}",
            "let the ledger's Kafka user delete records of its own topics, and run this again",
        ) from failure
