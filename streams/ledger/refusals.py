"""The ways in which a command comes to nothing: three, each with a form of its own.

Rules of this file:
- **A rule refuses.** A guard returns a `Refusal`, or None. The command's `decide_…` asks its guards in a fixed order,
  writes the first refusal as an entry of kind `rejected`, and returns. After the last guard nothing refuses any more.
- **The record cannot be booked at all.** `DeadLetter` is raised before anything has changed; the record goes to the
  dead letters with its bytes.
- **An entry does not follow on an account.** `BrokenLedger` is our bug or a torn log, and stops the worker.

A hold is answered as well as refused: its refusal is an `admission.Admission`, which carries the decision's code.
"""

from __future__ import annotations

import msgspec

from schemas.amounts import AMOUNT_MAX
from schemas.enums import DeadLetterCode, RejectReason


class Refusal(msgspec.Struct, frozen=True):
    """A rule stands against a command: the reason of its entry, and a sentence where there is more to say."""

    reason: RejectReason
    message: str = ""


class DeadLetter(Exception):  # noqa: N818 - the contract's word for it
    """The record goes to the dead letters with `code`; the account has not changed."""

    def __init__(self, code: DeadLetterCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class BrokenLedger(Exception):  # noqa: N818 - says what is broken
    """An entry does not follow on the account: a gap in `seq`, a grant that is not there, a balance that differs."""


def check_range(*amounts: int) -> None:
    """Raise a DeadLetter `amount_out_of_range` when one of `amounts` (nano-units) is beyond ±`AMOUNT_MAX`."""
    for amount in amounts:
        if not -AMOUNT_MAX <= amount <= AMOUNT_MAX:
            raise DeadLetter(
                DeadLetterCode.AMOUNT_OUT_OF_RANGE, f"{amount} nano-units would pass the bound of {AMOUNT_MAX}"
            )


def different_content(*, usage: bool) -> DeadLetter:
    """The dead letter of an id that was used before, for something else."""
    remedy = "send a correction as a higher revision" if usage else "send it under an id of its own"
    message = f"this id was booked before with other content; {remedy}"
    return DeadLetter(DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT, message)
