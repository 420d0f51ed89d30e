"""Which prices are in force, recomputed from the price topic (product rule 7; docs/decisions.md, 20).

Shares no code with the ledger. Prices are judged in the order of publication: of two that tie the one published first
stays, and the other one changes nothing. A price replaces the one before it under its key; a record without a value
takes it away. Records that are no price, or are under another key, count for nothing. Of a key that was judged, what
the judge has kept counts, and only later records beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from schemas.codec import UndecodableError, decode_one
from tests.model.audited_rates import Price
from tests.model.memory import FixedSchemas
from tests.simulation.virtual_kafka import Record

SCHEMAS = FixedSchemas()
LogPosition = tuple[int, int, int]
"""The broker's time, partition, offset: the order of publication."""
Logs = Sequence[Sequence[Record | None]]
"""The price topic, partition by partition."""


@dataclass(frozen=True)
class Listed:
    """A price, of whom it is (None: of all), and when it was published."""

    price: Price
    org: str | None
    position: LogPosition

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


Judged = Sequence[Sequence[Record | None]]
"""What the owners of partitions have kept of the price topic, partition by partition."""


def in_force(logs: Logs, judged: Judged = ()) -> tuple[list[Listed], set[LogPosition]]:
    """The prices that these records come to, and the places of those that are refused."""
    kept: dict[str, tuple[LogPosition, LogPosition, Listed | None]] = {}
    for each in (record for log in judged for record in log if record is not None):
        headers = dict(each.headers)
        published, up_to = (_place(headers[f"credits.price.{name}"]) for name in ("published", "judged"))
        price = None if not each.value else read(each, *published[1:])
        kept[(each.key or b"").decode()] = published, up_to, price and replace(price, position=published)
    found: list[tuple[LogPosition, str, Listed | None]] = [
        (position, name, price) for name, (position, _, price) in kept.items()
    ]
    for number, log in enumerate(logs):
        for offset, record in enumerate(log):
            if record is None or record.key is None:
                continue
            name, position = record.key.decode("utf-8", "replace"), (record.at // 1_000, number, offset)
            listed = None if record.value is None else read(record, number, offset)
            judged_already = name in kept and position <= kept[name][1]
            if not judged_already and (record.value is None or listed is not None):
                found.append((position, name, listed))
    standing: dict[str, Listed] = {}
    refused: set[LogPosition] = set()
    for position, name, listed in sorted(found, key=lambda each: each[0]):
        if listed is None:
            standing.pop(name, None)
        elif any(listed.ties(other) for other in standing.values()):
            refused.add(position)
        else:
            standing[name] = listed
    return list(standing.values()), refused


def _place(header: bytes) -> LogPosition:
    at_ms, partition, offset = map(int, header.split())
    return at_ms, partition, offset


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
