"""Which dead letters were sent again, and what became of them.

Rules of this file:
1. `credits dead-letters replay` notes each record that it sent, once Kafka has it: the topic `replays`, keyed by the
   letter's name, says when, and where the record is now. A crash between the two leaves the letter open, and
   it is sent again: it has no second effect.
2. A letter without a note is open. One with a note is replayed; where its record failed again there is a new letter.
3. What the record came to is read from the ledger: the entry that names its place, or, for an exact duplicate, the
   entry of the same id.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException

from schemas.codec import UndecodableError, WriterSchemas, decode_one
from schemas.enums import InputKind
from schemas.events import ID_FIELDS
from schemas.topics import INPUT_TOPICS, Topics
from streams.client.dead_letters import DeadLetter
from streams.client.dead_letters import replay as send_again
from streams.client.producer import CreditsProducer
from streams.kafka.reader import committed_ends, read_range

if TYPE_CHECKING:
    from streams.settings import Settings

RecordPosition = tuple[str, int, int]
"""Topic, partition and offset."""


class LetterState(StrEnum):
    """How a dead letter stands."""

    OPEN = "open"
    REPLAYED = "replayed"
    FAILED_AGAIN = "failed_again"


@dataclass(frozen=True, slots=True)
class Replay:
    """A dead letter's record was sent again: when, in milliseconds, and where the record is now."""

    at_ms: int
    topic: str
    partition: int
    offset: int

    @property
    def position(self) -> RecordPosition:
        return self.topic, self.partition, self.offset

    def encode(self) -> bytes:
        """The note's value."""
        note = {"at_ms": self.at_ms, "topic": self.topic, "partition": self.partition, "offset": self.offset}
        return json.dumps(note).encode()


def replay_of(value: bytes) -> Replay | None:
    """The replay that a note tells; None for what is no note."""
    try:
        note = json.loads(value)
        return Replay(int(note["at_ms"]), str(note["topic"]), int(note["partition"]), int(note["offset"]))
    except (ValueError, TypeError, KeyError):
        return None


def replay_all(producer: CreditsProducer, letters: Iterable[DeadLetter], topic: str, at_ms: int) -> int:
    """Send the records of these letters again, and note it; how many there were. Raises `DeliveryError`.

    1. The records, acknowledged. 2. A note for each, to `topic` (that of `replays`). A crash between the two leaves
    letters open whose records were sent: they are sent again, and have no second effect.
    """
    notes: dict[str, Replay] = {}

    def note(letter: DeadLetter, partition: int, offset: int) -> None:
        notes[letter.name] = Replay(at_ms, letter.topic, partition, offset)

    for letter in letters:
        send_again(producer, letter, partial(note, letter))
    producer.flush()
    for name, replay in notes.items():
        producer.produce_raw(topic, name.encode(), replay.encode())
    producer.flush()
    return len(notes)


def read_replays(settings: Settings) -> dict[str, Replay]:
    """The last replay of each dead letter that was sent again, by its name."""
    newest: dict[str, Replay] = {}
    topic = Topics(settings.namespace).name("replays")
    try:
        ends = committed_ends(settings, [topic])
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:  # nothing was replayed since the topic is known
            return {}
        raise
    for batch in read_range(settings, {}, ends):
        for message in batch:
            replay = replay_of(message.value() or b"")
            name = (message.key() or b"").decode(errors="replace")
            if replay is not None and (name not in newest or newest[name].at_ms <= replay.at_ms):
                newest[name] = replay
    return newest


def states_of(letters: Iterable[DeadLetter], replays: Mapping[str, Replay]) -> dict[str, LetterState]:
    """How each letter stands, by its name. `letters`: all there are, for a record that failed again has a newer one."""
    letters = list(letters)
    failed = {(letter.topic, letter.source_partition, letter.source_offset) for letter in letters}
    states = {}
    for letter in letters:
        replay = replays.get(letter.name)
        if replay is None:
            states[letter.name] = LetterState.OPEN
        else:
            states[letter.name] = LetterState.FAILED_AGAIN if replay.position in failed else LetterState.REPLAYED
    return states


def booked_as(
    settings: Settings, letter: DeadLetter, replay: Replay, writers: WriterSchemas
) -> tuple[int, bool] | None:
    """`seq` of the entry that a replayed record came to, and whether that was there before (an exact duplicate).

    None when the ledger has no such entry (yet). Reads one partition of the ledger.
    """
    event_id = _event_id(settings, letter, writers)
    if letter.key is None or event_id is None:
        return None
    ledger = (Topics(settings.namespace).name("ledger"), replay.partition)
    end = committed_ends(settings, [ledger[0]]).get(ledger, 0)
    before: int | None = None
    needle = event_id.encode()
    for batch in read_range(settings, {}, {ledger: end}):
        for message in batch:
            value = message.value() or b""
            if message.key() != letter.key or needle not in value:
                continue
            entry = decode_one("entry", value, writers)
            if (entry["source_topic"], entry["source_partition"], entry["source_offset"]) == replay.position:
                return int(entry["seq"]), False
            if entry["event_id"] == event_id and entry["source_topic"] == letter.topic:
                before = int(entry["seq"])
    return None if before is None else (before, True)


def _event_id(settings: Settings, letter: DeadLetter, writers: WriterSchemas) -> str | None:
    topic = Topics(settings.namespace).topic(letter.topic)
    kinds = [kind for kind, key in INPUT_TOPICS.items() if topic is not None and topic.key == key]
    if not kinds or kinds[0] is InputKind.PRICE or letter.value is None:
        return None
    try:
        return str(decode_one(kinds[0].value, letter.value, writers)[ID_FIELDS[kinds[0]]])
    except UndecodableError:
        return None
