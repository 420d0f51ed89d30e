"""The ways in which a command comes to nothing, as types.

A refusal by rule is a ledger entry of kind `rejected` with a `RejectReason`, and is returned, not raised. A record that
cannot be booked at all is a dead letter: `DeadLetter` is raised before anything has changed. An entry that does not
follow on an account is `BrokenLedger`: our bug or a torn log, and stops the worker.
"""

from __future__ import annotations

from schemas.amounts import AMOUNT_MAX
from schemas.enums import DeadLetterCode


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
