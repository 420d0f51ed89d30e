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
from streams.ledger.admission import Admission, AdmissionRequest, admit
from streams.ledger.bounds import refuse_full_account, refuse_new_wallet
from streams.ledger.budgets import Scope
from streams.ledger.commands import Hold, Usage
from streams.ledger.entry import HoldDecision, Slice
from streams.ledger.grants import draw
from streams.ledger.holds import HoldTerms, kept_by, resolved_before
from streams.ledger.journal import Journal
from streams.ledger.pricing import is_free
from streams.ledger.rating import Rated, Work
from streams.ledger.refusals import DeadLetter, Refusal, Refused, refuse_range
from streams.ledger.source import Context
from streams.ledger.usage import refuse_cost, usage_fields, wallet_for

HOLD_MAX_MICROS = 24 * 3_600 * 1_000_000
"""The longest a hold lasts (product rule 18); also how long one lasts that does not say."""

HOLDS_MAX = 10_000
"""Active holds per org, about 200 bytes each: 2 MB. One more is refused as over the limit `active_holds`; so is one
that the account has no room for (`bounds`), with the reason of that as the limit's name."""

HOLDS_LIMIT_ID = "active_holds"

DECISION_CODES = {
    RejectReason.INSUFFICIENT_CREDITS: DecisionCode.CREDITS_NOT_AVAILABLE,
    RejectReason.CREDITS_HELD: DecisionCode.CREDITS_HELD,
    RejectReason.LIMIT_REACHED: DecisionCode.LIMIT_REACHED,
    RejectReason.MODEL_NOT_ALLOWED: DecisionCode.MODEL_NOT_ALLOWED,
    RejectReason.NOT_AUTHORIZED: DecisionCode.NOT_AUTHORIZED,
    RejectReason.BLOCKED: DecisionCode.BLOCKED,
    RejectReason.ORG_CLOSED: DecisionCode.BLOCKED,
    RejectReason.UNKNOWN_HOLD: DecisionCode.UNKNOWN_HOLD,
    RejectReason.ALREADY_RESOLVED: DecisionCode.ALREADY_RESOLVED,
}
"""What the decision says, where the entry of a refused hold says the reason."""

HTTP_STATUS = {
    DecisionCode.OK: 200,
    DecisionCode.CREDITS_NOT_AVAILABLE: 402,
    DecisionCode.CREDITS_HELD: 402,
    DecisionCode.LIMIT_REACHED: 402,
    DecisionCode.MODEL_NOT_ALLOWED: 403,
    DecisionCode.NOT_AUTHORIZED: 403,
    DecisionCode.BLOCKED: 403,
    DecisionCode.UNKNOWN_HOLD: 404,
    DecisionCode.ALREADY_RESOLVED: 409,
}

_RESOLVED_BEFORE = Refused(RejectReason.ALREADY_RESOLVED, "The hold was resolved before.")
_UNKNOWN = Refused(RejectReason.UNKNOWN_HOLD, "No such hold is active.")

_SHORT = frozenset({RejectReason.INSUFFICIENT_CREDITS, RejectReason.CREDITS_HELD})


def decide_hold(journal: Journal, hold: Hold, context: Context) -> Refusal | None:
    """Decide one hold record; what is accepted is also answered."""
    match hold.action:
        case HoldAction.PLACE:
            return _place(journal, hold, context)
        case HoldAction.CAPTURE:
            return _capture(journal, hold, context)
        case HoldAction.RELEASE:
            return _release(journal, hold)
        case _:
            assert_never(hold.action)


def answer_refused(journal: Journal, hold: Hold, refused: Refused) -> None:
    """The decision that goes with the entry of a refused hold."""
    code = DECISION_CODES[refused.reason]
    journal.answer(
        HoldDecision(
            hold.hold_id,
            hold.org_id,
            hold.action,
            False,
            code,
            HTTP_STATUS[code],
            refused.limit_id,
            0,
            wallet_for(journal.account, hold.wallet).available,
            None,
            journal.account.seq,
            None if refused.limit_window is None else refused.limit_window.value,
            refused.limit_ends_at,
            refused.message or None,
        )
    )


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
        **hold_fields(Scope(*hold.scope), hold),
    )
    if kept:
        journal.write_expiry(hold.wallet, kept, at, EntryReason.GRANT_EXPIRED, hold.hold_id)


def capture_by_usage(
    journal: Journal, usage: Usage, rated: Rated, hold: ActiveHold, slices: tuple[Slice, ...] | None = None
) -> None:
    """Book a usage that names an active hold, and let go of what was held beyond it. `usage.refuse_cost` has let it
    pass. `slices`: what a new revision draws; None: as any usage does."""
    fields = usage_fields(usage, rated)
    _book_capture(journal, hold, rated.wallet, rated.cost, usage.event_id, usage.occurred_at, fields, slices)
    captured = rated.cost if rated.wallet == hold.wallet else 0
    _accept(journal, hold.hold_id, HoldAction.CAPTURE, hold.wallet, DecisionCode.OK, captured)


