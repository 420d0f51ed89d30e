"""How fast a wallet is used up, for rules on days of credit left (product rule 26).

Rules of this file:
- The rate is the mean usage of the last complete days in the org's time zone, up to `DAYS_MAX`. It is made of usage
  alone, so purchases and allowances do not distort it; within a day it does not change.
- When a day ends an entry says so, and the rules are judged by the new rate; after `DAYS_MAX` days without usage no
  more entries are made, until there is usage again.
- A wallet is followed from when a rule first asks for it; its first rate is that of the month so far.
"""

from __future__ import annotations

from schemas.enums import BudgetWindow
from streams.ledger.account import Burn, Wallet
from streams.ledger.windows import window_of, window_starts_at

DAYS_MAX = 7
"""Complete days that the rate is the mean of: a week, so that week-ends weigh as they do."""

_DAY = BudgetWindow.DAY


def follow(wallet: Wallet, time_zone: str, at: int, month_started_at: int) -> Burn:
    """Begin to follow a wallet at `at`."""
    day = window_of(_DAY, at, time_zone)
    elapsed = max(1, day - window_of(_DAY, month_started_at, time_zone))
    so_far = wallet.used // elapsed
    return Burn(day, window_starts_at(_DAY, day + 1, time_zone), wallet.used, [so_far] if so_far > 0 else [])


def rate(burn: Burn | None) -> int:
    """Nano-units a day, rounded down; 0: nothing is used, or no rule needs the rate."""
    return sum(burn.days) // len(burn.days) if burn is not None and burn.days else 0


def idle(wallet: Wallet, burn: Burn) -> bool:
    """No usage today nor on the days before: the end of the day changes nothing."""
    return wallet.used <= burn.mark and not any(burn.days)


def enter_day(wallet: Wallet, time_zone: str, at: int) -> None:
    """Move an idle wallet's day on to that of `at`; a day with something to it ends by its entry."""
    burn = wallet.burn
    if burn is not None and at >= burn.ends_at and idle(wallet, burn):
        burn.days = []
        burn.mark = wallet.used
        _begin(burn, window_of(_DAY, at, time_zone), time_zone)


def end_day(wallet: Wallet, time_zone: str) -> None:
    """The fold of a day's end."""
    burn = wallet.burn
    assert burn is not None
    burn.days = [*burn.days, max(0, wallet.used - burn.mark)][-DAYS_MAX:]
    burn.mark = wallet.used
    _begin(burn, burn.day + 1, time_zone)


def change_day_zone(wallet: Wallet, time_zone: str) -> None:
    """Let the day end by the org's new time zone."""
    if wallet.burn is not None:
        _begin(wallet.burn, wallet.burn.day, time_zone)


def _begin(burn: Burn, day: int, time_zone: str) -> None:
    burn.day = day
    burn.ends_at = window_starts_at(_DAY, day + 1, time_zone)
