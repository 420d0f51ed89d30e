"""Writing what fell due: allowances, lapses, roll-overs, expiries (product rules 4, 5).

Rules of this file: at the turn of the month a wallet's entries are, in this order: the new allowance; `rollover`, which
begins the month (used is 0 again) and carries what may be kept of the old allowance; the lapse of the rest. So the
balance never dips on the way, and no line is crossed that is not crossed afterwards. Each entry's `occurred_at` is the
instant it fell due, however late it is written.
"""

from __future__ import annotations

from schemas.amounts import AMOUNT_MAX
from schemas.enums import EntryKind, EntryReason, GrantKind
from streams.ledger.account import Account, Grant, Wallet
from streams.ledger.commands import PRIORITY_DEFAULT
from streams.ledger.due import MONTHLY_GRANT_PREFIX, next_due, own_monthly
from streams.ledger.entry import Lot, Outcome, Slice
from streams.ledger.grants import pay_overdraft
from streams.ledger.journal import Journal
from streams.ledger.months import month_name, month_starts_at


def settle_due(account: Account, at: int) -> Outcome:
    """Write everything due at or before `at`, in order of time. Empty when nothing is."""
    outcome = Outcome()
    if account.due_at is not None and account.due_at <= at:
        settle(Journal(account, at, outcome))
    return outcome


def settle(journal: Journal) -> None:
    """As `settle_due`, into a journal that is already open."""
    account = journal.account
    while account.due_at is not None and account.due_at <= journal.at:
        due = next_due(account)
        assert due is not None
        if due.grant is None:
            _turn_month(journal, account.wallets[due.unit])
        else:
            _expire(journal, due.unit, due.grant)


def grant_allowance(journal: Journal, wallet: Wallet, month: int, occurred_at: int, correlation_id: str | None) -> None:
    """Grant the allowance of `month`; as much of it as the bound of amounts leaves room for."""
    account = journal.account
    room = AMOUNT_MAX - max(wallet.settled, wallet.allocation) - account.on_the_way(wallet.unit)
    amount = min(wallet.terms.allowance, room)
    if amount <= 0:
        return
    ends_at = month_starts_at(month + 1, account.time_zone)
    lot = Lot(_monthly_id(wallet, month), GrantKind.ALLOWANCE, amount, PRIORITY_DEFAULT, ends_at)
    journal.write(
        EntryKind.ALLOWANCE,
        wallet.unit,
        amount,
        event_id=lot.grant_id,
        occurred_at=occurred_at,
        slices=pay_overdraft(wallet, (lot,)),
        grants=(lot,),
        correlation_id=correlation_id,
    )


def _monthly_id(wallet: Wallet, month: int) -> str:
    return f"{MONTHLY_GRANT_PREFIX}{wallet.unit}/{month_name(month)}"


def _turn_month(journal: Journal, wallet: Wallet) -> None:
    turned_at, month = wallet.month_ends_at, wallet.month + 1
    old = [grant for grant in wallet.grants if own_monthly(grant) and (grant.expires_at or 0) <= turned_at]
    grant_allowance(journal, wallet, month, turned_at, None)
    _begin_month(journal, wallet, month, turned_at, old)
    left = tuple(_all_of(grant) for grant in old if grant.remaining)
    if left:
        journal.write(
            EntryKind.EXPIRY,
            wallet.unit,
            -sum(part.amount_nanos for part in left),
            event_id=left[0].grant_id,
            occurred_at=turned_at,
            slices=left,
            reason=EntryReason.ALLOWANCE_LAPSED,
        )


def _begin_month(journal: Journal, wallet: Wallet, month: int, turned_at: int, old: list[Grant]) -> None:
    """The `rollover` entry: what is drawn last of the old allowance is carried, up to the limit, as a new grant."""
    keep = wallet.terms.rollover_max
    kept: list[Slice] = []
    for grant in reversed(old):
        part = min(keep, grant.remaining)
        if part:
            kept.append(Slice(grant.grant_id, grant.kind, part, grant.expires_at))
            keep -= part
    carried = sum(part.amount_nanos for part in kept)
    grant_id = f"{_monthly_id(wallet, month)}/rolled-over"
    ends_at = month_starts_at(month + 1, journal.account.time_zone)
    lots = (Lot(grant_id, GrantKind.ALLOWANCE, carried, PRIORITY_DEFAULT, ends_at),) if carried else ()
    journal.write(
        EntryKind.ROLLOVER,
        wallet.unit,
        0,
        event_id=f"rollover/{wallet.unit}/{month_name(month)}",
        occurred_at=turned_at,
        slices=tuple(kept),
        grants=lots,
    )


def _expire(journal: Journal, unit: str, grant: Grant) -> None:
    assert grant.expires_at is not None
    part = _all_of(grant)
    journal.write(
        EntryKind.EXPIRY,
        unit,
        -part.amount_nanos,
        event_id=grant.grant_id,
        occurred_at=grant.expires_at,
        slices=(part,),
        reason=EntryReason.GRANT_EXPIRED,
    )


def _all_of(grant: Grant) -> Slice:
    return Slice(grant.grant_id, grant.kind, grant.remaining, grant.expires_at)
