"""What becomes of a hold: placed, captured, released, or refused with a stable code (product rules 17, 18).

Rules of this file:
- Every hold record makes one first entry and one decision. Placing asks `admission`; capturing is usage that has
  happened and is booked whatever it costs: less than held, as much, or more.
- On a shortage of credits `cap` grants what there is, `overflow` all that is asked for, `reject` nothing; over a limit
  `cap` grants what the limit leaves. Nothing else is negotiable.
- A hold is resolved once: by the first capture, release, time-out, or usage that names it. Later tries are refused,
  as `already_resolved` where it is remembered, else `unknown_hold`. Usage that names a hold which is not active is
  booked as any usage. So is a capture that arrived before its hold's end and is read after the hold timed out: the work
  was done in time, and its cost is booked, in the hold's wallet and by its dimensions.
- A capture draws first what its hold keeps of grants that have ended; what is left of that when the hold is resolved
  expires then (product rule 18).
- A hold lasts 24 hours at most, and its time-out is an entry. Free work sets nothing aside.
"""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from schemas.enums import DeadLetterCode, DecisionCode, EntryKind, EntryReason, HoldAction, OnShortage, RejectReason
from streams.ledger.account import Account, ActiveHold, Wallet
from streams.ledger.admission import HTTP_STATUS, Admission, AdmissionRequest, admit
from streams.ledger.bounds import refuse_full_account, refuse_new_wallet
from streams.ledger.budgets import Scope
from streams.ledger.commands import Hold, Usage
from streams.ledger.entry import HoldDecision, Slice
from streams.ledger.grants import draw
from streams.ledger.holds import HoldTerms, kept_by, resolved_before
from streams.ledger.journal import Journal
from streams.ledger.pricing import is_free
from streams.ledger.rating import Rated, Work
from streams.ledger.refusals import DeadLetter, check_range
from streams.ledger.source import Context
from streams.ledger.usage import check_spendable, usage_fields, wallet_for

HOLD_MAX_MICROS = 24 * 3_600 * 1_000_000
"""The longest a hold lasts (product rule 18); also how long one lasts that does not say."""

HOLDS_MAX = 10_000
"""Active holds per org, about 200 bytes each: 2 MB. One more is refused as over the limit `active_holds`; so is one
that the account has no room for (`bounds`), with the reason of that as the limit's name."""

HOLDS_LIMIT_ID = "active_holds"

_REASONS = {
    DecisionCode.CREDITS_NOT_AVAILABLE: RejectReason.INSUFFICIENT_CREDITS,
    DecisionCode.CREDITS_HELD: RejectReason.CREDITS_HELD,
    DecisionCode.LIMIT_REACHED: RejectReason.LIMIT_REACHED,
    DecisionCode.MODEL_NOT_ALLOWED: RejectReason.MODEL_NOT_ALLOWED,
    DecisionCode.NOT_AUTHORIZED: RejectReason.NOT_AUTHORIZED,
    DecisionCode.BLOCKED: RejectReason.BLOCKED,
    DecisionCode.UNKNOWN_HOLD: RejectReason.UNKNOWN_HOLD,
    DecisionCode.ALREADY_RESOLVED: RejectReason.ALREADY_RESOLVED,
}
"""What the entry of a refused hold says, where the decision says the code."""

_SHORT = frozenset({DecisionCode.CREDITS_NOT_AVAILABLE, DecisionCode.CREDITS_HELD})


def decide_hold(journal: Journal, hold: Hold, context: Context) -> None:
    """Decide one hold record. Raises DeadLetter `invalid_field`, `amount_out_of_range`, and
    `duplicate_with_different_content` for a hold that is placed while it is active."""
    match hold.action:
        case HoldAction.PLACE:
            _place(journal, hold, context)
        case HoldAction.CAPTURE:
            _capture(journal, hold, context)
        case HoldAction.RELEASE:
            _release(journal, hold)
        case _:
            assert_never(hold.action)


def write_release(
    journal: Journal, hold: ActiveHold, occurred_at: int, reason: EntryReason, event_id: str, at: int
) -> None:
    """Write that what is still held of a hold comes free at `at`, and fold it. What it kept of grants that have ended
    expires then."""
    kept = kept_by(journal.account.wallets[hold.wallet], hold)
    journal.write(
        EntryKind.HOLD_RELEASE,
        hold.wallet,
        0,
        held_change=-hold.amount,
        event_id=event_id,
        occurred_at=occurred_at,
        reason=reason,
        hold_id=hold.hold_id,
        **_fields(Scope(*hold.scope), hold),
    )
    if kept:
        journal.write_expiry(hold.wallet, kept, at, EntryReason.GRANT_EXPIRED, hold.hold_id)


