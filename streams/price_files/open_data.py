"""The open price data set genai-prices, where its package is installed (`pip install genai-prices`).

Rules of this file:
- Prices of a model begin and end with the dates that the data set gives them. Which price holds in between is asked of
  the data set itself (`ModelInfo.get_prices`), at the start of each stretch.
- Its context (`service_tier`, `processing`, `speed`, `route`, `search_type`) is the service tier, named by its value. A
  tier has every price of the model, those that it does not change as well, as the data set says. Before the date of a
  variant there is no such tier: the data set would take the standard price, the ledger refuses the tier by name.
- A model has its id as name, and what it matches by equality or prefix as aliases. Other patterns are listed.
- Its prices are for usage that names the provider, by the data set's id: many models have several.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from streams.price_files.offers import Offer, OfferedModel, PriceFileError, Reason

if TYPE_CHECKING:
    from genai_prices.types import MatchLogic, ModelInfo, ModelPrice, Provider

ALIASES_MAX: Final = 64
"""As many as a price may have (`schemas.events.ALIASES_MAX`)."""

STANDARD: Final = "default"
"""What the data set's contexts call the standard tier."""

SMALLEST_CHARGES: Final = {("groq", "whisper-large-v3"), ("groq", "whisper-large-v3-turbo")}
"""Models of which the data set charges 10 seconds at least, by a rule in its code."""

_LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def read_open_data() -> list[OfferedModel]:
    """The priced models of the data set that is installed. Raises `PriceFileError` where none is."""
    try:
        from genai_prices.data import providers
    except ImportError as error:
        raise PriceFileError("the package genai-prices is not installed") from error
    return [model for provider in providers for model in read_provider(provider)]


def read_provider(provider: Provider) -> Iterator[OfferedModel]:
    """The models of one provider, in its order; a name is the first model's that has it."""
    taken = {info.id.lower() for info in provider.models}
    for info in provider.models:
        model = OfferedModel(info.id, provider.id, names_provider=True)
        names: list[str] = []
        for name in _names(model, info.match):
            if name == info.id.lower() or name in names:
                continue
            if name in taken or len(names) == ALIASES_MAX:
                model.note("match", name, Reason.TAKEN)
            else:
                names.append(name)
        taken.update(names)
        model.aliases = tuple(names)
        _read_prices(model, info)
        if (provider.id, info.id) in SMALLEST_CHARGES:
            model.note("prices", "10 seconds at least", Reason.SMALLEST_CHARGE)
        if model.offers or model.problems:
            yield model


def _names(model: OfferedModel, match: MatchLogic) -> Iterator[str]:
    """The names that a clause accepts, prefixes with a `*`; what is neither is noted."""
    from genai_prices.types import ClauseEquals, ClauseOr, ClauseStartsWith

    if isinstance(match, ClauseOr):
        for clause in match.or_:
            yield from _names(model, clause)
    elif isinstance(match, ClauseEquals):
        yield match.equals.lower()
    elif isinstance(match, ClauseStartsWith):
        yield f"{match.starts_with.lower()}*"
    else:
        model.note("match", match, Reason.PATTERN)


def _read_prices(model: OfferedModel, info: ModelInfo) -> None:
    """All prices of a model, in each stretch of time and in each tier."""
    from genai_prices.types import StartDateConstraint, TimeOfDateConstraint

    if isinstance(info.prices, list):
        for each in info.prices:
            if isinstance(each.constraint, TimeOfDateConstraint):
                model.note("prices", each.constraint, Reason.TIME_OF_DAY)
        steady = [each for each in info.prices if not isinstance(each.constraint, TimeOfDateConstraint)]
        info = dataclasses.replace(info, prices=steady)
    variants = info.price_variants or []
    limits = [each.constraint for each in (info.prices if isinstance(info.prices, list) else [])]
    limits += [each.constraint for each in variants]
    starts = sorted({each.start_date for each in limits if isinstance(each, StartDateConstraint)})
    for since, until in itertools.pairwise([None, *starts, None]):
        at = _LONG_AGO if since is None else _midnight(since)
        span = (None if since is None else _micros(at), None if until is None else _micros(_midnight(until)))
        _add_prices(model, info.get_prices(at), None, span)
        for context in _contexts(model, variants, at):
            ((key, value),) = context.items()
            prices = info.get_prices(at, context)
            if value != STANDARD:
                _add_prices(model, prices, value, span)
            elif prices != info.get_prices(at):
                model.note(f"price_variants.{key}", value, Reason.TWO_PRICES)


def _contexts(model: OfferedModel, variants: Iterable[Any], at: datetime) -> list[dict[str, str]]:
    """The contexts in which a variant holds at a time, each once."""
    found: list[dict[str, str]] = []
    for variant in variants:
        if len(variant.when) > 1:
            model.note("price_variants", variant.when, Reason.SEVERAL_CONDITIONS)
        elif variant.when not in found and (variant.constraint is None or variant.constraint.active(at)):
            found.append(variant.when)
    return found


def _add_prices(model: OfferedModel, prices: ModelPrice, tier: str | None, span: tuple[int | None, int | None]) -> None:
    from genai_prices.data_units import unit_data

    priced = {name: (unit, prices.__dict__.get(unit["price_key"])) for name, unit in unit_data.items()}
    for meter, (unit, price) in priced.items():
        if price is None:
            continue
        steps = [(None, price)] if isinstance(price, Decimal) else [(None, price.base), *_above(price.tiers)]
        for above, amount in steps:
            if not model.add(Offer(meter, amount, unit["per"], tier, above, *span)):
                model.note(unit["price_key"], amount, Reason.TWO_PRICES)


def _above(tiers: Iterable[Any]) -> list[tuple[int, Decimal]]:
    return [(tier.start, tier.price) for tier in tiers]


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
