"""How a command fails: one closed type, `Refusal`, and one exception for our own bugs.

Rules of this file:
- A guard, and each `decide_…`, returns the first `Refusal` it finds, or None. Guards stand in a fixed order. After the
  last one only entries are written, and nothing refuses any more. A refusal leaves the account unchanged.
- `Refused`: a rule stands against the command. `rejections` writes it as an entry of kind `rejected`.
- `DeadLetter`: the record cannot be booked at all. The caller keeps it with its bytes.
- Rating finds a bad record in the middle of arithmetic, so it raises the `DeadLetter`. `decide` catches it for a
  command, `usage_batch_rating` for a row.
- `BrokenLedger`: an entry does not follow on an account. This is our bug or a torn log, and stops the worker.
"""

from __future__ import annotations

import msgspec

from schemas.amounts import AMOUNT_MAX
from schemas.enums import BudgetWindow, DeadLetterCode, RejectReason


class Refused(msgspec.Struct, frozen=True):
    """A rule refuses a command."""

    reason: RejectReason
    message: str = ""
    limit_id: str | None = None
    """Of a hold: the limit in its way (product rule 13)."""
    limit_window: BudgetWindow | None = None
    limit_ends_at: int | None = None
    wallet: str | None = None
    """The wallet of what the command refers to, where that is another than the command names."""

    def in_wallet(self, unit: str) -> Refused:
        """The same refusal, of a command that refers to something in this wallet."""
        return msgspec.structs.replace(self, wallet=unit)


class DeadLetter(Exception):  # noqa: N818 - the contract's word for it
    """The record goes to the dead letters with `code`. A value like any other; only rating raises it."""

    def __init__(self, code: DeadLetterCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


Refusal = Refused | DeadLetter


class BrokenLedger(Exception):  # noqa: N818 - says what is broken
    """An entry does not follow on the account: a gap in `seq`, a grant that is not there, a balance that differs."""


def refuse_range(*amounts: int) -> DeadLetter | None:
    """`amount_out_of_range` when one of `amounts` (nano-units) is beyond ±`AMOUNT_MAX`."""
    for amount in amounts:
        if not -AMOUNT_MAX <= amount <= AMOUNT_MAX:
            return DeadLetter(
                DeadLetterCode.AMOUNT_OUT_OF_RANGE, f"{amount} nano-units would pass the bound of {AMOUNT_MAX}"
            )
    return None


def different_content(*, usage: bool) -> DeadLetter:
    """The dead letter of an id that was used before, for something else."""
    remedy = "send a correction as a higher revision" if usage else "send it under an id of its own"
    message = f"this id was booked before with other content; {remedy}"
    return DeadLetter(DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT, message)
