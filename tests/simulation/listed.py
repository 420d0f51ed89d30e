"""Which prices are in force, worked out anew from the price topic (product rule 7; docs/decisions.md, 20).

Shares no code with the ledger. The newest record of a key counts, one without a value takes the price away. Of two that
tie the one published first stays. Records that are no price, or are under another key, count for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.codec import UndecodableError, decode_one
from tests.model.audited_rates import Price
from tests.model.memory import FixedSchemas
from tests.simulation.virtual_kafka import Record

SCHEMAS = FixedSchemas()
Place = tuple[int, int, int]
"""The broker's time, partition, offset: the order of publication."""
Logs = Sequence[Sequence[Record | None]]
"""The price topic, partition by partition."""


@dataclass(frozen=True)
class Listed:
    """A price, of whom it is (None: of all), and when it was published."""

    price: Price
    org: str | None
    place: Place

    def ties(self, other: Listed) -> bool:
        """Both could be about one usage at one time, and neither says more about it."""
        mine, theirs = self.price, other.price
        if mine.name == theirs.name or self.org != other.org or mine.rank != theirs.rank:
            return False
        begins = max(mine.valid_from, theirs.valid_from)
        if any(price.valid_to is not None and price.valid_to <= begins for price in (mine, theirs)):
            return False
        return all(
            one == another or None in (one, another) for one, another in zip(_said(mine), _said(theirs), strict=True)
        )


def _said(price: Price) -> tuple[str | None, ...]:
    """What the price names; None: anything."""
    operation = None if price.operation == "*" else price.operation
    direction = None if price.direction == "any" else price.direction
    return operation, direction, price.model, price.tier, price.category, price.provider


def in_force(logs: Logs) -> list[Listed]:
    """The prices that these records come to."""
    newest: dict[str, Listed | None] = {}
    for number, log in enumerate(logs):
        for offset, record in enumerate(log):
            if record is None or record.key is None:
                continue
            if record.value is None:
                newest[record.key.decode("utf-8", "replace")] = None
            elif (listed := read(record, number, offset)) is not None:
                newest[listed.price.name] = listed
    found: list[Listed] = []
    for listed in sorted((each for each in newest.values() if each is not None), key=lambda each: each.place):
        if not any(listed.ties(earlier) for earlier in found):
            found.append(listed)
    return found


def read(record: Record, partition: int, offset: int) -> Listed | None:
    """A record of the price topic; None: it is no price."""
    try:
        fields = decode_one("price", record.value, SCHEMAS)
    except UndecodableError:
        return None
    if record.key != fields["price_id"].encode():
        return None
    return Listed(_price(fields), fields["org_id"], (record.at // 1_000, partition, offset))


def visible(listed: Iterable[Listed], org: str) -> list[Price]:
    """The prices that are for this org."""
    return [each.price for each in listed if each.org in (None, org)]


def _price(fields: Mapping[str, Any]) -> Price:
    return Price(
        fields["price_id"],
        fields["operation"],
        fields["unit_price_nanos"],
        fields["billing_unit"],
        fields["wallet"],
        fields["valid_from"],
        fields["valid_to"],
        fields["model"],
        fields["direction"] or "any",
        fields["tier"],
        bool(fields["free"]),
        fields["org_id"] is not None,
        fields["category"],
        fields["provider"],
    )
