"""Transfers between orgs: a saga of local steps that conserves (product rule 22).

See decision 5, transfers are two local transactions.

Rules of this file:
- The source draws its grants, writes `transfer_out` and sends a `credit` leg with the lots; until an answer the credits
  are visible as in transit (`Account.in_transit`).
- The target writes `transfer_in` and sends an `acknowledge` leg; or, when it cannot take them, a `return` leg with the
  same lots. A known org also writes why (`rejected`); an unknown one writes nothing and stays unknown.
- The source writes `transfer_out` of amount 0 when the target has acknowledged, `transfer_return` when it has not: the
  lots go back to the grants they came from. An answer to a transfer that has ended changes nothing.
- Lots keep kind, priority, expiry and their share of the cost basis. In the target their ids are new, so the same
  credits may travel in circles.
"""

from __future__ import annotations

import hashlib
from typing import assert_never

from schemas.amounts import AMOUNT_MAX
from schemas.enums import DeadLetterCode, EntryKind, LegKind, RejectReason
from streams.ledger.account import Account, Wallet
from streams.ledger.authority import administers
from streams.ledger.bounds import refuse_new_credits, refuse_new_transfer
from streams.ledger.commands import Transfer
from streams.ledger.entry import Leg, Lot, Slice
from streams.ledger.grants import draw, find_grant, give_back, new_grant_id, pay_overdraft
from streams.ledger.journal import Journal
from streams.ledger.refusals import DeadLetter, Refusal, Refused
from streams.ledger.usage import wallet_for

TRANSFER_FAMILY = "transfer"
"""Grants that arrived have ids of this family (`grants.new_grant_id`)."""


def decide_transfer(journal: Journal, transfer: Transfer) -> Refusal | None:
    """Send credits away."""
    account = journal.account
    refusal = _refuse_transfer(account, transfer)
    if refusal is not None:
        return refusal
    wallet = account.wallets[transfer.wallet]
    slices = draw(wallet, transfer.amount_nanos)
    lots = tuple(_lot_of(wallet, part) for part in slices)
    journal.write(
        EntryKind.TRANSFER_OUT,
        transfer.wallet,
        -transfer.amount_nanos,
        event_id=transfer.transfer_id,
        occurred_at=transfer.occurred_at,
        slices=slices,
        actor=transfer.actor,
        counterparty_org_id=transfer.target_org_id,
        correlation_id=transfer.transfer_id,
    )
    journal.send(
        Leg(
            _leg_id(account.org_id, transfer.transfer_id, LegKind.CREDIT),
            transfer.transfer_id,
            LegKind.CREDIT,
            transfer.target_org_id,
            account.org_id,
            transfer.target_org_id,
            transfer.wallet,
            transfer.amount_nanos,
            transfer.actor,
            transfer.occurred_at,
            None,
            lots,
        )
    )
    return None


def _refuse_transfer(account: Account, transfer: Transfer) -> Refusal | None:
    if transfer.transfer_id in account.in_transit:  # its answer would count for both
        message = f"transfer {transfer.transfer_id} is still in transit; another needs an id of its own"
        return DeadLetter(DeadLetterCode.DUPLICATE_WITH_DIFFERENT_CONTENT, message)
    if transfer.amount_nanos <= 0:
        return Refused(RejectReason.AMOUNT_NOT_POSITIVE)
    if transfer.target_org_id == account.org_id:
        return Refused(RejectReason.SAME_ORG)
    if not account.known:
        return Refused(RejectReason.UNKNOWN_ORG)
    if not administers(account, transfer.actor):
        return Refused(RejectReason.NOT_AUTHORIZED)
    if account.closed:
        return Refused(RejectReason.ORG_CLOSED)
    if transfer.amount_nanos > wallet_for(account, transfer.wallet).available:
        return Refused(RejectReason.INSUFFICIENT_CREDITS)
    return refuse_new_transfer(account)


def _lot_of(wallet: Wallet, part: Slice) -> Lot:
    """A drawn slice with what travels with it; the cost basis in proportion, so that all parts add up to the whole."""
    grant = find_grant(wallet, part.grant_id)
    assert grant is not None
    paid = None
    if grant.price_paid is not None:  # what all that is left cost, less what the rest will have cost
        rest = grant.remaining - part.amount_nanos
        paid = grant.price_paid * grant.remaining // grant.amount - grant.price_paid * rest // grant.amount
    return Lot(part.grant_id, part.kind, part.amount_nanos, grant.priority, part.expires_at, paid, grant.currency)


