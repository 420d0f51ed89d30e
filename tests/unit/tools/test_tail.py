"""The last lines of one org may lie far back: a tail looks ever further, to the beginning if it must."""

from __future__ import annotations

from typing import Any

import pytest

from streams.cli.tail import _last

FIRST = {("ledger", 0): 1_000, ("ledger", 1): 0}
ENDS = {("ledger", 0): 90_000, ("ledger", 1): 50}


@pytest.mark.parametrize(
    ("places", "lines", "found"),
    [
        ([89_999, 89_990], 2, 2),  # near the end
        ([2_000], 1, 1),
        ([1_000], 5, 1),  # fewer than asked for: all there are
        ([], 3, 0),
        ([89_999], 0, 0),
    ],
)
def test_it_looks_as_far_back_as_it_must(places: list[int], lines: int, found: int) -> None:
    asked: list[int] = []

    def read(starts: dict[tuple[str, int], int]) -> list[dict[str, Any]]:
        asked.append(starts["ledger", 0])
        return [{"offset": place} for place in places if place >= starts["ledger", 0]]

    assert len(_last(read, FIRST, ENDS, lines)) == found
    assert asked == sorted(asked, reverse=True)
    assert all(place >= FIRST["ledger", 0] for place in asked)
