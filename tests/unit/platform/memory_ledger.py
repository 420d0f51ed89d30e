"""The ledger's rules and its memory of ids, without Kafka and without an engine, at a time that the test sets.

What is booked is decided by the ledger itself. Which record counts as a duplicate is decided as
`streams.processing.rows` does it, in a few lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from schemas.enums import EntryKind, HoldAction, InputKind
from schemas.events import ID_FIELDS
from streams.ledger import commands
from streams.ledger.account import Account, new_account
from streams.ledger.decide import Context, Source, decide, settle_due
from streams.ledger.entry import Entry, HoldDecision, Outcome
from streams.ledger.rating import PriceList
from streams.ledger.refusals import DeadLetter
from streams.ledger.settle import hold_still_open

Decided = commands.Usage | commands.Purchase | commands.Hold | commands.Setting
COMMANDS: Mapping[InputKind, type[Decided]] = {
    InputKind.USAGE: commands.Usage,
    InputKind.PURCHASE: commands.Purchase,
    InputKind.HOLD: commands.Hold,
    InputKind.SETTING: commands.Setting,
}
Fields = Mapping[str, Any]


class MemoryLedger:
    """Accounts of organisations under one clock."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.accounts: dict[str, Account] = {}
        self.entries: list[Entry] = []
        self.ended: Counter[str] = Counter()
        """How many records ended as: `entries`, `rejected`, `duplicates`, or the code of a dead letter."""
        self._known: dict[tuple[str, ...], Fields] = {}
        self._offset = 0

    def account(self, org: str) -> Account:
        """The account of an organisation."""
        return self.accounts.setdefault(org, new_account(org))

    def advance(self, at: int) -> None:
        """Let time pass: what falls due by then is booked."""
        self.at = max(self.at, at)
        for account in self.accounts.values():
            self.entries += settle_due(account, self.at).entries

    def take(self, kind: InputKind, fields: Fields, arrived_at: int | None = None) -> tuple[HoldDecision, ...]:
        """Book one record that arrived then (None: now); the decisions that it causes."""
        self._offset += 1
        resolves = kind is InputKind.HOLD and fields["action"] != HoldAction.PLACE
        unique = (kind.value, fields["org_id"], fields[ID_FIELDS[kind]], str(fields.get("action") or ""))
        known = self._known.get(unique)
        if known == fields:
            self.ended["duplicates"] += 1
            return ()
        if known is not None and not resolves:
            self.ended["duplicate_with_different_content"] += 1
            return ()
        outcome = self._decide(kind, fields, self.at if arrived_at is None else arrived_at)
        if isinstance(outcome, DeadLetter):
            self.ended[outcome.code.value] += 1
            return ()
        if not (resolves and outcome.rejected):
            self._known[unique] = dict(fields)
        self.ended["rejected" if outcome.rejected else "entries"] += 1
        self.entries += outcome.entries
        return outcome.decisions

    def _decide(self, kind: InputKind, fields: Fields, arrived_at: int) -> Outcome | DeadLetter:
        command = COMMANDS[kind].from_record(fields)
        account = self.account(fields["org_id"])
        resolved = fields["hold_id"] if kind is InputKind.HOLD and fields["action"] != HoldAction.PLACE else None
        source = Source(kind.value, 0, self._offset)
        with hold_still_open(account, resolved, arrived_at, self.at):
            self.entries += settle_due(account, self.at).entries
            return decide(account, command, Context(self.at, PriceList(()), source, {}, arrived_at))

    def booked(self, kind: EntryKind) -> list[Entry]:
        """The entries of a kind."""
        return [entry for entry in self.entries if entry.kind is kind]
