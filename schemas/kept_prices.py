"""The ledger's own copy of the price list: what a record of `credits.internal.prices.v1` says besides its price.

The price topic is compacted: a record that is no price, under the key of one, makes Kafka drop the price. So the worker
that owns a partition of the price topic writes what it has judged to a compacted topic of the ledger, in the
transaction of its position. The key is the price id.

- The value is the accepted price as it was published; empty where no price stands under the id, but one was refused.
  None where the price was taken away.
- `PUBLISHED`: where the accepted price stood in the price topic. `JUDGED`: the place up to which all records of the id
  were judged. Each is `<broker's time in ms> <partition> <offset>`.
"""

from __future__ import annotations

from collections.abc import Iterable

PUBLISHED = "credits.price.published"
JUDGED = "credits.price.judged"

NUMBER_MAX = 2**62
"""Twice of it is a 64-bit number still."""

LogPosition = tuple[int, int, int]
"""The broker's time in milliseconds, partition, offset."""


def position_headers(published: LogPosition, judged: LogPosition) -> list[tuple[str, bytes]]:
    """The headers of a record."""
    return [(PUBLISHED, _written(published)), (JUDGED, _written(judged))]


def log_positions_of(headers: Iterable[tuple[str, bytes | str | None]] | None) -> tuple[LogPosition, LogPosition]:
    """(published, judged) of a record's headers. Raises ValueError where they are not there: only workers may write."""
    found = dict(headers or ())
    return _read(found.get(PUBLISHED)), _read(found.get(JUDGED))


def _written(position: LogPosition) -> bytes:
    return " ".join(map(str, position)).encode()


def _read(text: bytes | str | None) -> LogPosition:
    words = (text.decode() if isinstance(text, bytes) else text or "").split()
    if len(words) != 3:
        raise ValueError(f"not a place in the price topic: {text!r}")
    at_ms, partition, offset = map(int, words)
    if not all(0 <= number < NUMBER_MAX for number in (at_ms, partition, offset)):
        raise ValueError(f"not a place in the price topic: {text!r}")
    return at_ms, partition, offset