def capture_by_usage(
    journal: Journal, usage: Usage, rated: Rated, hold: ActiveHold, slices: tuple[Slice, ...] | None = None
) -> None:
    """Book a usage that names an active hold, and let go of what was held beyond it. `slices`: what a new revision
    draws; None: as any usage does."""
    fields = usage_fields(usage, rated)
    _book_capture(journal, hold, rated.wallet, rated.cost, usage.event_id, usage.occurred_at, fields, slices)
    captured = rated.cost if rated.wallet == hold.wallet else 0
    _accept(journal, hold.hold_id, HoldAction.CAPTURE, hold.wallet, DecisionCode.OK, captured)


def _place(journal: Journal, hold: Hold, context: Context) -> None:
    account = journal.account
    if hold.hold_id in account.holds:
        raise DeadLetter(DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT, "the hold is active already")
    if hold.amount_nanos <= 0:
        raise DeadLetter(DeadLetterCode.INVALID_FIELD, "amount_nanos: must be above 0")
    if resolved_before(account, hold.hold_id):
        _refuse(journal, hold, Admission(DecisionCode.ALREADY_RESOLVED, 0, message="The hold was resolved before."))
        return
    wallet = wallet_for(account, hold.wallet)
    check_range(hold.amount_nanos, wallet.held + hold.amount_nanos, wallet.available - hold.amount_nanos)
    free = _is_free(account, hold, context)
    request = AdmissionRequest(hold.wallet, hold.amount_nanos, _scope_of(hold), hold.operation, free)
    admission = admit(account, request, journal.at)
    granted = _granted(hold, admission, free)
    limit_refusal = None if granted is None else _refuse_hold_over_limit(account, hold)
    if granted is None or limit_refusal is not None:
        admission = limit_refusal or admission
        _refuse(journal, hold, admission)
        return
    latest = journal.at + HOLD_MAX_MICROS
    expires_at = latest if hold.expires_at is None else min(hold.expires_at, latest)
    terms = HoldTerms(granted, hold.amount_nanos, expires_at, hold.on_shortage)
    journal.write(
        EntryKind.HOLD,
        hold.wallet,
        0,
        held_change=granted,
        event_id=hold.hold_id,
        occurred_at=hold.occurred_at,
        hold_id=hold.hold_id,
        details=msgspec.json.encode(terms).decode(),
        **_fields(_scope_of(hold), hold),
    )
    _accept(journal, hold.hold_id, hold.action, hold.wallet, DecisionCode.OK, granted, expires_at)


def _is_free(account: Account, hold: Hold, context: Context) -> bool:
    if hold.operation is None:
        return False
    work = Work(hold.operation, hold.category, hold.model, hold.tool, hold.provider)
    return is_free(account, context.prices, work, hold.occurred_at)


def _refuse_hold_over_limit(account: Account, hold: Hold) -> Admission | None:
    """The refusal of one hold more than the account can keep; there is nothing to grant less of."""
    if len(account.holds) >= HOLDS_MAX:
        message = f"The organisation has {HOLDS_MAX} active holds."
        return Admission(DecisionCode.LIMIT_REACHED, 0, HOLDS_LIMIT_ID, message=message)
    limit_refusal = refuse_new_wallet(account, hold.wallet) or refuse_full_account(account)
    if limit_refusal is None:
        return None
    return Admission(DecisionCode.LIMIT_REACHED, 0, limit_refusal.reason.value, message=limit_refusal.message)


def _granted(hold: Hold, admission: Admission, free: bool) -> int | None:
    """How much is set aside; None: refused, which free work can be too (the org is closed, the model not allowed)."""
    if admission.allowed:
        return 0 if free else hold.amount_nanos
    if free:
        return None
    short = admission.code in _SHORT and admission.limit_id is None
    if hold.on_shortage is OnShortage.OVERFLOW and short:
        return hold.amount_nanos
    capped = short or admission.code is DecisionCode.LIMIT_REACHED
    return admission.grantable if hold.on_shortage is OnShortage.CAP and capped and admission.grantable > 0 else None


def _capture(journal: Journal, hold: Hold, context: Context) -> None:
    captured = _timed_out_too_early(journal.account, hold.hold_id, context) or _active(journal, hold)
    if captured is None:
        return
    if hold.amount_nanos < 0:
        raise DeadLetter(DeadLetterCode.INVALID_FIELD, "amount_nanos: must not be below 0")
    fields = _fields(Scope(*captured.scope), captured) | {"hold_id": hold.hold_id}
    _book_capture(journal, captured, captured.wallet, hold.amount_nanos, hold.hold_id, hold.occurred_at, fields)
    _accept(journal, hold.hold_id, hold.action, captured.wallet, DecisionCode.OK, hold.amount_nanos)


