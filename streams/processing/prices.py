"""The price list as this worker knows it: the price topic, and what the ledger keeps of it, followed live.

Rules of this file:
- Every worker reads all partitions of both topics, from the start, committed records only. Of each price it takes the
  accepted one that the ledger has kept, and the records of the price topic that were not judged yet; what these come to
  `streams.ledger.price_log` says (product rule 7).
- So what is in force does not depend on what compaction left of the price topic (`schemas.kept_prices`), and a price
  that was just published need not wait for the worker that judges it.
- A record that is no price, or is not under its own key in its own partition, changes nothing here. The worker
  that owns its partition dead-letters it (`streams.processing.validation`), exactly once; here it is only passed over.
- The hot path never waits for prices. A thread asks for the end of the topic once a second, so it is known up
  to which time everything has been read. A batch of usage waits for the reader when that is more than
  `STALE_MAX_S` ago: so long, and no longer, may usage still be rated as if a change had not been published.
  To make a change hold from an instant, publish it before, with that `valid_from`.
- When a usage matches none, the worker reads on to the end of the topic as it
  is at that moment, and looks again, before it says `unknown_price`: a price published before the usage is found. The
  end is asked for at most once in `ASK_INTERVAL_S`, for all partitions that wait.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import structlog
from confluent_kafka import Message
from pydantic import ValidationError

from schemas.codec import RegistryUnavailableError, UndecodableError, WriterSchemas, decode_one
from schemas.enums import DeadLetterCode
from schemas.events import Price as PriceRecord
from schemas.partitioner import partition_of
from schemas.topics import Topics
from streams.engine.ports import UnavailableError
from streams.errors import KafkaUnavailableError
from streams.kafka.kept_prices import KeptRecords
from streams.kafka.live import LiveTopics
from streams.ledger.price_log import PriceLog, Publication, Published
from streams.ledger.rating import Price
from streams.ledger.refusals import DeadLetter
from streams.processing.coalesced_call import CoalescedCall
from streams.processing.validation import deleted_price_id
from streams.seals import NO_SEALS, Seals
from streams.settings import Settings

log = structlog.get_logger(__name__)

REGISTRY_RETRY_S: Final = 1.0
CATCH_UP_MAX_S: Final = 10.0
"""Longer than this without reaching the end of the topic, and the broker counts as away."""

CURRENT_INTERVAL_S: Final = 1.0
STALE_MAX_S: Final = 5.0
"""A few times the interval above: a slow answer alone makes no batch wait."""

ASK_INTERVAL_S: Final = 0.05
"""Unpriced usage in every batch then costs a worker 20 questions a second and its partition 50 ms."""


class PendingPrice(NamedTuple):
    """A record of the price topic that can be read and that the ledger has not kept yet."""

    published: Published
    price: Price | None
    value: bytes | None


class AcceptedPrice(NamedTuple):
    """What the ledger has kept of a price id."""

    published: Published
    judged: Published
    price: Price | None
    value: bytes | None
    sealed: bool
    """As it would be written now."""


class PriceRecords:
    """What the records of both topics come to. Its mappings are replaced whole, never changed in place."""

    def __init__(self, partitions: int, writers: WriterSchemas, topics: Topics, seals: Seals = NO_SEALS) -> None:
        """`seals`: of what the ledger has kept."""
        self._partitions = partitions
        self._topic = topics.name("prices")
        self._kept_records = KeptRecords(topics.name("kept_prices"), partitions, seals)
        self._writers = writers
        self.kept: Mapping[str, AcceptedPrice] = {}
        self.unjudged: Mapping[str, tuple[PendingPrice, ...]] = {}
        """By price id, in the order of publication."""
        self.log = PriceLog()

    def take(self, published: Sequence[Message], kept: Sequence[Message]) -> None:
        """Take note of records of the price topic, and of those that the ledger has kept."""
        if not published and not kept:
            return
        known, unjudged = dict(self.kept), dict(self.unjudged)
        for message in kept:
            read_kept = self._kept(message)
            if read_kept is None:
                continue
            price_id, found = read_kept
            if price_id not in known or known[price_id].judged <= found.judged:
                known[price_id] = found
                unjudged[price_id] = tuple(each for each in unjudged.get(price_id, ()) if each.published > found.judged)
        for message in published:
            read = self._published(message)
            if read is not None and (read[0] not in known or read[1].published > known[read[0]].judged):
                price_id, record = read
                unjudged[price_id] = tuple(sorted((*unjudged.get(price_id, ()), record), key=lambda each: each[0]))
        self.kept = known
        self.unjudged = {price_id: records for price_id, records in unjudged.items() if records}
        self.log = PriceLog(self._publications())

    def _publications(self) -> Iterator[Publication]:
        for price_id, kept in self.kept.items():
            yield kept.published, price_id, kept.price
        for price_id, records in self.unjudged.items():
            for record in records:
                yield record.published, price_id, record.price

    def _kept(self, message: Message) -> tuple[str, AcceptedPrice] | None:
        """None: no worker wrote it."""
        record = self._kept_records.of(message)
        if record is None:
            return None
        try:
            price = self._price_of(record.price_id.encode(), record.value) if record.value else None
        except (UndecodableError, ValidationError, DeadLetter) as error:
            self._kept_records.pass_over(message.partition(), message.offset(), str(error))
            return None
        published, judged = Published(*record.published), Published(*record.judged)
        return record.price_id, AcceptedPrice(published, judged, price, record.value, record.sealed)

    def _published(self, message: Message) -> tuple[str, PendingPrice] | None:
        """None: its owner makes it a dead letter (`streams.processing.rows`)."""
        key, value = message.key(), message.value()
        published = Published(message.timestamp()[1], message.partition(), message.offset())
        try:
            if key is not None and partition_of(key, self._partitions) != message.partition():
                raise DeadLetter(DeadLetterCode.WRONG_PARTITION, "it is not in its key's partition")
            if value is None:
                price_id = deleted_price_id(key)
                if isinstance(price_id, DeadLetter):
                    raise price_id
                return price_id, PendingPrice(published, None, None)
            price = self._price_of(key, value)
        except (UndecodableError, ValidationError, DeadLetter) as error:
            position = {"topic": self._topic, "partition": message.partition(), "offset": message.offset()}
            log.warning("price_ignored", **position, error=str(error))
            return None
        return price.price_id, PendingPrice(published, price, value)

    def _price_of(self, key: bytes | None, value: bytes) -> Price:
        """The price in a value; raises what says that it is none, or another key's."""
        record = PriceRecord.from_record(decode_one("price", value, self._writers))
        if key != record.price_id.encode():
            raise DeadLetter(DeadLetterCode.KEY_MISMATCH, f"the key is {key!r}, the price is {record.price_id!r}")
        return Price.from_record(record.to_record())


