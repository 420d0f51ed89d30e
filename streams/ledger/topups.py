"""Auto top-up: when the ledger asks for credits, and what becomes of the charge (product rules 20, 28).

Rules of this file:
- Credits are asked for when the available balance is at or below the threshold, as an effect of the entry that brought
  it there, or that took away what stood in the way. It is part of the fold: the ledger alone says what was asked for.
- One charge at a time: nothing is asked for until the last request is answered, by a purchase that names it. There is
  no time-out, for a charge without an answer may still go through.
- After a failed charge nothing is asked for during the back-off; when it is over, an entry says so.
- What was asked for in a month, less what failed, never passes the monthly cap. A request that would is not made, with
  one alert a month; the new month asks again.
- A charge that comes for a request that is answered already, such as one that had failed, or a second one, was not
  asked for: it counts in the month in which it comes, and raises the same alert. The cap then stops the next request
  earlier.
- A closed org asks for nothing. A request's id is a function of org, wallet and its number.
"""

from __future__ import annotations

import hashlib

from schemas.amounts import format_amount
from schemas.enums import AlertKind, TopupReason
from streams.ledger.account import Account, Topup, Wallet
from streams.ledger.alerts import notice
from streams.ledger.entry import Alert, Entry, TopupRequest

CAP_SUBJECT = "monthly_cap"

ANSWERED_MAX = 64
"""The last requests of a wallet for which a charge after the answer is still recognised. Their ids are recomputed, a
microsecond each, for such a charge only."""


def wants_credits(account: Account, wallet: Wallet) -> bool:
    """Auto top-up is on and the wallet at or below its threshold, the org is open, and no charge is in flight."""
    topup = wallet.topup
    return (
        topup is not None
        and topup.enabled
        and topup.in_flight is None
        and wallet.available <= topup.threshold
        and not account.closed
    )


def consider_topup(account: Account, wallet: Wallet, at: int) -> list[Alert]:
    """Ask for credits, if it is time: the last step of the fold of an entry that took effect at `at`.

    The request is then to be read off with `request_of`. Returns the alert of a cap that stands in the way.
    """
    topup = wallet.topup
    if topup is None or not wants_credits(account, wallet) or (topup.retry_at is not None and at < topup.retry_at):
        return []
    if topup.monthly_cap is not None and topup.charged + topup.amount > topup.monthly_cap:
        if topup.capped:
            return []
        topup.capped = True
        topup.caps += 1
        cap = format_amount(topup.monthly_cap)
        message = f"Auto top-up of {wallet.unit} has reached its monthly cap of {cap}."
        return [notice(account, wallet, at, AlertKind.AUTO_RECHARGE_CAPPED, CAP_SUBJECT, cap, message, topup.caps)]
    topup.requests += 1
    topup.requested_seq = account.seq
    topup.in_flight = _request_id(account.org_id, wallet.unit, topup.requests)
    topup.in_flight_amount = topup.amount
    topup.charged += topup.amount
    topup.retry_at = None
    return []


def request_of(account: Account, wallet: Wallet, at: int) -> TopupRequest | None:
    """The request that the last entry of the account, recorded at `at`, caused in this wallet."""
    topup = wallet.topup
    if topup is None or topup.in_flight is None or topup.requested_seq != account.seq:
        return None
    reason = TopupReason.RETRY if topup.retrying else TopupReason.BELOW_THRESHOLD
    amount = topup.in_flight_amount
    return TopupRequest(topup.in_flight, account.org_id, wallet.unit, amount, at, account.seq, reason)


def answer_charge(account: Account, wallet: Wallet, entry: Entry) -> list[Alert]:
    """The fold of a purchase that names a request: completed, or failed (an amount of 0)."""
    topup, amount = wallet.topup, entry.amount_nanos
    if topup is None or entry.correlation_id is None:
        return []
    if entry.correlation_id == topup.in_flight:
        topup.in_flight = None
        topup.retrying = not amount
        if topup.retrying:
            topup.charged = max(0, topup.charged - topup.in_flight_amount)
            topup.retry_at = entry.recorded_at + topup.backoff_micros
    elif amount and _answered(account, wallet, topup, entry.correlation_id):
        topup.charged += amount
    else:
        return []
    if not amount:
        return []
    message = f"{format_amount(amount)} {wallet.unit} credits were added by auto top-up."
    kind = AlertKind.AUTO_RECHARGE_TRIGGERED
    return [notice(account, wallet, entry.recorded_at, kind, entry.correlation_id, format_amount(amount), message)]


def _answered(account: Account, wallet: Wallet, topup: Topup, request_id: str) -> bool:
    """It is one of the wallet's last requests, none of which is in flight any more but the latest."""
    numbers = range(topup.requests, max(0, topup.requests - ANSWERED_MAX), -1)
    return any(_request_id(account.org_id, wallet.unit, number) == request_id for number in numbers)


def begin_month(topup: Topup | None) -> None:
    """The cap starts at 0; a charge in flight counts in the month of its request, so its failure frees nothing."""
    if topup is not None:
        topup.charged = topup.in_flight_amount = 0
        topup.capped = False


def _request_id(org_id: str, unit: str, number: int) -> str:
    text = "".join(f"{len(part)}:{part}" for part in (org_id, unit, str(number)))
    return f"topup-{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"
