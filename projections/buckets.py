"""Usage by bucket of time and dimensions, as absolute values (decision 8, rollups are absolute; product rule 31). Pure.

Rules of this file:
1. A bucket is one combination of dimensions in one hour, day or month (UTC). It belongs to one partition of the ledger.
2. A bucket knows the ledger offset of the last entry in it, its version. An entry at or below it is never added again;
   so any replay, with any batch boundaries, ends in the same values.
3. What is kept in memory is bounded. A bucket that is not in memory is either newer than everything that was ever
   written or dropped (then it is empty), or it has to be read back before anything is added: `missing` names it.
4. Sums are exact up to 95 bits: they are kept as two integers, `high` x 2^32 + `low`, and added in columns.

What counts: `usage` adds its request, quantities and cost. `correction` takes back what it undoes: its signed amount,
and the request and quantities that it carries; one that re-rates a usage takes back no request, for it was made.
`refund` of usage adds to `refunded`; a refund of a purchase is no usage. By meter each component counts for itself, as
its entry tells it; a refund is of no meter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from projections.columns import AMOUNT, COUNT, Ints, constant, decimals_of_halves, ints, text
from schemas.amounts import AMOUNT_MAX
from schemas.enums import EntryKind, EntryReason
from schemas.meters import NAMED_METERS, TOKENS_PER_UNIT, is_part_of

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

PARTS = NAMED_METERS[2:]
"""Parts of the tokens that have a field of their own."""

SUMS = ("input_tokens", "output_tokens", "quantity", "cost", "refunded", *PARTS)
"""Measures that may pass 64 bits: tokens as counts, the others in nano-units."""

METER_SUMS = ("quantity", "cost", "cost_as_total")
"""The same by meter. `cost_as_total`: what the quantity of a part would have cost at the price of its total."""

COUNTS = ("requests", "entries")
"""Measures that cannot: they count entries."""

DIMS_ID_BYTES = 16
ONE_UNIT_NANOS = 10**9

HOUR_US = 3_600 * 10**6
DAY_US = 24 * HOUR_US

# Row codes of several columns are combined in one int64; beyond this the next product might not fit.
CODES_MAX = 2**62

# A sum is high x 2^32 + low with 0 <= low < 2^32. The low halves of 2^31 rows still add up within int64.
LOW_BITS = 32
LOW_MASK = 2**LOW_BITS - 1

# Odd multipliers of the two halves of a dims_id (the golden ratio's and murmur3's).
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC6A4A7935BD1E995))
_HALF = np.uint64(32)

# Columns of the values of a bucket: version, the counts, and two of each sum.
_VERSION = 0
_FIRST_SUM = 1 + len(COUNTS)

Key = bytes
"""dims_id, then the start as 8 bytes, little-endian: hours or days since the epoch, or months since January 1970."""

KEY_BYTES = DIMS_ID_BYTES + 8


@dataclass(frozen=True, slots=True)
class Level:
    """One size of bucket: the table `usage_<name>` with the time in `column`, and what it adds up by what."""

    name: str
    column: str
    dimensions: tuple[str, ...] = DIMENSIONS
    sums: tuple[str, ...] = SUMS

    @property
    def width(self) -> int:
        """Numbers that a bucket has."""
        return _FIRST_SUM + 2 * len(self.sums)

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
METERS = Level("meters_daily", "day", (*DIMENSIONS[:-1], "meter"), METER_SUMS)
LEVELS = (HOURLY, DAILY, MONTHLY)
"""Usage as a whole; `METERS` has its components."""


@dataclass(frozen=True, slots=True)
class UsageRows:
    """The entries of one partition that count as usage, in columns; `dims[codes[i]]` are the dimensions of row i."""

    partition: int
    offsets: Ints
    occurred_at: Ints
    codes: Ints
    dims: Any
    dims_ids: npt.NDArray[np.uint64]
    """Shape (dims, 2): the 16 bytes of each id."""
    counts: tuple[Ints, ...]
    sums: tuple[Ints | None, ...]
    """None: 0 in every row."""


@dataclass(frozen=True, slots=True)
class Additions:
    """What a batch adds at one level: element i of each column is one bucket; `values` as `Buckets` keeps them."""

    level: Level
    rows: UsageRows
    keys: list[Key]
    codes: Ints
    starts: Ints
    first_offsets: Ints
    last_offsets: Ints
    values: Ints
    """Shape (buckets, columns): version (the last offset), counts, halves of the sums."""


def key_of(dims_id: bytes, start: int) -> Key:
    """The key of a bucket."""
    return dims_id + start.to_bytes(8, "little", signed=True)


def usage_rows(batch: Any, partition: int, offsets: Ints) -> UsageRows | None:
    """The usage in a decoded batch of entries (a RecordBatch of the entry record); None when there is none."""
    kinds = batch.column("kind")
    counted = pc.is_in(kinds, pa.array([EntryKind.USAGE, EntryKind.CORRECTION, EntryKind.REFUND], pa.string()))
    # The other refunds take back a purchase.
    of_usage = pc.equal(text(batch.column("reason")), EntryReason.USAGE_REFUNDED)
    counted = pc.and_(counted, pc.or_(pc.not_equal(kinds, EntryKind.REFUND), of_usage))
    mask = _mask(counted)
    if not mask.any():
        return None
    if not mask.all():
        batch = batch.filter(counted)
        offsets = offsets[mask]
    columns = {name: text(batch.column(name)) for name in DIMENSIONS}
    return _rows(columns, partition, offsets, ints(batch.column("occurred_at")), _measures(batch))


def meter_rows(batch: Any, partition: int, offsets: Ints) -> UsageRows | None:
    """The components in a decoded batch of entries, each by its meter; None when there are none."""
    components = batch.column("components")
    lengths = np.diff(components.offsets.to_numpy())
    if not lengths.any():
        return None
    entries = np.repeat(np.arange(len(lengths)), lengths)
    parts = components.flatten()
    of_entry = pa.array(entries)
    columns = {name: text(batch.column(name)).take(of_entry) for name in METERS.dimensions[:-1]}
    columns["meter"] = parts.field("meter")
    cost = ints(parts.field("amount_nanos"))
    sums = (ints(parts.field("quantity_nanos")), cost, _costs_as_total(batch, entries, parts, cost))
    taken_back = _mask(pc.equal(batch.column("kind"), EntryKind.CORRECTION))[entries]
    rerated = _mask(pc.equal(text(batch.column("reason")), EntryReason.USAGE_RERATED))[entries]
    counts = (np.where(rerated, 0, np.where(taken_back, -1, 1)), np.ones(len(entries), np.int64))
    return _rows(columns, partition, offsets[entries], ints(batch.column("occurred_at"))[entries], (counts, sums))


def _costs_as_total(batch: Any, entries: Ints, parts: Any, cost: Ints) -> Ints:
    """What each component would have cost at the price of the tokens it is part of; its cost where there is none."""
    meters = parts.field("meter").dictionary_encode()
    names = meters.dictionary.to_pylist()
    costs = cost.copy()
    for total, price_name in (("input_tokens", "unit_price_nanos"), ("output_tokens", "output_unit_price_nanos")):
        of_total = np.array([is_part_of(name, total) for name in names], np.bool_)
        rows = np.flatnonzero(of_total[meters.indices.to_numpy(zero_copy_only=False)])
        if not len(rows):
            continue
        prices = batch.column(price_name).take(pa.array(entries[rows])).to_pylist()
        units = batch.column("billing_unit").take(pa.array(entries[rows])).to_pylist()
        quantities = parts.field("quantity_nanos").take(pa.array(rows)).to_pylist()
        for row, price, unit, quantity in zip(rows.tolist(), prices, units, quantities, strict=True):
            per = TOKENS_PER_UNIT.get(unit)
            if price is not None and per is not None:
                costs[row] = min(quantity * price // (per * ONE_UNIT_NANOS), AMOUNT_MAX)
    return costs


def _rows(
    columns: Mapping[str, Any],
    partition: int,
    offsets: Ints,
    occurred_at: Ints,
    measures: tuple[tuple[Ints, ...], tuple[Ints | None, ...]],
) -> UsageRows:
    """Rows with these dimensions, counts and sums."""
    encoded = {name: column.dictionary_encode() for name, column in columns.items()}
    codes, firsts = _row_codes(encoded)
    counts, sums = measures
    return UsageRows(
        partition=partition,
        offsets=offsets,
        occurred_at=occurred_at,
        codes=codes,
        dims=pa.table(dict(columns)).take(pa.array(firsts)),
        dims_ids=_dims_ids(encoded, firsts, partition),
        counts=counts,
        sums=sums,
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
    last_offsets = np.maximum.reduceat(offsets, bounds)
    return Additions(
        level=level,
        rows=rows,
        keys=_keys(rows.dims_ids[codes], group_starts),
        codes=codes,
        starts=group_starts,
        first_offsets=np.minimum.reduceat(offsets, bounds),
        last_offsets=last_offsets,
        values=_summed(rows, order, bounds, last_offsets),
    )


class Buckets:
    """The buckets of one level that are in memory, at most `buckets_max` (and those of the batches at hand).

    Two generations instead of a list by use: a bucket that is used moves to the young one; when that holds half of what
    is allowed, the old one is dropped.
    """

    def __init__(self, level: Level, buckets_max: int) -> None:
        self.level = level
        self._half_max = max(1, buckets_max // 2)
        self._young = _Generation(level.width)
        self._old = _Generation(level.width)
        self._floor: int | None = None

    def __len__(self) -> int:
        return len(self._young.slots) + len(self._old.slots)

    def restart(self, floor: int | None) -> None:
        """Forget everything. `floor`: the newest start that ClickHouse holds, None when it holds nothing.

        A bucket above the floor that is not in memory cannot have been written by an owner before us, so it is empty;
        what another writer may have written meanwhile is made of entries that we add ourselves.
        """
        self._young, self._old, self._floor = _Generation(self.level.width), _Generation(self.level.width), floor

    def missing(self, addition: Additions) -> list[int]:
        """Which groups of the addition have to be read back first, by index."""
        if self._floor is None:
            return []
        young, old, keys = self._young.slots, self._old.slots, addition.keys
        below = np.flatnonzero(addition.starts <= self._floor).tolist()
        return [index for index in below if keys[index] not in young and keys[index] not in old]

    def learn(self, known: Iterable[tuple[Key, Sequence[int]]]) -> None:
        """Buckets as ClickHouse holds them: version, then the values of `COUNTS` and `SUMS`.

        Those that were asked for and that it does not hold are empty.
        """
        rows = [(key, values) for key, values in known if key not in self._young.slots and key not in self._old.slots]
        if rows:
            slots = self._young.slots_of([key for key, _ in rows])
            self._young.values[slots] = [_halved(values) for _, values in rows]

    def add(self, addition: Additions) -> Any | None:
        """Adds what is not yet contained; the changed buckets as rows for the table, None when nothing changed."""
        slots = self._young.slots_of(addition.keys, self._old)
        before = self._young.values[slots]
        versions = before[:, _VERSION]
        changed = versions < addition.last_offsets
        adding = addition.values
        partly = np.flatnonzero(changed & (versions >= addition.first_offsets))
        if len(partly):
            adding = adding.copy()
            for index in partly.tolist():
                adding[index] = _sums_after(addition, index, int(versions[index]))
        after = before + adding
        after[:, _VERSION] = adding[:, _VERSION]
        _carry(after)
        self._young.values[slots[changed]] = after[changed]
        return _table(addition, np.flatnonzero(changed), after[changed]) if changed.any() else None

    def bound(self) -> None:
        """Let go of some, if there are too many; once ClickHouse has what changed, for it is read back from there."""
        if len(self._young.slots) < self._half_max:
            return
        if self._old.slots:
            dropped = max(int.from_bytes(key[DIMS_ID_BYTES:], "little", signed=True) for key in self._old.slots)
            self._floor = dropped if self._floor is None else max(self._floor, dropped)
        self._old, self._young = self._young, _Generation(self.level.width)


class _Generation:
    """Values of buckets by key: a dictionary of slots, and a row of numbers per slot."""

    def __init__(self, width: int) -> None:
        self.slots: dict[Key, int] = {}
        self.values: Ints = np.empty((0, width), dtype=np.int64)

    def slots_of(self, keys: list[Key], older: _Generation | None = None) -> Ints:
        """The slot of each key (no key twice); a new one takes its value from `older`, or is empty."""
        slots = self._found(keys)
        absent = np.flatnonzero(slots < 0)
        if len(absent):
            first = len(self.slots)
            new_slots = np.arange(first, first + len(absent))
            new_keys = [keys[index] for index in absent.tolist()]
            slots[absent] = new_slots
            self._grow(first + len(absent))
            self.values[new_slots] = 0
            self.values[new_slots, _VERSION] = -1
            if older is not None and older.slots:
                inherited = older._found(new_keys)
                known = inherited >= 0
                self.values[new_slots[known]] = older.values[inherited[known]]
            self.slots.update(zip(new_keys, new_slots.tolist(), strict=True))
        return slots

    def _found(self, keys: Sequence[Key]) -> Ints:
        return np.fromiter(map(self.slots.get, keys, repeat(-1)), np.int64, len(keys))

    def _grow(self, slots: int) -> None:
        if slots > len(self.values):
            values = np.empty((max(slots, 2 * len(self.values)), self.values.shape[1]), dtype=np.int64)
            values[: len(self.values)] = self.values
            self.values = values


def _row_codes(encoded: Mapping[str, Any]) -> tuple[Ints, Ints]:
    """A number per row that is the same where all dimensions are, and the first row of each number."""
    codes = np.zeros(len(encoded["org_id"]), dtype=np.int64)
    span = 1
    for column in encoded.values():
        width = len(column.dictionary)
        if width == 1:
            continue
        if span * width > CODES_MAX:
            unique, codes = np.unique(codes, return_inverse=True)
            span = len(unique)
        codes = codes * width + column.indices.to_numpy(zero_copy_only=False)
        span *= width
    _, firsts, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return inverse.astype(np.int64), firsts.astype(np.int64)


def _dims_ids(encoded: Mapping[str, Any], firsts: Ints, partition: int) -> npt.NDArray[np.uint64]:
    """128 bits that stand for a partition and each combination of dimensions (row `firsts[i]` has the i-th).

    Every distinct value of a column is hashed (BLAKE2b), and the hashes of a combination's columns are mixed one after
    the other, in columns. Each step is one to one, so combinations that differ in one value never meet.
    """
    start = _value_hashes("partition", [str(partition)])[0]
    ids = np.tile(start, (len(firsts), 1))
    for name, column in encoded.items():
        hashes = _value_hashes(name, column.dictionary.to_pylist())
        picked = hashes[column.indices.to_numpy(zero_copy_only=False)[firsts]]
        for half, multiplier in enumerate(_MIX):
            lane = (ids[:, half] ^ picked[:, half]) * multiplier
            ids[:, half] = lane ^ (lane >> _HALF)
    return ids


def _value_hashes(name: str, values: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Shape (values, 2): 16 bytes for each value of a column; the same value in another column has others."""
    column = name.encode().ljust(hashlib.blake2b.PERSON_SIZE, b".")
    hashed = b"".join(
        hashlib.blake2b(value.encode(), digest_size=DIMS_ID_BYTES, person=column).digest() for value in values
    )
    return np.frombuffer(hashed, dtype="<u8").reshape(len(values), 2).astype(np.uint64)


