"""Usage by bucket of time and dimensions, as absolute values (design, 8). Pure.

Rules of this file:
1. A bucket is one combination of dimensions in one hour, day or month (UTC). It belongs to one partition of the ledger.
2. A bucket knows the ledger offset of the last entry in it, its version. An entry at or below it is never added again;
   so any replay, with any batch boundaries, ends in the same values.
3. What is kept in memory is bounded. A bucket that is not in memory is either newer than everything that was ever
   written or dropped (then it is empty), or it has to be read back before anything is added: `missing` names it.
4. Sums are exact at any size: 64-bit arithmetic where it provably fits, Python integers where it might not.

What counts: `usage` adds its request, quantities and cost. `correction` takes back what it undoes: its signed amount, and
the request and quantities that it carries, once. `refund` of usage adds to `refunded`; a refund of a purchase is no usage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from projections.columns import Ints, amounts_of_ints, constant, counts_of_ints, ints, text
from schemas.enums import BillingUnit, EntryKind

DIMENSIONS = (
    "org_id",
    "wallet",
    "operation",
    "category",
    "project_id",
    "user_id",
    "team",
    "department",
    "model",
    "tool",
    "provider",
    "endpoint",
    "deployment",
    "billing_unit",
)

MEASURES = ("requests", "input_tokens", "output_tokens", "quantity", "cost", "refunded", "entries")

DIMS_ID_BYTES = 16
ONE_UNIT_NANOS = 10**9
TOKEN_UNITS = (BillingUnit.TOKEN, BillingUnit.THOUSAND_TOKENS, BillingUnit.MILLION_TOKENS)

HOUR_US = 3_600 * 10**6
DAY_US = 24 * HOUR_US

# Row codes of several columns are combined in one int64; beyond this the next product might not fit.
CODES_MAX = 2**62
# Sums of a batch stay in int64 while rows x largest value is below this.
SUM_MAX = 2**62

Key = tuple[bytes, int]
"""(dims_id, start): start is the hour or day since the epoch, or the month as 12 x year + month - 1, minus 1970's."""


@dataclass(frozen=True, slots=True)
class Level:
    """One size of bucket: the table `usage_<name>` with the time in `column`."""

    name: str
    column: str

    @property
    def table(self) -> str:
        """The ClickHouse table."""
        return f"usage_{self.name}"

    def starts(self, micros: Ints) -> Ints:
        """The bucket that each time (microseconds) falls in, as a number."""
        if self.column == "hour":
            return micros // HOUR_US
        days = (micros // DAY_US).astype("datetime64[D]")
        return (days if self.column == "day" else days.astype("datetime64[M]")).astype(np.int64)

    def times(self, starts: Ints) -> Any:
        """The starts as an Arrow column for the table: seconds for hours, dates for days and months."""
        if self.column == "hour":
            return pa.array(starts * 3_600).view(pa.timestamp("s", "UTC"))
        unit = "datetime64[D]" if self.column == "day" else "datetime64[M]"
        return pa.array(starts.astype(unit).astype("datetime64[D]").astype(np.int32)).view(pa.date32())


HOURLY = Level("hourly", "hour")
DAILY = Level("daily", "day")
MONTHLY = Level("monthly", "month")
LEVELS = (HOURLY, DAILY, MONTHLY)


@dataclass(frozen=True, slots=True)
class UsageRows:
    """The entries of one partition that count as usage, in columns; `dims[codes[i]]` are the dimensions of row i.

    `measures` has a column per name in `MEASURES`, int64 or, where sums could pass 64 bits, Python integers.
    """

    partition: int
    offsets: Ints
    occurred_at: Ints
    codes: Ints
    dims: Any
    dims_ids: list[bytes]
    measures: tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True, slots=True)
class Additions:
    """What a batch adds at one level: element i of each column is one bucket's sum."""

    level: Level
    rows: UsageRows
    keys: list[Key]
    codes: Ints
    starts: Ints
    first_offsets: Ints
    last_offsets: Ints
    measures: tuple[npt.NDArray[Any], ...]


class Bucket(NamedTuple):
    """A bucket's whole value; `version` is the ledger offset of the last entry in it."""

    version: int
    requests: int
    input_tokens: int
    output_tokens: int
    quantity: int
    cost: int
    refunded: int
    entries: int


EMPTY = Bucket(-1, 0, 0, 0, 0, 0, 0, 0)