def _timed_out_too_early(account: Account, hold_id: str, context: Context) -> ActiveHold | None:
    """The hold of a capture that arrived before its end, if a record of another topic, read earlier, has ended it.

    It sets nothing aside any more (`amount` is 0), so that the capture is booked as usage without a hold is.
    """
    hold = account.holds_timed_out.get(hold_id)
    arrived_at = context.at if context.arrived_at is None else context.arrived_at
    return hold if hold is not None and arrived_at < hold.expires_at else None


def _book_capture(
    journal: Journal,
    hold: ActiveHold,
    unit: str,
    cost: int,
    event_id: str,
    occurred_at: int,
    fields: dict[str, Any],
    slices: tuple[Slice, ...] | None = None,
) -> None:
    """The usage, which takes from the hold where both are of one wallet; then what is left of the hold."""
    account = journal.account
    wallet = wallet_for(account, unit)
    check_spendable(account, wallet, cost)
    taken = min(cost, hold.amount) if hold.wallet == unit else 0
    if slices is None:
        slices = draw_held(wallet, hold, cost)
    journal.write(
        EntryKind.USAGE,
        unit,
        -cost,
        held_change=-taken,
        event_id=event_id,
        occurred_at=occurred_at,
        slices=slices,
        **fields,
    )
    if hold.hold_id in account.holds:
        write_release(journal, hold, journal.at, EntryReason.HOLD_CAPTURED, event_id, journal.at)


def draw_held(wallet: Wallet, hold: ActiveHold, cost: int) -> tuple[Slice, ...]:
    """What a usage of `cost` that captures the hold takes: first what the hold keeps in this wallet, then by order."""
    slices = []
    for part in kept_by(wallet, hold) if hold.wallet == wallet.unit else ():
        amount = min(cost, part.amount_nanos)
        if amount:
            slices.append(Slice(part.grant_id, part.kind, amount, part.expires_at))
            cost -= amount
    return (*slices, *draw(wallet, cost)) if cost else tuple(slices)


def _release(journal: Journal, hold: Hold) -> None:
    active = _active(journal, hold)
    if active is None:
        return
    released = active.amount
    write_release(journal, active, hold.occurred_at, EntryReason.HOLD_RELEASED, hold.hold_id, journal.at)
    _accept(journal, hold.hold_id, hold.action, active.wallet, DecisionCode.OK, released)


def _active(journal: Journal, hold: Hold) -> ActiveHold | None:
    """The hold that is to be resolved; None: refused."""
    account = journal.account
    active = account.holds.get(hold.hold_id)
    if active is not None:
        return active
    if resolved_before(account, hold.hold_id):
        refusal = Admission(DecisionCode.ALREADY_RESOLVED, 0, message="The hold was resolved before.")
    else:
        refusal = Admission(DecisionCode.UNKNOWN_HOLD, 0, message="No such hold is active.")
    _refuse(journal, hold, refusal)
    return None


def _scope_of(hold: Hold) -> Scope:
    return Scope(hold.user_id, hold.project_id, hold.model, hold.tool, hold.team, hold.department)


def _fields(scope: Scope, hold: Hold | ActiveHold) -> dict[str, Any]:
    """The dimensions of its entries: of its being placed, captured, released or refused."""
    return {**scope._asdict(), "operation": hold.operation, "category": hold.category, "provider": hold.provider}


def _refuse(journal: Journal, hold: Hold, admission: Admission) -> None:
    closed = admission.code is DecisionCode.BLOCKED and journal.account.closed
    journal.reject(
        hold.wallet,
        RejectReason.ORG_CLOSED if closed else _REASONS[admission.code],
        event_id=hold.hold_id,
        occurred_at=hold.occurred_at,
        hold_id=hold.hold_id,
        correlation_id=admission.limit_id,
        details=msgspec.json.encode({"action": hold.action.value, "message": admission.message}).decode(),
        **_fields(_scope_of(hold), hold),
    )
    wallet = wallet_for(journal.account, hold.wallet)
    journal.answer(
        HoldDecision(
            hold.hold_id,
            hold.org_id,
            hold.action,
            False,
            admission.code,
            admission.http_status,
            admission.limit_id,
            0,
            wallet.available,
            None,
            journal.account.seq,
            None if admission.limit_window is None else admission.limit_window.value,
            admission.limit_ends_at,
            admission.message or None,
        )
    )


def _accept(
    journal: Journal,
    hold_id: str,
    action: HoldAction,
    unit: str,
    code: DecisionCode,
    granted: int,
    expires_at: int | None = None,
) -> None:
    """The answer that goes with what was just written."""
    account = journal.account
    available = account.wallets[unit].available
    journal.answer(
        HoldDecision(
            hold_id,
            account.org_id,
            action,
            True,
            code,
            HTTP_STATUS[code],
            None,
            granted,
            available,
            expires_at,
            account.seq,
        )
    )
