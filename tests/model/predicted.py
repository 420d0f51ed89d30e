"""What the auditor predicts of the ledger: entries, alerts, answers to holds, requests for credits.

Lines of amount 0 that only note something (a month begun, a transfer acknowledged) are not predicted. What must be
said of alerts is their kind and rule.
"""

from __future__ import annotations

from dataclasses import dataclass

NOTHING_LEFT = "unknown_purchase or exceeds_refundable"

ARRIVED = "transfer/"
"""What the names of lots that came from elsewhere begin with; the rest of their names is the ledger's affair."""


class Unbookable(Exception):  # noqa: N818 - says what the record is
    """The record is a dead letter with this code."""


@dataclass(frozen=True)
class Line:
    """A ledger entry as predicted. `drawn`: what each kind of grant gave (below 0: got back)."""

    org: str
    kind: str
    unit: str
    amount: int
    balance: int
    held: int = 0
    reason: str | None = None
    drawn: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Alarm:
    """An alert as predicted; `rule` is the rule's id, `left` what a `credit_resolved` lists."""

    org: str
    unit: str
    kind: str
    rule: str | None = None
    left: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Decision:
    """The answer to a hold. `limits`: the limits of which the answer names one; none: it names none."""

    org: str
    hold: str
    action: str
    code: str
    granted: int
    available: int
    limits: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Request:
    """A request for credits (rule 20)."""

    org: str
    unit: str
    amount: int
    again: bool
