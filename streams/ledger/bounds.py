"""How much an account may grow, and what is refused when it is full.

An account is one message of the changelog, so it must fit into `ACCOUNT_BYTES_MAX` whatever an org is sent: a message
that does not would stop the partition, for every org in it.

Rules of this file:
- Everything that an input adds to an account is counted, by its own limit: wallets, members, grants, transfers, and
  usages refunded here; holds (`hold_decisions.HOLDS_MAX`, `holds.RESOLVED_MAX`), budgets (`budgets.BUDGETS_MAX`),
  prices of its own (`settings.OVERRIDES_MAX`), counters of graduated prices (`volume.COUNTERS_MAX`), usages with a
  revision (`corrections.CORRECTED_MAX`), empty grants (`grants.EXHAUSTED_MAX`), days of usage (`burn.DAYS_MAX`);
  threshold rules, administrators and patterns of models in `schemas.settings_bodies`. Budgets count one window each;
  a value of a dimension that no budget names is not kept.
- How long the texts in them are (an id is 128 characters, of up to 4 bytes) is bounded for all of them together: an
  account of more than `FULL_BYTES` is full, and takes nothing more that would stay.
- A limit refuses by an entry (`rejected`, or a refused hold), a transfer by sending it back, a usage only where it
  would open a wallet too many or be one revision too many, as a dead letter: it can be replayed. What lets go of
  something is never refused: captures, releases, answers to a transfer, time; nor a setting that replaces one of its
  kind, nor usage in a wallet that is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

import msgspec

from schemas.enums import RejectReason
from schemas.topics import ACCOUNT_BYTES_MAX
from streams.ledger.account import Account, encode_account
from streams.ledger.avro_fields import CARRIED
from streams.ledger.entry import Entry, Slice
from streams.ledger.refusals import Refused

WALLETS_MAX = 64
"""Units of an org. A wallet without grants is some 150 bytes, and a line of 50 in every balance record."""

MEMBERS_MAX = 5_000
"""Members of an org, about 25 bytes each: 125 KB."""

BARRED_MAX = 5_000
"""Users with the role `none`, who may not spend; those named first are forgotten first, and are then like any user."""

GRANTS_MAX = 500
"""Grants of an org with something left, and those in transit to other orgs, which may come back; about 70 bytes each.

One entry may draw on all of them, and one leg carry them all: a slice is at most 0.6 KiB, a lot 1.1 KiB, so 550 KiB.
With at most 300 KiB of attributes that fits into `RECORD_BYTES_MAX`, 1 MiB. An allowance passes the limit, for it
replaces the one before.
"""

TRANSFERS_IN_TRANSIT_MAX = 1_000
"""Transfers of an org without an answer yet, about 80 bytes each. An answer takes seconds."""

REFUNDED_MAX = 4_096
"""Usages of which something was refunded in the 35 days in which usage can be, about 50 bytes each."""

FULL_BYTES = ACCOUNT_BYTES_MAX // 2
"""4 MiB of 8. What may still come: settings that are replaced (org and model access 0.5 MiB, 20 rules in each of 64
wallets 0.8 MiB), grants that come back (500 of 1.1 KiB, 0.6 MiB), and one command that was let in just before: 0.6 MiB.
10,000 holds with ids of 36 characters are 2 MB, so it is long texts alone that reach it."""

REMEASURE_ENTRIES = 64
"""How often a nearly full account is measured, in entries: measuring takes some 5 ms. So an account may count as full
for 63 entries more than it is."""

NEARLY_FULL_BYTES = FULL_BYTES * 7 // 8

_KEPT = attrgetter(
    "wallet",
    "event_id",
    "slices",
    "grants",
    "components",
    "quantities",
    *CARRIED,
    "hold_id",
    "counterparty_org_id",
    "correlation_id",
    "details",
)
"""What of an entry may come to stand in an account; its position in the log does not."""

_COPIES_MAX = 3
"""How often one text of an entry may stand there: a hold's id does so three times."""

_NUMBERS_BYTES = 128
"""An upper bound of what an entry adds besides its texts."""


def raise_size_bound(account: Account, entry: Entry) -> None:
    """Note that `entry`, just folded, has made the account larger: by at most `_COPIES_MAX` times what is kept of it.

    Part of the fold, for every entry but plain usage, which only moves numbers. The sum of those bounds is what the
    account weighs at most; only when that passes the limit is the account encoded to see.
    """
    account.size_bound_bytes += _COPIES_MAX * len(msgspec.msgpack.encode(_KEPT(entry))) + _NUMBERS_BYTES
    if account.size_bound_bytes > FULL_BYTES and account.seq >= account.remeasure_after_seq:
        account.size_bound_bytes = len(encode_account(account))
        if account.size_bound_bytes > NEARLY_FULL_BYTES:
            account.remeasure_after_seq = account.seq + REMEASURE_ENTRIES


def refuse_full_account(account: Account) -> Refused | None:
    """Set when the account takes nothing more that would stay."""
    if account.size_bound_bytes <= FULL_BYTES:
        return None
    message = f"what is open in the organisation takes more than {FULL_BYTES} bytes"
    return Refused(RejectReason.ACCOUNT_FULL, message)


def refuse_new_wallet(account: Account, unit: str) -> Refused | None:
    """Set when `unit` would be one wallet too many."""
    if unit in account.wallets or len(account.wallets) < WALLETS_MAX:
        return None
    return Refused(RejectReason.TOO_MANY_WALLETS, f"an organisation has at most {WALLETS_MAX} wallets")


def refuse_new_grants(account: Account, grants: int) -> Refused | None:
    """Set when `grants` more would be too many."""
    there = sum(len(wallet.grants) + len(wallet.ended) for wallet in account.wallets.values())
    away = sum(transit.lots for transit in account.in_transit.values())
    if there + away + grants <= GRANTS_MAX:
        return None
    return Refused(RejectReason.TOO_MANY_GRANTS, f"an organisation has at most {GRANTS_MAX} grants")


def refuse_new_credits(account: Account, unit: str, grants: int) -> Refused | None:
    """Set when the org cannot take this many more grants into a wallet."""
    return refuse_new_wallet(account, unit) or refuse_new_grants(account, grants) or refuse_full_account(account)


def refuse_new_transfer(account: Account) -> Refused | None:
    """Set when no more transfers may be in transit."""
    if len(account.in_transit) < TRANSFERS_IN_TRANSIT_MAX:
        return refuse_full_account(account)
    return Refused(
        RejectReason.TOO_MANY_TRANSFERS, f"{TRANSFERS_IN_TRANSIT_MAX} transfers of the organisation are in transit"
    )


def refuse_reversal(account: Account, unit: str, slices: Iterable[Slice]) -> Refused | None:
    """Set when what was drawn cannot come back, for the grants that are empty or forgotten would be too many."""
    wallet = account.wallets[unit]
    live = {grant.grant_id for grant in (*wallet.grants, *wallet.ended)}
    return refuse_new_grants(account, sum(part.grant_id not in live for part in slices))


def refuse_refund(account: Account, usage_id: str, horizon: int) -> Refused | None:
    """Set when the refund of one more usage cannot be remembered; `horizon`: refunds of older usage are forgotten."""
    if usage_id not in account.refunded and len(account.refunded) >= REFUNDED_MAX:
        kept = sum(known.usage_recorded_at >= horizon for known in account.refunded.values())
        if kept >= REFUNDED_MAX:
            message = f"refunds of {REFUNDED_MAX} usages are remembered"
            return Refused(RejectReason.TOO_MANY_REFUNDS, message)
    return refuse_full_account(account)
