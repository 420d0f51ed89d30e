"""Holds as state: credits set aside for work in progress, and how they come free again (product rule 18).

Rules of this file, the fold's part of holds:
- A hold is active from its entry until all of it is taken or released; then it is resolved, once and for ever.
- Usage that names a hold of its wallet takes from it first: held falls by at most what is held, the rest of the cost
  was not set aside.
- A capture or release that arrived before the end of its hold comes before it, however late it is read.
- Every active hold stands in `hold_ends` with its time-out, so none can be forgotten.
- The last `RESOLVED_MAX` resolved holds are remembered, so that a second resolution is told from an unknown hold.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort

import msgspec

from schemas.enums import OnShortage
from streams.ledger.account import Account, ActiveHold
from streams.ledger.budgets import Scope, set_aside
from streams.ledger.refusals import BrokenLedger

RESOLVED_MAX = 512
"""Resolved holds remembered per org, 9 bytes each. One resolved earlier is `unknown_hold`; neither has an effect."""


class HoldTerms(msgspec.Struct, frozen=True):
    """`details` of a hold."""

    amount_nanos: int
    """What was granted."""
    asked_nanos: int
    expires_at: int
    on_shortage: OnShortage


def place(account: Account, hold: ActiveHold) -> None:
    """The fold of a granted hold."""
    if hold.hold_id in account.holds:
        raise BrokenLedger(f"hold {hold.hold_id} is placed twice")
    account.holds[hold.hold_id] = hold
    insort(account.hold_ends, (hold.expires_at, hold.hold_id))
    _change_held(account, hold, hold.amount)


def take_from_hold(account: Account, unit: str, hold_id: str, cost: int) -> None:
    """The part of a usage of `cost` that its hold has set aside is no longer held; unknown holds have none."""
    hold = account.holds.get(hold_id)
    if hold is None or hold.wallet != unit:
        return
    taken = min(cost, hold.amount)
    hold.amount -= taken
    _change_held(account, hold, -taken)
    if not hold.amount:
        _resolve(account, hold)


def move_end(account: Account, hold: ActiveHold, ends_at: int) -> None:
    """Let an active hold end at another time."""
    account.hold_ends.remove((hold.expires_at, hold.hold_id))
    hold.expires_at = ends_at
    insort(account.hold_ends, (ends_at, hold.hold_id))


def release(account: Account, hold_id: str) -> None:
    """What is still held comes free."""
    hold = account.holds.get(hold_id)
    if hold is None:
        raise BrokenLedger(f"hold {hold_id} is not active")
    _change_held(account, hold, -hold.amount)
    hold.amount = 0
    _resolve(account, hold)


def resolved_before(account: Account, hold_id: str) -> bool:
    """Whether the hold was captured or released, as far as that is remembered."""
    return _digest(hold_id) in account.holds_resolved


def _resolve(account: Account, hold: ActiveHold) -> None:
    del account.holds[hold.hold_id]
    end = (hold.expires_at, hold.hold_id)
    place_of = bisect_left(account.hold_ends, end)
    if account.hold_ends[place_of : place_of + 1] != [end]:
        raise BrokenLedger(f"hold {hold.hold_id} has no time-out")
    del account.hold_ends[place_of]
    account.holds_resolved = [*account.holds_resolved, _digest(hold.hold_id)][-RESOLVED_MAX:]


def _change_held(account: Account, hold: ActiveHold, change: int) -> None:
    wallet = account.wallets[hold.wallet]
    wallet.held += change
    set_aside(wallet, Scope(*hold.scope), change)


def _digest(hold_id: str) -> int:
    """64 bits: two of 512 share one by chance once in 10^14 orgs."""
    return int.from_bytes(hashlib.blake2b(hold_id.encode(), digest_size=8).digest(), "big")
