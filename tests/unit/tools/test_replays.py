"""How a dead letter stands: open, replayed, failed again; and in ClickHouse the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from projections.rows import replay_rows
from streams.client.dead_letters import DeadLetter
from streams.client.replays import LetterState, Replay, replay_all, replay_of, states_of

LETTER = DeadLetter(2, 7, 1_000, "unknown_price", "why", "usage", 2, 40, b"acme", b"v", (), {})
REPLAY = Replay(2_000, "usage", 2, 55)


class Recorder:
    """A producer that Kafka takes everything of, at offsets from 55 on, when it is flushed."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes | None, bytes | None]] = []
        self.flushed: list[int] = []
        self._waiting: list[Any] = []

    def produce_raw(self, topic: str, key: Any, value: Any, headers: Any = None, delivered: Any = None) -> None:
        self.sent.append((topic, key, value))
        self._waiting.append(delivered)

    def flush(self) -> None:
        for offset, delivered in enumerate(self._waiting, 55):
            if delivered is not None:
                delivered(2, offset)
        self._waiting.clear()
        self.flushed.append(len(self.sent))


def test_a_letter_is_open_until_its_replay_is_noted() -> None:
    other = replace(LETTER, offset=8, source_offset=41)
    assert states_of([LETTER, other], {}) == {"2:7": LetterState.OPEN, "2:8": LetterState.OPEN}
    assert states_of([LETTER, other], {"2:7": REPLAY}) == {"2:7": LetterState.REPLAYED, "2:8": LetterState.OPEN}


def test_a_record_that_failed_again_has_a_newer_letter_that_is_open() -> None:
    again = replace(LETTER, offset=9, source_offset=55)
    assert states_of([LETTER, again], {"2:7": REPLAY}) == {"2:7": LetterState.FAILED_AGAIN, "2:9": LetterState.OPEN}


def test_a_replay_is_noted_only_after_kafka_has_the_record() -> None:
    producer = Recorder()
    letters = [LETTER, replace(LETTER, offset=8)]
    assert replay_all(producer, letters, "replays", 2_000) == 2  # type: ignore[arg-type]
    assert [topic for topic, *_ in producer.sent] == ["usage", "usage", "replays", "replays"]
    assert producer.flushed == [2, 4]
    notes = {key: replay_of(value or b"") for topic, key, value in producer.sent if topic == "replays"}
    assert notes == {b"2:7": REPLAY, b"2:8": replace(REPLAY, offset=56)}


@pytest.mark.parametrize("value", [b"", b"\xff", b"{}", b"[]", b'{"at_ms": "x"}', b"null"])
def test_what_is_no_note_is_none(value: bytes) -> None:
    assert replay_of(value) is None
    assert replay_rows([b"2:7"], [value], [0]).num_rows == 0


def test_a_note_is_a_row() -> None:
    rows = replay_rows([b"2:7", b"x", None], [REPLAY.encode()] * 3, [3, 4, 5]).to_pylist()
    assert len(rows) == 1
    assert (rows[0]["letter_partition"], rows[0]["letter_offset"]) == (2, 7)
    assert (rows[0]["topic"], rows[0]["partition"], rows[0]["offset"], rows[0]["version"]) == ("usage", 2, 55, 3)
