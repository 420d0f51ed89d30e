"""The number of partitions never changes: what disagrees is refused, and the setting to fix is named."""

from __future__ import annotations

import pytest

from streams.errors import SettingRefusedError
from streams.kafka.topics_admin import check_partitions


@pytest.mark.parametrize("found", [{}, {"a": 8}, {"a": 8, "b": 8, "one": 1}, {"a": 8, "foreign": 3}])
def test_agreement(found: dict[str, int]) -> None:
    check_partitions({"a": 8, "b": 8, "one": 1}, found)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"a": 4, "b": 4, "one": 1}, "CREDITS_PARTITIONS=4"),
        ({"a": 4}, "CREDITS_PARTITIONS=4"),
        ({"a": 4, "b": 8, "one": 1}, "disagree"),
        ({"a": 4, "b": 2, "one": 1}, "disagree"),
        ({"a": 8, "b": 8, "one": 2}, "disagree"),
    ],
)
def test_disagreement(found: dict[str, int], says: str) -> None:
    with pytest.raises(SettingRefusedError, match=says):
        check_partitions({"a": 8, "b": 8, "one": 1}, found)
