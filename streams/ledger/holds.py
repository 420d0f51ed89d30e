"""Holds as state: credits set aside for work in progress, and how they come free again (product rule 18).

Rules of this file, the fold's part of holds:
- A hold is active from its entry until all of it is taken or released; then it is resolved permanently.
- Usage that names a hold of its wallet takes from it first: held falls by at most what is held, the rest of the cost
  was not set aside.
- A capture, a release, or usage that names the hold, and arrived before the hold's end, comes before that end, however
  late it is read.
- Every active hold stands in `hold_ends` with its time-out, so none can be forgotten.
- A hold that timed out is remembered for a capture that arrived before its end, until a hold is placed that can only
  have arrived after it, or usage names it.
- The last `RESOLVED_MAX` resolved holds are remembered, so that a second resolution differs from an unknown hold.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Mapping

import msgspec

from schemas.enums import OnShortage
from streams.ledger.account import Account, ActiveHold, Grant, Wallet
from streams.ledger.budgets import Scope, reserve_in_budgets
from streams.ledger.entry import Slice
from streams.ledger.grants import end_grant
from streams.ledger.refusals import BrokenLedger

RESOLVED_MAX = 512
"""Resolved holds remembered per org, 9 bytes each. One resolved earlier is `unknown_hold`; neither has an effect."""

TIMED_OUT_MAX = 512
"""Timed-out holds remembered per org, some 110 bytes each: 55 KB. A capture of one before them is refused."""

TIMED_OUT_KEPT_US = 2 * 3_600 * 1_000_000
"""A hold that occurred so long after the end of another arrived after it: no record's time is further ahead. All that
arrived in the topic before that end has then been read."""

KEPT_BYTES = 16
"""What one hold keeping of one grant adds to the account: two whole numbers."""


class HoldTerms(msgspec.Struct, frozen=True):
    """`details` of a hold."""

    amount_nanos: int
    """What was granted."""
    asked_nanos: int
    expires_at: int
    on_shortage: OnShortage


def place(account: Account, hold: ActiveHold, occurred_at: int) -> None:
    """The fold of a granted hold, whose record says that it occurred at that time."""
    if hold.hold_id in account.holds:
        raise BrokenLedger(f"hold {hold.hold_id} is placed twice")
    account.holds_timed_out.pop(hold.hold_id, None)  # of the same id, which was forgotten as resolved
    _forget_timed_out(account, occurred_at)
    account.holds[hold.hold_id] = hold
    insort(account.hold_ends, (hold.expires_at, hold.hold_id))
    _change_held(account, hold, hold.amount)


def kept_by(wallet: Wallet, hold: ActiveHold) -> tuple[Slice, ...]:
    """What the hold keeps of grants that have ended, in the order they ended: a capture draws it first."""
    ended = {grant.end_number: grant for grant in wallet.ended} if hold.kept else {}
    return tuple(
        Slice(ended[number].grant_id, ended[number].kind, amount, ended[number].expires_at)
        for number, amount in hold.kept.items()
    )


def keep(account: Account, wallet: Wallet, grant: Grant) -> None:
    """The fold of the end of a grant that holds cover some of: they keep it, the hold placed first what is drawn first.

    The grant is still in draw-down order; what is left of it beyond that expires next.
    """
    starts_at = sum(other.remaining for other in wallet.grants[: wallet.grants.index(grant)])
    ends_at = starts_at + grant.remaining
    end_grant(wallet, grant)
    position = 0
    for hold in account.holds.values():
        if hold.wallet != wallet.unit or position >= ends_at:
            continue
        next_place = position + hold.amount - sum(hold.kept.values())
        part = min(next_place, ends_at) - max(position, starts_at)
        if part > 0:
            hold.kept[grant.end_number] = part
            grant.kept += part
            account.size_bound_bytes += KEPT_BYTES
        position = next_place


class Covers(msgspec.Struct, frozen=True):
    """`details` of the entry that ends grants which holds cover some of."""

    kept_nanos: dict[str, int]
    """What stays for holds, by grant."""


def cover_details(covers: Mapping[str, int]) -> str | None:
    """The `details` of an entry that ends grants; None where holds cover none of them."""
    return msgspec.json.encode(Covers(dict(covers))).decode() if covers else None


def apply_covers(account: Account, wallet: Wallet, details: str | None) -> None:
    """The fold of such an entry. Raises BrokenLedger where the holds do not cover what it says."""
    if details is None:
        return
    covers = msgspec.json.decode(details, type=Covers).kept_nanos
    for grant in [grant for grant in wallet.grants if grant.grant_id in covers]:
        keep(account, wallet, grant)
    kept = {grant.grant_id: grant.kept for grant in wallet.ended}
    if any(kept.get(grant_id) != amount for grant_id, amount in covers.items()):
        raise BrokenLedger(f"holds keep {kept} in {wallet.unit}, not {covers}")


def take_from_hold(account: Account, unit: str, hold_id: str, cost: int, slices: tuple[Slice, ...]) -> None:
    """The part of a usage of `cost` that its hold has set aside is no longer held; unknown holds have none.

    What `slices` draw of ended grants that the hold keeps some of is drawn from that.
    """
    hold = account.holds.get(hold_id)
    if hold is None or hold.wallet != unit:
        return
    taken = min(cost, hold.amount)
    hold.amount -= taken
    if hold.kept:
        drawn = Counter[str]()
        for part in slices:
            drawn[part.grant_id] += part.amount_nanos
        _release_kept(account.wallets[unit], hold, drawn)
    _change_held(account, hold, -taken)
    if not hold.amount:
        _resolve(account, hold)


def move_timeout(account: Account, hold: ActiveHold, ends_at: int) -> None:
    """Let an active hold end at another time."""
    account.hold_ends.remove((hold.expires_at, hold.hold_id))
    hold.expires_at = ends_at
    insort(account.hold_ends, (ends_at, hold.hold_id))


def release(account: Account, hold_id: str) -> None:
    """What is still held comes free."""
    hold = account.holds.get(hold_id)
    if hold is None:
        raise BrokenLedger(f"hold {hold_id} is not active")
    if hold.kept:
        _release_kept(account.wallets[hold.wallet], hold, None)
    _change_held(account, hold, -hold.amount)
    hold.amount = 0
    _resolve(account, hold)


def time_out(account: Account, hold_id: str) -> None:
    """What is still held comes free, for the hold's time is over; a capture may still be to come."""
    hold = account.holds.get(hold_id)
    release(account, hold_id)
    assert hold is not None
    account.holds_timed_out[hold_id] = hold
    if len(account.holds_timed_out) > TIMED_OUT_MAX:
        del account.holds_timed_out[next(iter(account.holds_timed_out))]


