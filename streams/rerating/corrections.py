"""From usages that cost something else now to the corrections of them, and to what they mean for each org. Pure.

Rules of this file:
- A correction is a refund record with the target `rerated_usage`. Its id is made of the price set and the entry, so the
  same correction sent twice is booked once.
- The price set is a digest of the whole price list. A list that changes makes another set, and the difference is worked
  out against what is booked then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

import msgspec

from schemas.enums import RefundTarget
from schemas.events import Refund
from streams.ledger.rating import PriceList
from streams.rerating.booked import ID_FAMILY, BookedUsage, BookedUsages

PRICE_SET_BYTES: Final = 6
"""2⁴⁸ price sets: two of a thousand lists are the same by chance once in 10⁹ installations."""

REASON: Final = "re-rated"


def price_set(prices: PriceList) -> str:
    """A short name of a price list: the same for the same prices, in whatever order."""
    ordered = sorted(prices, key=attrgetter("price_id"))
    return hashlib.blake2b(msgspec.msgpack.encode(ordered), digest_size=PRICE_SET_BYTES).hexdigest()


def corrections(
    usages: Iterable[BookedUsage], prices_named: str, occurred_at: int, actor: str | None
) -> Iterator[Refund]:
    """A record for each usage whose cost differs. `prices_named`: the price set."""
    for usage in usages:
        if usage.difference:
            yield Refund(
                refund_id=f"{ID_FAMILY}:{prices_named}:{usage.entry.seq}",
                org_id=usage.entry.org_id,
                occurred_at=occurred_at,
                target=RefundTarget.RERATED_USAGE,
                target_id=usage.entry.event_id,
                amount_nanos=-usage.difference,
                actor=actor,
                reason=REASON,
                target_recorded_at=usage.entry.recorded_at,
                components=[msgspec.to_builtins(part) for part in usage.difference_parts()],
            )


@dataclass(slots=True)
class OrgDifference:
    """What re-rating changes in one wallet of an org. Nano-units."""

    org_id: str
    wallet: str
    rated_count: int = 0
    changed: int = 0
    before: int = 0
    after: int = 0
    crosses: list[str] = field(default_factory=list)
    """Limits that it would cross, in words."""

    @property
    def difference(self) -> int:
        """Above 0: charged."""
        return self.after - self.before


def by_org(usages: BookedUsages, balances: Mapping[str, Mapping[str, Any]]) -> list[OrgDifference]:
    """The wallets in which something changes, the largest difference first. `balances`: latest records, by org."""
    found: dict[tuple[str, str], OrgDifference] = {}
    for usage in usages:
        if usage.skipped is not None:
            continue
        place = usage.entry.org_id, usage.entry.wallet
        row = found.get(place)
        if row is None:
            row = found[place] = OrgDifference(*place)
        row.rated_count += 1
        row.changed += usage.difference != 0
        row.before += usage.booked
        row.after += usage.due
    rows = [row for row in found.values() if row.changed]
    for row in rows:
        wallets = balances.get(row.org_id, {}).get("wallets", ())
        for wallet in wallets:
            if wallet["unit"] == row.wallet:
                limits = usages.limits.get((row.org_id, row.wallet), {})
                row.crosses = list(_crossed(wallet, row.difference, limits))
    return sorted(rows, key=lambda row: (-abs(row.difference), row.org_id, row.wallet))


def _crossed(wallet: Mapping[str, Any], charged: int, limits: Mapping[str, int]) -> Iterator[str]:
    """What the balance would cross: 0, what is held, the negative limit, the month's allowed limit."""
    settled, available, spent = (wallet[f"{name}_nanos"] for name in ("settled", "available", "month_spent"))
    negative, allowed = limits.get("negative_limit", 0), limits.get("allowed_limit", 0)
    if negative and settled > -negative >= settled - charged:
        yield "the negative limit"
    if allowed and spent < allowed <= spent + charged:
        yield "the month's allowed limit"
    if settled > 0 >= settled - charged:
        yield "used up" if settled == charged else "below 0"
    elif settled <= 0 < settled - charged:
        yield "above 0 again"
    elif available > 0 >= available - charged:
        yield "all that is left is held"
