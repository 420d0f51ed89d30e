"""Which published prices are in force (product rule 7).

Rules of this file:
- Prices are judged in the order of their publication: by the broker's time of the record, then partition, then offset.
- Two prices of which neither would be the more specific for some usage tie (`price.could_tie`). The one that was
  published first stays. The later one is refused: it is a dead letter, and changes nothing. What stood under its own id
  stays in force.
- A price replaces the one before it under its id; a record without a value takes that away.
- A refused price is not judged again. To put it in force after the price that it tied with is gone, publish it again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from streams.ledger.price import ANY_OPERATION, Contest, Price, contest_of, could_tie
from streams.ledger.rating import PriceList


class Published(NamedTuple):
    """Where a price stands in the order of publication."""

    at_ms: int
    """The broker's time of the record."""
    partition: int
    offset: int


Publication = tuple[Published, str, Price | None]
"""A record of the price topic: its position, the price's id, and the price; None: it is taken away."""


class PriceLog:
    """Publications, and the price list that they come to. Immutable: a change makes a new one."""

    __slots__ = ("_in_force", "_publications", "prices", "refused")

    def __init__(self, publications: Iterable[Publication] = ()) -> None:
        self._publications = {each[0]: each for each in publications}
        self._in_force = _Ties()
        self.refused: dict[Published, Price] = {}
        """The positions of refused prices, and the price that each could tie with."""
        standing: dict[str, Price] = {}
        for published, price_id, price in sorted(self._publications.values(), key=itemgetter(0)):
            if price is not None:
                tie = self._in_force.tie(price)
                if tie is not None:
                    self.refused[published] = tie
                    continue
                self._in_force.add(price)
            before = standing.pop(price_id, None)
            if before is not None:
                self._in_force.remove(before)
            if price is not None:
                standing[price_id] = price
        self.prices = PriceList(self._in_force)

    @property
    def newest_ms(self) -> int:
        """The broker's time of the newest publication; 0: there is none."""
        return max((published.at_ms for published in self._publications), default=0)

    def with_changes(self, publications: Iterable[Publication]) -> PriceLog:
        """The log with these publications as well."""
        return PriceLog([*self._publications.values(), *publications])

    def tie(self, price: Price, published: Published) -> Price | None:
        """The price for which this one, published there, is refused; None: it is accepted."""
        if published in self._publications:
            return self.refused.get(published)
        return self._in_force.tie(price)


_DIMENSIONS = ("operation", "category", "model", "tool", "provider", "tier")

Shape = tuple[str, ...]
"""The dimensions that a price names."""


def _shape(price: Price) -> Shape:
    named = (name for name in _DIMENSIONS if getattr(price, name) is not None)
    return tuple(name for name in named if name != "operation" or price.operation != ANY_OPERATION)


def _values(price: Price, names: Shape) -> Sequence[tuple[str, ...]]:
    """What the price says in these dimensions; of a model that has several names, each of them."""
    if "model" not in names or not price.aliases:
        return (tuple(getattr(price, name) for name in names),)
    models = dict.fromkeys(price.names)
    return [tuple(model if name == "model" else getattr(price, name) for name in names) for model in models]


class _Ties:
    """Prices of which no two tie, found by what they must share to tie with another.

    Two prices can tie only in one contest, and only where they say the same in every dimension that both name. So those
    of one shape are filed by their values in the dimensions they share with another shape, for each such set of
    dimensions that was asked for.
    """

    def __init__(self) -> None:
        self._by_contest: dict[Contest, dict[Shape, _Filed]] = {}

    def __iter__(self) -> Iterator[Price]:
        return (
            price
            for shapes in self._by_contest.values()
            for by_field in shapes.values()
            for price in by_field.all.values()
        )

    def add(self, price: Price) -> None:
        shapes = self._by_contest.setdefault(contest_of(price), {})
        shapes.setdefault(_shape(price), _Filed()).add(price)

    def remove(self, price: Price) -> None:
        self._by_contest[contest_of(price)][_shape(price)].remove(price)

    def tie(self, price: Price) -> Price | None:
        """A price of another id that could tie with `price`."""
        own = _shape(price)
        for shape, by_field in self._by_contest.get(contest_of(price), {}).items():
            shared = tuple(name for name in own if name in shape)
            for other in by_field.alike(price, shared):
                if other.price_id != price.price_id and could_tie(price, other):
                    return other
        return None


class _Filed:
    """Prices of one shape."""

    def __init__(self) -> None:
        self.all: dict[int, Price] = {}
        """By identity: a price and the one before it under its id are filed together for a moment."""
        self._by_shared: dict[Shape, dict[tuple[str, ...], list[Price]]] = {}

    def add(self, price: Price) -> None:
        self.all[id(price)] = price
        for shared, found in self._by_shared.items():
            for values in _values(price, shared):
                found[values].append(price)

    def remove(self, price: Price) -> None:
        del self.all[id(price)]
        for shared, found in self._by_shared.items():
            for values in _values(price, shared):
                found[values] = [each for each in found[values] if each is not price]

    def alike(self, price: Price, shared: Shape) -> Sequence[Price]:
        """Those that say the same as `price` in the shared dimensions."""
        found = self._by_shared.get(shared)
        if found is None:
            found = self._by_shared[shared] = defaultdict(list)
            for other in self.all.values():
                for values in _values(other, shared):
                    found[values].append(other)
        return [each for values in _values(price, shared) for each in found.get(values, ())]
