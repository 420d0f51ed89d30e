"""Following topics on and on: from now, from given offsets, or under a name whose position Kafka keeps.

The rules of this file:
1. Committed records only. Without a name, following leaves no trace in Kafka.
2. Under a name, the position is the committed offset of the consumer group `<namespace>credits-follower-<name>`. It
   moves when `commit` is called, after what was handed out has been handled. What came while the name had no
   follower comes first. Followers of one name share the partitions.
3. A crash between handling and `commit` costs repeats, never a gap: what was handed out since the last `commit` is
   handed out again, to the next follower of the name. It has the same ids: pass the id on (as the key of the
   mail, of the ticket), and the repeat has no effect. `records_max=1` and a `commit` each make it one record at most.
4. With `id_of`, a record whose id was handed out before is left out: the last `IDS_MAX` ids are remembered, in memory.
   So one process hands out each id once, also when partitions change hands; a new process remembers nothing.
5. A position that retention has passed is `PositionLostError`, never a silent gap. A name without a position begins at
   the first record. That is also a name that Kafka has forgotten: it does so when the name had no follower for
   `offsets.retention.minutes` (7 days, unless set), and then repeats what is still there.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from streams.errors import OperatorError
from streams.kafka.clients import consumer_config
from streams.kafka.consume import RECORDS_MAX, TopicAndPartition, place_of, poll
from streams.kafka.reader import ANSWER_TIMEOUT_S, FETCH_BYTES_MAX
from streams.kafka.silence import REMEDY, NoProgressError, SilenceLimit

if TYPE_CHECKING:
    from streams.settings import Settings

IDS_MAX = 100_000
"""About 20 MB of ids of 100 characters."""

NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")

# The group is being shared out again: what is ours is known when that has ended.
SHARING_OUT = (KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS)


class PositionLostError(OperatorError):
    """Records between a follower's position and the first that Kafka still has are gone."""

    code = "position_lost"