def usage_rows(batch: Any, partition: int, offsets: Ints) -> UsageRows | None:
    """The usage in a decoded batch of entries (a RecordBatch of the entry record); None when there is none."""
    kinds = batch.column("kind")
    counted = pc.is_in(kinds, pa.array([EntryKind.USAGE, EntryKind.CORRECTION, EntryKind.REFUND], pa.string()))
    # A refund without an operation takes back a purchase.
    counted = pc.and_(counted, pc.or_(pc.not_equal(kinds, EntryKind.REFUND), pc.is_valid(batch.column("operation"))))
    mask = np.asarray(counted.to_numpy(zero_copy_only=False), dtype=np.bool_)
    if not mask.any():
        return None
    if not mask.all():
        batch = batch.filter(counted)
        offsets = offsets[mask]
    codes, firsts = _row_codes(batch)
    dims = pa.table({name: text(batch.column(name)) for name in DIMENSIONS}).take(pa.array(firsts))
    return UsageRows(
        partition=partition,
        offsets=offsets,
        occurred_at=ints(batch.column("occurred_at")),
        codes=codes,
        dims=dims,
        dims_ids=_dims_ids(dims, partition),
        measures=_measures(batch),
    )


def additions(level: Level, rows: UsageRows) -> Additions:
    """Sums the rows by bucket."""
    starts = level.starts(rows.occurred_at)
    low = int(starts.min())
    width = int(starts.max()) - low + 1
    combined = rows.codes * width + (starts - low)
    order = np.argsort(combined, kind="stable")
    ordered = combined[order]
    bounds = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    offsets = rows.offsets[order]
    heads = order[bounds]
    codes = rows.codes[heads]
    group_starts = starts[heads]
    ids = rows.dims_ids
    return Additions(
        level=level,
        rows=rows,
        keys=[(ids[code], start) for code, start in zip(codes.tolist(), group_starts.tolist(), strict=True)],
        codes=codes,
        starts=group_starts,
        first_offsets=np.minimum.reduceat(offsets, bounds),
        last_offsets=np.maximum.reduceat(offsets, bounds),
        measures=tuple(np.add.reduceat(measure[order], bounds) for measure in rows.measures),
    )


