"""The sink: batches of the ledger's topics become rows, whatever is sent twice and wherever it crashes.

Rules of this file:
1. `apply` has these effects, in this order: rows of every table but the ledger's, the ledger's rows, the positions. A
   crash between two of them is repaired by applying the same records again, in any batches:
   usage buckets skip what they contain by their version; alerts, balances, prices, dead letters, activity, purchases
   and refused calls are the same rows again; entries that are in the ledger table already are left out.
2. After a failure nothing in memory is trusted: the next `apply` restores positions and buckets from ClickHouse first.
3. What it holds in memory is bounded: by the batches given, and by `Limits`.
4. It blocks and belongs to one thread at a time. No Faust, no Kafka, no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from pydantic import ValidationError

from projections import queries
from projections.buckets import (
    DIMS_ID_BYTES,
    LEVELS,
    METERS,
    Additions,
    Buckets,
    Key,
    UsageRows,
    additions,
    key_of,
    meter_rows,
    usage_rows,
)
from projections.clickhouse import ClickHouseUnavailableError, first_line, is_passing
from projections.columns import Ints
from projections.rows import (
    activity_rows,
    alert_rows,
    balance_rows,
    dead_letter_rows,
    deleted_price_rows,
    dismissal_rows,
    ledger_rows,
    position_rows,
    price_rows,
    purchase_rows,
    refused_call_rows,
    replay_rows,
)
from schemas.codec import DecodedBatch, WriterSchemas, decode_columns, rows_of
from schemas.enums import DeadLetterCode, EntryKind, InputKind
from schemas.events import Price
from schemas.partitioner import PartitionKeys
from schemas.topics import Topics
from streams.kafka.inbound import Inbound, start_at
from streams.kafka.kept_prices import KeptRecords
from streams.seals import NO_SEALS, Seals

PROJECTED = (
    "ledger",
    "alerts_threshold",
    "alerts_depletion",
    "alerts_topup",
    "balances",
    "dead_letters",
    "replays",
    "dismissals",
    "prices",
    "kept_prices",
    "refused_calls",
)
"""Keys of the topics that are projected."""

TRIES = {
    "purchases": EntryKind.PURCHASE,
    "transfers": InputKind.TRANSFER,
    "transfer_legs": InputKind.TRANSFER,
    "refunds": EntryKind.REFUND,
    "settings": EntryKind.SETTING,
}
"""What a refused record of these topics tried: it belongs in the activity log."""

TopicAndPartition = tuple[str, int]
"""(topic, partition)"""


class UnreadableRecordError(Exception):
    """A record that the ledger itself wrote cannot be read: the world is broken, going on would lose it."""


class LedgerGapError(Exception):
    """Entries between what is projected and what comes next are missing from the topic."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the sink may keep in memory."""

    buckets_max: int = 200_000
    """Usage buckets remembered per level, about 300 bytes each: 60 MB per level at most."""
    present_offsets_max: int = 500_000
    """Entries beyond the position that are looked up to be left out, of each partition: 45 MB while they are read, 4 MB
    kept. A crash leaves two writes of them at most; with more (an old copy of `positions`) they are inserted again, and
    the views and merges keep one of each."""


@dataclass(slots=True)
class Applied:
    """What one `apply` wrote, for metrics: rows per table, and entries that were there already."""

    rows: dict[str, int] = field(default_factory=dict)
    entries_skipped: int = 0


@dataclass(slots=True)
class _Progress:
    """What is projected of one topic's partition: everything before `position`, and `present` beyond it."""

    position: int
    as_of: int
    present: Ints


@dataclass(slots=True)
class _Tables:
    """Rows gathered for the tables, in the order of their first appearance; and usage, which changes buckets."""

    parts: dict[str, list[Any]] = field(default_factory=dict)
    usage: list[UsageRows] = field(default_factory=list)
    meters: list[UsageRows] = field(default_factory=list)
    """The components of usage, by meter."""
    entries_skipped: int = 0

    def add(self, table: str, rows: Any | None) -> None:
        if rows is not None and rows.num_rows:
            self.parts.setdefault(table, []).append(rows)

    def take(self, table: str) -> Any | None:
        parts = self.parts.pop(table, None)
        return None if parts is None else pa.concat_tables(parts)


