"""Records of one topic and partition in columns, and how batches are split and concatenated.

Rules of this file: a part covers the offsets from `first_offset` up to, but not including, `next_offset`, as the
batch does. Consecutive parts leave no offset out. The records themselves are never copied or changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Headers = Sequence[tuple[str, bytes]]
"""Kafka headers, as they came or as they go out."""


@dataclass(slots=True)
class Inbound:
    """Records of one input topic and partition, in columns: element i of each list is record i, offsets ascending.

    Together they are all committed records with `first_offset` <= offset < `next_offset`; offsets may have gaps
    (markers, compaction), and there may be no record at all. `timestamps_ms` are Kafka's (LogAppendTime of the input
    topics). Keys and values are the raw bytes, or None. `headers` is empty when no record of the batch has headers,
    else as long as the others.
    """

    topic: str
    partition: int
    first_offset: int
    next_offset: int
    offsets: list[int] = field(default_factory=list)
    timestamps_ms: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.offsets)

    def size_bytes(self) -> int:
        """Bytes of values, keys and headers: what a queue that holds it must count."""
        size = sum(map(len, filter(None, self.values))) + sum(map(len, filter(None, self.keys)))
        for headers in self.headers:
            size += sum(len(name) + len(value or b"") for name, value in headers)
        return size


def start_at(inbound: Inbound, offset: int) -> Inbound:
    """The part of a batch from `offset` on."""
    skipped = next((i for i, each in enumerate(inbound.offsets) if each >= offset), len(inbound))
    return _part(inbound, skipped, len(inbound), offset, inbound.next_offset)


def split_at(inbound: Inbound, records: int) -> tuple[Inbound, Inbound]:
    """The first `records` records of a batch that has more, and the rest."""
    split_offset = inbound.offsets[records]
    head = _part(inbound, 0, records, inbound.first_offset, split_offset)
    return head, _part(inbound, records, len(inbound), split_offset, inbound.next_offset)


def join(parts: list[Inbound]) -> Inbound:
    """Consecutive batches as one batch."""
    first = parts[0]
    combined = Inbound(first.topic, first.partition, first.first_offset, parts[-1].next_offset)
    any_headers = any(part.headers for part in parts)
    for part in parts:
        combined.offsets += part.offsets
        combined.timestamps_ms += part.timestamps_ms
        combined.keys += part.keys
        combined.values += part.values
        if any_headers:
            combined.headers += part.headers or [()] * len(part)
    return combined


def _part(inbound: Inbound, start: int, end: int, first_offset: int, next_offset: int) -> Inbound:
    return Inbound(
        inbound.topic,
        inbound.partition,
        first_offset,
        next_offset,
        offsets=inbound.offsets[start:end],
        timestamps_ms=inbound.timestamps_ms[start:end],
        keys=inbound.keys[start:end],
        values=inbound.values[start:end],
        headers=inbound.headers[start:end],
    )
