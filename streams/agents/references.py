"""The usage entries that a batch's commands refer to: refunds of usage, and corrections.

Which slices a usage drew is told by its ledger entry and nowhere else. The memory of seen ids says where in the ledger
to look, so the entry is read back from Kafka; one that this very batch wrote is taken from the batch. What is not
remembered (older than the window, or booked by the capture of a hold) is looked for among the last entries of the
partition, in one pass for all of a batch (`engine.ledger_lookup.LOOK_BACK_RECORDS_MAX`). Beyond that it is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.codec import DecodedBatch, WriterSchemas, decode_one
from schemas.enums import EntryKind, InputKind, RefundTarget
from streams.engine.ports import EntrySource, SeenIds
from streams.engine.seen import digests
from streams.ledger.commands import Refund, Usage
from streams.ledger.entry import Entry

Wanted = tuple[str, str]
"""Org and event id of a usage."""


class References:
    """Usage entries by org and event id, as far as they are known to this batch."""

    def __init__(self, wanted: frozenset[Wanted], found: dict[Wanted, Entry], writers: WriterSchemas) -> None:
        self.wanted = wanted
        self._found = found
        self._writers = writers

    def of(self, command: object) -> Mapping[str, Entry]:
        """The entries that one command refers to, by event id."""
        match command:
            case Refund(target=RefundTarget.USAGE):
                event_id = command.target_id
            case Usage() if command.revision or command.voided:
                event_id = command.event_id
            case _:
                return {}
        entry = self._found.get((command.org_id, event_id))
        return {} if entry is None else {event_id: entry}

    def note(self, orgs: Sequence[str], event_ids: Sequence[str], values: Sequence[bytes]) -> None:
        """Usage entries that this batch has just written: those that are wanted later in it."""
        for org, event_id, value in zip(orgs, event_ids, values, strict=True):
            if (org, event_id) in self.wanted:
                self._found[org, event_id] = read_entry(value, self._writers)

    def note_entries(self, entries: Iterable[Entry]) -> None:
        """The same for what was decided as a command, such as usage that captures a hold."""
        for entry in entries:
            if entry.kind is EntryKind.USAGE and (entry.org_id, entry.event_id) in self.wanted:
                self._found[entry.org_id, entry.event_id] = entry


def read_entry(value: bytes, writers: WriterSchemas) -> Entry:
    """An entry of the ledger topic."""
    return Entry.from_record(decode_one("entry", value, writers))


def usage_id(org_id: str, event_id: str, revision: int = 0) -> bytes:
    """What makes a usage one: org, event id and revision (product rule 23)."""
    return b"\0".join((org_id.encode(), event_id.encode(), b"%d" % revision))


def usage_ids(keys: Sequence[bytes], usages: pa.RecordBatch) -> list[bytes]:
    """`usage_id` of every row of a batch, the org being its key."""
    event_ids = usages.column("event_id").cast(pa.binary()).to_pylist()
    column = usages.column("revision")
    revised = pc.any(pc.not_equal(column, 0)).as_py()
    numbers = [b"%d" % revision for revision in column.to_pylist()] if revised else [b"0"] * len(keys)
    return list(map(b"\0".join, zip(keys, event_ids, numbers, strict=True)))


def wanted_usages(decoded: Iterable[DecodedBatch]) -> frozenset[Wanted]:
    """The usages that refunds and corrections of a batch refer to."""
    wanted: set[Wanted] = set()
    for batch in decoded:
        if batch.record == InputKind.REFUND:
            of_usage = batch.batch.filter(pc.equal(batch.batch.column("target"), RefundTarget.USAGE.value))
            wanted |= _pairs(of_usage, "target_id")
        elif batch.record == InputKind.USAGE:
            revised = revisions(batch.batch)
            if pc.any(revised).as_py():
                wanted |= _pairs(batch.batch.filter(revised), "event_id")
    return frozenset(wanted)


def first_usages(decoded: Iterable[DecodedBatch]) -> frozenset[Wanted]:
    """The usages of a batch that are no corrections: it may write them, and they need not be looked for far back."""
    return frozenset(
        pair
        for batch in decoded
        if batch.record == InputKind.USAGE
        for pair in _pairs(batch.batch.filter(pc.invert(revisions(batch.batch))), "event_id")
    )


def revisions(usages: pa.RecordBatch) -> pa.BooleanArray:
    """True for the rows that correct an earlier usage."""
    return pc.or_(pc.not_equal(usages.column("revision"), 0), usages.column("voided"))


def _pairs(columns: pa.RecordBatch, name: str) -> set[Wanted]:
    return set(zip(columns.column("org_id").to_pylist(), columns.column(name).to_pylist(), strict=True))


async def look_up(
    decoded: Sequence[DecodedBatch],
    partition: int,
    seed: int,
    seen: SeenIds,
    entries: EntrySource,
    writers: WriterSchemas,
) -> References:
    """Read back the entries that a batch refers to, as far as they are committed.

    Raises `UnavailableError` while the broker cannot be asked.
    """
    found: dict[Wanted, Entry] = {}
    wanted = wanted_usages(decoded)
    if wanted:
        order = sorted(wanted)
        known = seen.lookup(digests([usage_id(org, event_id) for org, event_id in order], seed))
        for place in np.flatnonzero(known.known).tolist():
            org, event_id = order[place]
            match = _IsUsage(event_id, writers)
            value = await entries.find(partition, int(known.hints[place]), org.encode(), match)
            if value is not None:
                found[org, event_id] = read_entry(value, writers)
        forgotten = {order[place] for place in np.flatnonzero(~known.known).tolist()} - first_usages(decoded)
        if forgotten:
            asked = {pair: (pair[0].encode(), _IsUsage(pair[1], writers)) for pair in forgotten}
            values = await entries.find_recent(partition, asked)
            found.update({pair: read_entry(value, writers) for pair, value in values.items()})
    return References(wanted, found, writers)


class _IsUsage:
    """Accepts the ledger entry of one usage event."""

    def __init__(self, event_id: str, writers: WriterSchemas) -> None:
        self._event_id = event_id
        self._needle = event_id.encode()
        self._writers = writers

    def __call__(self, value: bytes) -> bool:
        if self._needle not in value:  # cheaper than decoding every entry on the way
            return False
        entry = read_entry(value, self._writers)
        return entry.event_id == self._event_id and entry.kind == "usage"
