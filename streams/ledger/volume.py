"""What an org has used of graduated prices and free quantities in a period (product rule 38).

Rules of this file:
- Each price counts for itself, per org and calendar month in the org's time zone: the quantity that was charged by it,
  free quantities included. A usage counts in the month in which it is recorded.
- The entry of a usage says what it counted and in which month (`UsageDetails`), so that the fold needs no price list.
- A void and an amendment take back what the usage counted, a refund as large a part of it as of the cost. That happens
  in the month in which it counted, as long as this is the current one or the one before; after that nothing depends on
  it. An amendment is rated in that month, too.
- A new time zone never turns a month back.
- An org has at most `COUNTERS_MAX` of them. Those of the months before the last one make room.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from schemas.enums import DeadLetterCode
from streams.ledger.account import Account, CorrectedUsage, Counter
from streams.ledger.months import month_of
from streams.ledger.refusals import DeadLetter

COUNTERS_MAX: Final = 1_024
"""Graduated prices that an org uses within two months, about 50 bytes each; with the longest ids 0.5 MiB. Usage by one
more is a dead letter: it can be replayed."""

_COUNTER_BYTES: Final = 64
"""What a counter takes beside its id."""


class UsageDetails(msgspec.Struct, frozen=True):
    """`details` of a usage that counts towards graduated prices or free quantities."""

    counted_nanos: dict[str, int]
    """By price the quantity, in nano-units of its meter."""
    period: int
    """The month in which it counts (`months.month_of`)."""


def usage_details(counted: Iterable[tuple[str, int]], period: int) -> str:
    """The `details` of such a usage."""
    return msgspec.json.encode(UsageDetails(dict(counted), period)).decode()


def period_at(account: Account, at: int) -> int:
    """The month in which usage counts that is recorded at `at`."""
    latest = max((counter.period for counter in account.counters.values()), default=0)
    return max(month_of(at, account.time_zone), latest)


def used_in(account: Account, period: int, booked: CorrectedUsage | None = None) -> dict[str, int]:
    """What was used in a month, by price; less what a usage counted that is to be replaced."""
    used = {price_id: _used(counter, period) for price_id, counter in account.counters.items()}
    if booked is not None and booked.period == period:
        for price_id, quantity in booked.counted.items():
            used[price_id] = max(0, used.get(price_id, 0) - quantity)
    return used


def _used(counter: Counter, period: int) -> int:
    if counter.period == period:
        return counter.used
    return counter.used_before if counter.period == period + 1 else 0


def check_countable(account: Account, counted: Iterable[tuple[str, int]], period: int) -> None:
    """Raise DeadLetter `invalid_field` when the org would have too many counters."""
    new = sum(price_id not in account.counters for price_id, _ in counted)
    kept = sum(counter.period >= period - 1 for counter in account.counters.values())
    if new and kept + new > COUNTERS_MAX:
        message = f"an organisation uses at most {COUNTERS_MAX} graduated prices in two months"
        raise DeadLetter(DeadLetterCode.INVALID_FIELD, f"model: {message}")


def count(account: Account, counted: Mapping[str, int], period: int) -> None:
    """The fold of what a usage counts; below 0: it is taken back."""
    for price_id, quantity in counted.items():
        counter = account.counters.get(price_id)
        if counter is None:
            if quantity <= 0:
                continue
            _make_room(account, period)
            counter = account.counters[price_id] = Counter(period)
            account.size_bound_bytes += len(price_id.encode()) + _COUNTER_BYTES
        if counter.period < period:
            counter.used_before = counter.used if counter.period == period - 1 else 0
            counter.period, counter.used = period, 0
        if counter.period == period:
            counter.used = max(0, counter.used + quantity)
        elif counter.period == period + 1:
            counter.used_before = max(0, counter.used_before + quantity)


def _make_room(account: Account, period: int) -> None:
    if len(account.counters) >= COUNTERS_MAX:
        for price_id in [key for key, counter in account.counters.items() if counter.period < period - 1]:
            del account.counters[price_id]


def count_entry(account: Account, details: str | None) -> None:
    """The fold of the `details` of a usage."""
    if details is not None:
        counts = msgspec.json.decode(details, type=UsageDetails)
        count(account, counts.counted_nanos, counts.period)


def share_of(counted: Mapping[str, int], cost: int, so_far: int, amount: int) -> dict[str, int]:
    """What the next `amount` of a usage's `cost` takes back of what it counted, after `so_far`; partial ones add up."""
    if not cost:
        return dict(counted) if not amount else {}
    return {
        price_id: quantity * (so_far + amount) // cost - quantity * so_far // cost
        for price_id, quantity in counted.items()
    }
