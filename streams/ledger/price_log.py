"""The price topic as it stands, and which of its prices are in force (product rule 7).

Rules of this file:
- Two prices of which neither would be the more specific for some usage tie. The one that was published first stays; the
  later one is not in force, and is a dead letter when it comes.
- First is by the broker's time of the record, then partition, then offset: a total order that compaction keeps, so
  every worker comes to the same prices, whatever it saw on the way and whenever it started.
- What is in force is a function of the topic's newest records and nothing else, for a compacted topic remembers nothing
  else. So a price that was refused is in force once what it tied with is gone; and a price that is published again
  stands behind those that came meanwhile. Take a refused price out of the topic (no value under its key), or publish it
  anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from streams.ledger.rating import ANY_OPERATION, Price, PriceList, could_tie


class Published(NamedTuple):
    """Where a price stands in the order of publication."""

    at_ms: int
    """The broker's time of the record."""
    partition: int
    offset: int


class PriceLog:
    """The newest record of every price, and the price list that they come to. Immutable: a change makes a new one."""

    __slots__ = ("_in_force", "_records", "prices")

    def __init__(self, records: Mapping[str, tuple[Published, Price]] | None = None) -> None:
        self._records = dict(records or {})
        self._in_force = _Ties()
        for published, price in sorted(self._records.values(), key=lambda record: record[0]):
            if self._in_force.tie(price) is None:
                self._in_force.add(published, price)
        self.prices = PriceList(self._in_force)

    def with_changes(self, changes: Mapping[str, tuple[Published, Price] | None]) -> PriceLog:
        """The log after these records, by price id; None takes the price away."""
        records = dict(self._records)
        for price_id, record in changes.items():
            if record is None:
                records.pop(price_id, None)
            else:
                records[price_id] = record
        return PriceLog(records)

    def tie(self, price: Price, published: Published) -> Price | None:
        """The price in force, published before `published`, that `price` could tie with."""
        return self._in_force.tie(price, published)


_DIMENSIONS = ("operation", "category", "model", "tool", "provider", "tier")

Shape = tuple[str, ...]
"""The dimensions that a price names."""


def _shape(price: Price) -> Shape:
    named = (name for name in _DIMENSIONS if getattr(price, name) is not None)
    return tuple(name for name in named if name != "operation" or price.operation != ANY_OPERATION)


def _values(price: Price, names: Shape) -> tuple[str, ...]:
    return tuple(getattr(price, name) for name in names)


class _Ties:
    """Prices of which no two tie, found by what they must share to tie with another.

    Two prices can tie only where they say the same in every dimension that both name. So those of one shape are filed
    by their values in the dimensions they share with another shape, for each such set of dimensions that was asked for.
    """

    def __init__(self) -> None:
        self._by_rank: dict[tuple[str | None, int], dict[Shape, _Filed]] = {}

    def __iter__(self) -> Iterator[Price]:
        return (price for shapes in self._by_rank.values() for filed in shapes.values() for _, price in filed.all)

    def add(self, published: Published, price: Price) -> None:
        shapes = self._by_rank.setdefault((price.org_id, price.specificity), {})
        shapes.setdefault(_shape(price), _Filed()).add(published, price)

    def tie(self, price: Price, before: Published | None = None) -> Price | None:
        """A price of another id that could tie with `price`, of those published before `before`."""
        own = _shape(price)
        for shape, filed in self._by_rank.get((price.org_id, price.specificity), {}).items():
            shared = tuple(name for name in own if name in shape)
            for published, other in filed.alike(price, shared):
                earlier = before is None or published < before
                if earlier and other.price_id != price.price_id and could_tie(price, other):
                    return other
        return None


class _Filed:
    """Prices of one shape."""

    def __init__(self) -> None:
        self.all: list[tuple[Published, Price]] = []
        self._by_shared: dict[Shape, dict[tuple[str, ...], list[tuple[Published, Price]]]] = {}

    def add(self, published: Published, price: Price) -> None:
        self.all.append((published, price))
        for shared, found in self._by_shared.items():
            found[_values(price, shared)].append((published, price))

    def alike(self, price: Price, shared: Shape) -> Sequence[tuple[Published, Price]]:
        """Those that say the same as `price` in the shared dimensions."""
        found = self._by_shared.get(shared)
        if found is None:
            found = self._by_shared[shared] = defaultdict(list)
            for published, other in self.all:
                found[_values(other, shared)].append((published, other))
        return found.get(_values(price, shared), ())
