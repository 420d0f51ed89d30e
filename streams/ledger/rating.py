"""What a usage costs: which prices of the list hold for it, found once and kept (product rules 7-10, 35-39).

Rules of this file:
- `price` says which price matches and wins, `tariff` what comes to be charged by those that won. Here they are found:
  the price list is filed by operation and model, a plan has the prices of one kind of work, and a tariff those of them
  that hold at one time and for one size of request.
- The totals of tokens each have the price of the greatest rank that covers them, unless the greatest of all is for the
  work as a whole. Every other meter has the price of its own.
- A factor changes the price that would hold without it: an org's those of the list, a plan tier's those of the general
  list. Where the org or the tier has a price of its own, the more specific of price and factor counts.
- Input and output tokens: each with the price of its direction. Other units: `quantity_nanos` (nano-units of the
  billing unit), 1 unit when absent; times `replicas` where the unit is a time. Usage priced in tokens without a number
  of tokens, not even 0, is `invalid_field`: it is not booked as free.
- A free price costs 0. Nothing priced is `unknown_price`, never 0.

`PriceList` is immutable in meaning; `plan` remembers what it compiled, at most `PLANS_MAX` of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Final, Protocol

import msgspec

from schemas.amounts import NANOS
from schemas.enums import BillingUnit, DeadLetterCode
from schemas.meters import NAMED_METERS, QUANTITY
from streams.ledger.entry import Component
from streams.ledger.price import (
    ANY_OPERATION,
    ANY_TIER,
    INPUT,
    OUTPUT,
    STANDARD_TIER,
    Overrides,
    Price,
    PriceTier,
    Rank,
    Work,
    could_tie,
    overrides_of,
    rank_of,
)
from streams.ledger.refusals import DeadLetter
from streams.ledger.tariff import NO_TOKENS, NOTHING_COUNTED, Rate, Tariff

__all__ = [
    "ANY_OPERATION",
    "NO_TOKENS",
    "Overrides",
    "Price",
    "PriceList",
    "PriceTier",
    "Rated",
    "RatingPlan",
    "Tariff",
    "Work",
    "could_tie",
    "overrides_of",
    "quantities_of",
    "rate_by",
]

PLANS_MAX: Final = 65_536
"""Compiled plans kept per price list; beyond it all are dropped, and compiled again when needed. A plan is about 2 KiB,
so 128 MiB at most."""

_END_OF_TIME: Final = 2**63 - 1


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
    counted: tuple[tuple[str, int], ...] = ()
    """By price what it used of graduated prices and free quantities, in nano-units of the meter."""
    period: int = 0
    """The month in which that counts (`volume`)."""


class Quantities(Protocol):
    """What a usage says of what was used (`commands.Usage`)."""

    @property
    def input_tokens(self) -> int | None: ...
    @property
    def output_tokens(self) -> int | None: ...
    @property
    def quantity_nanos(self) -> int | None: ...
    @property
    def replicas(self) -> int | None: ...
    @property
    def quantities(self) -> Mapping[str, int]: ...


def quantities_of(usage: Quantities) -> dict[str, int]:
    """What a usage says, in nano-units by meter."""
    said = {meter: count * NANOS for meter in NAMED_METERS if (count := getattr(usage, meter)) is not None}
    said.update(usage.quantities)
    if usage.quantity_nanos is not None:
        said[QUANTITY] = usage.quantity_nanos
    return said


def rate_by(tariff: Tariff, usage: Quantities, used: Mapping[str, int] = NOTHING_COUNTED) -> Rated:
    """Rate one usage; `used`: what its org has used in the period before, in nano-units by price.

    Raises DeadLetter as `Tariff.charge`.
    """
    charge = None
    if _parts(usage) == _NO_PARTS and not usage.quantities:
        charge = tariff.charge_tokens(usage.input_tokens, usage.output_tokens)
    if charge is None:
        charge = tariff.charge(quantities_of(usage), usage.replicas, used)
    return Rated(
        charge.cost,
        tariff.wallet,
        unit_price=tariff.unit_price,
        output_unit_price=tariff.output_unit_price,
        billing_unit=tariff.billing_unit,
        components=charge.components,
        counted=charge.counted,
    )


_parts = attrgetter(*NAMED_METERS[2:])
_NO_PARTS: Final = (None,) * len(NAMED_METERS[2:])


class RatingPlan:
    """All prices of one kind of usage, ready for its events one after the other."""

    __slots__ = ("_current", "_description", "_factors", "_model", "_prices", "_ranks", "thresholds")

    def __init__(self, prices: Iterable[Price], work: Work) -> None:
        """`prices`: those that match but for time and the size of the request."""
        self._description = _describe(work)
        self._model = work.model
        ranked = sorted(prices, key=self._rank, reverse=True)
        self._prices = [price for price in ranked if price.factor_nanos is None]
        self._factors = [price for price in ranked if price.factor_nanos is not None]
        above = {price.input_tokens_above for price in ranked if price.input_tokens_above is not None}
        self.thresholds = sorted(above)
        """Numbers of input tokens above which other prices hold."""
        self._current: list[Tariff | None] = [None] * (len(above) + 1)

    def tariff(self, at: int, input_tokens: int | None = None) -> Tariff:
        """What is in force at `at` for a request of so many tokens. Raises DeadLetter `unknown_price`."""
        bucket = bisect_left(self.thresholds, input_tokens or 0) if self.thresholds else 0
        current = self._current[bucket]
        if current is not None and current.valid_from <= at < current.valid_to:
            return current
        self._current[bucket] = current = self._compile(at, bucket)
        return current

    def _rank(self, price: Price) -> Rank:
        return rank_of(price, self._model)

    def _compile(self, at: int, bucket: int) -> Tariff:
        reached = {None, *self.thresholds[:bucket]}
        valid = [price for price in self._prices if price.valid_at(at) and price.input_tokens_above in reached]
        if not valid:
            raise DeadLetter(DeadLetterCode.UNKNOWN_PRICE, f"there is no price for {self._description} at that time")
        factors = [price for price in self._factors if price.valid_at(at) and price.input_tokens_above in reached]
        chosen = _chosen(valid)
        rates = [self._rate(meter, candidates, factors) for meter, candidates in chosen.items()]
        base = [rate for rate in rates if rate.meter in (INPUT, OUTPUT)]
        if len({rate.price.wallet for rate in base}) > 1:
            raise DeadLetter(
                DeadLetterCode.UNKNOWN_PRICE, f"input and output of {self._description} are priced in different wallets"
            )
        wallet = rates[0].price.wallet
        elsewhere = [rate.meter for rate in rates if rate.price.wallet != wallet]
        here = [rate for rate in rates if rate.price.wallet == wallet]
        return Tariff(here, elsewhere, self._span(at), self._description)

    def _rate(self, meter: str, candidates: Sequence[Price], factors: Sequence[Price]) -> Rate:
        """The price of a meter by the first candidate, or by a factor that goes before it."""
        best = candidates[0]
        for factor in factors:
            level = _level(factor)
            if level < _level(best) or (level == _level(best) and self._rank(factor)[1:5] <= self._rank(best)[1:5]):
                continue
            base = next((price for price in candidates if _level(price) < level), None)
            if base is not None:
                return Rate(meter, base, factor.factor_nanos)
        return Rate(meter, best)

    def _span(self, at: int) -> tuple[int, int]:
        """The time around `at` in which no price begins or ends."""
        prices = (*self._prices, *self._factors)
        edges = {edge for price in prices for edge in (price.valid_from, price.valid_to) if edge is not None}
        begins_at = max((edge for edge in edges if edge <= at), default=-_END_OF_TIME)
        return begins_at, min((edge for edge in edges if edge > at), default=_END_OF_TIME)


def _level(price: Price) -> int:
    """Whose price it is: the list's, a plan tier's, the org's own."""
    return 2 if price.org_id is not None else int(price.tier is not None)


