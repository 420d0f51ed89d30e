"""The fold: what an entry makes of an account, and the alerts that follow from it.

Rules of this file: nothing but the account and the entry goes in, so folding the ledger of an org from `new_account`
gives the account, its settings, its watches and the same alerts with the same ids. `decide` changes accounts through
here too (usage through the functions of `usage` that this file calls), so replay equals live by construction. An entry
that does not follow on the account raises BrokenLedger.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from schemas.amounts import format_amount
from schemas.enums import AlertKind, EntryKind, EntryReason, GrantKind
from streams.ledger.account import Account, ActiveHold, RefundedUsage, TransferInTransit, Wallet
from streams.ledger.alerts import evaluate_alerts, figures, notice
from streams.ledger.bounds import raise_size_bound
from streams.ledger.budgets import BudgetCharge, Scope, charge, reset_alerts
from streams.ledger.burn import end_day, enter_day
from streams.ledger.due import allowance_due, enter_month, own_monthly, refresh_due
from streams.ledger.entry import Alert, Entry
from streams.ledger.grants import apply_movement, find_grant, has_ended, lapsing
from streams.ledger.holds import HoldTerms, apply_covers, note_used, place, release, time_out
from streams.ledger.refusals import BrokenLedger
from streams.ledger.reversals import USAGE_REFUND_WINDOW_MICROS, ReversalDetails, revision_of
from streams.ledger.settings import apply_setting
from streams.ledger.topups import answer_charge, begin_month, consider_topup
from streams.ledger.usage import advance, apply_usage, refresh_fast_path_limit, wallet_for
from streams.ledger.volume import count, count_entry


def scope_by(entry: Entry) -> Scope:
    """What budgets know the usage of an entry by."""
    return Scope(entry.user_id, entry.project_id, entry.model, entry.tool, entry.team, entry.department)


def evolve(account: Account, entry: Entry) -> list[Alert]:
    """Apply the next entry of the account's org, in place; returns the alerts it causes, in order.

    Raises BrokenLedger when the entry does not follow: another org, a gap in `seq`, a grant or balance that differs.
    """
    if entry.org_id != account.org_id or entry.seq != account.seq + 1:
        raise BrokenLedger(f"{entry.entry_id} does not follow {account.org_id}:{account.seq}")
    match entry.kind:
        case EntryKind.USAGE:
            alerts = _usage(account, entry)
        case EntryKind.REJECTED:
            account.seq = entry.seq
            alerts = []
        case EntryKind.SETTING:
            account.seq = entry.seq
            alerts = apply_setting(account, entry)
        case _:
            account.seq = entry.seq
            alerts = _movement(account, entry)
    if entry.kind is not EntryKind.USAGE or entry.revision:
        raise_size_bound(account, entry)
    if entry.wallet and entry.kind is not EntryKind.REJECTED:
        _check_balance(account.wallets[entry.wallet], entry)
    return alerts


def _check_balance(wallet: Wallet, entry: Entry) -> None:
    if (wallet.settled, wallet.held) != (entry.balance_nanos, entry.held_nanos):
        raise BrokenLedger(
            f"{entry.entry_id} says balance {entry.balance_nanos}, held {entry.held_nanos};"
            f" the account has {wallet.settled}, {wallet.held}"
        )


def _usage(account: Account, entry: Entry) -> list[Alert]:
    wallet, cost = wallet_for(account, entry.wallet), -entry.amount_nanos
    at, scope = entry.recorded_at, scope_by(entry)
    known = None
    note_used(account, entry.hold_id)
    count_entry(account, entry.details)
    if entry.revision:
        known = account.corrected.get(entry.event_id)
        _remember_revision(account, entry, 0 if known is None else known.counted_at)
    if entry.hold_id is None and wallet.grants and known is None:
        grant = advance(account, wallet, cost, at, scope)
        if grant is not None:
            if len(entry.slices) != 1 or entry.slices[0].grant_id != grant.grant_id:
                raise BrokenLedger(f"{entry.entry_id} draws on other grants than the first")
            return []
    return list(apply_usage(account, wallet, entry.slices, cost, at, scope, entry.hold_id, known))


class _Failure(msgspec.Struct, frozen=True):
    """Of the `details` of a failed purchase."""

    failure_reason: str | None = None


class _Movement:
    """An entry that is not usage, while it is folded into a wallet; `at`: what falls due happens at its time."""

    def __init__(self, account: Account, wallet: Wallet, entry: Entry) -> None:
        self.account = account
        self.wallet = wallet
        self.entry = entry
        self.at = entry.recorded_at if entry.source_topic else entry.occurred_at
        self.alerts_deferred = False
        """Alerts are evaluated at the next entry, for this one too."""
        self.replenished = entry.amount_nanos > 0
        self.alerts: list[Alert] = []
        """About what happens once, rather than about a threshold."""
        self.cleared: tuple[str, ...] = ()
        self.charged: list[BudgetCharge] = []

    def notice(self, kind: AlertKind, subject: str, level: str | None, message: str) -> None:
        self.alerts.append(notice(self.account, self.wallet, self.at, kind, subject, level, message))


def _movement(account: Account, entry: Entry) -> list[Alert]:
    """Everything that moves credits without being usage, sets them aside, or lets time pass."""
    wallet = wallet_for(account, entry.wallet)
    account.wallets.setdefault(entry.wallet, wallet)
    movement = _Movement(account, wallet, entry)
    before = figures(wallet)
    enter_month(wallet, account.time_zone, movement.at)
    enter_day(wallet, account.time_zone, movement.at)
    apply_movement(wallet, entry.grants, entry.slices, movement.at, current=entry.kind is EntryKind.ALLOWANCE)
    if entry.amount_nanos:
        wallet.opened = True
    _count(movement)
    alerts, at = movement.alerts, movement.at
    if not movement.alerts_deferred:
        alerts += evaluate_alerts(account, wallet, at, before, movement.replenished, movement.cleared, movement.charged)
        alerts += consider_topup(account, wallet, at)
    refresh_fast_path_limit(wallet)
    refresh_due(account)
    return alerts


def _count(movement: _Movement) -> None:
    """What the entry adds to the wallet's counters and to what is in transit or held."""
    account, wallet, entry = movement.account, movement.wallet, movement.entry
    amount = entry.amount_nanos
    match entry.kind:
        case EntryKind.PURCHASE | EntryKind.ADJUSTMENT | EntryKind.TRANSFER_IN:
            _added(movement)
        case EntryKind.ALLOWANCE:
            wallet.allocation += amount
            wallet.allowance_month = wallet.month
            wallet.funded = True
        case EntryKind.ROLLOVER if entry.reason is None:
            _begin_month(movement)
        case EntryKind.ROLLOVER:
            _pass_time(movement)
        case EntryKind.EXPIRY:
            _note_expiry(movement)
        case EntryKind.TRANSFER_OUT:
            _send(account, wallet, entry)
        case EntryKind.TRANSFER_RETURN:
            if account.in_transit.pop(entry.event_id).month != wallet.month:
                wallet.allocation += amount  # it was not in the balance that the month began with
        case EntryKind.REFUND:
            if amount > 0:
                _refund_usage(movement)
        case EntryKind.CORRECTION if entry.reason == EntryReason.USAGE_RERATED:
            _reverse_usage(movement)
        case EntryKind.CORRECTION:
            _correct_usage(movement)
        case EntryKind.HOLD:
            _place(account, entry)
        case EntryKind.HOLD_RELEASE:
            end_hold = time_out if entry.reason == EntryReason.HOLD_TIMED_OUT else release
            end_hold(account, entry.hold_id or "")
        case EntryKind.USAGE | EntryKind.SETTING | EntryKind.REJECTED:
            raise AssertionError("folded elsewhere")
        case _:
            assert_never(entry.kind)