def decide_leg(journal: Journal, leg: Leg) -> Refused | None:
    """One leg of a transfer: credits that arrive, or the target's answer."""
    match leg.kind:
        case LegKind.CREDIT:
            return _receive(journal, leg)
        case LegKind.ACKNOWLEDGE:
            _acknowledged(journal, leg)
        case LegKind.RETURN:
            _returned(journal, leg)
        case _:
            assert_never(leg.kind)
    return None


def _receive(journal: Journal, leg: Leg) -> Refused | None:
    account = journal.account
    refused = _refuse_credit(account, leg)
    if refused is not None:
        return refused
    lots = tuple(
        Lot(
            new_grant_id(account, TRANSFER_FAMILY, _arrival_name(leg, number)),
            lot.kind,
            lot.amount_nanos,
            lot.priority,
            lot.expires_at,
            lot.price_paid_nanos,
            lot.currency,
        )
        for number, lot in enumerate(leg.grants, 1)
    )
    journal.write(
        EntryKind.TRANSFER_IN,
        leg.wallet,
        leg.amount_nanos,
        event_id=leg.transfer_id,
        occurred_at=leg.occurred_at,
        slices=pay_overdraft(wallet_for(account, leg.wallet), lots, journal.at),
        grants=lots,
        actor=leg.actor,
        counterparty_org_id=leg.source_org_id,
        correlation_id=leg.transfer_id,
    )
    journal.send(_answer(leg, LegKind.ACKNOWLEDGE, None))
    return None


def send_back(journal: Journal, leg: Leg, reason: RejectReason) -> None:
    """Answer a credit leg that was refused: the lots go back to the source."""
    journal.send(_answer(leg, LegKind.RETURN, reason))


def _refuse_credit(account: Account, leg: Leg) -> Refused | None:
    if not account.known:
        return Refused(RejectReason.UNKNOWN_TARGET)
    if not administers(account, leg.actor):
        return Refused(RejectReason.NOT_AUTHORIZED)
    if account.closed:
        return Refused(RejectReason.ORG_CLOSED)
    wallet = wallet_for(account, leg.wallet)
    fullest = max(wallet.settled + account.in_transit_nanos(leg.wallet), wallet.allocation, wallet.lifetime_added)
    if fullest + leg.amount_nanos > AMOUNT_MAX:
        return Refused(RejectReason.AMOUNT_OUT_OF_RANGE)
    return refuse_new_credits(account, leg.wallet, len(leg.grants))


def _acknowledged(journal: Journal, leg: Leg) -> None:
    if leg.transfer_id not in journal.account.in_transit:
        return
    journal.write(
        EntryKind.TRANSFER_OUT,
        leg.wallet,
        0,
        event_id=leg.transfer_id,
        occurred_at=leg.occurred_at,
        actor=leg.actor,
        counterparty_org_id=leg.target_org_id,
        correlation_id=leg.transfer_id,
        details='{"acknowledged":true}',
    )


def _returned(journal: Journal, leg: Leg) -> None:
    account = journal.account
    if leg.transfer_id not in account.in_transit:
        return
    slices, recreated = give_back(account.wallets[leg.wallet], leg.grants, journal.at)
    journal.write(
        EntryKind.TRANSFER_RETURN,
        leg.wallet,
        leg.amount_nanos,
        event_id=leg.transfer_id,
        occurred_at=leg.occurred_at,
        slices=slices,
        grants=recreated,
        reason=leg.reason,
        actor=leg.actor,
        counterparty_org_id=leg.target_org_id,
        correlation_id=leg.transfer_id,
    )


def _answer(leg: Leg, kind: LegKind, reason: str | None) -> Leg:
    """The leg back to the source; a return carries the lots, an acknowledgement needs none."""
    return Leg(
        _leg_id(leg.source_org_id, leg.transfer_id, kind),
        leg.transfer_id,
        kind,
        leg.source_org_id,
        leg.source_org_id,
        leg.target_org_id,
        leg.wallet,
        leg.amount_nanos,
        leg.actor,
        leg.occurred_at,
        reason,
        leg.grants if kind is LegKind.RETURN else (),
    )


def _leg_id(source_org_id: str, transfer_id: str, kind: LegKind) -> str:
    return f"{kind.value}-{_digest(source_org_id, transfer_id)}"


def _arrival_name(leg: Leg, number: int) -> str:
    """Ids of transfers are unique per source org only, so the source goes in."""
    return f"{_digest(leg.source_org_id, leg.transfer_id)}/{number}"


def _digest(org_id: str, transfer_id: str) -> str:
    return hashlib.blake2b(f"{len(org_id)}:{org_id}{transfer_id}".encode(), digest_size=16).hexdigest()
