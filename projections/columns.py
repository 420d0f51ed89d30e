"""Columns of Arrow as ClickHouse takes them: exact amounts, times, and text without nulls.

Rules of this file: no float touches an amount; whole columns at a time, no Python object per value on the usual way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]

AMOUNT = pa.decimal128(38, 9)
"""Credits: an integer of nano-credits with nine decimals."""

COUNT = pa.decimal128(38, 0)
"""Sums that may pass 64 bits (tokens)."""

MOMENT = pa.timestamp("us", "UTC")


def amounts(nanos: Any) -> Any:
    """Nano-credits (an int64 Arrow array, nulls kept) as `Decimal(38, 9)`, by widening each integer to 128 bits."""
    array = _flat(nanos)
    return _decimals(_values(array), _validity(array), AMOUNT)


def decimals_of_halves(high: Ints, low: Ints, kind: Any) -> Any:
    """Integers of up to 95 bits, given as high x 2^32 + low (0 <= low < 2^32), as decimals of a 128-bit type."""
    words = np.empty((len(high), 2), dtype=np.int64)
    words[:, 0] = (high << 32) | low
    words[:, 1] = high >> 32
    return pa.Array.from_buffers(kind, len(high), [None, pa.py_buffer(words)])


def moments(micros: Any) -> Any:
    """Microseconds since the epoch (int64 or already a timestamp, nulls kept) as UTC times."""
    return _flat(micros).cast(pa.int64()).view(MOMENT)


def text(column: Any) -> Any:
    """A text column with an empty string where nothing was given."""
    array = _flat(column)
    return pc.fill_null(array, "") if array.null_count else array


def numbers(column: Any) -> Any:
    """A number column with 0 where nothing was given."""
    array = _flat(column)
    return pc.fill_null(array, 0) if array.null_count else array


def ints(column: Any) -> Ints:
    """A number column as numpy int64, 0 where nothing was given."""
    filled = numbers(column)
    return np.asarray(filled.cast(pa.int64()).to_numpy(zero_copy_only=False), dtype=np.int64)


def constant(value: Any, rows: int, kind: Any) -> Any:
    """A column of one value."""
    return pa.repeat(pa.scalar(value, kind), rows)


def struct_list(lists: Any, fields: Sequence[tuple[str, Any]]) -> Any:
    """A list-of-records column whose records get these fields instead, each as long as the flattened list."""
    array = _flat(lists)
    records = pa.StructArray.from_arrays([field for _, field in fields], names=[name for name, _ in fields])
    # A sliced array keeps the offsets of the whole; its flattened values begin at its own first.
    offsets = array.offsets.to_numpy()
    return pa.ListArray.from_arrays(pa.array(offsets - offsets[0] if len(offsets) else offsets), records)


def _flat(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _values(array: Any) -> Ints:
    return np.asarray(numbers(array).cast(pa.int64()).to_numpy(zero_copy_only=False), dtype=np.int64)


def _validity(array: Any) -> Any:
    """A validity bitmap without offset, or None when nothing is null."""
    if not array.null_count:
        return None
    valid = np.asarray(pc.is_valid(array).to_numpy(zero_copy_only=False), dtype=np.bool_)
    return pa.py_buffer(np.packbits(valid, bitorder="little"))


def _decimals(values: Ints, validity: Any, kind: Any) -> Any:
    # A decimal128 is a little-endian two's complement integer of 128 bits: the value, then its sign extended.
    halves = np.empty((len(values), 2), dtype=np.int64)
    halves[:, 0] = values
    halves[:, 1] = values >> 63
    return pa.Array.from_buffers(kind, len(values), [validity, pa.py_buffer(halves)])