def _begin_month(movement: _Movement) -> None:
    wallet, turned_at = movement.wallet, movement.entry.occurred_at
    if wallet.burn is not None:
        wallet.burn.mark -= wallet.used
    wallet.used = 0
    apply_covers(movement.account, wallet, movement.entry.details)
    wallet.allocation = wallet.settled - lapsing(wallet, turned_at)
    begin_month(wallet.topup)
    movement.replenished = True
    ended = (grant for grant in (*wallet.grants, *wallet.ended) if own_monthly(grant) and has_ended(grant, turned_at))
    left = sum(grant.remaining - grant.kept for grant in ended)
    movement.alerts_deferred = left > 0 or allowance_due(movement.account, wallet) > 0


def _added(movement: _Movement) -> None:
    account, wallet, entry = movement.account, movement.wallet, movement.entry
    amount = entry.amount_nanos
    if amount > 0:
        wallet.allocation += amount
        wallet.lifetime_added += amount
        if not all(has_ended(lot, movement.at) for lot in entry.grants):
            wallet.funded = True
    if entry.kind is EntryKind.PURCHASE:
        if not amount:
            why = msgspec.json.decode(entry.details or "{}", type=_Failure).failure_reason
            message = f"A purchase of {wallet.unit} credits has failed{f': {why}' if why else ''}."
            movement.notice(AlertKind.PURCHASE_FAILED, entry.event_id, None, message)
        movement.alerts += answer_charge(account, wallet, entry)