def note_used(account: Account, hold_id: str | None) -> None:
    """A usage names the hold: it is the capture of one that has timed out, or counts as it."""
    if hold_id is not None:
        account.holds_timed_out.pop(hold_id, None)


def _forget_timed_out(account: Account, occurred_at: int) -> None:
    """Of holds that ended long enough before a hold that is placed now, no capture in time is still to come.

    Only the oldest are looked at: they stand nearly in the order of their ends.
    """
    timed_out = account.holds_timed_out
    while timed_out and (oldest := next(iter(timed_out.values()))).expires_at + TIMED_OUT_KEPT_US <= occurred_at:
        del timed_out[oldest.hold_id]


def resolved_before(account: Account, hold_id: str) -> bool:
    """Whether the hold was captured or released, as far as that is remembered."""
    return _digest(hold_id) in account.holds_resolved


def _resolve(account: Account, hold: ActiveHold) -> None:
    del account.holds[hold.hold_id]
    timeout = (hold.expires_at, hold.hold_id)
    position = bisect_left(account.hold_ends, timeout)
    if account.hold_ends[position : position + 1] != [timeout]:
        raise BrokenLedger(f"hold {hold.hold_id} has no time-out")
    del account.hold_ends[position]
    account.holds_resolved = [*account.holds_resolved, _digest(hold.hold_id)][-RESOLVED_MAX:]


def _release_kept(wallet: Wallet, hold: ActiveHold, drawn: Mapping[str, int] | None) -> None:
    """Of what the hold keeps of a grant, so much no longer; None: nothing of any."""
    for grant in wallet.ended:
        kept = hold.kept.get(grant.end_number, 0)
        part = kept if drawn is None else min(kept, drawn.get(grant.grant_id, 0))
        if part:
            grant.kept -= part
            hold.kept[grant.end_number] = kept - part
            if part == kept:
                del hold.kept[grant.end_number]


def _change_held(account: Account, hold: ActiveHold, change: int) -> None:
    wallet = account.wallets[hold.wallet]
    wallet.held += change
    reserve_in_budgets(wallet, Scope(*hold.scope), change)


def _digest(hold_id: str) -> int:
    """64 bits: two of 512 share one by chance once in 10^14 orgs."""
    return int.from_bytes(hashlib.blake2b(hold_id.encode(), digest_size=8).digest(), "big")
