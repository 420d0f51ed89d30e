"""Booking of usage: the only thing the ledger does often, so it has a fast way (product rules 3, 8, 9, 16).

Rules of this file:
- Usage that has happened is always booked, into the negative if need be; only an amount out of range refuses it, and
  one wallet more than an org may have (`bounds`): a dead letter, which can be replayed.
- The fast path and the slow path give the same account and the same entry; a property test compares them. The fast
  path is open while `0 < cost < wallet.fast_path_limit`, and its whole effect is that limit and `advance_fast`. A cost
  of 0 in a wallet that exists only takes a number: `account.seq += 1`.
- A wallet with budgets has `budgeted_fast_path_limit` instead. Its fast path, in `advance`, also counts the usage
  towards its budgets.
- Before a booking at `at`, everything due at or before `at` is settled (`due.settle_due`).
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import msgspec

from schemas.amounts import AMOUNT_MAX
from schemas.enums import DeadLetterCode, EntryKind, GrantKind
from streams.ledger.account import Account, CorrectedUsage, Grant, Wallet
from streams.ledger.alerts import distance_to_next_threshold, evaluate_alerts, figures, figures_with
from streams.ledger.avro_fields import SHARED
from streams.ledger.bounds import refuse_new_wallet
from streams.ledger.budgets import ANY_SCOPE, BudgetCharge, Scope, charge, charge_fast, charge_revision
from streams.ledger.burn import enter_day, idle
from streams.ledger.commands import Usage
from streams.ledger.due import enter_month, refresh_due
from streams.ledger.entry import Alert, Entry, Slice, TopupRequest
from streams.ledger.grants import apply_movement, draw
from streams.ledger.holds import take_from_hold
from streams.ledger.rating import Rated
from streams.ledger.refusals import DeadLetter, refuse_range
from streams.ledger.source import Source
from streams.ledger.topups import consider_topup, request_of
from streams.ledger.volume import usage_details

_USAGE = EntryKind.USAGE
"""A look at an enum's member costs as much as making a slice."""


class Booking(msgspec.Struct, frozen=True, gc=False):
    """The amounts of a booked usage's entry. Nano-units."""

    seq: int
    amount: int
    """Change of the settled balance: minus the cost."""
    balance: int
    available: int
    held: int
    slices: tuple[Slice, ...]
    alerts: tuple[Alert, ...] = ()
    topup_requests: tuple[TopupRequest, ...] = ()


def scope_of(usage: Usage) -> Scope:
    """What budgets know a usage by."""
    return (  # type: ignore[return-value]  # a plain tuple is made in a third of the time, and read by index as well
        usage.user_id,
        usage.project_id,
        usage.model,
        usage.tool,
        usage.team,
        usage.department,
    )


def wallet_for(account: Account, unit: str) -> Wallet:
    """The wallet of that unit; a new one, not yet in the account, when there is none (booking puts it there)."""
    return account.wallets.get(unit) or Wallet(unit)


def advance_fast(account: Account, wallet: Wallet, cost: int) -> Grant:
    """Book `cost` on the first grant, which is returned: all that the fast path changes but the limit that let it in.

    For a caller that has found `0 < cost` below one of the wallet's limits, and has lowered that limit by `cost`.
    """
    grant = wallet.grants[0]
    grant.remaining -= cost
    wallet.settled -= cost
    wallet.used += cost
    if not wallet.allowance_first:
        wallet.lifetime_spent += cost
    account.seq += 1
    return grant


def advance(account: Account, wallet: Wallet, cost: int, at: int, scope: Scope) -> Grant | None:
    """Book `cost` on the fast path, if it is open, and return the grant it drew on; None: nothing changed.

    In a wallet with budgets the usage counts towards those of its scope, unless one of them stands in the way.
    """
    if 0 < cost < wallet.fast_path_limit:
        wallet.fast_path_limit -= cost
    elif 0 < cost < wallet.budgeted_fast_path_limit and _count_fast(wallet, scope, cost, at):
        wallet.budgeted_fast_path_limit -= cost
    else:
        return None
    return advance_fast(account, wallet, cost)


