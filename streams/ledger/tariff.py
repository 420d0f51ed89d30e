"""What a usage costs by the prices that hold for it: the arithmetic (product rules 8, 10, 35, 38, 39).

Rules of this file:
- Each meter with a price takes its share out of the meters it is part of (`schemas.meters`), the most specific first:
  what is left of a total after its priced parts is charged at the total's price. A part without a price stays in the
  nearest total that has one. So every count is charged once.
- A quantity that has no price, and is part of nothing that has one, is `unknown_price`, and named. Parts that exceed
  their total are `invalid_field`.
- Where the work as a whole is priced (a request, a minute), its tokens are for information.
- Graduated prices and free quantities go by what the org has used in the period before, by price. Packages round the
  quantity of one usage up. A minimum lifts the whole usage.
- The cost is rounded once, half up to a nano-credit. Its components are what it grew by at each of them, rounded in the
  same way; so they add up to it, and each is within a nano-credit of what it would be alone.
- Whole numbers only: a price of one meter unit is a fraction, and all fractions of a tariff have one denominator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from math import lcm
from typing import Final, NamedTuple

from schemas.amounts import AMOUNT_MAX, NANOS, div_half_up
from schemas.enums import BillingUnit, DeadLetterCode
from schemas.meters import METER_UNITS, MINIMUM, NAMED_METERS, QUANTITY, REQUESTS, dimensions_of, is_part_of, totals_of
from streams.ledger.entry import Component
from streams.ledger.price import INPUT, OUTPUT, TIME_UNITS, Price
from streams.ledger.refusals import DeadLetter

NO_TOKENS: Final = "input_tokens: the price is for tokens; say input_tokens, output_tokens or both"

_ORDER: Final = {meter: number for number, meter in enumerate((*NAMED_METERS, QUANTITY))}

NOTHING_COUNTED: Final[Mapping[str, int]] = {}


class Charge(NamedTuple):
    """What a usage costs, and how that came to be."""

    cost: int
    components: tuple[Component, ...]
    counted: tuple[tuple[str, int], ...] = ()
    """By price what it used of graduated prices and free quantities, in nano-units of the meter."""


class Rate:
    """The price of one meter: of the list or the org, times a factor where there is one."""

    __slots__ = (
        "_bounds",
        "_factor",
        "counted",
        "meter",
        "nested",
        "one_price",
        "per",
        "price",
        "rate",
        "scaled",
        "unit_price",
    )

    def __init__(self, meter: str, price: Price, factor_nanos: int | None = None) -> None:
        """`factor_nanos`: what the list's price is multiplied by, in nano-units."""
        self.meter = meter
        self.price = price
        self.per = 1 if meter == QUANTITY else METER_UNITS[price.billing_unit]
        self._factor = factor_nanos
        self.rate = self._rate(price.unit_price_nanos)
        self.unit_price = self._shown(price.unit_price_nanos)
        self.counted = not price.free and bool(price.tiers or price.free_quantity_nanos)
        self.one_price = not self.counted and not price.package_size_nanos and not price.minimum_nanos
        self.nested: tuple[str, ...] = ()
        """The meters of its tariff that are part of this one."""
        self.scaled = 0
        """The price of one of the meter, times the denominator of its tariff."""
        self._bounds: list[tuple[int, int, int]] = []

    def complete(self, tariff: Sequence[Rate], scale: int) -> None:
        """Become one of a tariff, whose prices have the denominator `scale`."""
        self.nested = tuple(rate.meter for rate in tariff if is_part_of(rate.meter, self.meter))
        self.scaled = _times(self.rate, scale)
        price = self.price
        self._bounds = [(price.free_quantity_nanos or 0, 0, 0)]
        for tier in price.tiers:
            ends_at = _ENDLESS if tier.up_to_nanos is None else tier.up_to_nanos
            unit_price = tier.unit_price_nanos
            self._bounds.append((ends_at, _times(self._rate(unit_price), scale), self._shown(unit_price)))

    def _rate(self, unit_price_nanos: int) -> Fraction:
        """Nano-units of the wallet for one of the meter."""
        if self.price.free:
            return Fraction(0)
        factor = Fraction(1) if self._factor is None else Fraction(self._factor, NANOS)
        return Fraction(unit_price_nanos, self.per) * factor

    def _shown(self, unit_price_nanos: int) -> int:
        """The price of a billing unit with its factor, rounded to show it."""
        if self.price.free:
            return 0
        return (
            unit_price_nanos
            if self._factor is None
            else min(div_half_up(unit_price_nanos * self._factor, NANOS), AMOUNT_MAX)
        )

    @property
    def listed(self) -> int:
        """The unit price as it is listed, also where it is free."""
        return self.price.unit_price_nanos if self._factor is None else self.unit_price

    def rates(self) -> Iterator[Fraction]:
        """All prices of one of the meter that it knows."""
        yield self.rate
        for tier in self.price.tiers:
            yield self._rate(tier.unit_price_nanos)

    def billed(self, quantity: int) -> int:
        """The quantity that is charged: whole packages."""
        size = self.price.package_size_nanos
        return quantity if not size else -(-quantity // size) * size

    def segments(self, quantity: int, used: int) -> Iterator[tuple[int, int, int]]:
        """The parts of a quantity with their scaled and their unit price, after `used` in the period."""
        for ends_at, scaled, unit_price in self._bounds if self.counted else ():
            part = min(quantity, ends_at - used)
            if part > 0:
                yield part, scaled, unit_price
                quantity -= part
                used += part
        if quantity:
            yield quantity, self.scaled, self.unit_price


_ENDLESS: Final = 2**127


def _times(rate: Fraction, scale: int) -> int:
    """A fraction times a multiple of its denominator."""
    return rate.numerator * (scale // rate.denominator)


class Tariff:
    """The prices in force for one kind of usage over a span of time: `valid_from <= at < valid_to`."""

    __slots__ = (
        "_covered",
        "_description",
        "_input",
        "_output",
        "_rates",
        "_tokens",
        "billing_unit",
        "by_depth",
        "column_rates",
        "counted",
        "elsewhere",
        "free",
        "linear",
        "output_unit_price",
        "rates",
        "scale",
        "timed",
        "unit_price",
        "valid_from",
        "valid_to",
        "wallet",
        "whole",
    )

    def __init__(
        self, rates: Sequence[Rate], elsewhere: Iterable[str], span: tuple[int, int], description: str
    ) -> None:
        """`rates`: one of each meter, of one wallet, those of the totals or of the whole work first.

        `elsewhere`: meters whose price is in another wallet.
        """
        self.valid_from, self.valid_to = span
        self._description = description
        self._rates = {rate.meter: rate for rate in rates}
        self.elsewhere = frozenset(elsewhere)
        self.whole = self._rates.get(QUANTITY)
        """The price of the work as a whole."""
        self.timed = self.whole is not None and self.whole.price.billing_unit in TIME_UNITS
        self.rates: Sequence[Rate] = sorted(rates, key=lambda rate: (_ORDER.get(rate.meter, len(_ORDER)), rate.meter))
        """In the order in which an entry tells them."""
        self.by_depth: Sequence[Rate] = sorted(rates, key=lambda rate: (-len(dimensions_of(rate.meter)), rate.meter))
        self._covered: dict[str, bool] = {}
        self._input, self._output = self._rates.get(INPUT), self._rates.get(OUTPUT)
        first = rates[0]
        self.wallet = first.price.wallet
        self.billing_unit = first.price.billing_unit
        self.unit_price = first.listed
        self.output_unit_price = None if self._output is None else self._output.listed
        base = [rate for rate in (self.whole, self._input, self._output) if rate is not None]
        self.free = bool(base) and all(rate.price.is_costless for rate in base)
        self.counted = any(rate.counted for rate in rates)
        self.scale = lcm(*(each.denominator for rate in rates for each in rate.rates()))
        """The common denominator of its prices of one meter unit."""
        self.column_rates = [rate for rate in self.rates if rate.meter in _ORDER]
        """Of `rates` those whose quantities have a field of their own in the usage record."""
        self.linear = (
            REQUESTS not in self._rates
            and bool(self.column_rates)
            and all(rate.one_price for rate in self.column_rates)
        )
        """What a usage costs that names no further quantities is a sum of products."""
        for rate in rates:
            rate.complete(self.rates, self.scale)
        self._tokens = self._two_tokens()

    def prices(self, meter: str) -> bool:
        """Whether a quantity has a price, is charged with another one, or is for information."""
        return meter in self._rates or self._is_covered(meter)

    def charge(
        self, quantities: Mapping[str, int], replicas: int | None = None, used: Mapping[str, int] = NOTHING_COUNTED
    ) -> Charge:
        """Nano-units of `wallet`, rounded once, and the components.

        `quantities`: what the usage says, in nano-units by meter. `used`: what the org has used in the period before,
        in nano-units by price. Raises DeadLetter `unknown_price`, `invalid_field`, `amount_out_of_range`.
        """
        said = self._said(quantities, replicas)
        shares = self._shares(said)
        components: list[Component] = []
        counted: list[tuple[str, int]] = []
        numerator, charged, scale = 0, 0, self.scale * NANOS
        lift: Price | None = None
        for rate in self.rates:
            quantity = shares[rate.meter]
            if not quantity:
                continue
            price = rate.price
            if rate.one_price:
                segments: Iterable[tuple[int, int, int]] = ((quantity, rate.scaled, rate.unit_price),)
            else:
                quantity = rate.billed(quantity)
                segments = rate.segments(quantity, used.get(price.price_id, 0))
                if rate.counted:
                    counted.append((price.price_id, quantity))
                if (price.minimum_nanos or 0) > (0 if lift is None else lift.minimum_nanos or 0):
                    lift = price
            if quantity > AMOUNT_MAX:
                raise _too_many(rate.meter)
            for part, scaled, unit_price in segments:
                numerator += part * scaled
                cost = (2 * numerator + scale) // (2 * scale)
                if cost > AMOUNT_MAX:
                    raise _out_of_range(cost)
                components.append(
                    Component(rate.meter, part, unit_price, price.billing_unit, price.price_id, cost - charged)
                )
                charged = cost
        if lift is not None and charged < (lift.minimum_nanos or 0):
            rest = (lift.minimum_nanos or 0) - charged
            components.append(Component(MINIMUM, NANOS, rest, BillingUnit.REQUEST, lift.price_id, rest))
            charged += rest
        return Charge(charged, tuple(components), tuple(counted))

    def _two_tokens(self) -> tuple[Rate, Rate] | None:
        """The prices of input and output, where those are all that counts for usage without parts."""
        if not self.linear or self.whole is not None or self._input is None or self._output is None:
            return None
        return self._input, self._output

    def charge_tokens(self, input_tokens: int | None, output_tokens: int | None) -> Charge | None:
        """What `charge` comes to for a usage that says nothing but its tokens: the commonest, in few steps.

        None: this tariff, or this usage, needs all of them.
        """
        if self._tokens is None or not input_tokens or not output_tokens:
            return None
        first, second = self._tokens
        scale = self.scale
        numerator = input_tokens * first.scaled
        cost = (2 * numerator + scale) // (2 * scale)
        total = (2 * (numerator + output_tokens * second.scaled) + scale) // (2 * scale)
        if total > AMOUNT_MAX or input_tokens > _COUNT_MAX or output_tokens > _COUNT_MAX:
            return None
        one, other = first.price, second.price
        return Charge(
            total,
            (
                Component(INPUT, input_tokens * NANOS, first.unit_price, one.billing_unit, one.price_id, cost),
                Component(
                    OUTPUT, output_tokens * NANOS, second.unit_price, other.billing_unit, other.price_id, total - cost
                ),
            ),
        )

    def _said(self, quantities: Mapping[str, int], replicas: int | None) -> Mapping[str, int]:
        """What is used of every meter; raises DeadLetter where nothing is, or where something has no price."""
        for meter, quantity in quantities.items():
            if quantity and not self.prices(meter):
                raise self._unpriced(meter)
        if len(quantities) > 2:
            _check_parts(quantities)
        said = dict(quantities)
        if REQUESTS in self._rates:
            said.setdefault(REQUESTS, NANOS)
        if self.whole is not None:
            units = said.get(QUANTITY, NANOS)
            said[QUANTITY] = units * replicas if self.timed and replicas is not None else units
        elif not self.free and not any(meter in said for meter in self._rates):
            raise self._nothing_said()
        return said

    def _nothing_said(self) -> DeadLetter:
        """The refusal of a usage that says nothing that has a price."""
        if self._input is not None or self._output is not None:
            return DeadLetter(DeadLetterCode.INVALID_FIELD, NO_TOKENS)
        meters = ", ".join(self._rates)
        return DeadLetter(DeadLetterCode.INVALID_FIELD, f"quantities: the price is for {meters}; say how many")

    def _is_covered(self, meter: str) -> bool:
        """Whether a meter without a price is charged with another one, or is for information."""
        known = self._covered.get(meter)
        if known is None:
            known = self._find_covered(meter)
            if known:  # names that nothing covers come from outside, and are without number
                self._covered[meter] = True
        return known

    def _find_covered(self, meter: str) -> bool:
        if meter in self.elsewhere:
            return False
        if meter == QUANTITY and (self._input is not None or self._output is not None):
            return True
        if self.whole is not None and dimensions_of(meter).get("family") == "tokens":
            return True
        totals = [rate.meter for rate in self.by_depth if is_part_of(meter, rate.meter)]
        return bool(totals) and all(is_part_of(totals[0], total) for total in totals[1:])

    def _unpriced(self, meter: str) -> DeadLetter:
        if meter in self.elsewhere:
            reason = f"{meter} is priced in another wallet than the rest"
        elif any(is_part_of(meter, rate.meter) for rate in self.by_depth):
            reason = f"{meter} is part of several meters that have a price; give it one of its own"
        else:
            reason = f"no price for {meter.replace('_tokens', ' tokens') if meter in (INPUT, OUTPUT) else meter}"
        return DeadLetter(DeadLetterCode.UNKNOWN_PRICE, f"{reason} ({self._description})")

    def _shares(self, said: Mapping[str, int]) -> dict[str, int]:
        """Of each priced meter what is left to charge at its price, after its priced parts have taken theirs."""
        shares: dict[str, int] = {}
        for rate in self.by_depth:
            share = said.get(rate.meter, 0)
            for part in rate.nested:
                share -= shares[part]
            if share < 0:
                raise _exceeded(rate.meter, said, rate.nested)
            shares[rate.meter] = share
        return shares


_COUNT_MAX: Final = AMOUNT_MAX // NANOS


def _too_many(meter: str) -> DeadLetter:
    return DeadLetter(DeadLetterCode.AMOUNT_OUT_OF_RANGE, f"{meter}: more than {_COUNT_MAX} in one usage")


def _out_of_range(cost: int) -> DeadLetter:
    """The refusal of a usage that costs more than an amount can say."""
    return DeadLetter(DeadLetterCode.AMOUNT_OUT_OF_RANGE, f"the usage would cost {cost} nano-units")


def _check_parts(said: Mapping[str, int]) -> None:
    """Raise DeadLetter `invalid_field` for a part that is more than a total that the usage says as well."""
    for part, quantity in said.items():
        for total in totals_of(part):
            if quantity > said.get(total, quantity):
                raise _exceeded(total, said, [part])


def _exceeded(total: str, said: Mapping[str, int], parts: Sequence[str]) -> DeadLetter:
    used = [part for part in parts if said.get(part)]
    of_parts = " and ".join(f"{part} ({_count(said[part])})" for part in used)
    verb = "exceed" if len(used) > 1 else "exceeds"
    whole = _count(said.get(total, 0))
    return DeadLetter(DeadLetterCode.INVALID_FIELD, f"{used[0]}: {of_parts} {verb} {total} ({whole})")


def _count(nanos: int) -> str:
    whole, rest = divmod(nanos, NANOS)
    return f"{whole}.{rest:09d}".rstrip("0") if rest else str(whole)
