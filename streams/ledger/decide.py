"""What becomes of a command: guards in a fixed order, then entries that nothing refuses any more.

Rules of this file:
- The caller first settles everything due at or before the command's time (`settle_due`). So a command that ends as a
  dead letter leaves the account as it is. `decide` stops while something is due.
- Each command has a function that writes its entries, or returns why not (`refusals.Refusal`). A refusal by rule
  becomes an entry here (`rejections`); a dead letter is returned, and nothing has changed.
- What the command itself made due (credits that come back to an expired grant) is settled before `decide` returns.
- Whether the same record was here before is the engine's to know, and not asked here.
"""

from __future__ import annotations

from typing import assert_never

from schemas.enums import EntryKind, RejectReason
from schemas.settings_bodies import Body, InvalidSettingError, WalletBody, parse_body
from streams.ledger.account import Account
from streams.ledger.authority import may_set
from streams.ledger.budgets import ANY_SCOPE
from streams.ledger.commands import Command, Hold, Purchase, Refund, Setting, Transfer, Usage
from streams.ledger.corrections import decide_correction
from streams.ledger.entry import Leg, Outcome, Slice
from streams.ledger.evolve import evolve
from streams.ledger.hold_decisions import capture_by_usage, decide_hold
from streams.ledger.holds import note_used
from streams.ledger.journal import Journal
from streams.ledger.money import decide_purchase, decide_refund
from streams.ledger.pricing import rate
from streams.ledger.refusals import BrokenLedger, DeadLetter, Refusal, Refused
from streams.ledger.rejections import write_rejection
from streams.ledger.reversals import latest_usage
from streams.ledger.settings import details_of, refuse, unit_of
from streams.ledger.settle import grant_allowance, settle, settle_due
from streams.ledger.source import Context, Source
from streams.ledger.transfers import decide_leg, decide_transfer
from streams.ledger.usage import advance, book_usage, refuse_cost, scope_of, usage_entry, wallet_for
from streams.ledger.volume import count

__all__ = ["Command", "Context", "Source", "decide", "evolve", "settle_due"]


def decide(account: Account, command: Command, context: Context) -> Outcome | DeadLetter:
    """Decide one command of the account's org and fold what it comes to into the account, in place.

    Nothing may be due at `context.at`: call `settle_due` first. A dead letter has changed nothing.
    """
    at = context.at
    if account.due_at is not None and account.due_at <= at:
        raise BrokenLedger(f"{account.org_id}: settle what is due at {account.due_at} before deciding at {at}")
    outcome = Outcome()
    try:
        if isinstance(command, Usage):
            refusal = _decide_usage(account, command, context, outcome)
        else:
            refusal = _decide(Journal(account, at, outcome, context.source), command, context)
    except DeadLetter as unrated:
        return unrated
    if refusal is not None:
        if isinstance(refusal, DeadLetter):
            return refusal
        write_rejection(Journal(account, at, outcome, context.source), command, refusal)
    if account.due_at is not None and account.due_at <= at:
        settle(Journal(account, at, outcome))
    return outcome


def _decide(
    journal: Journal, command: Purchase | Refund | Transfer | Hold | Setting | Leg, context: Context
) -> Refusal | None:
    match command:
        case Purchase():
            return decide_purchase(journal, command)
        case Refund():
            return decide_refund(journal, command, context)
        case Transfer():
            return decide_transfer(journal, command)
        case Leg():
            return decide_leg(journal, command)
        case Setting():
            return _decide_setting(journal, command)
        case Hold():
            return decide_hold(journal, command, context)
        case _:
            assert_never(command)


def _decide_usage(account: Account, usage: Usage, context: Context, outcome: Outcome) -> Refusal | None:
    hold = None if usage.hold_id is None else account.holds.get(usage.hold_id)
    unit = None if hold is None else hold.wallet
    if usage.voided or usage.revision or usage.event_id in account.corrected:
        booked = latest_usage(account, usage.event_id, context.references)
        unit = unit if booked is None else booked.wallet
        revised = None if usage.voided else rate(account, usage, context.prices, context.at, unit, booked)
        return decide_correction(Journal(account, context.at, outcome, context.source), usage, revised, booked)
    rated = rate(account, usage, context.prices, context.at, unit)
    wallet = account.wallets.get(rated.wallet) or wallet_for(account, rated.wallet)
    at, cost = context.at, rated.cost
    if hold is not None:
        dead_letter = refuse_cost(account, wallet, cost)
        if dead_letter is None:
            capture_by_usage(Journal(account, at, outcome, context.source), usage, rated, hold)
        return dead_letter
    scope = ANY_SCOPE if wallet.budgets is None else scope_of(usage)
    grant = advance(account, wallet, cost, at, scope)
    if grant is not None:
        note_used(account, usage.hold_id)
        count(account, dict(rated.counted), rated.period)
        slices = (Slice(grant.grant_id, grant.kind, cost, grant.expires_at),)
        outcome.entries.append(usage_entry(account, wallet, slices, usage, rated, at, context.source))
        return None
    booking = book_usage(account, wallet, cost, at, scope)
    if isinstance(booking, DeadLetter):
        return booking
    note_used(account, usage.hold_id)
    count(account, dict(rated.counted), rated.period)
    outcome.entries.append(usage_entry(account, wallet, booking.slices, usage, rated, at, context.source))
    outcome.alerts += booking.alerts
    outcome.topup_requests += booking.topup_requests
    return None


def _decide_setting(journal: Journal, setting: Setting) -> Refused | None:
    account = journal.account
    body = _accepted_body(account, setting)
    if isinstance(body, Refused):
        return body
    journal.write(
        EntryKind.SETTING,
        unit_of(body),
        0,
        event_id=setting.setting_id,
        occurred_at=setting.occurred_at,
        actor=setting.actor,
        details=details_of(account, setting.kind, setting.body, body),
    )
    _follow_up(journal, setting, body)
    return None


def _accepted_body(account: Account, setting: Setting) -> Body | Refused:
    """The body of a setting that is well formed, that its actor may set, and that the account has room for."""
    try:
        body = parse_body(setting.kind, setting.body)
    except InvalidSettingError as error:
        return Refused(RejectReason.INVALID_SETTING, str(error))
    if not may_set(account, setting.kind, setting.actor, setting.actor_role):
        return Refused(RejectReason.NOT_AUTHORIZED, "You are not authorized to make changes to these settings.")
    message = refuse(account, body, setting.occurred_at)
    return body if message is None else Refused(RejectReason.INVALID_SETTING, message)


def _follow_up(journal: Journal, setting: Setting, body: Body) -> None:
    """The allowance of the current month is granted when it is first set (contract, `wallet`)."""
    if isinstance(body, WalletBody):
        wallet = journal.account.wallets[body.unit]
        if wallet.allowance_month < wallet.month:
            grant_allowance(journal, wallet, wallet.month, journal.at, setting.setting_id)