def _count_fast(wallet: Wallet, scope: Scope, cost: int, at: int) -> bool:
    return wallet.budgets is not None and charge_fast(wallet.budgets, scope, cost, at)


def refresh_fast_path_limit(wallet: Wallet) -> None:
    """Work out how far the fast path is open; called at the end of every change but the fast ones.

    Every term below falls by exactly what is spent, so that it makes no difference how often it is worked out. Closed
    until the month has usage, and the day where days are followed: the first one makes their end fall due.
    """
    limit = _fast_path_limit(wallet)
    wallet.fast_path_limit, wallet.budgeted_fast_path_limit = (limit, 0) if wallet.budgets is None else (0, limit)


def _fast_path_limit(wallet: Wallet) -> int:
    if not wallet.grants or wallet.used <= 0 or (wallet.burn is not None and idle(wallet, wallet.burn)):
        return 0
    limit = min(wallet.grants[0].remaining, AMOUNT_MAX - wallet.used)
    if not wallet.allowance_first:
        limit = min(limit, AMOUNT_MAX - wallet.lifetime_spent)
    ahead = distance_to_next_threshold(wallet)
    if ahead is not None and ahead < limit:
        limit = ahead
    return max(limit, 0)


def book_usage(account: Account, wallet: Wallet, cost: int, at: int, scope: Scope = ANY_SCOPE) -> Booking | DeadLetter:
    """Book a usage of `cost` (at least 0) recorded at `at`; `wallet` comes from `wallet_for`.

    Not for what captures a hold or corrects (`decide` does). A dead letter as `refuse_cost`, before any change.
    """
    grant = advance(account, wallet, cost, at, scope)
    if grant is not None:
        drawn = (Slice(grant.grant_id, grant.kind, cost, grant.expires_at),)
        settled = wallet.settled
        return Booking(account.seq, -cost, settled, settled - wallet.held, wallet.held, drawn)
    dead_letter = refuse_cost(account, wallet, cost)
    if dead_letter is not None:
        return dead_letter
    slices = draw(wallet, cost) if cost else ()
    alerts = apply_usage(account, wallet, slices, cost, at, scope)
    request = request_of(account, wallet, at)
    requests = () if request is None else (request,)
    settled = wallet.settled
    return Booking(account.seq, -cost, settled, settled - wallet.held, wallet.held, slices, alerts, requests)


def refuse_cost(account: Account, wallet: Wallet, cost: int) -> DeadLetter | None:
    """`invalid_field` when it would be one wallet too many, `amount_out_of_range` when the wallet's numbers have no
    room for `cost`."""
    limit_refusal = refuse_new_wallet(account, wallet.unit)
    if limit_refusal is not None:
        return DeadLetter(DeadLetterCode.INVALID_FIELD, f"wallet: {limit_refusal.message}")
    return refuse_range(
        cost,
        wallet.settled - cost,
        wallet.settled - wallet.held - cost,
        wallet.used + cost,
        wallet.lifetime_spent + cost,
    )


def apply_usage(
    account: Account,
    wallet: Wallet,
    slices: tuple[Slice, ...],
    cost: int,
    at: int,
    scope: Scope = ANY_SCOPE,
    hold_id: str | None = None,
    known: CorrectedUsage | None = None,
) -> tuple[Alert, ...]:
    """The fold of a usage entry: the slow path, also taken by `evolve`. A usage that names a hold takes from it.

    `known`: what the account knew of it, where this is a further revision; what that gave back is judged with it.
    """
    account.seq += 1
    if account.wallets.setdefault(wallet.unit, wallet).month and not cost:
        return ()
    before = figures(wallet) if known is None else figures_with(wallet, known.rebooking)
    enter_month(wallet, account.time_zone, at)
    enter_day(wallet, account.time_zone, at)
    if not cost:
        return ()
    if hold_id is not None:
        take_from_hold(account, wallet.unit, hold_id, cost, slices)
    apply_movement(wallet, (), slices, at)
    wallet.used += cost
    wallet.lifetime_spent += spent_of(slices)
    wallet.opened = True
    charged = _charge(wallet, scope, cost, account.time_zone, at, known)
    replenished = known is not None and known.rebooking > cost
    alerts = evaluate_alerts(account, wallet, at, before, replenished, charged=charged)
    alerts += consider_topup(account, wallet, at)
    refresh_fast_path_limit(wallet)
    refresh_due(account)
    return tuple(alerts)