def _chosen(valid: Sequence[Price]) -> dict[str, list[Price]]:
    """Of prices by rank those that price each meter, by rank: totals or the whole work first."""
    chosen: dict[str, list[Price]] = {}
    totals = [price for price in valid if price.of_totals]
    whole = bool(totals) and not totals[0].in_tokens
    if whole:
        chosen[QUANTITY] = [price for price in totals if not price.in_tokens]
    elif totals:
        for total in (INPUT, OUTPUT):
            covering = [price for price in totals if price.covers(total)]
            if covering:
                chosen[total] = covering
    for price in valid:
        if not price.of_totals and price.meter is not None:
            chosen.setdefault(price.meter, []).append(price)
    return chosen


class PriceList:
    """The prices in force, by id. Immutable."""

    __slots__ = ("_by_name", "_plans", "_prefix_lengths", "_prices", "overridden")

    def __init__(self, prices: Iterable[Price] = ()) -> None:
        self._prices: dict[str, Price] = {price.price_id: price for price in prices}
        self._by_name: dict[tuple[str, str | None], list[Price]] = {}
        """By operation and a name of the model; None: any model."""
        lengths: dict[str, set[int]] = {}
        for price in self._prices.values():
            for name in price.names or (None,):
                self._by_name.setdefault((price.operation, name), []).append(price)
                if name is not None and name.endswith("*"):
                    lengths.setdefault(price.operation, set()).add(len(name) - 1)
        self._prefix_lengths = {operation: sorted(found) for operation, found in lengths.items()}
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
            named = Work(*work)
            plan = self._plans[key] = RatingPlan(self._matching(owner, tier, named, overrides), named)
        return plan

    def _matching(
        self, org_id: str | None, tier: str | None, work: Work, overrides: Overrides | None
    ) -> Iterator[Price]:
        """Prices that match but for time, direction and the size of the request."""
        operations = {work.operation or ANY_OPERATION, ANY_OPERATION}
        own = () if overrides is None else overrides.prices.values()
        service_tiers = (work.service_tier or STANDARD_TIER, ANY_TIER)
        for price in (*self._listed(operations, work.model), *own):
            if (
                price.operation in operations
                and price.org_id in (None, org_id)
                and price.tier in (None, tier)
                and price.category in (None, work.category)
                and price.tool in (None, work.tool)
                and price.provider in (None, work.provider)
                and price.tier_of_service in service_tiers
                and price.model_match(work.model) is not None
            ):
                yield price

    def _listed(self, operations: Iterable[str], model: str | None) -> Iterable[Price]:
        """The prices of the list that name one of the operations, and the model by any of its names, or none."""
        found: dict[str, Price] = {}
        for operation in operations:
            names: list[str | None] = [None]
            if model is not None:
                names.append(model)
                names += [
                    f"{model[:length]}*" for length in self._prefix_lengths.get(operation, ()) if length <= len(model)
                ]
            for name in names:
                found.update((price.price_id, price) for price in self._by_name.get((operation, name), ()))
        return found.values()


def _describe(work: Work) -> str:
    named = ((name, value) for name, value in work._asdict().items() if name != "operation")
    dimensions = (f", {name.replace('_', ' ')} {value}" for name, value in named if value is not None)
    return f"operation {work.operation}" + "".join(dimensions)
