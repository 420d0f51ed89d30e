"""What a price file offers, in one form for all of them: prices, and what cannot be expressed.

Rules of this file:
- An `Offer` is a price of so many of a meter, both exact; amounts are in units of the wallet.
- `Problem` is what a file says that the price list has no form for. A model without one is expressed whole.
- A `Remark` does not make a model less than whole: the same price again in another currency, or a number that carries
  the noise of binary fractions and is read as the decimal it stands for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple


class Reason(StrEnum):
    """Why something in a file is not, or not as it is written, a price of the list."""

    TOO_FINE = "rounded: finer than a nano-credit of the largest billing unit"
    TIME_OF_DAY = "holds for a part of each day"
    NUMBER_OF_RESULTS = "depends on the number of results"
    LENGTH_OF_CLIP = "depends on the length of a clip"
    NO_METER = "a part of the tokens that no meter is for"
    SEVERAL_CONDITIONS = "depends on several conditions at once"
    UNKNOWN_FIELD = "a field that is not known"
    NOT_A_PRICE = "not a number from 0"
    TWO_PRICES = "two fields give one quantity two prices"
    TAKEN = "another model of the file has the name"
    NAME = "a name with a * inside it"
    PATTERN = "a pattern of names that is not a prefix"
    SMALLEST_CHARGE = "a least quantity for each request"
    NOISE = "noise of a binary fraction, read as the decimal it stands for"
    OTHER_CURRENCY = "the same price in another currency"


REMARKS = frozenset({Reason.NOISE, Reason.OTHER_CURRENCY, Reason.PATTERN, Reason.TAKEN})
"""Reasons that leave the prices of a model whole: the first two repeat a price, the others are about further names."""


class Problem(NamedTuple):
    """Something in a file, where it stands, and why it is not a price as it is written."""

    model: str
    field: str
    value: str
    reason: Reason


class Offer(NamedTuple):
    """One price as a file has it: `price` for `per` of the meter."""

    meter: str
    price: Decimal
    per: int = 1
    service_tier: str | None = None
    """None: the standard one."""
    input_tokens_above: int | None = None
    valid_from: int | None = None
    """Microseconds; None: since ever."""
    valid_to: int | None = None


@dataclass(slots=True)
class OfferedModel:
    """A model of a file, with its prices."""

    name: str
    provider: str | None
    """As the file calls who offers it."""
    aliases: tuple[str, ...] = ()
    """Further names; a `*` at the end stands for any rest."""
    names_provider: bool = False
    """The prices are for usage that names this provider: the same name may be another provider's too."""
    offers: list[Offer] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Everything that the file says of its prices is in `offers`."""
        return all(each.reason in REMARKS for each in self.problems)

    def add(self, offer: Offer) -> bool:
        """Add a price unless its place is taken; False when another price has it."""
        for other in self.offers:
            if other._replace(price=offer.price, per=offer.per) == offer:
                return other.price * offer.per == offer.price * other.per
        self.offers.append(offer)
        return True

    def note(self, field_name: str, value: object, reason: Reason) -> None:
        self.problems.append(Problem(self.name, field_name, str(value), reason))


class PriceFileError(ValueError):
    """A file that is not what it is said to be."""


def fill_tiers(model: OfferedModel) -> None:
    """Give each service tier of a model the standard price of what it has no price of its own for.

    So both files mean it: a tier lists what it prices differently. A tier of which they name nothing stays unknown, and
    usage of it is refused by name (product rule 36).
    """
    tiers = {offer.service_tier for offer in model.offers if offer.service_tier is not None}
    standard = [offer for offer in model.offers if offer.service_tier is None]
    for tier in sorted(tiers):
        own = {offer.meter for offer in model.offers if offer.service_tier == tier}
        model.offers += [offer._replace(service_tier=tier) for offer in standard if offer.meter not in own]


def counted(problems: Iterable[Problem]) -> list[tuple[Reason, int, Sequence[str]]]:
    """The reasons, each with how often it stands and a few of the models, the commonest first."""
    found = list(problems)
    numbers = Counter(problem.reason for problem in found)
    return [
        (reason, number, list(dict.fromkeys(each.model for each in found if each.reason is reason))[:3])
        for reason, number in numbers.most_common()
    ]
