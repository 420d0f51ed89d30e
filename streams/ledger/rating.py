"""What a usage costs: the price list, and the arithmetic (product rules 7-10).

Rules of this file:
- A price matches a usage when every dimension it names is equal, and `valid_from <= occurred_at < valid_to`.
- An override of the org beats every general price. Among the rest, the price that names more dimensions wins
  (operation unless `*`, category, model, tool, provider, tier, direction unless `any`). `credits prices` publishes none
  that could tie with another (`could_tie`), and of two that do only the one published first is in force (`price_log`).
  Should two meet here all the same, as a listed price and a setting of one org may, the later `valid_from` wins, then
  the greater `price_id`, so that every worker gives the same answer.
- Token units: input and output tokens, each with the price of its direction. Other units: `quantity_nanos` (nano-units
  of the billing unit), 1 unit when absent; times `replicas` where the unit is a time.
  Usage priced in tokens without a number of tokens, not even 0, is `invalid_field`: it is not booked as free.
- The cost is rounded once, half up to a nano-credit. A free price costs 0. Nothing priced is `unknown_price`, never 0.

`PriceList` is immutable in meaning; `plan` remembers what it compiled, at most `PLANS_MAX` of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from schemas.amounts import AMOUNT_MAX, NANOS, div_half_up
from schemas.enums import BillingUnit, DeadLetterCode, Direction
from streams.ledger.entry import Component
from streams.ledger.refusals import DeadLetter

PLANS_MAX = 65_536
"""Compiled plans kept per price list; beyond it all are dropped, and compiled again when needed. A plan is about 1 KiB,
so 64 MiB at most."""

ANY_OPERATION = "*"

TOKENS_PER_UNIT = {
    BillingUnit.TOKEN: 1,
    BillingUnit.THOUSAND_TOKENS: 1_000,
    BillingUnit.MILLION_TOKENS: 1_000_000,
}
TIME_UNITS = frozenset({BillingUnit.MINUTE, BillingUnit.HOUR, BillingUnit.GPU_HOUR})

NO_TOKENS = "input_tokens: the price is for tokens; say input_tokens, output_tokens or both"

_TOKEN_SCALE = 1_000_000
"""Common denominator of the token units, so that input and output are added before the one rounding."""

_HALF_SCALE = _TOKEN_SCALE // 2
"""Added before the division, it rounds half up; the scale is even."""

_END_OF_TIME = 2**63 - 1


class Work(NamedTuple):
    """One kind of usage: the dimensions that a price may name."""

    operation: str
    category: str | None = None
    model: str | None = None
    tool: str | None = None
    provider: str | None = None


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
            + (self.direction is not Direction.ANY)
        )

    @property
    def in_tokens(self) -> bool:
        return self.billing_unit in TOKENS_PER_UNIT

    def valid_at(self, at: int) -> bool:
        return self.valid_from <= at and (self.valid_to is None or at < self.valid_to)


class Overrides(msgspec.Struct, array_like=True, frozen=True):
    """Prices of one org by its settings, and a digest of them, which tells plans made with them from others."""

    version: int
    prices: dict[str, Price]


def overrides_of(prices: dict[str, Price]) -> Overrides:
    """The prices with their digest: 64 bits, never 0. Not a number of the ledger, for a batch may be undone."""
    digest = hashlib.blake2b(msgspec.msgpack.encode(prices), digest_size=8).digest()
    return Overrides(int.from_bytes(digest, "big") | 1, prices)


msgspec.json.Decoder(Price)  # see the end of `entry`: prices are read in a thread of their own


class Rated(msgspec.Struct, frozen=True, gc=False):
    """What a usage costs, and by which price. Amounts in nano-units of `wallet`."""

    cost: int
    wallet: str
    unit_price: int | None = None
    """Of one billing unit; of the input tokens where the directions differ. None: rated upstream."""
    output_unit_price: int | None = None
    billing_unit: BillingUnit | None = None
    components: tuple[Component, ...] = ()
    """How the cost came to be: they add up to it. None: rated upstream."""


class Tariff:
    """The price that is in force for one kind of usage over a span of time: `valid_from <= at < valid_to`."""

    __slots__ = (
        "_input_scaled",
        "_output_scaled",
        "_per_replica",
        "_tokens",
        "billing_unit",
        "free",
        "output_unit_price",
        "unit_price",
        "valid_from",
        "valid_to",
        "wallet",
    )

    def __init__(self, input_price: Price | None, output_price: Price | None, valid_from: int, valid_to: int) -> None:
        """Both prices are one and the same where the unit is not tokens; one of them may be None where it is."""
        price = input_price or output_price
        assert price is not None
        self.valid_from = valid_from
        self.valid_to = valid_to
        self.wallet = price.wallet
        self.billing_unit = price.billing_unit
        self.unit_price = price.unit_price_nanos
        self.output_unit_price = output_price.unit_price_nanos if output_price is not None and price.in_tokens else None
        self.free = all(side is None or side.free for side in (input_price, output_price))
        self._tokens = price.in_tokens
        self._per_replica = price.billing_unit in TIME_UNITS
        self._input_scaled = _scaled(input_price)
        self._output_scaled = _scaled(output_price)

    def cost(
        self, input_tokens: int | None, output_tokens: int | None, quantity: int | None, replicas: int | None
    ) -> int:
        """Nano-units of `wallet`, rounded once.

        Raises DeadLetter `unknown_price`, `amount_out_of_range`, and `invalid_field` where tokens are priced and none
        are said.
        """
        if self._tokens:
            numerator = 0
            if input_tokens:
                if self._input_scaled is None:
                    raise DeadLetter(DeadLetterCode.UNKNOWN_PRICE, "no price for input tokens")
                numerator = input_tokens * self._input_scaled
            if output_tokens:
                if self._output_scaled is None:
                    raise DeadLetter(DeadLetterCode.UNKNOWN_PRICE, "no price for output tokens")
                numerator += output_tokens * self._output_scaled
            if not numerator and input_tokens is None and output_tokens is None and not self.free:
                raise DeadLetter(DeadLetterCode.INVALID_FIELD, NO_TOKENS)
            cost = (numerator + _HALF_SCALE) // _TOKEN_SCALE
        elif self.free:
            return 0
        else:
            units = NANOS if quantity is None else quantity
            if self._per_replica and replicas is not None:
                units *= replicas
            cost = div_half_up(units * self.unit_price, NANOS)
        if cost > AMOUNT_MAX:
            raise DeadLetter(DeadLetterCode.AMOUNT_OUT_OF_RANGE, f"the usage would cost {cost} nano-units")
        return cost


def _scaled(price: Price | None) -> int | None:
    """Price of one token times the common denominator; None where there is no price or its unit is not tokens."""
    if price is None or not price.in_tokens:
        return None
    return 0 if price.free else price.unit_price_nanos * (_TOKEN_SCALE // TOKENS_PER_UNIT[price.billing_unit])


class RatingPlan:
    """All prices of one kind of usage, ready for its events one after the other."""

    __slots__ = ("_current", "_description", "_prices")

    def __init__(self, prices: tuple[Price, ...], description: str) -> None:
        """`prices`: those that match but for time, the winning ones first."""
        self._prices = prices
        self._description = description
        self._current: Tariff | None = None

    def tariff(self, at: int) -> Tariff:
        """What is in force at `at`. Raises DeadLetter `unknown_price`."""
        current = self._current
        if current is not None and current.valid_from <= at < current.valid_to:
            return current
        self._current = current = self._compile(at)
        return current

    def cost(
        self,
        at: int,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        quantity: int | None = None,
        replicas: int | None = None,
    ) -> Rated:
        """Rate one usage that occurred at `at`. Raises DeadLetter as `Tariff.cost`, and where nothing is in force."""
        tariff = self._current
        if tariff is None or not tariff.valid_from <= at < tariff.valid_to:
            tariff = self.tariff(at)
        return Rated(
            tariff.cost(input_tokens, output_tokens, quantity, replicas),
            tariff.wallet,
            tariff.unit_price,
            tariff.output_unit_price,
            tariff.billing_unit,
            components=(),
        )

    def _compile(self, at: int) -> Tariff:
        valid = [price for price in self._prices if price.valid_at(at)]
        if not valid:
            raise DeadLetter(DeadLetterCode.UNKNOWN_PRICE, f"there is no price for {self._description} at that time")
        best = valid[0]
        edges = {edge for price in self._prices for edge in (price.valid_from, price.valid_to) if edge is not None}
        valid_from = max((edge for edge in edges if edge <= at), default=-_END_OF_TIME)
        valid_to = min((edge for edge in edges if edge > at), default=_END_OF_TIME)
        if not best.in_tokens:
            return Tariff(best, best, valid_from, valid_to)
        tokens = [price for price in valid if price.in_tokens]
        sides = [
            next((price for price in tokens if price.direction in (direction, Direction.ANY)), None)
            for direction in (Direction.INPUT, Direction.OUTPUT)
        ]
        if len({side.wallet for side in sides if side is not None}) > 1:
            raise DeadLetter(
                DeadLetterCode.UNKNOWN_PRICE, f"input and output of {self._description} are priced in different wallets"
            )
        return Tariff(sides[0], sides[1], valid_from, valid_to)


class PriceList:
    """The prices in force, by id. Immutable."""

    __slots__ = ("_by_operation", "_plans", "_prices", "overridden")

    def __init__(self, prices: Iterable[Price] = ()) -> None:
        self._prices: dict[str, Price] = {price.price_id: price for price in prices}
        self._by_operation: dict[str, list[Price]] = {}
        for price in self._prices.values():
            self._by_operation.setdefault(price.operation, []).append(price)
        self.overridden = frozenset(price.org_id for price in self._prices.values() if price.org_id is not None)
        """Orgs that have prices of their own."""
        self._plans: dict[tuple[str | None, int, str | None, Work], RatingPlan] = {}

    def __len__(self) -> int:
        return len(self._prices)

    def __iter__(self) -> Iterator[Price]:
        return iter(self._prices.values())

    def plan(self, org_id: str, tier: str | None, work: Work, overrides: Overrides | None = None) -> RatingPlan:
        """The prices of one kind of usage; remembered, so that asking again is one look-up.

        `overrides`: the org's own prices by setting (`Account.overrides`); they go before those of the list as any
        price of the org does.
        """
        owner, version = None, 0
        if overrides is not None:
            owner, version = org_id, overrides.version
        elif org_id in self.overridden:
            owner = org_id
        key = (owner, version, tier, work)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            matching = self._matching(owner, tier, Work(*work), overrides)
            plan = self._plans[key] = RatingPlan(matching, _describe(Work(*work)))
        return plan

    def _matching(
        self, org_id: str | None, tier: str | None, work: Work, overrides: Overrides | None
    ) -> tuple[Price, ...]:
        """Prices that match but for time and direction, the winning ones first."""
        operations = {work.operation or ANY_OPERATION, ANY_OPERATION}
        listed = [price for name in operations for price in self._by_operation.get(name, ())]
        if overrides is not None:
            listed += [price for price in overrides.prices.values() if price.operation in operations]
        found = [
            price
            for price in listed
            if price.org_id in (None, org_id)
            and price.tier in (None, tier)
            and price.category in (None, work.category)
            and price.model in (None, work.model)
            and price.tool in (None, work.tool)
            and price.provider in (None, work.provider)
        ]
        found.sort(key=_rank, reverse=True)
        return tuple(found)


def _rank(price: Price) -> tuple[bool, int, int, str]:
    return (price.org_id is not None, price.specificity, price.valid_from, price.price_id)


def could_tie(one: Price, other: Price) -> bool:
    """Whether both could match one usage at one time, and neither be the more specific."""
    if one.org_id != other.org_id or one.specificity != other.specificity:
        return False
    starts = max(one.valid_from, other.valid_from)
    if any(end is not None and end <= starts for end in (one.valid_to, other.valid_to)):
        return False
    operations = {one.operation, other.operation} - {ANY_OPERATION}
    directions = {one.direction, other.direction} - {Direction.ANY}
    return (
        len(operations) < 2
        and len(directions) < 2
        and all(
            mine is None or theirs is None or mine == theirs
            for mine, theirs in (
                (one.category, other.category),
                (one.model, other.model),
                (one.tool, other.tool),
                (one.provider, other.provider),
                (one.tier, other.tier),
            )
        )
    )


def _describe(work: Work) -> str:
    named = ((name, value) for name, value in work._asdict().items() if name != "operation")
    return f"operation {work.operation}" + "".join(f", {name} {value}" for name, value in named if value is not None)
