"""A second account of an org, in a partition that is not the org's: what counts of it, and how it is closed.

Versions that did not look at the partition opened one where a producer used another partitioner. What it holds is
worked out from the entries of both accounts, moved into the org's own by ordinary records, and the second account is
closed.

Rules of this file:
1. What both accounts booked under the same cause (kind, topic, id, revision) counts once: the org's own account has it.
   So does an allowance that both were granted, and what expired of a grant that both have.
2. What counts is the sum of the other entries; it is exact, and may be below 0: usage that no credits of the second
   account covered.
3. Closing releases every hold and takes the balance to 0, by an adjustment in each wallet. The last entry is that of
   the merge: it says that the account is history.
4. A second account is frozen: no record reaches it, and no time passes in it (`LedgerProcessor.tick`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from schemas.enums import MERGE_PREFIX, EntryKind, EntryReason, GrantKind
from streams.ledger.account import Account
from streams.ledger.commands import PRIORITY_DEFAULT
from streams.ledger.entry import Entry, Lot, Outcome
from streams.ledger.grants import draw, new_grant_id, pay_overdraft
from streams.ledger.hold_decisions import write_release
from streams.ledger.journal import Journal
from streams.ledger.money import PURCHASE_FAMILY
from streams.ledger.pricing import default_unit
from streams.ledger.usage import wallet_for

Cause = tuple[EntryKind, str, str, int]


@dataclass(slots=True)
class WalletMerge:
    """One wallet of a second account. Nano-units: `left` there, `counted_twice` of it, `moves` to the org's own."""

    unit: str
    left: int = 0
    counted_twice: int = 0
    lots: list[Lot] = field(default_factory=list)
    """How what moves is granted, where it is above 0: with the expiries that it had."""

    @property
    def moves(self) -> int:
        return self.left - self.counted_twice


def merge_of(account: Account, there: Iterable[Entry], home: Iterable[Entry]) -> list[WalletMerge]:
    """What counts of a second account: `there` are its entries, `home` those of the org's own (rules 1 and 2)."""
    known = {_cause(entry) for entry in home if entry.amount_nanos}
    merges: dict[str, WalletMerge] = {}
    twice: set[str] = set()
    for entry in there:
        if not entry.wallet:
            continue
        merge = merges.setdefault(entry.wallet, WalletMerge(entry.wallet))
        merge.left += entry.amount_nanos
        drawn = {part.grant_id for part in entry.slices}
        if _cause(entry) in known or (entry.kind is EntryKind.EXPIRY and drawn and drawn <= twice):
            merge.counted_twice += entry.amount_nanos
            twice |= {lot.grant_id for lot in entry.grants}
    for merge in merges.values():
        merge.lots = _lots(account, merge, twice)
    return sorted(merges.values(), key=lambda merge: merge.unit)


def _cause(entry: Entry) -> Cause:
    return entry.kind, entry.source_topic, entry.event_id, entry.revision


def _lots(account: Account, merge: WalletMerge, twice: set[str]) -> list[Lot]:
    """What moves, as grants: those that are left and count, the last drawn first; the rest without an expiry."""
    needed, lots = merge.moves, []
    for grant in reversed(account.wallets[merge.unit].grants):
        part = min(needed, grant.remaining)
        if part > 0 and grant.grant_id not in twice:
            lots.append(Lot(grant.grant_id, GrantKind.ADJUSTMENT, part, grant.priority, grant.expires_at))
            needed -= part
    if needed > 0:
        lots.append(Lot("", GrantKind.ADJUSTMENT, needed, PRIORITY_DEFAULT))
    return lots[::-1]


def merge_id(partition: int) -> str:
    """The id of the merge of the account in that partition."""
    return f"{MERGE_PREFIX}{partition}"


def close_second_account(account: Account, partition: int, at: int) -> Outcome:
    """Write that a second account is closed (rule 3), and fold it. Its alerts and requests are dropped."""
    outcome = Outcome()
    journal = Journal(account, at, outcome)
    name = merge_id(partition)
    for hold in list(account.holds.values()):
        write_release(journal, hold, at, EntryReason.ACCOUNT_MERGED, name, at)
    for unit in list(account.wallets) or [default_unit(account)]:  # one that has none is closed by an entry of 0
        wallet = wallet_for(account, unit)
        settled = wallet.settled
        lots: tuple[Lot, ...] = ()
        if settled < 0:
            grant_id = new_grant_id(account, PURCHASE_FAMILY, name)
            lots = (Lot(grant_id, GrantKind.ADJUSTMENT, -settled, PRIORITY_DEFAULT),)
        journal.write(
            EntryKind.ADJUSTMENT,
            unit,
            -settled,
            event_id=name,
            occurred_at=at,
            slices=draw(wallet, settled) if settled > 0 else pay_overdraft(wallet, lots, at),
            grants=lots,
            reason=EntryReason.ACCOUNT_MERGED,
        )
    outcome.alerts, outcome.topup_requests = (), ()
    return outcome


def closed(entries: Sequence[Entry]) -> bool:
    """Whether the last of an account's entries is that of a merge."""
    return bool(entries) and entries[-1].event_id.startswith(MERGE_PREFIX)
