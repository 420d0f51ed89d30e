"""What the auditor keeps of an org: everything, in plain lists, with the sums recomputed each time.

Shares nothing with the ledger. Windows and months are counted by the calendar of the org's time zone; a budget or a
month never goes back, whatever the zone is set to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from tests.model.audited_rates import Price

NANOS = 10**9
PACE_DAYS = 7
WEEK_US = 7 * 86_400_000_000
LOW_DEFAULT = 10 * NANOS
KIND_RANK = {"allowance": 0, "promotional": 1, "adjustment": 2, "transferred": 3, "purchased": 4}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Scope = frozenset[tuple[str, str]]
"""The dimensions that something names, such as (`user_id`, `bob`)."""


@dataclass
class Lot:
    """A grant: what it is, what is left of it. `monthly`: made by the wallet's own allowance."""

    name: str
    kind: str
    amount: int
    left: int
    priority: int
    expires_at: int | None
    created: int
    monthly: bool = False
    current: bool = False
    notified: bool = False
    """That it ends in a week has been said, or it is too late to say."""
    over: bool = False
    """Its end has passed: what is left is kept for holds, or goes at once."""

    @property
    def tells_at(self) -> int | None:
        """When to say that it ends in a week: of credits that were there before, and of no month's own allowance."""
        if self.notified or self.monthly or self.over or self.expires_at is None:
            return None
        at = self.expires_at - WEEK_US
        return at if at > self.created else None


@dataclass
class Draw:
    """What one booking took from one lot; `lot` None: from nothing (a debt)."""

    lot: Lot | None
    amount: int


@dataclass
class Rule:
    """A threshold rule and whether its line is crossed."""

    kind: str
    level: int
    crossed: bool = False


@dataclass
class Limit:
    """Alert threshold or allowed limit of the month."""

    level: int | None = None
    crossed: bool = False


@dataclass
class Budget:
    """A budget, the window it is in, and what is spent there."""

    name: str
    scope: Scope
    window: str
    limit: int
    number: int
    since: int
    """Usage from then on is counted in what is spent."""
    spent: int = 0
    crossed: bool = False

    def ends_at(self, zone: str) -> int:
        """When its window does."""
        return window_starts(self.window, self.number + 1, zone)

    def begin(self, number: int, zone: str) -> None:
        """Another window, with nothing spent."""
        self.number, self.spent = number, 0
        self.since = max(self.since, window_starts(self.window, number, zone))


@dataclass
class Hold:
    """An open hold; `left` is what is still set aside."""

    name: str
    left: int
    ends_at: int
    scope: Scope
    kept: list[Draw] = field(default_factory=list)
    """What it keeps of lots that are over, part of `left`."""

    @property
    def open(self) -> int:
        """What lots that are not over must pay."""
        return self.left - sum(piece.amount for piece in self.kept)


@dataclass
class Topup:
    """Auto top-up of a wallet; `in_flight`: the number of the request that has no answer yet."""

    enabled: bool
    threshold: int
    amount: int
    cap: int | None
    backoff: int
    requests: int = 0
    in_flight: int | None = None
    asked: int = 0
    charged: int = 0
    capped: bool = False
    retry_at: int | None = None


@dataclass
class Pace:
    """How fast a wallet is used: the day it is in, the usage of it so far, and of the complete days before."""

    day: int
    today: int = 0
    days: list[int] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        """Neither today nor on the days before was anything used: the end of the day changes nothing."""
        return self.today <= 0 and not any(self.days)

    @property
    def daily(self) -> int:
        """The mean of the complete days, in whole nano-units."""
        return sum(self.days) // len(self.days) if self.days else 0

    def end_day(self) -> None:
        """A day is complete. Of the days before, the last seven count."""
        self.days = [*self.days, max(0, self.today)][-PACE_DAYS:]
        self.day, self.today = self.day + 1, 0