def _keys(dims_ids: npt.NDArray[np.uint64], starts: Ints) -> list[Key]:
    raw = np.empty((len(starts), 3), dtype="<u8")
    raw[:, :2] = dims_ids
    raw[:, 2] = starts.view(np.uint64)
    keys: list[Key] = raw.view(f"V{KEY_BYTES}").ravel().tolist()
    return keys


def _measures(batch: Any) -> tuple[tuple[Ints, ...], tuple[Ints | None, ...]]:
    """The columns of `COUNTS` and of `SUMS`, with the signs that the kinds ask for."""
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
    parts = [None if column.null_count == rows else ints(column) for column in (batch.column(name) for name in PARTS)]
    is_usage = _mask(pc.equal(kinds, EntryKind.USAGE))
    if not is_usage.all():
        is_refund = _mask(pc.equal(kinds, EntryKind.REFUND))
        refunded = np.where(is_refund, amount, 0)
        cost = np.where(is_refund, 0, cost)
        rerated = _mask(pc.equal(text(batch.column("reason")), EntryReason.USAGE_RERATED))
        requests = np.where(is_usage, 1, np.where(is_refund | rerated, 0, -1))
        tokens_in, tokens_out, quantity = tokens_in * requests, tokens_out * requests, quantity * requests
        parts = [None if part is None else part * requests for part in parts]
    return (requests, entries), (tokens_in, tokens_out, quantity, cost, refunded, *parts)


