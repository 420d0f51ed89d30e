"""What is wrong with a single record, in the dead letters' words.

Rules of this file: the age of a record is the broker's time of it less the time it tells, so it is the same however
late a worker gets to it. What could have been forgotten is never accepted (decision 7, exact memory of ids): an id
is remembered for its window and `FUTURE_TOLERANCE_US` more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from schemas.enums import DeadLetterCode, InputKind
from schemas.events import INPUTS
from schemas.fields import Record, first_fault
from streams.ledger.refusals import DeadLetter

HOUR_US: Final = 3_600_000_000
FUTURE_TOLERANCE_US: Final = 2 * HOUR_US
"""How far a record's own time may be ahead of the broker's: a clock an hour wrong is borne, a day is not."""


def read(kind: InputKind, fields: Mapping[str, Any]) -> Record:
    """The record as a model; raises `DeadLetter` `invalid_field` or `amount_out_of_range`, naming the field."""
    try:
        return INPUTS[kind].from_record(dict(fields))
    except ValidationError as error:
        fault = first_fault(error)
        raise DeadLetter(fault.code, f"{fault.field}: {fault.message}" if fault.field else fault.message) from error


def check_key(key: bytes | None, owner: str) -> None:
    """Raise `DeadLetter` `key_mismatch` unless the record is under the key of its owner."""
    if key != owner.encode():
        raise DeadLetter(DeadLetterCode.KEY_MISMATCH, f"the key is {key!r}, the record belongs to {owner!r}")


def check_window(occurred_at: int, arrived_at: int, window_us: int) -> None:
    """Raise `DeadLetter` `too_old` or `too_far_in_future`; microseconds."""
    late_us = arrived_at - occurred_at
    if late_us > window_us:
        hours = window_us // HOUR_US
        message = f"occurred {late_us / HOUR_US:.1f} hours before it arrived; at most {hours} are accepted"
        raise DeadLetter(DeadLetterCode.TOO_OLD, message)
    if -late_us > FUTURE_TOLERANCE_US:
        hours = FUTURE_TOLERANCE_US // HOUR_US
        message = f"lies {-late_us / HOUR_US:.1f} hours ahead of its arrival; at most {hours} are accepted"
        raise DeadLetter(DeadLetterCode.TOO_FAR_IN_FUTURE, message)


def different_content(*, usage: bool) -> tuple[DeadLetterCode, str]:
    """The dead letter of an id that was used before, for something else."""
    remedy = "send a correction as a higher revision" if usage else "send it under an id of its own"
    return DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT, f"this id was booked before with other content; {remedy}"
