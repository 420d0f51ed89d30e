"""Searches of the ledger that found nothing, remembered for a while so that not every batch repeats them.

A search without an offset to start from takes seconds, and its partition waits. Rules of this file: a search is
identified by partition, org, event id and time. It may be repeated once the partition's clock has advanced by
`NEGATIVE_CACHE_US`. Entries written meanwhile are still found: their ids are remembered far longer than that.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final

NEGATIVE_CACHE_US: Final = 600 * 1_000_000
"""Ten minutes; the shortest time that the id of a new usage is remembered is an hour."""

NEGATIVE_CACHE_SIZE_MAX: Final = 10_000
"""Searches that are known, about 300 bytes each; the oldest is forgotten first."""


class NegativeCache:
    """Searches that found nothing; times are the partition's clock, microseconds."""

    def __init__(self) -> None:
        self._until: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._until)

    def should_search(self, search: Hashable, at: int) -> bool:
        """False when the search found nothing shortly before `at`."""
        return self._until.get(search, at) <= at

    def note(self, searches: Iterable[Hashable], at: int) -> None:
        """These were made at `at`, and found nothing."""
        for search in searches:
            self._until.pop(search, None)  # to the end: the oldest stands first
            self._until[search] = at + NEGATIVE_CACHE_US
        for search in list(self._until)[: max(0, len(self._until) - NEGATIVE_CACHE_SIZE_MAX)]:
            del self._until[search]
