"""The limit on dead letters, and the check of partition counts."""

from __future__ import annotations

import pytest

from streams.engine.failures import TooManyDeadLettersError
from streams.engine.internal_topics import check_partitions
from streams.engine.limits import PAUSE_MAX_S, DeadLetterLimit
from streams.errors import SettingRefusedError


def test_dead_letters_of_one_minute_are_added_up() -> None:
    limit = DeadLetterLimit(10)
    limit.count(0, {"usage": 6}, 0.0)
    limit.check(4, 59.0)
    limit.count(1, {"holds": 4}, 59.0)
    limit.check(6, 60.5)
    limit.count(0, {"usage": 6}, 60.5)
    with pytest.raises(TooManyDeadLettersError, match="11 dead letters within a minute"):
        limit.check(1, 61.0)


def test_a_flood_pauses_the_topic_that_brings_it_and_no_other() -> None:
    limit = DeadLetterLimit(10, pauses=True)
    limit.check(1_000, 0.0)
    assert limit.count(0, {"usage": 10, "purchases": 2}, 0.0) == {}
    assert limit.count(0, {"usage": 5, "purchases": 2}, 1.0) == {"usage": (15, 90.0)}
    assert limit.count(0, {"usage": 0, "purchases": 2}, 2.0) == {}, "without a dead letter of its own nothing is paused"
    assert limit.count(0, {"usage": 9_000}, 3.0)["usage"][1] == PAUSE_MAX_S
    assert limit.count(0, {"usage": 10}, 64.0) == {}, "a minute later all is forgotten"


def test_a_flood_in_one_partition_pauses_no_other() -> None:
    limit = DeadLetterLimit(10, pauses=True)
    assert limit.count(0, {"usage": 11}, 0.0) == {"usage": (11, 66.0)}
    assert limit.count(5, {"usage": 1}, 1.0) == {}
    assert limit.count(5, {"usage": 1}, 2.0) == {}


def test_a_flood_over_all_partitions_pauses_each_of_them() -> None:
    limit = DeadLetterLimit(100, pauses=True)
    paused = [limit.count(partition, {"usage": 30}, 1.0) for partition in (0, 1, 2, 3)]
    assert paused == [{}, {}, {}, {"usage": (120, 72.0)}]
    assert limit.count(0, {"usage": 1}, 2.0) == {"usage": (121, 72.6)}


def test_dead_letters_that_were_not_committed_do_not_count() -> None:
    limit = DeadLetterLimit(10)
    for _ in range(5):  # the same batch, tried again after its commit failed
        limit.check(8, 0.0)
    limit.check(0, 0.0)


@pytest.mark.parametrize(
    ("given", "own", "message"),
    [
        ({"usage": 8, "holds": None}, {}, "topic holds does not exist"),
        ({"usage": 4, "holds": 4}, {"changelog": 4}, "set CREDITS_PARTITIONS=4"),
        ({"usage": 8, "holds": 4}, {}, "topic holds has 4 partitions.*disagree"),
        ({"usage": 8}, {"changelog": 4}, "topic changelog has 4 partitions.*disagree"),
    ],
)
def test_topics_that_disagree_are_refused(given: dict[str, int | None], own: dict[str, int], message: str) -> None:
    with pytest.raises(SettingRefusedError, match=message):
        check_partitions(8, given, own)


def test_topics_that_agree_are_fine() -> None:
    check_partitions(8, {"usage": 8}, {"changelog": 8})