def _quantities(batch: Any) -> Ints:
    """Quantity in nano-units: where it is absent, one unit of what the billing unit counts, none where tokens do."""
    given = batch.column("quantity_nanos")
    if not given.null_count:
        return ints(given)
    units = text(batch.column("billing_unit"))
    uncounted = pc.is_in(units, pa.array(["", *TOKENS_PER_UNIT], pa.string()))
    return np.where(_mask(pc.and_not(pc.is_null(given), uncounted)), ONE_UNIT_NANOS, ints(given))


def _mask(column: Any) -> npt.NDArray[np.bool_]:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _summed(rows: UsageRows, order: Ints, bounds: Ints, last_offsets: Ints) -> Ints:
    values = np.zeros((len(bounds), _FIRST_SUM + 2 * len(rows.sums)), dtype=np.int64)
    values[:, _VERSION] = last_offsets
    for column, count in enumerate(rows.counts, start=1):
        values[:, column] = np.add.reduceat(count[order], bounds)
    for column, measure in enumerate(rows.sums):
        if measure is None:
            continue
        column = _FIRST_SUM + 2 * column
        ordered = measure[order]
        values[:, column] = np.add.reduceat(ordered >> LOW_BITS, bounds)
        values[:, column + 1] = np.add.reduceat(ordered & LOW_MASK, bounds)
    _carry(values)
    return values