def _charge(
    wallet: Wallet, scope: Scope, cost: int, time_zone: str, at: int, known: CorrectedUsage | None
) -> list[BudgetCharge]:
    if known is None:
        return charge(wallet, scope, cost, time_zone, at)
    if not known.rebooking:
        return charge(wallet, scope, cost, time_zone, at, known.counted_at)
    was = Scope(*(known.carried.get(name) for name in Scope._fields))  # type: ignore[arg-type]  # these are texts
    return charge_revision(wallet, was, known.rebooking, scope, cost, time_zone, at, known.counted_at)


def spent_of(slices: tuple[Slice, ...]) -> int:
    """The part of a usage's slices that counts as lifetime spent: all but what an allowance gave."""
    return sum(part.amount_nanos for part in slices if part.kind is not GrantKind.ALLOWANCE)


def usage_entry(
    account: Account,
    wallet: Wallet,
    slices: tuple[Slice, ...],
    usage: Usage,
    rated: Rated,
    at: int,
    source: Source,
) -> Entry:
    """The ledger entry of the usage that was just booked. Positional as far as it goes: it is made often."""
    settled, held = wallet.settled, wallet.held
    entry = Entry(  # type: ignore[call-arg]  # the stars stand for a known number of fields
        account.org_id,
        account.seq,
        _USAGE,
        rated.wallet,
        -rated.cost,
        settled,
        settled - held,
        held,
        usage.occurred_at,
        at,
        usage.event_id,
        source.topic,
        source.partition,
        source.offset,
        slices,
        (),
        *_dimensions_and_quantities(usage),
        usage.revision,
        usage.hold_id,
        rated.unit_price,
        rated.output_unit_price,
        rated.billing_unit,
        *_UNSET,
        *_attributes_and_parts(usage),
        rated.components,
    )
    if _APPENDED:
        entry = msgspec.structs.replace(entry, **{name: getattr(usage, name) for name in _APPENDED})
    if rated.counted:
        entry = msgspec.structs.replace(entry, details=usage_details(rated.counted, rated.period))
    return entry


_FIELDS = Entry.__struct_fields__
_dimensions_and_quantities = attrgetter(*_FIELDS[_FIELDS.index("grants") + 1 : _FIELDS.index("revision")])
_UNSET = (None,) * (_FIELDS.index("attributes") - _FIELDS.index("billing_unit") - 1)
_attributes_and_parts = attrgetter(*_FIELDS[_FIELDS.index("attributes") : _FIELDS.index("components")])
_APPENDED = tuple(name for name in SHARED if _FIELDS.index(name) > _FIELDS.index("components"))
"""What later versions of both records have added."""


def usage_fields(usage: Usage, rated: Rated) -> dict[str, Any]:
    """The fields of a usage's entry that depend on nothing else, by name: for what is booked as a command."""
    fields = {name: getattr(usage, name) for name in SHARED if name not in ("event_id", "occurred_at")}
    return fields | {
        "unit_price_nanos": rated.unit_price,
        "output_unit_price_nanos": rated.output_unit_price,
        "billing_unit": rated.billing_unit,
        "components": rated.components,
        "details": usage_details(rated.counted, rated.period) if rated.counted else None,
    }
