"""The queue before the deciding: each record once, in order, whatever the fetching repeats, drops or mixes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.inbound import Inbound, join, split_at, start_at
from streams.kafka.intake import Intake


def inbound(first: int, offsets: list[int], next_offset: int, topic: str = "t", headers: bool = False) -> Inbound:
    return Inbound(
        topic,
        0,
        first,
        next_offset,
        offsets,
        [offset * 10 for offset in offsets],
        [b"k%d" % offset for offset in offsets],
        [b"v%d" % offset for offset in offsets],
        [[("h", b"%d" % offset)] for offset in offsets] if headers else [],
    )


def queue(next_offsets: dict[str, int]) -> Intake[str]:
    return Intake(next_offsets, lambda batch: batch.topic, records_max=4, bytes_max=1_000)


def test_it_is_full_by_records_or_bytes_and_has_room_at_half() -> None:
    intake = queue({"t": 0})
    fill = []
    for offset in range(4):
        intake.offer(inbound(offset, [offset], offset + 1))
        fill.append((intake.is_full, intake.has_room))
    assert fill == [(False, True), (False, True), (False, False), (True, False)]
    intake.take(2)
    assert (intake.is_full, intake.has_room) == (False, True)
    large = inbound(4, [4], 5)
    large.values = [b"x" * 1_000]
    intake.offer(large)
    assert (intake.is_full, intake.has_room) == (True, False)


def test_a_gap_is_refused_and_an_overlap_cut_off() -> None:
    intake = queue({"t": 5})
    assert not intake.offer(inbound(6, [6, 7], 8))
    assert intake.next_offsets["t"] == 5
    assert intake.offer(inbound(0, [3, 4], 5))
    assert not intake
    assert intake.offer(inbound(2, [2, 4, 6, 7], 9))
    taken = intake.take(100)
    assert [(part.first_offset, part.offsets, part.next_offset) for part in taken] == [(5, [6, 7], 9)]
    assert intake.next_offsets == {"t": 9}


def test_a_batch_of_markers_moves_on() -> None:
    intake = queue({"t": 0})
    assert intake.offer(inbound(0, [], 4))
    assert intake.offer(inbound(4, [4], 5))
    taken = intake.take(1)
    assert [(part.first_offset, part.offsets, part.next_offset) for part in taken] == [(0, [4], 5)]


def test_a_restart_forgets_what_is_queued() -> None:
    intake = queue({"t": 0})
    intake.offer(inbound(0, [0, 1, 2], 3))
    intake.take(1)
    intake.restart({"t": 1})
    assert not intake
    assert intake.records == 0
    assert not intake.offer(inbound(3, [3], 4))
    assert intake.offer(inbound(1, [1, 2], 3))


def test_one_batch_for_each_topic() -> None:
    intake = queue({"a": 0, "b": 0})
    intake.offer(inbound(0, [0], 1, "b"))
    intake.offer(inbound(0, [0, 1], 2, "a"))
    intake.offer(inbound(1, [1], 3, "b"))
    taken = intake.take(10)
    assert [(part.topic, part.offsets, part.next_offset) for part in taken] == [("b", [0, 1], 3), ("a", [0, 1], 2)]


def test_bytes_are_counted_as_records_come_and_go() -> None:
    intake = queue({"t": 0})
    whole = inbound(0, [0, 1, 2], 3, headers=True)
    whole.values, whole.keys = [b"12345", None, b"123"], [b"ab", None, b"c"]
    intake.offer(whole)
    assert intake.bytes == 8 + 3 + 6  # values, keys, headers ("h" and a digit each)
    intake.take(1)
    assert intake.bytes == 3 + 1 + 4
    intake.restart({"t": 1})
    assert intake.bytes == 0


def test_parts_keep_their_headers_with_their_records() -> None:
    whole = inbound(0, [0, 2, 5], 6, headers=True)
    head, rest = split_at(whole, 1)
    assert (head.next_offset, rest.first_offset) == (2, 2)
    assert join([head, rest]) == whole
    assert start_at(whole, 1) == rest.__class__(
        "t", 0, 1, 6, [2, 5], [20, 50], [b"k2", b"k5"], [b"v2", b"v5"], [[("h", b"2")], [("h", b"5")]]
    )
    mixed = join([inbound(0, [0], 1), inbound(1, [1], 2, headers=True)])
    assert mixed.headers == [(), [("h", b"1")]]


FETCHES = st.lists(st.tuples(st.integers(0, 61), st.integers(0, 61), st.booleans(), st.integers(0, 7)), max_size=40)


@given(st.sets(st.integers(0, 60), max_size=40).map(sorted), FETCHES)
def test_each_record_once_and_in_order(offsets: list[int], fetches: list[tuple[int, int, bool, int]]) -> None:
    intake = queue({"t": 0})
    taken: list[int] = []
    for one, other, joins, records_max in [*fetches, (0, 61, True, 1_000)]:
        position = intake.next_offsets["t"]
        first, last = (position, max(other, position)) if joins else sorted((one, other))
        part = inbound(first, [each for each in offsets if first <= each < last], last)
        assert intake.offer(part) == (first <= position)
        if records_max:
            batch = intake.take(records_max)
            assert sum(len(part) for part in batch) <= records_max
            taken += [offset for part in batch for offset in part.offsets]
    assert taken == offsets
    assert intake.records == 0
    assert intake.bytes == 0
    assert intake.next_offsets["t"] == 61