def _place(journal: Journal, hold: Hold, context: Context) -> Refusal | None:
    account = journal.account
    refusal = _refuse_placing(account, hold)
    if refusal is not None:
        return refusal
    free = _is_free(account, hold, context)
    request = AdmissionRequest(hold.wallet, hold.amount_nanos, scope_of_hold(hold), hold.operation, free)
    granted = _granted(hold, admit(account, request, journal.at), free)
    if isinstance(granted, Refused):
        return granted
    over_limit = _refuse_one_more(account, hold)
    if over_limit is not None:
        return over_limit
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
        **hold_fields(scope_of_hold(hold), hold),
    )
    _accept(journal, hold.hold_id, hold.action, hold.wallet, DecisionCode.OK, granted, expires_at)
    return None


def _refuse_placing(account: Account, hold: Hold) -> Refusal | None:
    """What stands against a hold whatever credits and limits there are."""
    if hold.hold_id in account.holds:
        return DeadLetter(DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT, "the hold is active already")
    if hold.amount_nanos <= 0:
        return DeadLetter(DeadLetterCode.INVALID_FIELD, "amount_nanos: must be above 0")
    if resolved_before(account, hold.hold_id):
        return _RESOLVED_BEFORE
    wallet, amount = wallet_for(account, hold.wallet), hold.amount_nanos
    return refuse_range(amount, wallet.held + amount, wallet.available - amount)


def _is_free(account: Account, hold: Hold, context: Context) -> bool:
    if hold.operation is None:
        return False
    work = Work(hold.operation, hold.category, hold.model, hold.tool, hold.provider)
    return is_free(account, context.prices, work, hold.occurred_at)


def _refuse_one_more(account: Account, hold: Hold) -> Refused | None:
    """One hold more than the account can keep; there is nothing to grant less of."""
    if len(account.holds) >= HOLDS_MAX:
        message = f"The organisation has {HOLDS_MAX} active holds."
        return Refused(RejectReason.LIMIT_REACHED, message, HOLDS_LIMIT_ID)
    full = refuse_new_wallet(account, hold.wallet) or refuse_full_account(account)
    return None if full is None else Refused(RejectReason.LIMIT_REACHED, full.message, full.reason.value)


def _granted(hold: Hold, admission: Admission, free: bool) -> int | Refused:
    """How much is set aside. Free work can be refused too: the org is closed, the model not allowed."""
    refused = admission.refused
    if refused is None:
        return 0 if free else hold.amount_nanos
    if free:
        return refused
    short = refused.reason in _SHORT and refused.limit_id is None
    if hold.on_shortage is OnShortage.OVERFLOW and short:
        return hold.amount_nanos
    capped = short or refused.reason is RejectReason.LIMIT_REACHED
    return admission.grantable if hold.on_shortage is OnShortage.CAP and capped and admission.grantable > 0 else refused


def _capture(journal: Journal, hold: Hold, context: Context) -> Refusal | None:
    account = journal.account
    captured = _timed_out_too_early(account, hold.hold_id, context) or _active(account, hold.hold_id)
    if isinstance(captured, Refused):
        return captured
    if hold.amount_nanos < 0:
        return DeadLetter(DeadLetterCode.INVALID_FIELD, "amount_nanos: must not be below 0")
    dead_letter = refuse_cost(account, wallet_for(account, captured.wallet), hold.amount_nanos)
    if dead_letter is not None:
        return dead_letter
    fields = hold_fields(Scope(*captured.scope), captured) | {"hold_id": hold.hold_id}
    _book_capture(journal, captured, captured.wallet, hold.amount_nanos, hold.hold_id, hold.occurred_at, fields)
    _accept(journal, hold.hold_id, hold.action, captured.wallet, DecisionCode.OK, hold.amount_nanos)
    return None


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


def _release(journal: Journal, hold: Hold) -> Refused | None:
    active = _active(journal.account, hold.hold_id)
    if isinstance(active, Refused):
        return active
    released = active.amount
    write_release(journal, active, hold.occurred_at, EntryReason.HOLD_RELEASED, hold.hold_id, journal.at)
    _accept(journal, hold.hold_id, hold.action, active.wallet, DecisionCode.OK, released)
    return None


def _active(account: Account, hold_id: str) -> ActiveHold | Refused:
    """The hold that is to be resolved."""
    active = account.holds.get(hold_id)
    if active is not None:
        return active
    return _RESOLVED_BEFORE if resolved_before(account, hold_id) else _UNKNOWN


def scope_of_hold(hold: Hold) -> Scope:
    """The dimensions by which budgets count a hold."""
    return Scope(hold.user_id, hold.project_id, hold.model, hold.tool, hold.team, hold.department)


def hold_fields(scope: Scope, hold: Hold | ActiveHold) -> dict[str, Any]:
    """The dimensions of its entries: placed, captured, released or refused."""
    return {**scope._asdict(), "operation": hold.operation, "category": hold.category, "provider": hold.provider}


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
