"""What a command that a rule refuses comes to: an entry `rejected`, and an answer where one is waited for.

Rules of this file: the entry carries what the command names, so that an activity log can show the attempt. A hold is
also answered by a decision. The credits of a refused leg go back to their source, and a leg to an unknown organisation
writes no entry, so that the organisation stays unknown.
"""

from __future__ import annotations

from functools import partial
from typing import Any, assert_never

import msgspec

from schemas.enums import EntryKind
from streams.ledger.commands import Command, Hold, Purchase, Refund, Setting, Transfer, Usage
from streams.ledger.entry import Leg
from streams.ledger.hold_decisions import answer_refused, hold_fields, scope_of_hold
from streams.ledger.journal import Journal
from streams.ledger.money import purchase_details
from streams.ledger.refusals import Refused
from streams.ledger.transfers import send_back


def write_rejection(journal: Journal, command: Command, refused: Refused) -> None:
    """Write that a rule refused the command, and answer it."""
    write = partial(_write, journal, command.occurred_at, refused)
    match command:
        case Purchase(wallet=unit, purchase_id=event_id, actor=actor, topup_request_id=request_id):
            write(unit, event_id, actor=actor, correlation_id=request_id, details=purchase_details(command))
        case Refund(refund_id=event_id, actor=actor, target_id=target_id):
            write(refused.wallet or "", event_id, actor=actor, correlation_id=target_id)
        case Transfer(wallet=unit, transfer_id=event_id, actor=actor, target_org_id=target):
            write(unit, event_id, actor=actor, counterparty_org_id=target)
        case Usage(event_id=event_id, revision=revision):
            details = _encoded({"message": refused.message}) if refused.message else None
            write(refused.wallet or command.wallet or "", event_id, revision=revision, details=details)
        case Setting(setting_id=event_id, actor=actor, kind=kind, body=body):
            details = _encoded({"kind": kind.value, "message": refused.message, "body": body})
            write("", event_id, actor=actor, details=details)
        case Hold(hold_id=hold_id, wallet=unit, action=action):
            details = _encoded({"action": action.value, "message": refused.message})
            fields = hold_fields(scope_of_hold(command), command)
            write(unit, hold_id, hold_id=hold_id, correlation_id=refused.limit_id, details=details, **fields)
            answer_refused(journal, command, refused)
        case Leg(transfer_id=event_id, actor=actor, source_org_id=source):
            if journal.account.known:
                write(command.wallet, event_id, actor=actor, counterparty_org_id=source, correlation_id=event_id)
            send_back(journal, command, refused.reason)
        case _:
            assert_never(command)


def _write(journal: Journal, occurred_at: int, refused: Refused, unit: str, event_id: str, **fields: Any) -> None:
    """`unit` may be of a wallet that does not exist."""
    reason = refused.reason
    journal.write(EntryKind.REJECTED, unit, 0, event_id=event_id, occurred_at=occurred_at, reason=reason, **fields)


def _encoded(details: dict[str, str]) -> str:
    return msgspec.json.encode(details).decode()