class PriceSource(Protocol):
    """Where a worker's price list comes from. The methods block; they are called in a thread."""

    records: PriceRecords

    def start(self) -> None:
        """Return when everything published so far is in `records`. Raises `UnavailableError`."""
        ...

    def catch_up(self) -> None:
        """Return when everything published before this call is in `records`. Raises `UnavailableError`."""
        ...

    def current(self) -> bool:
        """Whether everything published until `STALE_MAX_S` ago is in `records`. Makes no call."""
        ...

    def stop(self) -> None:
        """Let go of it."""
        ...


class PriceReader:
    """Follows both topics in a thread of its own."""

    def __init__(self, settings: Settings, writers: WriterSchemas) -> None:
        topics = Topics(settings.namespace)
        self._topic = topics.name("prices")
        self._live = LiveTopics(settings, [self._topic, topics.name("kept_prices")], self._take, name="prices")
        self._read_to_end_at_s = -STALE_MAX_S
        self._looking = threading.Thread(target=self._look_for_the_end, name="prices-end", daemon=True)
        self._end = CoalescedCall(self._read_to_end, self._live.stopping.wait, time.monotonic)
        self.records = PriceRecords(settings.partitions, writers, topics, Seals.of(settings))

    def start(self) -> None:
        """Begin to read, and return when everything that is there now has been read.

        Raises `UnavailableError`; called again it waits again.
        """
        self.begin()
        self.catch_up()

    def begin(self) -> None:
        """Begin to read, and wait for nothing."""
        self._live.start()
        if self._looking.ident is None:
            self._looking.start()

    def stop(self) -> None:
        """End the threads and leave the broker. One that waits for the broker's answer is not waited for."""
        self._live.close()

    def catch_up(self) -> None:
        """Return when every price that was committed before this call is in `records`. Raises `UnavailableError`."""
        self._end.refresh(ASK_INTERVAL_S)

    def current(self) -> bool:
        """See `PriceSource`."""
        return time.monotonic() - self._read_to_end_at_s <= STALE_MAX_S

    def _look_for_the_end(self) -> None:
        while not self._live.stopping.wait(CURRENT_INTERVAL_S):
            with contextlib.suppress(UnavailableError):  # a batch that needs the prices will say so
                self.catch_up()

    def _read_to_end(self) -> None:
        asked_at_s = time.monotonic()
        deadline_s = asked_at_s + CATCH_UP_MAX_S
        try:
            reached = self._live.wait_for(self._live.ends(deadline_s), deadline_s)
        except KafkaUnavailableError as error:
            raise UnavailableError(f"the end of {self._topic} cannot be asked: {error}") from error
        if not reached:
            raise UnavailableError(f"{self._topic} could not be read to its end")
        self._read_to_end_at_s = asked_at_s

    def _take(self, messages: Sequence[Message]) -> None:
        """Take the records; while the registry cannot be asked, wait: nothing is passed over for that."""
        published = [message for message in messages if message.topic() == self._topic]
        kept = [message for message in messages if message.topic() != self._topic]
        while not self._live.stopping.is_set():
            try:
                self.records.take(published, kept)
            except RegistryUnavailableError as error:
                log.warning("prices_wait_for_registry", error=str(error))
                self._live.stopping.wait(REGISTRY_RETRY_S)
            else:
                return