class Buckets:
    """The buckets of one level that are in memory, at most `buckets_max` (and those of the batch at hand).

    Two generations instead of a list by use: a bucket that is used moves to the young one; when that holds half of what
    is allowed, the old one is dropped.
    """

    def __init__(self, level: Level, buckets_max: int) -> None:
        self.level = level
        self._half_max = max(1, buckets_max // 2)
        self._young: dict[Key, Bucket] = {}
        self._old: dict[Key, Bucket] = {}
        self._floor: int | None = None

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def restart(self, floor: int | None) -> None:
        """Forget everything. `floor`: the newest start that ClickHouse holds, None when it holds nothing.

        A bucket above the floor that is not in memory cannot have been written by an owner before us, so it is empty;
        what another writer may have written meanwhile is made of entries that we add ourselves.
        """
        self._young, self._old, self._floor = {}, {}, floor

    def missing(self, addition: Additions) -> list[int]:
        """Which groups of the addition have to be read back first, by index."""
        floor = self._floor
        if floor is None:
            return []
        young, old = self._young, self._old
        return [
            index
            for index, key in enumerate(addition.keys)
            if key[1] <= floor and key not in young and key not in old
        ]

    def learn(self, known: Iterable[tuple[Key, Bucket]]) -> None:
        """Buckets as ClickHouse holds them; those it does not hold count as empty from now on."""
        for key, bucket in known:
            if key not in self._young and key not in self._old:
                self._young[key] = bucket

    def add(self, addition: Additions) -> Any | None:
        """Adds what is not yet contained; the changed buckets as rows for the table, None when nothing changed."""
        changed: list[int] = []
        values: list[Bucket] = []
        young, old = self._young, self._old
        columns = [measure.tolist() for measure in addition.measures]
        sums = zip(
            addition.keys, addition.first_offsets.tolist(), addition.last_offsets.tolist(), *columns, strict=True
        )
        for index, (key, first, last, requests, tokens_in, tokens_out, quantity, cost, refunded, entries) in enumerate(
            sums
        ):
            bucket = young.get(key)
            if bucket is None:
                bucket = old.pop(key, EMPTY)
                young[key] = bucket
            if bucket[0] >= first:
                if bucket[0] >= last:
                    continue
                bucket = _added(bucket, last, _sums_after(addition, index, bucket[0]))
            else:
                bucket = Bucket(
                    last,
                    bucket[1] + requests,
                    bucket[2] + tokens_in,
                    bucket[3] + tokens_out,
                    bucket[4] + quantity,
                    bucket[5] + cost,
                    bucket[6] + refunded,
                    bucket[7] + entries,
                )
            young[key] = bucket
            changed.append(index)
            values.append(bucket)
        self._bound()
        return _table(addition, changed, values) if changed else None

    def _bound(self) -> None:
        if len(self._young) < self._half_max:
            return
        if self._old:
            dropped = max(key[1] for key in self._old)
            self._floor = dropped if self._floor is None else max(self._floor, dropped)
        self._old, self._young = self._young, {}


def _row_codes(batch: Any) -> tuple[Ints, Ints]:
    """A number per row that is the same where all dimensions are, and the first row of each number."""
    codes = np.zeros(batch.num_rows, dtype=np.int64)
    span = 1
    for name in DIMENSIONS:
        encoded = text(batch.column(name)).dictionary_encode()
        width = len(encoded.dictionary)
        if width == 1:
            continue
        if span * width > CODES_MAX:
            unique, codes = np.unique(codes, return_inverse=True)
            span = len(unique)
        codes = codes * width + encoded.indices.to_numpy(zero_copy_only=False)
        span *= width
    _, firsts, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return inverse.astype(np.int64), firsts.astype(np.int64)


def _dims_ids(dims: Any, partition: int) -> list[bytes]:
    """128 bits that stand for a partition and its dimensions: an accidental or forged collision is out of reach."""
    encode = msgspec.msgpack.Encoder().encode
    columns = [column.to_pylist() for column in dims.columns]
    return [
        hashlib.blake2b(encode((partition, *values)), digest_size=DIMS_ID_BYTES).digest()
        for values in zip(*columns, strict=True)
    ]


def _measures(batch: Any) -> tuple[npt.NDArray[Any], ...]:
    """The columns of `MEASURES`, with the signs that the kinds ask for."""
    rows = batch.num_rows
    kinds = batch.column("kind")
    amount = ints(batch.column("amount_nanos"))
    tokens_in = ints(batch.column("input_tokens"))
    tokens_out = ints(batch.column("output_tokens"))
    quantity = _quantities(batch)
    requests = np.ones(rows, dtype=np.int64)
    refunded = np.zeros(rows, dtype=np.int64)
    entries = np.ones(rows, dtype=np.int64)
    cost = -amount
    is_usage = np.asarray(pc.equal(kinds, EntryKind.USAGE).to_numpy(zero_copy_only=False), dtype=np.bool_)
    if not is_usage.all():
        is_refund = np.asarray(pc.equal(kinds, EntryKind.REFUND).to_numpy(zero_copy_only=False), dtype=np.bool_)
        refunded = np.where(is_refund, amount, 0)
        cost = np.where(is_refund, 0, cost)
        sign = np.where(is_usage, 1, np.where(is_refund, 0, -1))
        requests, tokens_in, tokens_out, quantity = sign, tokens_in * sign, tokens_out * sign, quantity * sign
    return tuple(_safe(measure) for measure in (requests, tokens_in, tokens_out, quantity, cost, refunded, entries))


def _quantities(batch: Any) -> Ints:
    """Quantity in nano-units: where it is absent, one unit of what the billing unit counts, none where tokens do."""
    given = batch.column("quantity_nanos")
    if not given.null_count:
        return ints(given)
    units = text(batch.column("billing_unit"))
    one = pc.and_(pc.is_null(given), pc.invert(pc.is_in(units, pa.array(["", *TOKEN_UNITS], pa.string()))))
    is_one = np.asarray(one.to_numpy(zero_copy_only=False), dtype=np.bool_)
    return np.where(is_one, ONE_UNIT_NANOS, ints(given))


def _safe(measure: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The column in int64 when no sum of it can leave 64 bits, else as Python integers."""
    largest = max(abs(int(measure.max())), abs(int(measure.min())))
    return measure if largest * len(measure) < SUM_MAX else measure.astype(object)


def _sums_after(addition: Additions, index: int, version: int) -> Sequence[int]:
    """The sums of one group over its entries above a version: a replay whose batch began in the middle of it."""
    rows = addition.rows
    starts = addition.level.starts(rows.occurred_at)
    wanted = (rows.codes == addition.codes[index]) & (starts == addition.starts[index]) & (rows.offsets > version)
    return [int(measure[wanted].sum()) for measure in rows.measures]


def _added(bucket: Bucket, version: int, sums: Sequence[int]) -> Bucket:
    return Bucket(version, *(old + new for old, new in zip(bucket[1:], sums, strict=True)))


def _table(addition: Additions, changed: Sequence[int], values: Sequence[Bucket]) -> Any:
    picked = np.asarray(changed, dtype=np.int64)
    codes = addition.codes[picked]
    dims = addition.rows.dims.take(pa.array(codes))
    ids = addition.rows.dims_ids
    columns = list(zip(*values, strict=True))
    table: dict[str, Any] = {
        addition.level.column: addition.level.times(addition.starts[picked]),
        "dims_id": pa.array([ids[code] for code in codes.tolist()], pa.binary(DIMS_ID_BYTES)),
        **{name: dims.column(name) for name in DIMENSIONS},
        "requests": pa.array(columns[1], pa.int64()),
        "input_tokens": counts_of_ints(columns[2]),
        "output_tokens": counts_of_ints(columns[3]),
        "quantity": amounts_of_ints(columns[4]),
        "cost": amounts_of_ints(columns[5]),
        "refunded": amounts_of_ints(columns[6]),
        "entries": pa.array(columns[7], pa.uint64()),
        "ledger_partition": constant(addition.rows.partition, len(picked), pa.uint32()),
        "version": pa.array(columns[0], pa.int64()),
    }
    return pa.table(table)
