"""What a record must be before the ledger is asked: one list of guards, for single records and for columns.

Rules of this file:
- The guards, in this order: the record is under its owner's key; the key belongs to the partition; the fields are
  valid; the record lies inside its time window. The first that refuses says why, and the record is a dead letter.
- Usage is judged in columns, everything else record by record. A single record is read first, so what is wrong with its
  fields goes before its key.
- Columns vouch only for rows that are certainly right. Every other row is judged by the guard of a single record, so
  the two ways give the same messages.
- The age of a record is the broker's time less the record's own time, so it does not depend on when a worker gets to
  it. What could have been forgotten is never accepted (decision 7, exact memory of ids): an id is remembered for its
  window and `FUTURE_TOLERANCE_US` more.
- Whether the id had an effect before comes last, and is asked of the memory of ids by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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


def read(kind: InputKind, fields: Mapping[str, Any]) -> Record:
    """The record as a model; raises `DeadLetter` `invalid_field` or `amount_out_of_range`, naming the field."""
    try:
        return INPUTS[kind].from_record(dict(fields))
    except ValidationError as error:
        fault = first_fault(error)
        raise DeadLetter(fault.code, f"{fault.field}: {fault.message}" if fault.field else fault.message) from error


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
            message = f"lies {-late_us / HOUR_US:.1f} hours ahead of its arrival; at most {hours} are accepted"
            return DeadLetter(DeadLetterCode.TOO_FAR_IN_FUTURE, message)
        return None

    def outside(self, occurred: Int64s, arrived: Int64s) -> list[int]:
        """The rows that `refuse` refuses."""
        earliest, latest = self.bounds(arrived)
        rows: list[int] = np.flatnonzero((occurred < earliest) | (occurred > latest)).tolist()
        return rows


def refuse_key(own_keys: OwnKeys, key: bytes | None, owner: str) -> DeadLetter | None:
    """`key_mismatch` or `wrong_partition`: the record is not under its owner's key, or that belongs elsewhere."""
    return _refuse_owner(key, owner) or own_keys.refuse(key)


def deleted_price_id(key: bytes | None) -> str:
    """Which price a record without a value takes away; raises `DeadLetter` `key_mismatch` where the key names none."""
    try:
        price_id = (key or b"").decode()
    except UnicodeDecodeError:
        price_id = ""
    if not price_id:
        raise DeadLetter(DeadLetterCode.KEY_MISMATCH, f"the record has no value, and its key {key!r} is no price id")
    return price_id


def _refuse_owner(key: bytes | None, owner: str) -> DeadLetter | None:
    if key == owner.encode():
        return None
    return DeadLetter(DeadLetterCode.KEY_MISMATCH, f"the key is {key!r}, the record belongs to {owner!r}")


def usage_faults(
    own_keys: OwnKeys, window: TimeWindow, usages: pa.RecordBatch, keys: Sequence[bytes | None], arrived: Int64s
) -> dict[int, DeadLetter]:
    """What is wrong with rows of usage, by row, in the order of the guards; rows that are right are not in it."""
    faults: dict[int, DeadLetter] = {}

    def judge(rows: Iterable[int], refuse: Callable[[int], DeadLetter | None]) -> None:
        for row in rows:
            refusal = None if row in faults else refuse(row)
            if refusal is not None:
                faults[row] = refusal

    orgs = usages.column("org_id")
    if orgs.cast(pa.binary()).to_pylist() != keys:
        judge(range(len(keys)), lambda row: _refuse_owner(keys[row], orgs[row].as_py()))
    foreign = own_keys.foreign(keys)
    if foreign:
        judge((row for row, key in enumerate(keys) if key in foreign), lambda row: own_keys.refuse(keys[row]))
    invalid = {
        each.row: DeadLetter(each.code, f"{each.field}: {each.message}") for each in invalid_rows("usage", usages)
    }
    judge(invalid, invalid.__getitem__)
    occurred = usages.column("occurred_at").to_numpy(zero_copy_only=False)
    judge(window.outside(occurred, arrived), lambda row: window.refuse(int(occurred[row]), int(arrived[row])))
    return faults
