"""What was looked for in the ledger in vain, for a while, so that it is not looked for again with every batch.

A search without a remembered place takes seconds, and its partition waits. Rules of this file: a search is known by
partition, org, event id and time; it may be made again when the partition's clock has passed `MISSED_FOR_US`. What is
written meanwhile is not overlooked: its id is remembered far longer than that, and nobody asks here for it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final

MISSED_FOR_US: Final = 600 * 1_000_000
"""Ten minutes; the shortest time that the id of a new usage is remembered is an hour."""

MISSED_MAX: Final = 10_000
"""Searches that are known, about 300 bytes each; the oldest is forgotten first."""


class Missed:
    """Searches that found nothing; times are the partition's clock, microseconds."""

    def __init__(self) -> None:
        self._until: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._until)

    def worth_asking(self, search: Hashable, at: int) -> bool:
        """Whether the search was not made in vain shortly before `at`."""
        return self._until.get(search, at) <= at

    def note(self, searches: Iterable[Hashable], at: int) -> None:
        """These were made at `at`, and found nothing."""
        for search in searches:
            self._until.pop(search, None)  # to the end: the oldest stands first
            self._until[search] = at + MISSED_FOR_US
        for search in list(self._until)[: max(0, len(self._until) - MISSED_MAX)]:
            del self._until[search]
