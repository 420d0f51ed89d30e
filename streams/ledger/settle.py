"""Writing what fell due: allowances, lapses, roll-overs, expiries, time-outs (product rules 4, 5, 11, 18, 20, 26).

Rules of this file: a capture, a release, or usage that names a hold, is decided before that hold's end if it arrived
before it, however late it is read (`hold_still_open`). At the turn of the month a wallet's entries are, in this order:
`rollover`, which begins the month (used is 0 again) and carries what may be kept of the old allowance; the lapse of the
rest; the new allowance. The last of them evaluates alerts and top-up for all of them, by the figures of the new
month alone (`evolve`). Each entry's `occurred_at` is the instant it fell due, however late it is written. What time
alone changes without moving credits (a day or a budget's window that ends, a back-off that is over, a notice of an
expiry to come) is a `rollover` of amount 0 with a reason. What holds cover of a grant stays when it ends, and the entry
that ends it says how much: a `rollover` (`grant_held`), or the one that begins the month; only the rest expires, and
only the rest of an allowance is carried or lapses (product rule 18).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import assert_never

from schemas.enums import EntryKind, EntryReason, GrantKind
from streams.ledger.account import Account, ActiveHold, Grant, Wallet
from streams.ledger.commands import PRIORITY_DEFAULT
from streams.ledger.due import MONTHLY_GRANT_PREFIX, Due, DueKind, allowance_due, next_due, own_monthly, refresh_due
from streams.ledger.entry import Lot, Outcome, Slice
from streams.ledger.grants import hold_coverage, pay_overdraft
from streams.ledger.hold_decisions import write_release
from streams.ledger.holds import cover_details, move_timeout
from streams.ledger.journal import Journal
from streams.ledger.months import month_name, month_starts_at

EVENT_ID_CHARACTERS_MAX = 128
"""As long as an id may be (contract); what is cut stands whole in `correlation_id`."""


def settle_due(account: Account, at: int, until: int | None = None) -> Outcome:
    """Write everything due at or before `until` (`at` by default), in order of time, as of `at`. May be empty."""
    outcome = Outcome()
    if account.due_at is not None and account.due_at <= at:
        settle(Journal(account, at, outcome), until)
    return outcome


def settle(journal: Journal, until: int | None = None) -> None:
    """As `settle_due`, into a journal that is already open."""
    account = journal.account
    until = journal.at if until is None else until
    while account.due_at is not None and account.due_at <= until:
        due = next_due(account)
        assert due is not None
        _write(journal, due)


@contextmanager
def hold_still_open(account: Account, hold_id: str | None, arrived_at: int, at: int) -> Iterator[None]:
    """While this lasts, the hold that a record resolves has not ended, if the record arrived before its end.

    `hold_id`: of a capture, a release, or usage that names a hold; None: the record resolves none. Kafka keeps no order
    between topics, so the clock may pass the end of a hold before a capture is read that arrived in time. It is decided
    as one that came in time. A hold that is not resolved meanwhile ends when it should have.
    """
    hold = None if hold_id is None else account.holds.get(hold_id)
    if hold is None or not arrived_at < hold.expires_at <= at:
        yield
        return
    ends_at = hold.expires_at
    move_timeout(account, hold, at + 1)
    refresh_due(account)
    try:
        yield
    finally:
        if account.holds.get(hold.hold_id) is hold:
            move_timeout(account, hold, ends_at)
            refresh_due(account)


def _write(journal: Journal, due: Due) -> None:
    wallet = journal.account.wallets[due.unit]
    match due.kind:
        case DueKind.MONTH:
            _turn_month(journal, wallet)
        case DueKind.EXPIRY:
            assert isinstance(due.subject, Grant)
            _expire(journal, wallet, due.subject)
        case DueKind.NOTICE:
            assert isinstance(due.subject, Grant)
            _pass_time(journal, due, EntryReason.GRANT_EXPIRING, due.subject.grant_id)
        case DueKind.HOLD:
            assert isinstance(due.subject, ActiveHold)
            _time_out(journal, due.subject, due.at)
        case DueKind.WINDOW:
            _pass_time(journal, due, EntryReason.BUDGET_WINDOW_ENDED, due.unit)
        case DueKind.DAY:
            _pass_time(journal, due, EntryReason.DAY_ENDED, due.unit)
        case DueKind.RETRY:
            assert wallet.topup is not None
            _pass_time(journal, due, EntryReason.TOPUP_RETRY_DUE, f"{due.unit}/{wallet.topup.requests}")
        case _:
            assert_never(due.kind)


def _pass_time(journal: Journal, due: Due, reason: EntryReason, subject: str) -> None:
    event_id = f"{reason.value}/{subject}"[:EVENT_ID_CHARACTERS_MAX]
    journal.write(
        EntryKind.ROLLOVER,
        due.unit,
        0,
        event_id=event_id,
        occurred_at=due.at,
        reason=reason,
        correlation_id=subject,
    )


def grant_allowance(journal: Journal, wallet: Wallet, month: int, occurred_at: int, correlation_id: str | None) -> None:
    """Grant the allowance of `month`, as far as there is one and room for it."""
    amount = allowance_due(journal.account, wallet)
    if amount <= 0:
        return
    ends_at = month_starts_at(month + 1, journal.account.time_zone)
    lot = Lot(_monthly_id(wallet, month), GrantKind.ALLOWANCE, amount, PRIORITY_DEFAULT, ends_at)
    journal.write(
        EntryKind.ALLOWANCE,
        wallet.unit,
        amount,
        event_id=lot.grant_id,
        occurred_at=occurred_at,
        slices=pay_overdraft(wallet, (lot,), occurred_at),
        grants=(lot,),
        correlation_id=correlation_id,
    )


def _monthly_id(wallet: Wallet, month: int) -> str:
    return f"{MONTHLY_GRANT_PREFIX}{wallet.unit}/{month_name(month)}"


def _turn_month(journal: Journal, wallet: Wallet) -> None:
    turned_at, month = wallet.month_ends_at, wallet.month + 1
    old = [grant for grant in wallet.grants if own_monthly(grant) and (grant.expires_at or 0) <= turned_at]
    _begin_month(journal, wallet, month, turned_at, old)
    left = tuple(_loose(grant) for grant in old if grant.remaining > grant.kept)
    if left:
        journal.write_expiry(wallet.unit, left, turned_at, EntryReason.ALLOWANCE_LAPSED)
    grant_allowance(journal, wallet, month, turned_at, None)


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
    leaving = {part.grant_id: part.amount_nanos for part in kept}
    covers = {grant.grant_id: part for grant, part in hold_coverage(wallet, leaving) if part and grant in old}
    lots = (Lot(grant_id, GrantKind.ALLOWANCE, carried, PRIORITY_DEFAULT, ends_at),) if carried else ()
    journal.write(
        EntryKind.ROLLOVER,
        wallet.unit,
        0,
        event_id=f"rollover/{wallet.unit}/{month_name(month)}",
        occurred_at=turned_at,
        slices=tuple(kept),
        grants=lots,
        details=cover_details(covers),
    )


def _expire(journal: Journal, wallet: Wallet, grant: Grant) -> None:
    """What is left of a grant expires; what holds cover of it stays first."""
    assert grant.expires_at is not None
    covers = {each.grant_id: part for each, part in hold_coverage(wallet) if part and each is grant}
    if covers:
        journal.write(
            EntryKind.ROLLOVER,
            wallet.unit,
            0,
            event_id=grant.grant_id,
            occurred_at=grant.expires_at,
            reason=EntryReason.GRANT_HELD,
            correlation_id=grant.grant_id,
            details=cover_details(covers),
        )
        return
    journal.write_expiry(wallet.unit, (_loose(grant),), grant.expires_at, EntryReason.GRANT_EXPIRED)


def _time_out(journal: Journal, hold: ActiveHold, at: int) -> None:
    write_release(journal, hold, at, EntryReason.HOLD_TIMED_OUT, hold.hold_id, at)


def _loose(grant: Grant) -> Slice:
    """All that is left of a grant but what holds keep."""
    return Slice(grant.grant_id, grant.kind, grant.remaining - grant.kept, grant.expires_at)
