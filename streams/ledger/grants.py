"""Lots of credits: the order they are drawn in, drawing, giving back, adding (product rules 2, 3, 15, 21).

Rules of this file:
- The draw-down order is total: the current month's allowance, then priority ascending, expiry ascending (never last),
  kind (allowances left from elsewhere, promotional, adjustments, transferred, purchased), creation ascending, grant id.
- Planning (`draw`, `pay_overdraft`, `give_back`) changes nothing and returns slices. Only `apply_movement` changes what
  is left.
- While a wallet is overdrawn it has no grants with anything left but those in `ended`; other credits that come in pay
  the overdraft first.
- Active holds cover credits in draw-down order (`hold_coverage`). When a grant ends, what holds cover of it stays in
  `Wallet.ended`, out of the draw-down order, for those holds alone (product rule 18). Anything else in an ended grant,
  because it was returned or arrived too late, expires at once.
- A grant's id is unique in its account while the grant is known (`new_grant_id`). A lot under the id of a known grant
  joins it: one that was forgotten comes back in parts, each with its share of the cost basis if that is known.
- A grant that is empty is remembered in `exhausted`, purchased ones for refunds of the purchase, all of them until
  they expire for refunds of usage; at most `EXHAUSTED_MAX`, the oldest are forgotten first, but for the current
  month's allowance.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from schemas.enums import OVERDRAFT_GRANT_ID, GrantKind
from streams.ledger.account import Account, Grant, Wallet
from streams.ledger.commands import PRIORITY_DEFAULT
from streams.ledger.entry import Lot, Slice
from streams.ledger.refusals import BrokenLedger

EXHAUSTED_MAX = 64
"""Empty grants remembered per wallet, about 60 bytes each. A refund of a forgotten purchase is `unknown_purchase`."""

EXPIRING_NOTICE_MICROS = 7 * 86_400 * 1_000_000
"""`credits_expiring` is raised a week before a grant expires; not for credits that came, or came back, no earlier."""

NEVER = 2**63 - 1
"""Stands for "does not expire" when times are compared."""

KIND_ORDER = {
    GrantKind.ALLOWANCE: 0,
    GrantKind.PROMOTIONAL: 1,
    GrantKind.ADJUSTMENT: 2,
    GrantKind.TRANSFERRED: 3,
    GrantKind.PURCHASED: 4,
}


def draw_order(grant: Grant) -> tuple[int, int, int, int, int, str]:
    """Sorts grants in draw-down order."""
    return (
        0 if grant.current else 1,
        grant.priority,
        NEVER if grant.expires_at is None else grant.expires_at,
        KIND_ORDER[grant.kind],
        grant.created_at,
        grant.grant_id,
    )


def overdraft_slice(amount: int) -> Slice:
    """What no grant covers (above 0), or what is paid of it (below 0)."""
    return Slice(OVERDRAFT_GRANT_ID, GrantKind.OVERDRAFT, amount)


def draw(wallet: Wallet, amount: int) -> tuple[Slice, ...]:
    """The slices that `amount` (above 0) takes, in draw-down order; what no grant covers goes to the overdraft.

    What is kept for holds is not touched.
    """
    slices = []
    for grant in wallet.grants:
        part = amount if amount < grant.remaining else grant.remaining
        slices.append(Slice(grant.grant_id, grant.kind, part, grant.expires_at))
        amount -= part
        if not amount:
            return tuple(slices)
    slices.append(overdraft_slice(amount))
    return tuple(slices)


def pay_overdraft(wallet: Wallet, lots: Iterable[Lot], at: int) -> tuple[Slice, ...]:
    """The slices by which `lots`, about to be added at `at`, pay what the wallet is overdrawn by.

    A lot that has expired on arrival pays nothing: it is added, and expires whole at once (product rule 4).
    """
    owed = wallet.overdraft
    slices = []
    for lot in lots:
        part = 0 if has_ended(lot, at) else min(owed, lot.amount_nanos)
        if part:
            slices.append(Slice(lot.grant_id, lot.kind, part, lot.expires_at))
            owed -= part
    if slices:
        slices.append(overdraft_slice(owed - wallet.overdraft))
    return tuple(slices)


def has_ended(credits: Grant | Lot, at: int) -> bool:
    """They expire, or lapse, at `at` or did before."""
    return credits.expires_at is not None and credits.expires_at <= at


def hold_coverage(wallet: Wallet, carried: Mapping[str, int] | None = None) -> Iterator[tuple[Grant, int]]:
    """What active holds cover of each grant in draw-down order, without what they keep of grants that have ended.

    `carried`: what is about to leave grants, by their ids.
    """
    needed = wallet.held - sum(grant.kept for grant in wallet.ended)
    for grant in wallet.grants:
        left = grant.remaining - (carried.get(grant.grant_id, 0) if carried else 0)
        part = min(needed, left)
        needed -= part
        yield grant, part


def lapsing(wallet: Wallet, at: int) -> int:
    """What is left in grants that have reached their end at `at`, less what holds cover: it expires at that instant."""
    gone = sum(grant.remaining - grant.kept for grant in wallet.ended)
    return gone + sum(grant.remaining - part for grant, part in hold_coverage(wallet) if has_ended(grant, at))


def find_grant(wallet: Wallet, grant_id: str) -> Grant | None:
    """The grant of that id, live, ended or exhausted."""
    for grants in (wallet.grants, wallet.ended, wallet.exhausted):
        for grant in grants:
            if grant.grant_id == grant_id:
                return grant
    return None


def new_grant_id(account: Account, family: str, name: str) -> str:
    """The id of a new grant of the entry to come: `family/name`, or `family@seq/name` while the account knows others.

    Ids of purchases and transfers are unique for 35 days only; one that is used again later is about other credits.
    """
    return f"{family}@{account.seq + 1}/{name}" if any(grants_named(account, family, name)) else f"{family}/{name}"


def grants_named(account: Account, family: str, name: str) -> Iterator[tuple[int, str, Grant]]:
    """What the account knows of the grants that `new_grant_id` named so: (`seq` in its id or 0, unit, grant)."""
    prefix, suffix = f"{family}@", f"/{name}"
    for wallet in account.wallets.values():
        for grant in (*wallet.grants, *wallet.ended, *wallet.exhausted):
            grant_id = grant.grant_id
            if grant_id == family + suffix:
                yield 0, wallet.unit, grant
            elif grant_id.endswith(suffix) and grant_id.startswith(prefix):
                seq = grant_id[len(prefix) : -len(suffix)]
                if seq.isdecimal():
                    yield int(seq), wallet.unit, grant


def give_back(wallet: Wallet, lots: Sequence[Lot], at: int) -> tuple[tuple[Slice, ...], tuple[Lot, ...]]:
    """How credits return to the grants named by `lots`: (slices, lots to recreate).

    A grant the wallet no longer remembers is added again under its id, with what returns to it as its amount; what
    returns to it later, and is more than was drawn from it since, joins it as another lot. What returns to a grant that
    has not expired pays the overdraft first; what returns to one that has expired stays there, to expire at once. A lot
    of kind `overdraft` was never covered by a grant: what the overdraft no longer needs of it becomes an adjustment.
    """
    owed = wallet.overdraft
    slices: list[Slice] = []
    recreated: list[Lot] = []
    room: dict[str, int] = {}
    for lot in lots:
        if lot.kind is GrantKind.OVERDRAFT:
            paid = min(owed, lot.amount_nanos)
            owed -= paid
            if paid < lot.amount_nanos:
                recreated.append(Lot(lot.grant_id, GrantKind.ADJUSTMENT, lot.amount_nanos - paid, lot.priority))
            continue
        grant = find_grant(wallet, lot.grant_id)
        if grant is not None:
            lot = msgspec.structs.replace(lot, priority=grant.priority, expires_at=grant.expires_at)
            room.setdefault(lot.grant_id, grant.amount - grant.remaining)
        paid = 0 if has_ended(lot, at) else min(owed, lot.amount_nanos)
        owed -= paid
        if lot.amount_nanos > room.get(lot.grant_id, 0):
            recreated.append(lot)
            change = paid
        else:
            room[lot.grant_id] -= lot.amount_nanos
            change = paid - lot.amount_nanos
        if change:
            slices.append(Slice(lot.grant_id, lot.kind, change, lot.expires_at))
    if owed != wallet.overdraft:
        slices.append(overdraft_slice(owed - wallet.overdraft))
    return tuple(slices), tuple(recreated)


def reverse_slices(slices: tuple[Slice, ...], already: int, amount: int) -> tuple[Slice, ...]:
    """The parts of a usage's slices that the next `amount` gives back, after `already`: the last drawn first."""
    parts = []
    for drawn in reversed(slices):
        skipped = min(already, drawn.amount_nanos)
        already -= skipped
        part = min(amount, drawn.amount_nanos - skipped)
        amount -= part
        if part:
            parts.append(Slice(drawn.grant_id, drawn.kind, part, drawn.expires_at))
    return tuple(parts)