def group_of(namespace: str, name: str) -> str:
    """The consumer group that keeps the position of a name."""
    return f"{namespace}credits-follower-{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """How the broker is asked: it answers with `bytes_min` bytes, or after `wait_ms`.

    With `silence_max_s`, a broker that sends nothing for so long is asked whether it is there, and `next` raises
    `NoProgressError` when it is not. Without it, the caller decides how long to wait.
    """

    wait_ms: int = 100
    bytes_min: int = 1
    silence_max_s: float | None = None


class Follower:
    """Reads topics on and on. Use it as a context manager, in one thread.

    `name`: whose position it is; the next follower of the name goes on there. Without one, it begins where `begin`
    says: `OFFSET_END`, `OFFSET_BEGINNING`, or an offset by topic and partition, with the others at the end. `id_of`
    gives the id by which a record is handed out once.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Sequence[str],
        *,
        name: str | None = None,
        id_of: Callable[[Message], str] | None = None,
        begin: Mapping[TopicAndPartition, int] | int = OFFSET_END,
        fetch: Fetch = Fetch(),
    ) -> None:
        self._topic = topics[0]
        self._silence = None if fetch.silence_max_s is None else SilenceLimit(fetch.silence_max_s)
        self._id_of = id_of
        self._ids: dict[str, None] = {}
        self._named = name is not None
        self._handed: dict[TopicAndPartition, int] = {}
        self._failure: Exception | None = None
        """What goes wrong behind records that were handed out: for the next call."""
        self._handled: dict[TopicAndPartition, int] = {}
        if name is not None and (begin != OFFSET_END or not NAME.fullmatch(name)):
            raise ValueError("a name has 1 to 100 letters, digits, '.', '_' and '-', and a position of its own")
        self._consumer = Consumer(
            {
                **consumer_config(
                    settings,
                    group_of(settings.namespace, name or uuid.uuid4().hex[:12]),
                    auto_offset_reset="error" if self._named else "earliest",
                    session_timeout_ms=settings.session_timeout_ms,
                    fetch_wait_max_ms=fetch.wait_ms,
                    fetch_min_bytes=fetch.bytes_min,
                    max_partition_fetch_bytes=FETCH_BYTES_MAX,
                ),
                "log_level": 0,
            }
        )
        if self._named:
            self._consumer.subscribe(
                list(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
            )
        else:
            self._assign(topics, begin)

    def _assign(self, topics: Sequence[str], begin: Mapping[TopicAndPartition, int] | int) -> None:
        metadata = self._consumer.list_topics(timeout=ANSWER_TIMEOUT_S).topics
        self._consumer.assign(
            [
                TopicPartition(
                    topic, partition, begin if isinstance(begin, int) else begin.get((topic, partition), OFFSET_END)
                )
                for topic in topics
                for partition in metadata[topic].partitions
            ]
        )

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def next(self, wait_s: float, records_max: int = RECORDS_MAX) -> list[Message]:
        """What has arrived: at once when there is something, else after at most `wait_s`. May be empty.

        Raises `KafkaException` for what does not pass by itself, `PositionLostError` (rule 5); records that came before
        the failure are handed out first. Under a name, call it at least every five minutes: later, Kafka gives the
        partitions to another follower of the name.
        """
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        polled = poll(self._consumer, wait_s, records_max)
        polled.advance(self._handed)
        records = [message for message in polled.records if self._is_new(message)]
        failure = next(map(_failure_of, polled.failed), None)
        if failure is not None and not records:
            raise failure
        self._failure = failure
        if self._silence is not None:
            self._check_brokers_when_silent(self._silence, received=bool(records))
        return records

    def _check_brokers_when_silent(self, silence: SilenceLimit, *, received: bool) -> None:
        """No records are no fault; a broker that does not answer is."""
        if silence.passed and not received:
            try:
                self._consumer.list_topics(self._topic, timeout=ANSWER_TIMEOUT_S)
            except KafkaException as error:
                raise NoProgressError(f"Kafka does not answer any more ({error.args[0].str()})", REMEDY) from error
            received = True
        if received:
            silence.progressed()

    def commit(self) -> None:
        """Move the name's position behind everything that was handed out; it must have been handled.

        While Kafka shares the partitions out again, nothing moves until the next call; what another follower got is
        his, and he may be handed some of it again.
        """
        if not self._named:
            raise ValueError("only a follower with a name has a position")
        self._handled |= self._handed
        self._handed.clear()
        self._commit_handled()

    def _commit_handled(self) -> None:
        if not self._handled:
            return
        positions = [TopicPartition(topic, partition, at) for (topic, partition), at in self._handled.items()]
        try:
            errors = [each.error for each in self._consumer.commit(offsets=positions, asynchronous=False)]
        except KafkaException as failure:
            errors = [failure.args[0]]
        for error in errors:
            if error is not None and error.code() not in SHARING_OUT:
                raise KafkaException(error)
        if not any(errors):
            self._handled.clear()

    def _is_new(self, message: Message) -> bool:
        if self._id_of is None:
            return True
        found = self._id_of(message)
        if found in self._ids:
            return False
        self._ids[found] = None
        if len(self._ids) > IDS_MAX:
            del self._ids[next(iter(self._ids))]
        return True

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Go on at the positions. They are asked for here: to the consumer, a new name would be a lost position."""
        for each in consumer.committed(partitions, timeout=ANSWER_TIMEOUT_S):
            if each.error is not None:
                raise KafkaException(each.error)
            topic_partition = next(
                one for one in partitions if (one.topic, one.partition) == (each.topic, each.partition)
            )
            topic_partition.offset = OFFSET_BEGINNING if each.offset < 0 else each.offset
        consumer.assign(partitions)

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Others go on with these: what was handled is committed, the rest is handed out again."""
        self._commit_handled()
        self._lost(_, partitions)

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            self._handed.pop((each.topic, each.partition), None)
            self._handled.pop((each.topic, each.partition), None)


def _failure_of(message: Message) -> Exception:
    error = message.error()
    if error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:
        return _position_lost(*place_of(message), str(error.str()))
    failure: Exception = KafkaException(error)
    return failure


def _position_lost(topic: str, partition: int, what: str) -> PositionLostError:
    return PositionLostError(
        f"records of {topic} partition {partition} are gone that were not followed yet ({what})",
        "find out how long there was no follower; to go on with what is there, follow under another name, or delete "
        "the consumer group",
    )