@dataclass
class Wallet:
    """A wallet: its lots, its debt, its holds, its settings, its month."""

    unit: str
    month: int
    lots: list[Lot] = field(default_factory=list)
    debt: int = 0
    used: int = 0
    allocation: int = 0
    added: int = 0
    spent: int = 0
    allowance: int = 0
    rollover_max: int = 0
    low: int = LOW_DEFAULT
    low_credit: int = 0
    negative: int = 0
    granted_month: int = 0
    touched: bool = False
    funded: bool = False
    low_crossed: bool = False
    depleted: bool = False
    negative_crossed: bool = False
    rules: dict[str, Rule] = field(default_factory=dict)
    limits: dict[str, Limit] = field(default_factory=lambda: {"alert_threshold": Limit(), "allowed_limit": Limit()})
    budgets: dict[str, Budget] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    topup: Topup | None = None
    pace: Pace | None = None
    """Kept while a rule asks for days of credit left."""

    @property
    def balance(self) -> int:
        return sum(lot.left for lot in self.lots) - self.debt

    @property
    def held(self) -> int:
        return sum(hold.left for hold in self.holds.values())

    @property
    def available(self) -> int:
        return self.balance - self.held

    @property
    def low_line(self) -> int:
        """Rule 28: the top-up's threshold while it is on."""
        return self.topup.threshold if self.topup is not None and self.topup.enabled else self.low

    @property
    def stopped(self) -> bool:
        """Rule 15: at the negative limit or beyond; 0 is none."""
        return bool(self.negative) and self.balance <= -self.negative

    def order(self) -> list[Lot]:
        """Rule 3, from all that is there."""
        return self.sorted(lot for lot in self.lots if lot.left and not lot.over)

    def loose(self, lot: Lot) -> int:
        """What of a lot that is over no hold keeps."""
        return lot.left - sum(piece.amount for hold in self.holds.values() for piece in hold.kept if piece.lot is lot)

    def cover(self) -> list[tuple[Hold, Lot, int]]:
        """Rule 18: what each hold would be paid from, the oldest first, were they all captured now by the order."""
        left = {id(lot): lot.left for lot in self.order()}
        found = []
        for hold in self.holds.values():
            need = hold.open
            for lot in self.order():
                part = min(need, left[id(lot)])
                if part:
                    found.append((hold, lot, part))
                    need -= part
                    left[id(lot)] -= part
        return found

    def gone(self, at: int) -> int:
        """What is left in lots that end at `at` or ended before, and no hold keeps or covers."""
        covered = sum(part for _, lot, part in self.cover() if lot.expires_at is not None and lot.expires_at <= at)
        ends = sum(lot.left for lot in self.order() if lot.expires_at is not None and lot.expires_at <= at)
        return ends - covered + sum(self.loose(lot) for lot in self.lots if lot.over)

    @staticmethod
    def sorted(lots: Iterable[Lot]) -> list[Lot]:
        """By the order in which they are drawn."""
        return sorted(
            lots,
            key=lambda lot: (
                not lot.current,
                lot.priority,
                lot.expires_at is None,
                lot.expires_at or 0,
                KIND_RANK[lot.kind],
                lot.created,
                lot.name,
            ),
        )

    def turns(self) -> bool:
        """A turn of the month that changes nothing takes no entry."""
        asked = self.topup is not None and (self.topup.charged or self.topup.capped)
        monthly = any(lot.monthly for lot in self.order())
        return bool(self.used or self.allocation != self.balance or self.allowance or monthly or asked)

    def about(self, scope: Scope) -> list[Budget]:
        """The budgets that count what has this scope."""
        return [budget for budget in self.budgets.values() if budget.scope <= scope]


@dataclass
class Usage:
    """A booked usage, for refunds and corrections. `at`: when its latest revision was booked; `first`: the first."""

    unit: str
    at: int
    first: int
    draws: list[Draw]
    scope: Scope
    revision: int = 0
    refunded: int = 0
    counted: dict[str, int] = field(default_factory=dict)
    """By graduated price, in nano-units, in the month `counted_in`."""
    counted_in: int = 0


@dataclass
class Parcel:
    """Credits on the way."""

    source: str
    target: str
    unit: str
    actor: str
    month: int
    pieces: list[Draw]

    @property
    def amount(self) -> int:
        return sum(piece.amount for piece in self.pieces)


@dataclass
class Org:
    """An organisation."""

    zone: str = "UTC"
    closed: bool = False
    set_up: bool = False
    tier: str | None = None
    administrators: tuple[str, ...] = ()
    members: dict[str, str] = field(default_factory=dict)
    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()
    prices: dict[str, Price] = field(default_factory=dict)
    wallets: dict[str, Wallet] = field(default_factory=dict)
    usages: dict[str, Usage] = field(default_factory=dict)
    resolved: set[str] = field(default_factory=set)
    """Holds that were captured or released."""
    counted: Counter[tuple[str, int]] = field(default_factory=Counter)
    """What was used of graduated prices, by price and month."""
    timed_out: dict[str, tuple[Wallet, Hold]] = field(default_factory=dict)
    """Those that time has ended, until their capture is booked, or usage names them."""

    @property
    def known(self) -> bool:
        """Somebody set it up, or it has a wallet or members."""
        return self.set_up or bool(self.wallets) or bool(self.members)

    def hold(self, name: str) -> tuple[Wallet, Hold] | None:
        """The open hold of that name, and its wallet."""
        return next(((wallet, wallet.holds[name]) for wallet in self.wallets.values() if name in wallet.holds), None)

    def budget(self, name: str) -> tuple[Wallet, Budget] | None:
        """The budget of that name, and its wallet."""
        return next(
            ((wallet, wallet.budgets[name]) for wallet in self.wallets.values() if name in wallet.budgets), None
        )

    def holds(self) -> Iterator[tuple[Wallet, Hold]]:
        """Every open hold."""
        return ((wallet, hold) for wallet in self.wallets.values() for hold in wallet.holds.values())


def month_of(at: int, zone: str) -> int:
    """The number of the month that `at` falls in: year * 12 + month."""
    local = _local(at, zone)
    return local.year * 12 + local.month - 1


@lru_cache(maxsize=10_000)
def month_starts(month: int, zone: str) -> int:
    """The instant a month begins."""
    year, number = divmod(month, 12)
    return _instant(datetime(year, number + 1, 1, tzinfo=ZoneInfo(zone)))


def window_of(window: str, at: int, zone: str) -> int:
    """The number of the day, the week (from Monday) or the month of `at`."""
    if window == "month":
        return month_of(at, zone)
    day = _local(at, zone).toordinal()
    return day if window == "day" else (day + 6) // 7


@lru_cache(maxsize=10_000)
def window_starts(window: str, number: int, zone: str) -> int:
    """The instant a window begins. Ordinal 1 is a Monday."""
    if window == "month":
        return month_starts(number, zone)
    first = date.fromordinal(number if window == "day" else number * 7 - 6)
    return _instant(datetime(first.year, first.month, first.day, tzinfo=ZoneInfo(zone)))


def _local(at: int, zone: str) -> datetime:
    return (EPOCH + timedelta(microseconds=at)).astimezone(ZoneInfo(zone))


def _instant(local: datetime) -> int:
    return (local.astimezone(UTC) - EPOCH) // timedelta(microseconds=1)