class Sink:
    """Applies batches to the database of a client. One owner per topic partition, normally; two do no harm.

    Errors: `ClickHouseUnavailableError` and `schemas.codec.RegistryUnavailableError` mean "apply the same again later";
    `UnreadableRecordError`, `LedgerGapError` and anything else mean "stop".
    """

    def __init__(
        self,
        client: Client,
        topics: Topics,
        writers: WriterSchemas,
        limits: Limits | None = None,
        partitions: int | None = None,
        seals: Seals = NO_SEALS,
    ) -> None:
        """`partitions`: how many every topic has; None: whether a record is in its key's partition is not looked at.

        `seals`: of the prices that the ledger has kept.
        """
        self._kept_records = KeptRecords(topics.name("kept_prices"), partitions, seals)
        self._partitions = partitions
        self._own_keys: dict[int, PartitionKeys] = {}
        self._client = client
        self._writers = writers
        self._limits = limits or Limits()
        self._keys = {topics.name(key): key for key in PROJECTED}
        self._ledger_topic = topics.name("ledger")
        self._purchases_topic = topics.name("purchases")
        self._tries = {topics.name(key): str(tried) for key, tried in TRIES.items()}
        self._progress: dict[TopicAndPartition, _Progress] = {}
        self._buckets = {level: Buckets(level, self._limits.buckets_max) for level in (*LEVELS, METERS)}
        self._trusted = False

    def restore(self, topic_partitions: Collection[TopicAndPartition]) -> dict[TopicAndPartition, int]:
        """Take these partitions over: the position of each, read from ClickHouse, 0 where nothing is projected.

        Forgets whatever was known of any partition before.
        """
        self._trusted = False
        try:
            known = {(row[0], row[1]): (row[2], row[3]) for row in self._query(queries.positions())}
            self._progress = {}
            for topic_partition in topic_partitions:
                position, as_of = known.get(topic_partition, (0, 0))
                present = (
                    self._present(topic_partition[1], position) if topic_partition[0] == self._ledger_topic else _NONE
                )
                self._progress[topic_partition] = _Progress(position, as_of, present)
            for level, buckets in self._buckets.items():
                count, newest = self._query(queries.newest_start(level))[0]
                buckets.restart(newest if count else None)
        except ClickHouseError as error:
            raise _translated(error) from error
        self._trusted = True
        return self.positions()

    def positions(self) -> dict[TopicAndPartition, int]:
        """The next offset of every partition that was taken over."""
        return {topic_partition: progress.position for topic_partition, progress in self._progress.items()}

    def apply(self, batches: Sequence[Inbound]) -> Applied:
        """Write what these batches say; returns when all of it, positions included, is in ClickHouse.

        Batches of one partition come in offset order. What is before the position is left out, so any replay is
        harmless.
        """
        topic_partitions = self._progress.keys() | {(batch.topic, batch.partition) for batch in batches}
        if not self._trusted or len(topic_partitions) > len(self._progress):
            self.restore(topic_partitions)
        self._trusted = False
        try:
            applied = self._apply(batches)
        except ClickHouseError as error:
            raise _translated(error) from error
        except OSError as error:  # the client writes an insert to a temporary file first: no room on the disk
            raise ClickHouseUnavailableError(first_line(error)) from error
        self._trusted = True
        return applied

    def _apply(self, batches: Sequence[Inbound]) -> Applied:
        applied = Applied()
        tables = _Tables()
        moved: dict[TopicAndPartition, tuple[int, int]] = {}
        for batch in batches:
            topic_partition = (batch.topic, batch.partition)
            progress = self._progress[topic_partition]
            position, as_of = moved.get(topic_partition, (progress.position, progress.as_of))
            if batch.next_offset <= position:
                continue
            if self._keys[batch.topic] == "ledger" and batch.first_offset > position:
                raise LedgerGapError(
                    f"{batch.topic}, partition {batch.partition}: projected up to offset {position}, the next that the"
                    f" topic has is {batch.first_offset}"
                )
            fresh = start_at(batch, position)
            if len(fresh):
                as_of = max(as_of, self._gather(fresh, progress, tables))
            moved[topic_partition] = (batch.next_offset, as_of)
        applied.entries_skipped = tables.entries_skipped
        for rows in tables.usage:
            for level in LEVELS:
                tables.add(level.table, self._changed(additions(level, rows)))
        for rows in tables.meters:
            tables.add(METERS.table, self._changed(additions(METERS, rows)))

        # 1. Every table but the ledger's.
        ledger = tables.take("ledger")
        for table in list(tables.parts):
            self._insert(table, tables.take(table), applied)
        # 2. The ledger: an entry that is there has its other rows, too.
        self._insert("ledger", ledger, applied)
        # 3. The positions: whatever is before them is in the tables.
        if moved:
            self._insert("positions", position_rows(moved), applied)
        for topic_partition, (position, as_of) in moved.items():
            present = self._progress[topic_partition].present
            self._progress[topic_partition] = _Progress(position, as_of, present[present >= position])
        for buckets in self._buckets.values():
            buckets.bound()
        return applied

    def _gather(self, batch: Inbound, progress: _Progress, tables: _Tables) -> int:
        """The rows of one batch into `tables`; the time of its newest record, in microseconds."""
        key = self._keys[batch.topic]
        newest = max(batch.timestamps_ms) * 1_000
        if key == "dead_letters":
            headers = batch.headers or [()] * len(batch)
            rows = dead_letter_rows(
                batch.partition, batch.offsets, batch.timestamps_ms, batch.keys, batch.values, headers
            )
            tables.add("dead_letters", rows)
            return newest
        if key in ("replays", "dismissals"):
            notes = replay_rows if key == "replays" else dismissal_rows
            tables.add(key, notes(batch.keys, batch.values, batch.offsets))
            return newest
        if key == "refused_calls":
            rows = refused_call_rows(batch.partition, batch.offsets, batch.timestamps_ms, batch.values)
            tables.add("refused_calls", rows)
            return newest
        if key == "kept_prices":
            for each in self._kept_prices(batch):
                tables.add("prices", each)
            return newest
        if key in ("ledger", "balances"):
            batch = self._of_own_accounts(batch)
        record = {"ledger": "entry", "balances": "balance", "prices": "price"}.get(key, "alert")
        decoded = decode_columns(record, batch.values, self._writers)
        offsets = np.asarray(batch.offsets, dtype=np.int64)
        if decoded.positions is not None:
            offsets = offsets[np.asarray(decoded.positions, dtype=np.int64)]
        match key:
            case "ledger":
                _refuse_failures(batch, decoded, allowed=())
                self._gather_entries(batch.partition, decoded.batch, offsets, progress, tables)
            case "balances":
                _refuse_failures(batch, decoded, allowed=(DeadLetterCode.NULL_VALUE,))
                tables.add("balances", balance_rows(decoded.batch, offsets))
            case "prices":
                # Written by people's tools: what cannot be read is the ledger's to refuse, and no price.
                tables.add("prices", price_rows(decoded.batch, 2 * offsets))
                tables.add("prices", _deleted_prices(batch, decoded, 2 * np.asarray(batch.offsets, dtype=np.int64)))
            case _:
                _refuse_failures(batch, decoded, allowed=())
                tables.add("alerts", alert_rows(decoded.batch, batch.topic))
        return newest

    def _kept_prices(self, batch: Inbound) -> Iterator[Any]:
        """Rows of what the ledger has judged of prices.

        It counts more than the record that was judged, and less than the next one.
        """
        headers = batch.headers or [()] * len(batch)
        read = map(self._kept_records.read, repeat(batch.partition), batch.offsets, batch.keys, batch.values, headers)
        kept = [(offset, record) for offset, record in zip(batch.offsets, read, strict=True) if record is not None]
        deleted = [record for _, record in kept if not record.value]  # also those of which none was accepted
        if deleted:
            versions = [record.judged[2] * 2 + 1 for record in deleted]
            yield deleted_price_rows([record.price_id for record in deleted], versions)
        kept = [(offset, record) for offset, record in kept if record.value]
        decoded = decode_columns("price", [record.value for _, record in kept], self._writers)
        for failure in decoded.failures:
            self._kept_records.pass_over(batch.partition, kept[failure.position][0], failure.message)
        chosen = range(len(kept)) if decoded.positions is None else decoded.positions
        own = []
        for row, fields in zip(chosen, rows_of(decoded.batch), strict=True):
            offset, record = kept[row]
            try:
                own.append(Price.from_record(fields).price_id == record.price_id)
                error = "" if own[-1] else f"it is the price {fields['price_id']!r}"
            except ValidationError as fault:
                own.append(False)
                error = str(fault)
            if error:
                self._kept_records.pass_over(batch.partition, offset, error)
        judged = np.asarray([kept[row][1].judged[2] * 2 + 1 for row in chosen], dtype=np.int64)
        yield price_rows(decoded.batch.filter(pa.array(own, pa.bool_())), judged[np.asarray(own, dtype=np.bool_)])

    def _of_own_accounts(self, batch: Inbound) -> Inbound:
        """A batch without what an older version wrote of second accounts, in partitions that are not their orgs'.

        They have the numbers of the orgs' own entries (`streams.verify.misplaced`), and one would hide the other.
        """
        if self._partitions is None:
            return batch
        own = self._own_keys.setdefault(batch.partition, PartitionKeys(batch.partition, self._partitions))
        foreign = own.foreign(batch.keys)
        if not foreign:
            return batch
        kept = [row for row, key in enumerate(batch.keys) if key not in foreign]
        return replace(
            batch,
            offsets=[batch.offsets[row] for row in kept],
            timestamps_ms=[batch.timestamps_ms[row] for row in kept],
            keys=[batch.keys[row] for row in kept],
            values=[batch.values[row] for row in kept],
            headers=[batch.headers[row] for row in kept] if batch.headers else [],
        )

    def _gather_entries(
        self, partition: int, entries: Any, offsets: Ints, progress: _Progress, tables: _Tables
    ) -> None:
        # Buckets decide by their own version what they contain; the rest by what the ledger table has.
        counted = usage_rows(entries, partition, offsets)
        if counted is not None:
            tables.usage.append(counted)
            by_meter = meter_rows(entries, partition, offsets)
            if by_meter is not None:
                tables.meters.append(by_meter)
        if len(progress.present):
            absent = ~np.isin(offsets, progress.present)
            tables.entries_skipped += int((~absent).sum())
            entries = entries.filter(pa.array(absent))
            offsets = offsets[absent]
        if entries.num_rows:
            tables.add("activity", activity_rows(entries, self._tries))
            tables.add("purchases", purchase_rows(entries, self._purchases_topic))
            tables.add("ledger", ledger_rows(entries, partition, offsets))

    def _changed(self, addition: Additions) -> Any | None:
        """The changed buckets' rows, after reading back what is not in memory."""
        buckets = self._buckets[addition.level]
        missing = [
            (addition.keys[index][:DIMS_ID_BYTES], int(addition.starts[index])) for index in buckets.missing(addition)
        ]
        for first in range(0, len(missing), queries.READ_BACK_KEYS_MAX):
            wanted = missing[first : first + queries.READ_BACK_KEYS_MAX]
            query = queries.read_back(addition.level, wanted)
            rows = self._client.query(query.sql, settings=queries.READ_BACK_SETTINGS).result_rows
            buckets.learn(_known(row) for row in rows)
        return buckets.add(addition)

    def _present(self, partition: int, position: int) -> Ints:
        count = self._query(queries.present_count(partition, position))[0][0]
        if not 0 < count <= self._limits.present_offsets_max:
            return _NONE
        rows = self._query(queries.present_offsets(partition, position))
        return np.sort(np.fromiter((row[0] for row in rows), np.int64, len(rows)))

    def _insert(self, table: str, rows: Any | None, applied: Applied) -> None:
        if rows is None:
            return
        self._client.insert_arrow(table, rows, settings=queries.INSERT_SETTINGS)
        applied.rows[table] = applied.rows.get(table, 0) + rows.num_rows

    def _query(self, query: queries.Query) -> Sequence[Sequence[Any]]:
        return self._client.query(query.sql, parameters=query.parameters).result_rows


