"""What usage costs, worked out from product rules 7 to 10 and 35 to 38 with fractions: one rounding, at the end."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

TOKENS = {"token": 1, "1000_tokens": 1_000, "1000000_tokens": 1_000_000}
SEVERAL = TOKENS | {"1000_units": 1_000, "1000000_units": 10**6, "1000000000_units": 10**9}
"""How many of its meter a billing unit is, where it is not one."""
OVER_TIME = ("minute", "hour", "gpu_hour")
NANOS = 10**9

TOTAL_OF = {
    "cache_read_tokens": "input_tokens",
    "cache_write_tokens": "input_tokens",
    "cache_write_1h_tokens": "cache_write_tokens",
    "output_reasoning_tokens": "output_tokens",
}
"""The nearest total of each part that the audited work has."""


@dataclass(frozen=True)
class Price:
    """A price. `own`: of the org, by setting; it goes before every price of the list."""

    name: str
    operation: str
    unit_price: int
    billing_unit: str
    wallet: str
    valid_from: int = 0
    valid_to: int | None = None
    model: str | None = None
    direction: str = "any"
    tier: str | None = None
    free: bool = False
    own: bool = False
    category: str | None = None
    provider: str | None = None
    meter: str | None = None
    service_tier: str | None = None
    above: int = -1
    """Only requests with more input tokens."""
    tiers: tuple[tuple[int, int], ...] = ()
    """Up to so many nano-units of the period this unit price."""
    free_quantity: int = 0
    package: int = 0
    minimum: int = 0

    def fits(self, at: int, work: Work, tier: str | None) -> bool:
        """It is about this work, and in force at `at`."""
        in_force = self.valid_from <= at and (self.valid_to is None or at < self.valid_to)
        about = self.operation in ("*", work.operation) and self._names(work.model)
        where = self.category in (None, work.category) and self.provider in (None, work.provider)
        how = (self.service_tier or "standard") == (work.service_tier or "standard")
        return in_force and about and where and how and self.tier in (None, tier) and work.input_tokens > self.above

    def _names(self, model: str | None) -> bool:
        if self.model is not None and self.model.endswith("*"):
            return model is not None and model.startswith(self.model[:-1])
        return self.model in (None, model)

    @property
    def rank(self) -> tuple[bool, int, int, int]:
        """An org's own price first, then the one that names more, the exact model, the higher threshold."""
        named = (self.model, self.tier, self.category, self.provider, self.meter)
        fields_named = sum(name is not None for name in named) + (self.operation != "*") + (self.direction != "any")
        exact = len(self.model or "") if (self.model or "*").endswith("*") else 999
        return self.own, fields_named, exact, self.above

    @property
    def graduated(self) -> bool:
        """What it costs depends on what was used before."""
        return not self.free and bool(self.tiers or self.free_quantity)

    def of_all(self, quantity: int) -> Fraction:
        """What so many nano-units cost from the beginning of a period."""
        if self.free:
            return Fraction(0)
        cost, begins = Fraction(0), min(quantity, self.free_quantity)
        for up_to, unit_price in (*self.tiers, (quantity, self.unit_price)):
            part = max(0, min(quantity, up_to) - begins)
            cost += Fraction(part * unit_price, NANOS * SEVERAL.get(self.billing_unit, 1))
            begins += part
        return cost


@dataclass(frozen=True)
class Work:
    """What was done. `quantity` in nano-units of the billing unit; None: one."""

    operation: str
    model: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    quantity: int | None = None
    replicas: int | None = None
    category: str | None = None
    provider: str | None = None
    parts: Mapping[str, int] = field(default_factory=dict)
    """Further quantities by meter, in whole units."""
    service_tier: str | None = None


@dataclass(frozen=True)
class Rated:
    """What work costs, in which wallet; of each meter what is charged, and what counts towards graduated prices."""

    cost: int
    unit: str
    charged: dict[str, int]
    counted: dict[str, int]


class Unrated(Exception):  # noqa: N818 - says what the work is
    """The work is a dead letter with this code."""


