"""How a decision becomes entries: each is numbered, given its balances and folded into the account as it is written.

Rules of this file: an entry is written only when nothing can refuse it any more. Exactly one entry of a command, the
first, carries the command's position in the log. What follows from it (an allowance granted at once, an expiry) and
what falls due has none, and names its cause by `event_id` or `correlation_id`.
"""

from __future__ import annotations

from typing import Any

from schemas.enums import EntryKind, EntryReason
from streams.ledger.account import Account
from streams.ledger.entry import Entry, HoldDecision, Leg, Lot, Outcome, Slice
from streams.ledger.evolve import evolve
from streams.ledger.source import TIME, Source
from streams.ledger.topups import request_of


class Journal:
    """Writes the entries of one command, or of what fell due, at one instant."""

    def __init__(self, account: Account, at: int, outcome: Outcome, source: Source = TIME) -> None:
        self.account = account
        self.at = at
        self.outcome = outcome
        self._source = source

    def write(
        self,
        kind: EntryKind,
        unit: str,
        amount: int,
        *,
        event_id: str,
        occurred_at: int,
        slices: tuple[Slice, ...] = (),
        grants: tuple[Lot, ...] = (),
        held_change: int = 0,
        **fields: Any,
    ) -> Entry:
        """Write and fold one entry. `amount`, `held_change`: signed nano-units; `fields`: further fields of Entry."""
        account = self.account
        wallet = account.wallets.get(unit)
        settled = amount + (wallet.settled if wallet is not None else 0)
        held = held_change + (wallet.held if wallet is not None else 0)
        seq = account.seq + 1
        source, self._source = self._source, TIME
        entry = Entry(
            account.org_id,
            seq,
            kind,
            unit,
            amount,
            settled,
            settled - held,
            held,
            occurred_at,
            self.at,
            event_id,
            source.topic,
            source.partition,
            source.offset,
            slices,
            grants,
            **fields,
        )
        self.outcome.entries.append(entry)
        self.outcome.alerts += tuple(evolve(account, entry))
        for each in account.wallets.values():
            request = request_of(account, each, self.at)
            if request is not None:
                self.outcome.topup_requests += (request,)
        return entry

    def write_expiry(
        self, unit: str, slices: tuple[Slice, ...], expired_at: int, reason: EntryReason, cause: str | None = None
    ) -> None:
        """Write that these slices of grants expired at `expired_at`; `cause`: the id of what freed them, if any."""
        self.write(
            EntryKind.EXPIRY,
            unit,
            -sum(part.amount_nanos for part in slices),
            event_id=slices[0].grant_id,
            occurred_at=expired_at,
            slices=slices,
            reason=reason,
            correlation_id=cause,
        )

    def send(self, leg: Leg) -> None:
        """Let one half of a transfer leave with what was just written."""
        self.outcome.legs += (leg,)

    def answer(self, decision: HoldDecision) -> None:
        """Answer a hold, together with what was just written."""
        self.outcome.decisions += (decision,)
