"""The models' limits, checked over whole columns.

Rules of this file:
1. The columns vouch only for what is certainly right (lengths, printable ASCII, bounds, closed sets); a row that they
   do not vouch for is judged by its model alone, which also says which field is wrong and why. So the two ways give the
   same verdicts (a property test holds them equal), and a usual batch costs about 0.1 µs a record.
2. Columns of one limit are looked at end to end, as one: a small batch is all about the number of looks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from schemas.codec import rows_of
from schemas.enums import DeadLetterCode, InputKind
from schemas.events import INPUTS
from schemas.facts import FACTS
from schemas.fields import (
    AttributesLimit,
    Limit,
    NumberLimit,
    QuantitiesLimit,
    Record,
    TextLimit,
    first_fault,
    limits_of,
)
from schemas.meters import RESERVED, TOTALS
from schemas.records import arrow_schema

Doubts = npt.NDArray[np.bool_]
"""For each row whether the model has to look."""

ColumnCheck = Callable[[pa.Array], Doubts | None]
"""The values in doubt; None: none."""


AnyLimit = Limit | frozenset[str]
"""A field's limit, or its closed set of words."""


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """A row that is no valid record: which, which field, a sentence why, and its dead-letter code."""

    row: int
    code: DeadLetterCode
    field: str
    message: str


def invalid_rows(record: str, batch: pa.RecordBatch) -> list[InvalidRow]:
    """The rows of a decoded batch that its model refuses, in order."""
    doubts = np.zeros(batch.num_rows, np.bool_)
    for names, check in _checks(record):
        columns = [column for name in names if (column := batch.column(name)).null_count < len(column)]
        found = check(pa.concat_arrays(columns) if len(columns) > 1 else columns[0]) if columns else None
        if found is not None:
            doubts |= found.reshape(len(columns), batch.num_rows).any(axis=0)
    if record == InputKind.PRICE:
        doubts |= _has_new_terms(batch) | _ends_too_early(batch)
    if record == InputKind.REFUND:
        doubts |= np.diff(batch.column("components").offsets.to_numpy()) > 0
    if record == InputKind.USAGE:
        doubts |= _part_exceeds_total(batch)
    in_doubt = np.flatnonzero(doubts)
    if not len(in_doubt):
        return []
    model = model_of(record)
    invalid = []
    for row, fields in zip(in_doubt.tolist(), rows_of(batch.take(pa.array(in_doubt))), strict=True):
        fault = _fault(model, fields)
        if fault is not None:
            invalid.append(InvalidRow(row, fault.code, fault.field, fault.message))
    return invalid


def model_of(record: str) -> type[Record]:
    """The model of an Avro record, by the record's name."""
    return INPUTS[InputKind(record)] if record in set(InputKind) else FACTS[record]


def _fault(model: type[Record], fields: dict[str, Any]) -> Any:
    try:
        model.from_record(fields)
    except ValidationError as error:
        return first_fault(error)
    return None


@functools.cache
def _checks(record: str) -> tuple[tuple[tuple[str, ...], ColumnCheck], ...]:
    """The checks of a record, each with the columns that it is about: they have one type. What a list holds is for the
    model to judge (`_has_new_terms`)."""
    alike: dict[tuple[AnyLimit, pa.DataType], list[str]] = {}
    for name, limit in limits_of(model_of(record)).items():
        column_type = arrow_schema(record).field(name).type
        if not pa.types.is_list(column_type):
            alike.setdefault((limit, column_type), []).append(name)
    return tuple((tuple(names), _check(limit)) for (limit, _), names in alike.items())


def _check(limit: AnyLimit) -> ColumnCheck:
    if isinstance(limit, TextLimit):
        return functools.partial(_text_doubts, limit)
    if isinstance(limit, NumberLimit):
        return functools.partial(_number_doubts, limit)
    if isinstance(limit, AttributesLimit):
        return functools.partial(_attribute_doubts, limit)
    if isinstance(limit, QuantitiesLimit):
        return functools.partial(_quantity_doubts, limit)
    return functools.partial(_word_doubts, pa.array(sorted(limit)))


