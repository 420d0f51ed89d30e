"""Reads the ledger's own copy of the price list (`schemas.kept_prices`).

Rules of this file:
1. Only a worker writes to the topic. A record that no worker wrote is passed over, with a warning that names its place.
   It must stop nothing: the topic is read from its beginning at every start.
2. A record counts in the partition of its key alone.
3. With `CREDITS_INTERNAL_KEY` a record counts only with a valid checksum. A reader without the key cannot check one,
   and believes the record. Only readers that decide nothing run without it: a worker would refuse its accounts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import structlog
from confluent_kafka import Message

from schemas.kept_prices import LogPosition, log_positions_of
from schemas.partitioner import partition_of
from streams.seals import NO_SEALS, TAG_HEADER, SealError, Seals

log = structlog.get_logger(__name__)

Headers = Iterable[tuple[str, bytes | str | None]] | None


class KeptRecord(NamedTuple):
    """What a worker wrote of a price id. `value`: see `schemas.kept_prices`. `sealed`: as it would be written now."""

    price_id: str
    published: LogPosition
    judged: LogPosition
    value: bytes | None
    sealed: bool


class KeptRecords:
    """Tells the records that a worker wrote from others."""

    def __init__(self, topic: str, partitions: int | None, seals: Seals = NO_SEALS) -> None:
        """`partitions`: how many the topic has; None: whether a record is in its key's partition is not looked at."""
        self._topic = topic
        self._partitions = partitions
        self._seals = seals

    def of(self, message: Message) -> KeptRecord | None:
        """The record of a message; None: no worker wrote it."""
        key, value = message.key(), message.value()
        assert not isinstance(key, str)
        assert not isinstance(value, str)
        return self.read(message.partition() or 0, message.offset() or 0, key, value, message.headers())

    def read(
        self, partition: int, offset: int, key: bytes | None, value: bytes | None, headers: Headers
    ) -> KeptRecord | None:
        """The record at a place of the topic; None: no worker wrote it."""
        try:
            if key is None:
                raise ValueError("it has no key")
            if self._partitions is not None and partition_of(key, self._partitions) != partition:
                raise ValueError("it is not in its key's partition")
            found = dict(headers or ())
            published, judged = log_positions_of(found.items())
            tag = found.get(TAG_HEADER)
            tag = tag.encode() if isinstance(tag, str) else tag
            sealed = not self._seals.checks or self._seals.check(
                "price", key, sealed_content(published, judged, value), tag
            )
            return KeptRecord(key.decode(), published, judged, value, sealed)
        except (ValueError, SealError) as error:
            self.pass_over(partition, offset, str(error))
            return None

    def pass_over(self, partition: int, offset: int, error: str) -> None:
        """Warn of a record that no worker wrote."""
        log.warning("kept_price_ignored", topic=self._topic, partition=partition, offset=offset, error=error)


def seal_headers(
    seals: Seals, key: bytes, published: LogPosition, judged: LogPosition, value: bytes | None
) -> list[tuple[str, bytes]]:
    """The header with the checksum of a record, when records are written with one."""
    return [(TAG_HEADER, seals.tag("price", key, sealed_content(published, judged, value)))] if seals.writes else []


def sealed_content(published: LogPosition, judged: LogPosition, value: bytes | None) -> bytes:
    """What the checksum of a record covers besides its key."""
    positions = b"%d %d %d %d %d %d " % (*published, *judged)
    return positions + (b"deleted" if value is None else b"value " + value)
