"""Where a command comes from, and what it is decided with.

Rules of this file: data only. Time, prices and looked-up entries are gathered by the caller; the ledger makes no
requests.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from streams.ledger.entry import Entry
from streams.ledger.rating import PriceList


class Source(msgspec.Struct, frozen=True):
    """The position of a record: topic, partition, offset."""

    topic: str
    partition: int
    offset: int


TIME = Source("", -1, -1)
"""The source of what falls due: time was the cause, or another entry."""


class Context(msgspec.Struct, frozen=True):
    """What a decision needs besides the account and the command."""

    at: int
    """The ledger's time: becomes `recorded_at`; never goes back within an account."""
    prices: PriceList
    source: Source
    references: Mapping[str, Entry] = msgspec.field(default_factory=dict)
    """The latest usage entries, by event id, that the command refers to; absent: no such usage is known."""
    arrived_at: int | None = None
    """When the record came into the log, which may be before `at`: no order is kept between topics. None: at `at`."""