def lot_of(wallet: Wallet, part: Slice, overdraft_grant_id: str) -> Lot:
    """A returned slice as a lot, with what the wallet still knows of its grant."""
    if part.kind is GrantKind.OVERDRAFT:
        return Lot(overdraft_grant_id, part.kind, part.amount_nanos, PRIORITY_DEFAULT)
    grant = find_grant(wallet, part.grant_id)
    priority = grant.priority if grant is not None else PRIORITY_DEFAULT
    return Lot(part.grant_id, part.kind, part.amount_nanos, priority, part.expires_at)


def apply_movement(
    wallet: Wallet, lots: Iterable[Lot], slices: Iterable[Slice], at: int, current: bool = False
) -> None:
    """Add `lots` and apply `slices`: the only function that changes grants. `at`: when it is recorded.

    Raises BrokenLedger when a slice names a grant that is not there or takes more than it has.
    """
    for lot in lots:
        _add(wallet, lot, at, current)
        wallet.settled += lot.amount_nanos
    remembered = len(wallet.exhausted)
    for part in slices:
        wallet.settled -= part.amount_nanos
        if part.kind is GrantKind.OVERDRAFT:
            wallet.overdraft += part.amount_nanos
            if wallet.overdraft < 0:
                raise BrokenLedger(f"the overdraft of {wallet.unit} would be {wallet.overdraft}")
        else:
            _change(wallet, part, at)
    if len(wallet.exhausted) > remembered:
        _evict_exhausted(wallet, at)
    _note_allowance_first(wallet)


