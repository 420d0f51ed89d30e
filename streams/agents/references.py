"""The usage entries that a batch's commands refer to: refunds of usage, and corrections.

Which slices a usage drew is told by its ledger entry and nowhere else. The memory of seen ids says where in the ledger
to look, so the entry is read back from Kafka; one that this very batch wrote is taken from the batch. A refund has no
time limit (product rule 21) and the memory has: what is no longer remembered is looked for in the whole ledger of the
partition, which takes the longer the more there is. A correction is as young as its usage must be; it is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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


def refunded_usages(decoded: Iterable[DecodedBatch]) -> frozenset[Wanted]:
    """The usages that refunds of a batch refer to."""
    refunded: set[Wanted] = set()
    for batch in decoded:
        if batch.record == InputKind.REFUND:
            of_usage = batch.batch.filter(pc.equal(batch.batch.column("target"), RefundTarget.USAGE.value))
            refunded |= _pairs(of_usage, "target_id")
    return frozenset(refunded)


def corrected_usages(decoded: Iterable[DecodedBatch]) -> frozenset[Wanted]:
    """The usages that corrections of a batch refer to."""
    corrected: set[Wanted] = set()
    for batch in decoded:
        if batch.record == InputKind.USAGE:
            columns = batch.batch
            revised = pc.or_(pc.not_equal(columns.column("revision"), 0), columns.column("voided"))
            if pc.any(revised).as_py():
                corrected |= _pairs(columns.filter(revised), "event_id")
    return frozenset(corrected)


def arriving_usages(decoded: Iterable[DecodedBatch]) -> frozenset[Wanted]:
    """The usages of a batch: those that it may write, or repeat."""
    return frozenset(
        pair for batch in decoded if batch.record == InputKind.USAGE for pair in _pairs(batch.batch, "event_id")
    )


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
    refunded = refunded_usages(decoded)
    wanted = refunded | corrected_usages(decoded)
    if wanted:
        order = sorted(wanted)
        known = seen.lookup(digests([usage_id(org, event_id) for org, event_id in order], seed))
        forgotten = refunded - arriving_usages(decoded)
        for place, (org, event_id) in enumerate(order):
            if known.known[place] or (org, event_id) in forgotten:
                hint = int(known.hints[place])  # 0 where it is not known
                value = await entries.find(partition, hint, org.encode(), _IsUsage(event_id, writers))
                if value is not None:
                    found[org, event_id] = read_entry(value, writers)
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
