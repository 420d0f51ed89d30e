"""From what a file offers to records of the price list.

Rules of this file:
- The billing unit is the first in which the price is a whole number of nano-credits. Tokens are priced by the million;
  seconds by the second, minute or hour; these and all else by 1, by the thousand, million or billion.
- A number with 16 or more digits that is no such price may be a decimal that went through a binary fraction
  (2.0000000000000002e-7). It is rounded to 15 digits, which is what a double holds, and listed as noise when it is
  exact then. What is exact in no unit is rounded half up in the largest, and listed.
- A price of 0 is `free`: its quantity is counted and costs nothing.
- The id of a price is made of where it comes from, what it is for and when it begins. So a price that changes is
  another record, and the one before it stays for the usage of its time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Final

from schemas.amounts import AMOUNT_MAX, NANOS, div_half_up
from schemas.enums import BillingUnit
from schemas.events import Price
from schemas.fields import ID_CHARACTERS_MAX
from schemas.meters import dimensions_of
from streams.price_files.offers import Offer, OfferedModel, PriceFileError, Reason

ANY_OPERATION: Final = "*"

DOUBLE_DIGITS: Final = 15
"""So many significant digits survive the way through a double."""

TOKEN_SIZES: Final = ((BillingUnit.MILLION_TOKENS, 10**6),)
SECOND_SIZES: Final = ((BillingUnit.UNIT, 1), (BillingUnit.MINUTE, 60), (BillingUnit.HOUR, 3_600))
UNIT_SIZES: Final = (
    (BillingUnit.UNIT, 1),
    (BillingUnit.THOUSAND_UNITS, 10**3),
    (BillingUnit.MILLION_UNITS, 10**6),
    (BillingUnit.BILLION_UNITS, 10**9),
)

_ROUNDED: Final = Context(prec=DOUBLE_DIGITS)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the importer says of all prices of a file."""

    source: str
    """Where they come from; ids begin with it."""
    wallet: str
    valid_from: int
    """Microseconds. Prices hold from then, or from their own start when that is later."""
    factor: Decimal = Decimal(1)


def price_records(models: Iterable[OfferedModel], terms: Terms) -> list[Price]:
    """The prices of the models that hold at or after `terms.valid_from`; what cannot be exact is noted on its model."""
    return [price for model in models for price in _of_model(model, terms)]


def _of_model(model: OfferedModel, terms: Terms) -> Iterator[Price]:
    if "*" in model.name[:-1]:
        model.note("name", model.name, Reason.NAME)
        return
    for offer in model.offers:
        if offer.valid_to is not None and offer.valid_to <= terms.valid_from:
            continue
        unit, nanos, reason = billed(offer, terms.factor)
        if reason is not None:
            model.note(offer.meter, offer.price, reason)
            if not nanos:
                continue
        valid_from = max(terms.valid_from, offer.valid_from or 0)
        yield Price(
            price_id=price_id(model, offer, terms, valid_from),
            operation=ANY_OPERATION,
            unit_price_nanos=nanos,
            billing_unit=unit,
            wallet=terms.wallet,
            valid_from=valid_from,
            valid_to=offer.valid_to,
            model=model.name,
            aliases=list(model.aliases),
            provider=model.provider if model.names_provider else None,
            free=nanos == 0,
            meter=offer.meter,
            service_tier=offer.service_tier,
            input_tokens_above=offer.input_tokens_above,
        )


def billed(offer: Offer, factor: Decimal = Decimal(1)) -> tuple[BillingUnit, int, Reason | None]:
    """Billing unit, its price in nano-units, and why it is not what is written, if it is not."""
    if dimensions_of(offer.meter).get("family") == "tokens":
        sizes: tuple[tuple[BillingUnit, int], ...] = TOKEN_SIZES
    else:
        sizes = (*SECOND_SIZES, *UNIT_SIZES[1:]) if offer.meter.endswith("seconds") else UNIT_SIZES
    numerator, denominator = (offer.price * factor).as_integer_ratio()
    denominator *= offer.per
    for unit, size in sizes:
        nanos, rest = divmod(numerator * size * NANOS, denominator)
        if not rest and nanos <= AMOUNT_MAX:
            return unit, nanos, None
    if len(offer.price.as_tuple().digits) > DOUBLE_DIGITS:
        times, by = factor.as_integer_ratio()
        for unit, size in sizes:
            top, bottom = _ROUNDED.multiply(offer.price, Decimal(size)).as_integer_ratio()
            nanos, rest = divmod(top * times * NANOS, bottom * by * offer.per)
            if not rest and nanos <= AMOUNT_MAX:
                return unit, nanos, Reason.NOISE
    unit, size = sizes[-1]
    nanos = div_half_up(numerator * size * NANOS, denominator)
    if nanos > AMOUNT_MAX:
        raise PriceFileError(f"{offer.meter}: {offer.price} is beyond what an amount can be")
    return unit, nanos, Reason.TOO_FINE


def price_id(model: OfferedModel, offer: Offer, terms: Terms, valid_from: int) -> str:
    """The id of a price; one that would be too long ends in a digest."""
    parts = [terms.source, *([model.provider or ""] if model.names_provider else []), model.name, offer.meter]
    if offer.service_tier is not None:
        parts.append(offer.service_tier)
    if offer.input_tokens_above is not None:
        parts.append(f">{offer.input_tokens_above}")
    parts += [] if terms.wallet == "USD" else [terms.wallet]
    at = datetime.fromtimestamp(valid_from // 10**6, UTC).strftime("%Y%m%dT%H%M%SZ")
    whole = f"{':'.join(parts)}@{at}"
    if len(whole) <= ID_CHARACTERS_MAX and whole.isprintable():
        return whole
    digest = hashlib.blake2b(whole.encode(), digest_size=12).hexdigest()
    kept = "".join(letter for letter in whole if letter.isprintable())[: ID_CHARACTERS_MAX - len(digest) - len(at) - 2]
    return f"{kept}~{digest}@{at}"
