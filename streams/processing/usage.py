"""Usage of one inbound batch: read, judged in columns, booked by the ledger, and what that comes to handed over.

Rules of this file:
1. A row that a guard refuses is a dead letter. One whose id had an effect before is an exact duplicate, which is
   counted, or a dead letter. All others go to `streams.ledger.usage_batch`, in the order of the log.
2. Nothing here decides about credits: entries, dead letters, counts and alerts are the ledger's.
3. An id is remembered if and only if its row had an effect.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from schemas.codec import DecodedBatch, encode_columns
from streams.engine.seen import contents, digests
from streams.kafka.inbound import Inbound
from streams.ledger.refusals import DeadLetter, different_content
from streams.ledger.usage_batch import BookedUsage, book_rows
from streams.ledger.usage_batch_rating import Kinds
from streams.ledger.usage_rows import UsageRows, split_at_corrections, take_rows
from streams.processing.old_ids import old_ids
from streams.processing.outbound import Outbound
from streams.processing.references import Gathered, References, usage_ids
from streams.processing.state import USAGE_IDS, PartitionState
from streams.processing.validation import TimeWindow, usage_faults


class UsageIntake:
    """Takes the usage of one inbound batch into a partition."""

    def __init__(self, state: PartitionState, inbound: Inbound, outbound: Outbound, window: TimeWindow) -> None:
        self._state = state
        self._inbound = inbound
        self._outbound = outbound
        self._window = window
        self._seen = state.partition.seen[USAGE_IDS]

    def book(self, decoded: DecodedBatch, kinds: Kinds | None, gathered: Gathered) -> None:
        """Every record of the batch comes to its end. `kinds`: those of the whole batch."""
        references = gathered.references
        for part in split_at_corrections(self._valid(decoded)):
            rows = self._new(part)
            if not len(rows):
                continue
            accounts = {org: self._state.account(org) for org in set(rows.orgs)}
            booked = book_rows(rows, accounts, gathered.prices, references, kinds)
            self._remember(rows, booked)
            self._hand_over(rows, booked, references)

    def _valid(self, decoded: DecodedBatch) -> UsageRows:
        """The rows that no guard refuses. The partition's clock moves to that of the last record."""
        inbound = self._inbound
        for failure in decoded.failures:
            self._outbound.dead_letter(inbound, failure.position, failure.code, failure.message)
        stamps = np.asarray(inbound.timestamps_ms, np.int64) * 1_000
        clocks = np.maximum.accumulate(np.maximum(stamps, self._state.clock_at))
        self._state.clock_at = int(clocks[-1])
        numbers = np.arange(len(inbound), dtype=np.int64)
        keys = inbound.keys
        if decoded.positions is not None:
            numbers = np.asarray(decoded.positions, np.int64)
            keys = [keys[number] for number in decoded.positions]
        usages, content = decoded.batch, decoded.contents()
        faults = usage_faults(self._state.own_keys, self._window, usages, keys, stamps[numbers])
        if faults:
            for row, fault in faults.items():
                self._refuse(int(numbers[row]), fault)
            right = [row for row in range(len(keys)) if row not in faults]
            usages, numbers = usages.take(pa.array(right, pa.int64())), numbers[right]
            keys, content = [keys[row] for row in right], [content[row] for row in right]
        seed = self._state.partition.seed
        return UsageRows(
            usages=usages,
            topic=inbound.topic,
            partition=inbound.partition,
            offsets=np.asarray(inbound.offsets, np.int64)[numbers],
            inbound_rows=numbers,
            keys=keys,  # type: ignore[arg-type]  # a missing key is a mismatch, and was refused
            orgs=usages.column("org_id").to_pylist(),
            arrived=stamps[numbers],
            clocks=clocks[numbers],
            ids=digests(usage_ids(keys, usages), seed),  # type: ignore[arg-type]
            contents=contents(content, seed),
        )

    def _new(self, rows: UsageRows) -> UsageRows:
        """The rows whose id had no effect yet."""
        found = self._seen.lookup(rows.ids, rows.arrived)
        if not found.known.any():
            return rows
        same = found.known & (found.contents == rows.contents)
        self._outbound.count(self._inbound.topic, "duplicates", int(same.sum()))
        for row in np.flatnonzero(found.known & ~same).tolist():
            self._refuse(int(rows.inbound_rows[row]), different_content(usage=True))
        return take_rows(rows, np.flatnonzero(~found.known))

    def _remember(self, rows: UsageRows, booked: BookedUsage) -> None:
        """The ids of the rows that had an effect; an operator hears of those that look older than the window."""
        kept = booked.effective
        self._seen.add(rows.ids[kept], rows.contents[kept], self._state.partition.ledger_end, rows.clocks[kept])
        if len(kept):
            event_ids = rows.usages.column("event_id")
            event_ids = event_ids if len(kept) == len(rows) else event_ids.take(pa.array(kept))
            old = old_ids(event_ids, rows.arrived[kept], self._window.past_us)
            if old:
                self._outbound.notice(self._inbound.topic, "old_id", old)

    def _hand_over(self, rows: UsageRows, booked: BookedUsage, references: References) -> None:
        """What leaves: dead letters, counts, alerts and their like, and the entries in the ledger's order."""
        outbound, topic, in_columns = self._outbound, self._inbound.topic, booked.in_columns
        for row, refusal in booked.dead_letters.items():
            self._refuse(int(rows.inbound_rows[row]), refusal)
        outbound.count(topic, "entries", len(booked.effective) - booked.rejected)
        outbound.count(topic, "rejected", booked.rejected)
        outbound.count(topic, "duplicates", booked.duplicates)
        outbound.add_side_outputs(booked.side_outputs)
        keys, orgs = rows.keys, rows.orgs
        if len(in_columns) < len(rows):
            keys, orgs = [keys[row] for row in in_columns.tolist()], [orgs[row] for row in in_columns.tolist()]
        values = encode_columns("entry", booked.entries, outbound.entry_schema_id)
        if references.wanted:
            references.note(orgs, booked.entries.column("event_id").to_pylist(), values)
        if not booked.written:
            outbound.encoded_entries(keys, values)
            return
        encoded = dict(zip(in_columns.tolist(), zip(keys, values, strict=True), strict=True))
        for row in range(len(rows)):
            for entry in booked.written.get(row, ()):
                outbound.entry(entry)
            if row in encoded:
                key, value = encoded[row]
                outbound.encoded_entries([key], [value])

    def _refuse(self, inbound_row: int, refusal: DeadLetter) -> None:
        self._outbound.dead_letter(self._inbound, inbound_row, refusal.code, refusal.message)
