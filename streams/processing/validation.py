"""What a record must be before the ledger is asked: one list of guards, for single records and for columns.

Rules of this file:
- The guards, in this order: the fields are valid; the record is under its owner's key; the key belongs to the
  partition; the record is inside its time window. The first that refuses says why, and the record is a dead letter.
- Usage is judged in columns, everything else record by record. Columns only find the rows that may be wrong. Each of
  those is then judged by the guards of a single record, so both give the same code and message.
- The age of a record is the broker's time less the record's own time, so it does not depend on when a worker gets to
  it. What could have been forgotten is never accepted (decision 7, exact memory of ids): an id is remembered for its
  window and `FUTURE_TOLERANCE_US` more.
- Whether the id had an effect before comes last, and is asked of the memory of ids by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import ValidationError

from schemas.checks import invalid_rows
from schemas.enums import DeadLetterCode, InputKind
from schemas.events import INPUTS
from schemas.fields import Record, first_fault
from streams.ledger.refusals import DeadLetter
from streams.processing.own_keys import OwnKeys

HOUR_US: Final = 3_600_000_000
FUTURE_TOLERANCE_US: Final = 2 * HOUR_US
"""How far a record's own time may be ahead of the broker's: a clock an hour wrong is tolerated, a day is not."""

Int64s = npt.NDArray[np.int64]
_Times = TypeVar("_Times", int, Int64s)


def read(kind: InputKind, fields: Mapping[str, Any]) -> Record | DeadLetter:
    """The record as a model; `invalid_field` or `amount_out_of_range`, naming the field."""
    try:
        return INPUTS[kind].from_record(dict(fields))
    except ValidationError as error:
        fault = first_fault(error)
        return DeadLetter(fault.code, f"{fault.field}: {fault.message}" if fault.field else fault.message)


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """The ages at which a record is accepted. Times are microseconds."""

    past_us: int
    """How long before its arrival it may have occurred."""

    @property
    def remembered_us(self) -> int:
        """How long an id must be remembered, so that no record is accepted whose id is forgotten."""
        return self.past_us + FUTURE_TOLERANCE_US

    def bounds(self, arrived: _Times) -> tuple[_Times, _Times]:
        """The earliest and the latest time at which a record that arrived then may have occurred."""
        return arrived - self.past_us, arrived + FUTURE_TOLERANCE_US

    def refuse(self, occurred_at: int, arrived_at: int) -> DeadLetter | None:
        """`too_old` or `too_far_in_future`."""
        earliest, latest = self.bounds(arrived_at)
        late_us = arrived_at - occurred_at
        if occurred_at < earliest:
            hours = self.past_us // HOUR_US
            message = f"occurred {late_us / HOUR_US:.1f} hours before it arrived; at most {hours} are accepted"
            return DeadLetter(DeadLetterCode.TOO_OLD, message)
        if occurred_at > latest:
            hours = FUTURE_TOLERANCE_US // HOUR_US
            message = f"is {-late_us / HOUR_US:.1f} hours ahead of its arrival; at most {hours} are accepted"
            return DeadLetter(DeadLetterCode.TOO_FAR_IN_FUTURE, message)
        return None

    def outside(self, occurred: Int64s, arrived: Int64s) -> list[int]:
        """The rows that `refuse` refuses."""
        earliest, latest = self.bounds(arrived)
        rows: list[int] = np.flatnonzero((occurred < earliest) | (occurred > latest)).tolist()
        return rows


def refuse_key(own_keys: OwnKeys, key: bytes | None, owner: str) -> DeadLetter | None:
    """`key_mismatch` or `wrong_partition`: the record is not under its owner's key, or that belongs elsewhere."""
    if key != owner.encode():
        return DeadLetter(DeadLetterCode.KEY_MISMATCH, f"the key is {key!r}, the record belongs to {owner!r}")
    return own_keys.refuse(key)


def deleted_price_id(key: bytes | None) -> str | DeadLetter:
    """Which price a record without a value takes away; `key_mismatch` where the key names none."""
    try:
        price_id = (key or b"").decode()
    except UnicodeDecodeError:
        price_id = ""
    if not price_id:
        return DeadLetter(DeadLetterCode.KEY_MISMATCH, f"the record has no value, and its key {key!r} is no price id")
    return price_id


def usage_faults(
    own_keys: OwnKeys, window: TimeWindow, usages: pa.RecordBatch, keys: Sequence[bytes | None], arrived: Int64s
) -> dict[int, DeadLetter]:
    """What is wrong with rows of usage, by row, in the order of the log; rows that are right are not in it."""
    invalid = {
        each.row: DeadLetter(each.code, f"{each.field}: {each.message}") for each in invalid_rows("usage", usages)
    }
    orgs = usages.column("org_id")
    occurred = usages.column("occurred_at").to_numpy(zero_copy_only=False)
    suspects = {*invalid, *window.outside(occurred, arrived)}
    owners = orgs.cast(pa.binary()).to_pylist()
    if owners != keys:
        suspects.update(row for row, (key, owner) in enumerate(zip(keys, owners, strict=True)) if key != owner)
    foreign = own_keys.foreign(keys)
    if foreign:
        suspects.update(row for row, key in enumerate(keys) if key in foreign)
    faults: dict[int, DeadLetter] = {}
    for row in sorted(suspects):
        fault = (
            invalid.get(row)
            or refuse_key(own_keys, keys[row], orgs[row].as_py())
            or window.refuse(int(occurred[row]), int(arrived[row]))
        )
        if fault is not None:
            faults[row] = fault
    return faults