def _ends_too_early(batch: pa.RecordBatch) -> Doubts:
    return _mask(pc.less_equal(batch.column("valid_to"), batch.column("valid_from")))


def _has_new_terms(batch: pa.RecordBatch) -> Doubts:
    """Prices with terms that the model alone compares."""
    doubts = np.zeros(batch.num_rows, np.bool_)
    for name in ("meter", "factor_nanos", "package_size_nanos"):
        doubts |= batch.column(name).is_valid().to_numpy(zero_copy_only=False)
    for name in ("aliases", "tiers"):
        doubts |= np.diff(batch.column(name).offsets.to_numpy()) > 0
    return doubts | _mask(pc.match_substring(batch.column("model"), "*"))


def _part_exceeds_total(batch: pa.RecordBatch) -> Doubts:
    doubts = np.zeros(batch.num_rows, np.bool_)
    for part, totals in TOTALS.items():
        count = batch.column(part)
        if count.null_count < len(count):
            for total in totals:
                doubts |= _mask(pc.greater(count, batch.column(total)))
    return doubts


def _mask(doubts: pa.BooleanArray) -> Doubts:
    """An Arrow mask as numpy; null (no value) is no doubt."""
    mask: Doubts = pc.fill_null(doubts, False).to_numpy(zero_copy_only=False)
    return mask


def _text_doubts(limit: TextLimit, column: pa.Array) -> Doubts | None:
    octets = pc.binary_length(column)  # at least as many as characters
    bounds = pc.min_max(octets)
    short, long = bounds["min"].as_py() < limit.least, bounds["max"].as_py() > limit.most
    plain = not limit.printable or pc.all(pc.ascii_is_printable(column)).as_py()
    if plain and not short and not long:
        return None
    doubts = pc.or_(pc.less(octets, limit.least), pc.greater(octets, limit.most))
    return _mask(doubts if plain else pc.or_(doubts, pc.invert(pc.ascii_is_printable(column))))


def _number_doubts(limit: NumberLimit, column: pa.Array) -> Doubts | None:
    bounds = pc.min_max(column)
    least, most = bounds["min"].as_py(), bounds["max"].as_py()
    certain = max(limit.least, limit.doubted_below)
    if certain <= least and most <= limit.most:
        return None
    outside = pc.or_(pc.less(column, pa.scalar(certain, pa.int64())), pc.greater(column, limit.most))
    return _mask(outside)


def _word_doubts(words: pa.Array, column: pa.Array) -> Doubts | None:
    return _mask(pc.and_(pc.invert(pc.is_in(column, value_set=words)), pc.is_valid(column)))


def _quantity_doubts(limit: QuantitiesLimit, column: pa.MapArray) -> Doubts | None:
    def look(keys: pa.Array, values: pa.Array) -> Iterable[Doubts | None]:
        return _text_doubts(limit.key, keys), _mask(pc.is_in(keys, _RESERVED)), _number_doubts(limit.value, values)

    return _map_doubts(limit.entries, column, look)


_RESERVED = pa.array(sorted(RESERVED))


def _attribute_doubts(limit: AttributesLimit, column: pa.MapArray) -> Doubts | None:
    def look(keys: pa.Array, values: pa.Array) -> Iterable[Doubts | None]:
        return _text_doubts(limit.key, keys), _text_doubts(limit.value, values)

    return _map_doubts(limit.entries, column, look)


def _map_doubts(
    entries_max: int, column: pa.MapArray, look: Callable[[pa.Array, pa.Array], Iterable[Doubts | None]]
) -> Doubts | None:
    """The maps with too many entries, and those with an entry that `look` doubts: it is given all keys and values."""
    offsets = column.offsets.to_numpy()
    lengths = np.diff(offsets)
    start, count = int(offsets[0]), int(offsets[-1] - offsets[0])
    if not count:
        return None
    doubts: Doubts = lengths > entries_max
    for found in look(column.keys.slice(start, count), column.items.slice(start, count)):
        if found is not None:
            doubts[np.repeat(np.arange(len(lengths)), lengths)[found]] = True
    return doubts