def _carry(values: Ints) -> None:
    """Brings the low halves back below 2^32, in place."""
    high, low = values[:, _FIRST_SUM::2], values[:, _FIRST_SUM + 1 :: 2]
    high += low >> LOW_BITS
    low &= LOW_MASK


def _halved(values: Sequence[int]) -> list[int]:
    """Version, counts and sums as the columns of a bucket."""
    row = list(values[:_FIRST_SUM])
    for value in values[_FIRST_SUM:]:
        row += (value >> LOW_BITS, value & LOW_MASK)
    return row


def _sums_after(addition: Additions, index: int, version: int) -> Ints:
    """The values of one group over its entries above a version: a replay whose batch began in the middle of it."""
    rows = addition.rows
    starts = addition.level.starts(rows.occurred_at)
    wanted = (rows.codes == addition.codes[index]) & (starts == addition.starts[index]) & (rows.offsets > version)
    order = np.flatnonzero(wanted)
    group = _summed(rows, order, np.zeros(1, dtype=np.int64), addition.last_offsets[index : index + 1])
    return np.asarray(group[0])


def _table(addition: Additions, changed: Ints, values: Ints) -> Any:
    rows = addition.rows
    codes = addition.codes[changed]
    dims = rows.dims.take(pa.array(codes))
    ids = np.ascontiguousarray(rows.dims_ids[codes].astype("<u8"))
    level = addition.level
    sums = {
        name: decimals_of_halves(values[:, column], values[:, column + 1], COUNT if name.endswith("tokens") else AMOUNT)
        for name, column in zip(level.sums, range(_FIRST_SUM, level.width, 2), strict=True)
    }
    return pa.table(
        {
            level.column: level.times(addition.starts[changed]),
            "dims_id": pa.Array.from_buffers(pa.binary(DIMS_ID_BYTES), len(changed), [None, pa.py_buffer(ids)]),
            **{name: dims.column(name) for name in level.dimensions},
            **{name: pa.array(values[:, column]) for column, name in enumerate(COUNTS, start=1)},
            **sums,
            "ledger_partition": constant(rows.partition, len(changed), pa.uint32()),
            "version": pa.array(values[:, _VERSION]),
        }
    )