def _pass_time(movement: _Movement) -> None:
    """What time alone changes: an entry of kind `rollover` with a reason."""
    account, wallet, subject = movement.account, movement.wallet, movement.entry.correlation_id or ""
    match movement.entry.reason:
        case EntryReason.DAY_ENDED:
            end_day(wallet, account.time_zone)
        case EntryReason.BUDGET_WINDOW_ENDED:
            assert wallet.budgets is not None
            movement.cleared = reset_alerts(wallet.budgets, account.time_zone, movement.at)
        case EntryReason.GRANT_EXPIRING:
            _note_expiring(movement, subject)
        case EntryReason.GRANT_HELD:
            apply_covers(account, wallet, movement.entry.details)
        case EntryReason.TOPUP_RETRY_DUE:
            assert wallet.topup is not None
            wallet.topup.retry_at = None
        case reason:
            raise BrokenLedger(f"{movement.entry.entry_id}: nothing is known of {reason}")


def _note_expiring(movement: _Movement, grant_id: str) -> None:
    grant = find_grant(movement.wallet, grant_id)
    if grant is None:
        raise BrokenLedger(f"{movement.entry.entry_id}: no grant {grant_id}")
    grant.noticed = True
    left = format_amount(grant.remaining)
    message = f"{left} {movement.wallet.unit} credits expire in a week."
    movement.notice(AlertKind.EXPIRING, grant_id, left, message)


def _note_expiry(movement: _Movement) -> None:
    if movement.entry.reason == EntryReason.ALLOWANCE_LAPSED:
        movement.replenished = True
        movement.alerts_deferred = allowance_due(movement.account, movement.wallet) > 0
    for part in movement.entry.slices:
        if part.kind is GrantKind.PROMOTIONAL:
            amount = format_amount(part.amount_nanos)
            message = f"{amount} free {movement.wallet.unit} credits have expired."
            movement.notice(AlertKind.FREE_EXPIRED, part.grant_id, amount, message)


def _place(account: Account, entry: Entry) -> None:
    terms = msgspec.json.decode(entry.details or "", type=HoldTerms)
    hold_id = entry.hold_id or ""
    fields = (tuple(scope_by(entry)), entry.operation, entry.category, entry.provider)
    hold = ActiveHold(hold_id, entry.wallet, terms.amount_nanos, terms.expires_at, *fields)
    place(account, hold, entry.occurred_at)


def _send(account: Account, wallet: Wallet, entry: Entry) -> None:
    """Credits leave; or, with an amount of 0, the target has confirmed that they arrived."""
    if entry.amount_nanos:
        account.in_transit[entry.event_id] = TransferInTransit(
            wallet.unit,
            -entry.amount_nanos,
            entry.counterparty_org_id or "",
            entry.recorded_at,
            wallet.month,
            len(entry.slices),
        )
    else:
        del account.in_transit[entry.event_id]


def _reverse_usage(movement: _Movement) -> ReversalDetails:
    """Usage that is taken back counts no longer: not as used, nor as spent, nor in budgets."""
    account, wallet, entry = movement.account, movement.wallet, movement.entry
    details = msgspec.json.decode(entry.details or "", type=ReversalDetails)
    amount, zone = entry.amount_nanos, account.time_zone
    wallet.used -= amount
    wallet.lifetime_spent -= details.spent_nanos
    movement.charged = charge(wallet, scope_by(entry), -amount, zone, movement.at, details.counted_at)
    if details.uncounted_nanos is not msgspec.UNSET and details.period is not msgspec.UNSET:
        count(account, {key: -quantity for key, quantity in details.uncounted_nanos.items()}, details.period)
    horizon = entry.recorded_at - USAGE_REFUND_WINDOW_MICROS
    for event_id in [key for key, known in account.refunded.items() if known.usage_recorded_at < horizon]:
        del account.refunded[event_id]
    return details


def _refund_usage(movement: _Movement) -> None:
    account, entry = movement.account, movement.entry
    details = _reverse_usage(movement)
    usage_id = entry.correlation_id or ""
    so_far = account.refunded.get(usage_id)
    total = entry.amount_nanos + (so_far.amount if so_far is not None else 0)
    account.refunded[usage_id] = RefundedUsage(total, details.usage_recorded_at)


def _correct_usage(movement: _Movement) -> None:
    """The revision that was booked is no more; a new one is remembered by its own entry."""
    account, entry = movement.account, movement.entry
    details = _reverse_usage(movement)
    account.refunded.pop(entry.event_id, None)
    _remember_revision(account, msgspec.structs.replace(entry, slices=()), details.counted_at, voided=True)
    if details.rebooked and entry.amount_nanos:
        account.corrected[entry.event_id].rebooking = entry.amount_nanos
        movement.alerts_deferred = True


def _remember_revision(account: Account, entry: Entry, first_recorded_at: int, voided: bool = False) -> None:
    """Keep the revision of the entry as the latest of its usage, and forget those that can be refunded no longer."""
    corrected = account.corrected
    corrected.pop(entry.event_id, None)
    corrected[entry.event_id] = revision_of(entry, voided)
    corrected[entry.event_id].first_recorded_at = first_recorded_at
    horizon = entry.recorded_at - USAGE_REFUND_WINDOW_MICROS
    while (oldest := next(iter(corrected))) and corrected[oldest].recorded_at < horizon:
        del corrected[oldest]
