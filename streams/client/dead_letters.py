"""Dead letters: what could not be booked, read back, and sent again.

Rules of this file: a dead letter is named by its own position in the dead-letter topic, `partition:offset`. Its value,
key and headers are the record's own; what the ledger adds stands in headers after them (`schemas.dead_letters`).
Replaying sends the same bytes to the topic they came from. What has been booked since has no second effect: its id is
known, and after the id's window the record is too old. What fails again becomes a new dead letter, and the old one
stays. So a choice of many counts a record once, by its newest letter (`newest_of_each`): else each replay would send
twice as many as the one before. A dead letter that holds only a part of its record is not replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from confluent_kafka import Message

from schemas.dead_letters import (
    CODE_HEADER,
    CUT_PREFIXES,
    ERROR_PREFIX,
    HEADERS_PREFIX,
    KEY_PREFIX,
    MESSAGE_HEADER,
    OFFSET_HEADER,
    PARTITION_HEADER,
    TOPIC_HEADER,
    VALUE_PREFIX,
)
from schemas.topics import Topics
from streams.client.producer import CreditsProducer
from streams.kafka.reader import committed_ends, read_range

if TYPE_CHECKING:
    from streams.settings import Settings

REPLAYED_HEADER = "credits.replayed"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record that could not be booked. `headers` are its own, without what the ledger added."""

    partition: int
    offset: int
    at_ms: int
    code: str
    message: str
    topic: str
    source_partition: int
    source_offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    cut: Mapping[str, str]
    """What the ledger says of a record that was too large to be held whole; empty when it is whole."""

    @property
    def name(self) -> str:
        """Its place in the dead-letter topic."""
        return f"{self.partition}:{self.offset}"

    @property
    def refusal(self) -> str | None:
        """Why it cannot be sent again; None when it can."""
        if not self.topic:
            return f"dead letter {self.name} does not say which topic it came from"
        if self.cut:
            return f"dead letter {self.name} holds only a part of its record: {self.parts}"
        return None

    @property
    def parts(self) -> str:
        """What of the record is here, where it was cut: for people."""
        said = []
        for name, prefix, part in (("value", VALUE_PREFIX, self.value), ("key", KEY_PREFIX, self.key)):
            size = self.cut.get(f"{prefix}bytes")
            if size is not None:
                said.append(f"the first {len(part or b''):,} of {_number(size):,} bytes of the {name}")
        left_out = self.cut.get(f"{HEADERS_PREFIX}left_out")
        if left_out is not None:
            said.append(f"all but {_number(left_out):,} of the headers")
        return ", ".join(said)


def dead_letter_of(message: Message) -> DeadLetter:
    """The dead letter in a Kafka message; headers that are missing read as empty or −1."""
    headers: list[tuple[str, Any]] = message.headers() or []
    begin = max((place for place, (name, _) in enumerate(headers) if name == TOPIC_HEADER), default=0)
    error_headers = {name: (value or b"").decode(errors="replace") for name, value in headers[begin:]}
    own = tuple(
        (name, value)
        for place, (name, value) in enumerate(headers)
        if not name.startswith(ERROR_PREFIX)
        and name != CODE_HEADER
        and (place < begin or not name.startswith(CUT_PREFIXES))
    )
    return DeadLetter(
        partition=message.partition(),
        offset=message.offset(),
        at_ms=message.timestamp()[1],
        code=error_headers.get(CODE_HEADER, ""),
        message=error_headers.get(MESSAGE_HEADER, ""),
        topic=error_headers.get(TOPIC_HEADER, ""),
        source_partition=_number(error_headers.get(PARTITION_HEADER, "")),
        source_offset=_number(error_headers.get(OFFSET_HEADER, "")),
        key=message.key(),
        value=message.value(),
        headers=own,
        cut={name: text for name, text in error_headers.items() if name.startswith(CUT_PREFIXES)},
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else -1


def read_dead_letters(settings: Settings) -> Iterator[DeadLetter]:
    """Every dead letter up to now, in the order of each partition."""
    topic = Topics(settings.namespace).name("dead_letters")
    for batch in read_range(settings, {}, committed_ends(settings, [topic])):
        yield from map(dead_letter_of, batch)


def newest_dead_letters(settings: Settings, offsets_max: int) -> Iterator[DeadLetter]:
    """The dead letters among the last `offsets_max` offsets of each partition, in the order of each."""
    ends = committed_ends(settings, [Topics(settings.namespace).name("dead_letters")])
    starts = {place: max(0, end - offsets_max) for place, end in ends.items()}
    for batch in read_range(settings, starts, ends):
        yield from map(dead_letter_of, batch)


def read_dead_letter(settings: Settings, partition: int, offset: int) -> DeadLetter | None:
    """The dead letter at that place; None when there is none."""
    place = (Topics(settings.namespace).name("dead_letters"), partition)
    end = committed_ends(settings, [place[0]]).get(place, 0)
    if not 0 <= offset < end:
        return None
    for batch in read_range(settings, {place: offset}, {place: offset + 1}):
        for message in batch:
            return dead_letter_of(message)
    return None


def newest_of_each(letters: Iterable[DeadLetter], wanted: Callable[[DeadLetter], bool]) -> tuple[list[DeadLetter], int]:
    """The wanted letters that are the newest of their record, and how many wanted ones are older than those.

    Two letters hold the same record when topic, key and value are the same; a record's own headers do not count, since
    nothing is booked by them and any producer may write `credits.replayed`. The newest says how the record stands now:
    an older one is left out also where the newest is not wanted. A letter that cannot be sent stands for
    itself. They come in the order in which their records failed first. Held: the wanted letters, 32 bytes for others.
    """
    newest: dict[bytes, tuple[tuple[int, int, int], DeadLetter | None]] = {}
    wanted_count = 0
    for letter in letters:
        is_wanted = wanted(letter)
        wanted_count += is_wanted
        record = _digest(letter) if letter.refusal is None else letter.name.encode()
        at = (letter.at_ms, letter.partition, letter.offset)
        if record not in newest or newest[record][0] < at:
            newest[record] = (at, letter if is_wanted else None)
    found = [letter for _, letter in newest.values() if letter is not None]
    return found, wanted_count - len(found)


def _digest(letter: DeadLetter) -> bytes:
    """The same for letters of the same record."""
    digest = sha256()
    for part in (letter.topic.encode(), letter.key, letter.value):
        digest.update(b"none" if part is None else b"%d:%b" % (len(part), part))
    return digest.digest()


def replay(producer: CreditsProducer, letter: DeadLetter, delivered: Callable[[int, int], None] | None = None) -> None:
    """Send the record again, as it came, to the topic it came from, by its key. ValueError when it has a `refusal`.

    `delivered` gets the partition and offset of the new record.
    """
    if letter.refusal is not None:
        raise ValueError(letter.refusal)
    headers = [each for each in letter.headers if each[0] != REPLAYED_HEADER]
    sent = [*headers, (REPLAYED_HEADER, letter.name.encode())]
    producer.produce_raw(letter.topic, letter.key, letter.value, sent, delivered)
