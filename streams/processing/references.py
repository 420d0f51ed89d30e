"""The usage entries that a batch's commands refer to: refunds of usage, and corrections.

Only the ledger entry of a usage says which slices it drew, so the entry is read back from Kafka. One that this very
batch wrote is taken from the batch. Where in the ledger to look is known, in this order:
1. from the memory of seen ids: that of usage, and that of money for usage booked by the capture of a hold;
2. from the refund, which may name the time (`target_recorded_at`): however far back that is;
   The usages of a re-rating are all looked for so, whether they are remembered or not;
3. not at all: among the last entries of the partition (`engine.ledger_lookup.PASS_RECORDS_MAX`), in one pass for all
   of a batch. An older entry is unknown.
A search that found nothing is not repeated at once (`negative_cache`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.codec import DecodedBatch, WriterSchemas, decode_one
from schemas.enums import EntryKind, HoldAction, InputKind, RefundTarget
from streams.engine.ports import EntrySource, Partition, SeenIds
from streams.engine.seen import digests
from streams.ledger.commands import Refund, Usage
from streams.ledger.entry import Entry
from streams.ledger.price_log import PriceLog
from streams.ledger.rating import PriceList
from streams.ledger.usage_batch_rating import Kinds
from streams.ledger.usage_rows import revisions
from streams.processing.negative_cache import NegativeCache

Wanted = tuple[str, str]
"""Org and event id of a usage."""

MINUTE_US: Final = 60_000_000
RERATED: Final = frozenset({RefundTarget.RERATED_USAGE.value})
OF_USAGE: Final = frozenset({RefundTarget.USAGE.value, *RERATED})
"""Targets of refunds that are about a usage."""

_TIME: Final = "target_recorded_at"


class References:
    """Usage entries by org and event id, as far as they are known to this batch."""

    def __init__(self, wanted: frozenset[Wanted], found: dict[Wanted, Entry], writers: WriterSchemas) -> None:
        self.wanted = wanted
        self._found = found
        self._writers = writers

    def of(self, command: object) -> Mapping[str, Entry]:
        """The entries that one command refers to, by event id."""
        match command:
            case Refund(target=RefundTarget.USAGE | RefundTarget.RERATED_USAGE):
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


def capture_id(org_id: str, hold_id: str) -> bytes:
    """What makes a capture one; it books a usage whose event id is the hold's (`rows.unique_id`)."""
    return "\0".join((InputKind.HOLD, org_id, hold_id, HoldAction.CAPTURE)).encode()


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
            of_usage = pc.is_in(batch.batch.column("target"), pa.array(sorted(OF_USAGE), pa.string()))
            wanted |= _pairs(batch.batch.filter(of_usage), "target_id")
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


def _pairs(columns: pa.RecordBatch, name: str) -> set[Wanted]:
    return set(zip(columns.column("org_id").to_pylist(), columns.column(name).to_pylist(), strict=True))


def times_named(decoded: Iterable[DecodedBatch], targets: AbstractSet[str]) -> dict[int, set[Wanted]]:
    """The usages whose refunds (of these targets) name the time at which they were recorded, by whole minutes of it.

    Whole minutes, so that many usages of one hour are found by few passes.
    """
    named: dict[int, set[Wanted]] = {}
    for batch in decoded:
        if batch.record != InputKind.REFUND:
            continue
        columns = (batch.batch.column(name).to_pylist() for name in ("target", "org_id", "target_id", _TIME))
        for target, org, event_id, at in zip(*columns, strict=True):
            if target in targets and at is not None:
                named.setdefault(at - at % MINUTE_US, set()).add((org, event_id))
    return named


