"""Prices as they are published, and which of two that match wins (product rules 7, 36, 37, 39).

Rules of this file:
- A price matches a usage when every dimension it names is equal, and `valid_from <= occurred_at < valid_to`. A model's
  name may end in `*`: then it is equal to every name that begins so; `aliases` are further names of the model.
- A service tier that is not given is the standard one, in a price as in a usage. A price for the tier `*` holds for
  every tier that has no price of its own. No other price holds for a tier that it does not name.
- The price that wins: an override of the org before every general price; then the one that names more dimensions
  (operation unless `*`, category, model, tool, provider, tier, and the meter or direction); then the exact model before
  the longer prefix before the shorter; then the named service tier before `*`; then the higher `input_tokens_above`.
- `credits prices` publishes none that could tie with another (`could_tie`), and of two that do only the one published
  first is in force (`price_log`). Should two meet here all the same, as a listed price and a setting of one org may,
  the later `valid_from` wins, then the greater `price_id`, so that every worker gives the same answer.
- A factor is no price: it changes the price of the list that would hold without it. It stands in a contest of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from schemas.enums import BillingUnit, Direction
from schemas.meters import TOKENS_PER_UNIT

ANY_OPERATION: Final = "*"

STANDARD_TIER: Final = "standard"
ANY_TIER: Final = "*"

INPUT: Final = "input_tokens"
OUTPUT: Final = "output_tokens"

TIME_UNITS: Final = frozenset({BillingUnit.MINUTE, BillingUnit.HOUR, BillingUnit.GPU_HOUR})

EXACT: Final = 1 << 30
"""How well an exact name matches: better than any prefix."""


class Work(NamedTuple):
    """One kind of usage: the dimensions that a price may name."""

    operation: str
    category: str | None = None
    model: str | None = None
    tool: str | None = None
    provider: str | None = None
    service_tier: str | None = None


class PriceTier(msgspec.Struct, frozen=True):
    """A part of what an org uses in a period, and its price (product rule 38)."""

    up_to_nanos: int | None
    """Where it ends, counted since the period began; None: it does not."""
    unit_price_nanos: int


class Price(msgspec.Struct, frozen=True):
    """One line of the price list: the contract's `price`. Immutable; amounts in nano-units of `wallet`."""

    price_id: str
    operation: str
    unit_price_nanos: int
    billing_unit: BillingUnit
    wallet: str
    valid_from: int
    valid_to: int | None = None
    category: str | None = None
    model: str | None = None
    tool: str | None = None
    provider: str | None = None
    direction: Direction = Direction.ANY
    tier: str | None = None
    free: bool = False
    org_id: str | None = None
    display_name: str | None = None
    meter: str | None = None
    service_tier: str | None = None
    input_tokens_above: int | None = None
    aliases: tuple[str, ...] = ()
    tiers: tuple[PriceTier, ...] = ()
    free_quantity_nanos: int | None = None
    package_size_nanos: int | None = None
    minimum_nanos: int | None = None
    factor_nanos: int | None = None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Price:
        """From a decoded Avro record; raises msgspec.ValidationError for wrong types or unknown values."""
        return msgspec.convert({name: value for name, value in record.items() if value is not None}, cls)

    @property
    def specificity(self) -> int:
        """How many dimensions of usage it names; the org is judged apart."""
        named = (self.category, self.model, self.tool, self.provider, self.tier)
        return (
            sum(value is not None for value in named)
            + (self.operation != ANY_OPERATION)
            + (self.meter is not None or self.direction is not Direction.ANY)
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its model; none: any model."""
        return () if self.model is None else (self.model, *self.aliases)

    @property
    def of_totals(self) -> bool:
        """It prices the totals of tokens, or the work as a whole; not a part of it."""
        return self.meter in (None, INPUT, OUTPUT)

    @property
    def in_tokens(self) -> bool:
        """It prices totals of tokens, rather than the work as a whole."""
        return self.meter is not None or self.billing_unit in TOKENS_PER_UNIT

    @property
    def tier_of_service(self) -> str:
        """The service tier it is for."""
        return self.service_tier or STANDARD_TIER

    @property
    def is_costless(self) -> bool:
        """Nothing is to be paid by it, whatever is used."""
        return self.free or (not self.unit_price_nanos and not self.tiers and not self.minimum_nanos)

    def covers(self, total: str) -> bool:
        """Whether it prices that total of tokens."""
        if self.meter is not None:
            return self.meter == total
        direction = Direction.INPUT if total == INPUT else Direction.OUTPUT
        return self.billing_unit in TOKENS_PER_UNIT and self.direction in (direction, Direction.ANY)

    def valid_at(self, at: int) -> bool:
        return self.valid_from <= at and (self.valid_to is None or at < self.valid_to)

    def model_match(self, model: str | None) -> int | None:
        """How well it matches a usage of that model: `EXACT`, the length of the prefix, -1 when it names none; None:
        it does not match."""
        if self.model is None:
            return -1
        if model is None:
            return None
        if model in self.names:
            return EXACT
        fits = [len(name) for name in self.names if name.endswith("*") and model.startswith(name[:-1])]
        return max(fits, default=None)


class Overrides(msgspec.Struct, array_like=True, frozen=True):
    """Prices of one org by its settings, and a digest of them, which tells plans made with them from others."""

    version: int
    prices: dict[str, Price]


def overrides_of(prices: dict[str, Price]) -> Overrides:
    """The prices with their digest: 64 bits, never 0. Not a number of the ledger, for a batch may be undone."""
    digest = hashlib.blake2b(msgspec.msgpack.encode(prices), digest_size=8).digest()
    return Overrides(int.from_bytes(digest, "big") | 1, prices)


msgspec.json.Decoder(Price)  # see the end of `entry`: prices are read in a thread of their own


Rank = tuple[bool, int, int, bool, int, int, str]
"""Of prices that match one usage the one of the greatest rank wins."""


def rank_of(price: Price, model: str | None) -> Rank:
    """The rank of a price that matches a usage of that model."""
    match = price.model_match(model)
    return (
        price.org_id is not None,
        price.specificity,
        -1 if match is None else match,
        price.tier_of_service != ANY_TIER,
        -1 if price.input_tokens_above is None else price.input_tokens_above,
        price.valid_from,
        price.price_id,
    )


Contest = tuple[str | None, int, str, int | None, str | None]
"""What two prices must share to tie: org, specificity, service tier, threshold, and the meter of a part."""

_FACTOR: Final = "*"
"""Stands for the meter of a factor: it ties with factors only."""


def contest_of(price: Price) -> Contest:
    """The contest that a price is in: only two of one contest could tie."""
    meter = None if price.of_totals else price.meter
    if price.factor_nanos is not None:
        meter = _FACTOR
    return price.org_id, price.specificity, price.tier_of_service, price.input_tokens_above, meter


def could_tie(one: Price, other: Price) -> bool:
    """Whether both could match one usage at one time, and neither be the more specific."""
    if contest_of(one) != contest_of(other):
        return False
    starts = max(one.valid_from, other.valid_from)
    if any(end is not None and end <= starts for end in (one.valid_to, other.valid_to)):
        return False
    operations = {one.operation, other.operation} - {ANY_OPERATION}
    return (
        len(operations) < 2
        and _share_a_total(one, other)
        and (not one.names or not other.names or not set(one.names).isdisjoint(other.names))
        and all(
            mine is None or theirs is None or mine == theirs
            for mine, theirs in (
                (one.category, other.category),
                (one.tool, other.tool),
                (one.provider, other.provider),
                (one.tier, other.tier),
            )
        )
    )


def _share_a_total(one: Price, other: Price) -> bool:
    """Whether one total of tokens, or the work as a whole, could be priced by both."""
    sides = {_side(one), _side(other)} - {Direction.ANY}
    return len(sides) < 2


def _side(price: Price) -> Direction:
    if price.meter == INPUT:
        return Direction.INPUT
    return Direction.OUTPUT if price.meter == OUTPUT else price.direction
