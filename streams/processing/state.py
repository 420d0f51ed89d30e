"""The accounts of one partition while they are worked on.

Rules of this file:
- An account is bytes until something happens to it; then it is decoded once and kept, up to `ACCOUNTS_LIVE_MAX`.
- What a batch touches is changed in place. When its transaction fails the engine drops this whole state, so nothing
  half-done is ever seen.
- Accounts are let go only after their bytes are committed (`forget_some`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from streams.engine.ports import Partition
from streams.ledger.account import Account, decode_account, encode_account, new_account
from streams.processing.own_keys import OwnKeys
from streams.processing.validation import HOUR_US, TimeWindow
from streams.seals import NO_SEALS, Seals
from streams.settings import Settings

ACCOUNTS_LIVE_MAX: Final = 256
"""Decoded accounts kept per partition, about 6 KiB each with ten alert rules: 1.5 MiB. Those beyond are decoded again
when needed, which takes 4 µs."""


USAGE_IDS: Final = "usage"
"""The window that usage is remembered for; all other records have `rows.MONEY_IDS`."""


@dataclass(frozen=True, slots=True)
class Windows:
    """How late a record may come, and how long its id is remembered."""

    usage: TimeWindow
    money: TimeWindow

    @classmethod
    def of(cls, settings: Settings) -> Windows:
        """As the settings say."""
        return cls(
            TimeWindow(settings.usage_window_hours * HOUR_US), TimeWindow(settings.money_window_days * 24 * HOUR_US)
        )


class PartitionState:
    """What the ledger knows of one owned partition."""

    def __init__(self, partition: Partition, partitions: int, seals: Seals = NO_SEALS) -> None:
        """`partitions`: how many every topic has. `seals`: of transfer legs."""
        self.partition = partition
        self.seals = seals
        self.own_keys = OwnKeys(partition.number, partitions)
        self.clock_at = partition.clock_at
        self.live: dict[str, Account] = {}

    def account(self, org_id: str) -> Account:
        """The account of an org, decoded or new; kept until `forget_some`."""
        account = self.live.get(org_id)
        if account is None:
            encoded = self.partition.accounts.get(org_id)
            account = new_account(org_id) if encoded is None else decode_account(encoded)
            self.live[org_id] = account
        return account

    def encoded(self, org_ids: Iterable[str]) -> dict[str, tuple[int, bytes]]:
        """(due time or 0, bytes) of the accounts that a batch touched and that have a history."""
        changed = {}
        live = self.live
        for org_id in org_ids:
            account = live[org_id] = live.pop(org_id)  # to the end: those touched last are kept
            changed[org_id] = (account.due_at or 0, encode_account(account))
        return changed

    def forget_some(self) -> None:
        """Keep at most `ACCOUNTS_LIVE_MAX` accounts decoded, those changed last. Call when all bytes are committed."""
        surplus = len(self.live) - ACCOUNTS_LIVE_MAX
        if surplus > 0:
            for org_id in list(self.live)[:surplus]:
                del self.live[org_id]