class Finder:
    """Finds in the ledger of one partition what a batch refers to."""

    def __init__(
        self, entries: EntrySource, negative_cache: NegativeCache, writers: WriterSchemas, partition: Partition
    ) -> None:
        self._entries = entries
        self._negative_cache = negative_cache
        self._writers = writers
        self._partition = partition

    async def look_up(self, decoded: Sequence[DecodedBatch], usage: SeenIds, money: SeenIds) -> References:
        """The entries that a batch refers to, as far as they are committed. `usage`, `money`: the ids remembered.

        Raises `UnavailableError` while the broker cannot be asked.
        """
        wanted = wanted_usages(decoded)
        found: dict[Wanted, Entry] = {}
        if wanted:
            await self._search_in_order(times_named(decoded, RERATED), found)
            missing = await self._remembered(wanted - found.keys(), usage, usage_id, found)
            missing = await self._remembered(missing - first_usages(decoded), money, capture_id, found)
            for at, pairs in sorted(times_named(decoded, OF_USAGE).items()):
                await self._search(at, missing & pairs, found)
                missing -= found.keys()
            await self._search(None, missing, found)
        return References(wanted, found, self._writers)

    async def _remembered(
        self, wanted: AbstractSet[Wanted], seen: SeenIds, id_of: Callable[[str, str], bytes], found: dict[Wanted, Entry]
    ) -> AbstractSet[Wanted]:
        """Find those whose ids are remembered; returns the others."""
        order = sorted(wanted)
        known = seen.lookup(digests([id_of(*pair) for pair in order], self._partition.seed))
        number, at = self._partition.number, self._partition.clock_at
        for index in np.flatnonzero(known.known).tolist():
            (org, event_id), hint = order[index], int(known.hints[index])
            if not self._negative_cache.should_search((number, hint, order[index]), at):
                continue
            value = await self._entries.find(number, hint, org.encode(), _IsUsage(event_id, self._writers))
            if value is None:  # what was remembered came to no usage: a void of something unknown
                self._negative_cache.note([(number, hint, order[index])], at)
            else:
                found[org, event_id] = read_entry(value, self._writers)
        return {order[index] for index in np.flatnonzero(~known.known).tolist()}

    async def _search(self, since: int | None, pairs: AbstractSet[Wanted], found: dict[Wanted, Entry]) -> None:
        """Find what is not remembered: from `since` on, or among the last entries."""
        number, at = self._partition.number, self._partition.clock_at
        asked = [pair for pair in pairs if self._negative_cache.should_search((number, since, pair), at)]
        if not asked:
            return
        matches = {pair: (pair[0].encode(), _IsUsage(pair[1], self._writers)) for pair in asked}
        if since is None:
            values = await self._entries.find_recent(number, matches)
        else:
            values = await self._entries.find_since(number, since, self._recorded_at, matches)
        found.update({pair: read_entry(value, self._writers) for pair, value in values.items()})
        self._negative_cache.note([(number, since, pair) for pair in asked if pair not in values], at)

    async def _search_in_order(self, named: Mapping[int, AbstractSet[Wanted]], found: dict[Wanted, Entry]) -> None:
        """Find thousands of usages of a re-rating, which come in the order of the ledger, in a few passes.

        A pass begins at the earliest time that is named and goes on until all are found, or as far as a pass goes.
        """
        left = {pair: at for at, pairs in named.items() for pair in pairs}
        while left:
            since = min(left.values())
            await self._search(since, left.keys(), found)
            left = {pair: at for pair, at in left.items() if at > since and pair not in found}

    def _recorded_at(self, value: bytes) -> int:
        return read_entry(value, self._writers).recorded_at


class _IsUsage:
    """Accepts the ledger entry of one usage event."""

    def __init__(self, event_id: str, writers: WriterSchemas) -> None:
        self._event_id = event_id
        self._needle = event_id.encode()
        self._writers = writers

    def __call__(self, value: bytes) -> bool:
        if self._needle not in value:  # cheaper than decoding every entry
            return False
        entry = read_entry(value, self._writers)
        return entry.event_id == self._event_id and entry.kind == "usage"


@dataclass(slots=True)
class Gathered:
    """What one batch needs that is not in the state of its partition: made by `gather`, used by `step`."""

    decoded: list[DecodedBatch]
    """Of each inbound batch, in order."""
    kinds: list[Kinds | None]
    """Of each inbound batch of usage the kinds in it."""
    price_log: PriceLog
    references: References

    @property
    def prices(self) -> PriceList:
        """The prices in force."""
        return self.price_log.prices