def sort_grants(wallet: Wallet) -> None:
    """Bring the grants in draw-down order again, after their terms have changed."""
    wallet.grants.sort(key=draw_order)
    _note_allowance_first(wallet)


def _note_allowance_first(wallet: Wallet) -> None:
    wallet.allowance_first = bool(wallet.grants) and wallet.grants[0].kind is GrantKind.ALLOWANCE


def _add(wallet: Wallet, lot: Lot, at: int, current: bool) -> None:
    """Make a grant of the lot, or let it join the one of its id, which keeps its terms."""
    grant = find_grant(wallet, lot.grant_id)
    if grant is None:
        _file(wallet, _grant_from(lot, at, current), at)
        return
    if not grant.remaining:
        _refill(wallet, grant, at)
    grant.amount += lot.amount_nanos
    grant.remaining += lot.amount_nanos
    if lot.price_paid_nanos is not None:
        grant.price_paid = (grant.price_paid or 0) + lot.price_paid_nanos
        grant.currency = lot.currency


def _file(wallet: Wallet, grant: Grant, at: int) -> None:
    """Put a grant that has something left where it belongs."""
    insort(wallet.ended if has_ended(grant, at) else wallet.grants, grant, key=draw_order)


def end_grant(wallet: Wallet, grant: Grant) -> None:
    """A grant leaves the draw-down order, for it has reached its end while holds cover some of it."""
    wallet.grants.remove(grant)
    grant.end_number = 1 + max((other.end_number for other in wallet.ended), default=0)
    insort(wallet.ended, grant, key=draw_order)
    _note_allowance_first(wallet)


def _grant_from(lot: Lot, at: int, current: bool) -> Grant:
    return Grant(
        lot.grant_id,
        lot.kind,
        lot.amount_nanos,
        lot.amount_nanos,
        lot.priority,
        lot.expires_at,
        at,
        lot.price_paid_nanos,
        lot.currency,
        current,
    )


def _change(wallet: Wallet, part: Slice, at: int) -> None:
    grant = find_grant(wallet, part.grant_id)
    if grant is None:
        raise BrokenLedger(f"no grant {part.grant_id} in {wallet.unit}")
    before, after = grant.remaining, grant.remaining - part.amount_nanos
    if not grant.kept <= after <= grant.amount:
        raise BrokenLedger(f"grant {part.grant_id} of {grant.amount}, {grant.kept} kept, would have {after} left")
    grant.remaining = after
    if before and not after:
        (wallet.ended if grant in wallet.ended else wallet.grants).remove(grant)
        wallet.exhausted.append(grant)
    elif after and not before:
        _refill(wallet, grant, at)


def _refill(wallet: Wallet, grant: Grant, at: int) -> None:
    """An empty grant has something again. In its last week the notice of its expiry is no longer given."""
    wallet.exhausted.remove(grant)
    _file(wallet, grant, at)
    if grant.expires_at is not None and grant.expires_at - EXPIRING_NOTICE_MICROS <= at:
        grant.noticed = True


def _evict_exhausted(wallet: Wallet, at: int) -> None:
    """Drop the empty grants that no refund can refer to any more, and the oldest of too many.

    After all slices of an entry: one of them may return to a grant that another would have pushed out. This month's
    allowance stays: what comes back to it is drawn before all else.
    """
    kept = [empty for empty in wallet.exhausted if empty.kind is GrantKind.PURCHASED or not has_ended(empty, at)]
    surplus = len(kept) - EXHAUSTED_MAX
    wallet.exhausted = [empty for number, empty in enumerate(kept) if number >= surplus or empty.current]