_NONE: Ints = np.empty(0, dtype=np.int64)


def _known(row: Sequence[Any]) -> tuple[Key, list[int]]:
    dims_id, start, *values = row
    return key_of(bytes(dims_id), int(start)), [int(value) for value in values]


def _deleted_prices(batch: Inbound, decoded: DecodedBatch, versions: Ints) -> Any | None:
    """Rows of the prices that were taken away."""
    deleted = [each.position for each in decoded.failures if batch.values[each.position] is None]
    ids = [(batch.keys[position] or b"").decode("utf-8", "replace") for position in deleted]
    return deleted_price_rows(ids, versions[deleted].tolist()) if deleted else None


def _refuse_failures(batch: Inbound, decoded: DecodedBatch, allowed: Collection[DeadLetterCode]) -> None:
    for failure in decoded.failures:
        if failure.code not in allowed:
            raise UnreadableRecordError(
                f"{batch.topic}, partition {batch.partition}, offset {batch.offsets[failure.position]}:"
                f" {failure.code}: {failure.message}"
            )


def _translated(error: ClickHouseError) -> Exception:
    return ClickHouseUnavailableError(first_line(error)) if is_passing(error) else error


def caught_up(positions: Mapping[TopicAndPartition, int], ends: Mapping[TopicAndPartition, int]) -> bool:
    """Whether everything before the given ends is projected."""
    return all(positions.get(topic_partition, 0) >= end for topic_partition, end in ends.items())