def rate(
    prices: Iterable[Price], at: int, work: Work, tier: str | None, used: Mapping[str, int] | None = None
) -> Rated:
    """What the work costs; `used`: nano-units that were used before by each graduated price. Raises Unrated."""
    fitting = sorted((price for price in prices if price.fits(at, work, tier)), key=lambda price: price.rank)
    best: dict[str, Price] = {price.meter: price for price in fitting if price.meter}
    totals = [price for price in fitting if price.meter is None]
    if not best and not totals:
        raise Unrated("unknown_price")
    said = {name: count * NANOS for name, count in work.parts.items()}
    counts = {"input_tokens": work.input_tokens * NANOS, "output_tokens": work.output_tokens * NANOS, **said}
    _own_counts(counts)  # also where tokens are not what is priced
    if totals and totals[-1].billing_unit not in TOKENS:
        quantity = NANOS if work.quantity is None else work.quantity
        if totals[-1].billing_unit in OVER_TIME and work.replicas is not None:
            quantity *= work.replicas
        best = {name: price for name, price in best.items() if name not in TOTAL_OF} | {"quantity": totals[-1]}
        said = {name: count for name, count in said.items() if name not in TOTAL_OF} | {"quantity": quantity}
    else:
        for total, direction, count in (
            ("input_tokens", "input", work.input_tokens),
            ("output_tokens", "output", work.output_tokens),
        ):
            said[total] = count * NANOS
            sided = [price for price in totals if price.direction in ("any", direction)]
            if sided:
                best[total] = sided[-1]
    best = _in_one_wallet(best, said)
    return _charge(best, _each_once(said, best), used or {})


def _own_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """What of each count is in none of its parts. The parts of a total add up to it at most, else it is refused."""
    own = dict(counts)
    for name, count in counts.items():
        if TOTAL_OF.get(name) in own:
            own[TOTAL_OF[name]] -= count
        elif name in TOTAL_OF and count:
            raise Unrated("invalid_field")
    if any(count < 0 for count in own.values()):
        raise Unrated("invalid_field")
    return own


def _in_one_wallet(best: Mapping[str, Price], said: Mapping[str, int]) -> dict[str, Price]:
    """The prices in the wallet that pays for the totals; what is used may have no price in another one."""
    totals = [best[name] for name in ("input_tokens", "output_tokens", "quantity") if name in best]
    if len({price.wallet for price in totals}) > 1:
        raise Unrated("unknown_price")
    wallet = (totals or list(best.values()))[0].wallet
    if any(said.get(name) and price.wallet != wallet for name, price in best.items()):
        raise Unrated("unknown_price")
    return {name: price for name, price in best.items() if price.wallet == wallet}


def _each_once(said: Mapping[str, int], best: Mapping[str, Price]) -> dict[str, int]:
    """Every count once, at the nearest meter with a price: what is of no smaller part, from the whole to the parts."""
    own = _own_counts(said)
    placed: dict[str, int] = defaultdict(int)
    for name, count in own.items():
        nearest: str | None = name
        while nearest is not None and nearest not in best:
            nearest = TOTAL_OF.get(nearest)
        if nearest is None and said[name]:
            raise Unrated("unknown_price")
        if nearest is not None:
            placed[nearest] += count
    return placed


def _charge(best: Mapping[str, Price], placed: Mapping[str, int], used: Mapping[str, int]) -> Rated:
    cost, least = Fraction(0), 0
    charged: dict[str, int] = {}
    counted: dict[str, int] = {}
    for name, quantity in placed.items():
        price = best[name]
        if price.package:
            quantity = math.ceil(Fraction(quantity, price.package)) * price.package
        if not quantity:
            continue
        charged[name] = quantity
        least = max(least, price.minimum)
        before = used.get(price.name, 0)
        if price.graduated:
            counted[price.name] = quantity
        # Slowly, but with nothing to get wrong: the price of everything up to a mark, less that of what went before.
        cost += price.of_all(before + quantity) - price.of_all(before)
    unit = next(iter(best.values())).wallet
    return Rated(max(_half_up(cost), least), unit, charged, counted)


def _half_up(amount: Fraction) -> int:
    return (2 * amount.numerator + amount.denominator) // (2 * amount.denominator)
