"""What usage costs, worked out from product rules 7 to 10 with fractions: one rounding, half up, at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

TOKENS = {"token": 1, "1000_tokens": 1_000, "1000000_tokens": 1_000_000}
OVER_TIME = ("minute", "hour", "gpu_hour")
NANOS = 10**9


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

    def fits(self, at: int, work: Work, tier: str | None) -> bool:
        """It is about this work, and in force at `at`."""
        in_force = self.valid_from <= at and (self.valid_to is None or at < self.valid_to)
        about = self.operation in ("*", work.operation) and self.model in (None, work.model)
        where = self.category in (None, work.category) and self.provider in (None, work.provider)
        return in_force and about and where and self.tier in (None, tier)

    @property
    def rank(self) -> tuple[bool, int]:
        """An org's own price first, then the one that names more."""
        named = (self.model, self.tier, self.category, self.provider)
        fields_named = sum(name is not None for name in named) + (self.operation != "*") + (self.direction != "any")
        return self.own, fields_named


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


def rate(prices: Iterable[Price], at: int, work: Work, tier: str | None) -> tuple[int, str] | None:
    """Cost and wallet; None: nobody priced it."""
    fitting = sorted((price for price in prices if price.fits(at, work, tier)), key=lambda price: price.rank)
    if not fitting:
        return None
    best = fitting[-1]
    if best.billing_unit not in TOKENS:
        amount = Fraction(NANOS if work.quantity is None else work.quantity, NANOS)
        if best.billing_unit in OVER_TIME and work.replicas is not None:
            amount *= work.replicas
        return (0 if best.free else _half_up(amount * best.unit_price)), best.wallet
    cost = Fraction(0)
    for direction, tokens in (("input", work.input_tokens), ("output", work.output_tokens)):
        sided = [price for price in fitting if price.billing_unit in TOKENS and price.direction in ("any", direction)]
        if tokens and not sided:
            return None
        if tokens and not sided[-1].free:
            cost += Fraction(tokens * sided[-1].unit_price, TOKENS[sided[-1].billing_unit])
    return _half_up(cost), best.wallet


def _half_up(amount: Fraction) -> int:
    return (2 * amount.numerator + amount.denominator) // (2 * amount.denominator)
