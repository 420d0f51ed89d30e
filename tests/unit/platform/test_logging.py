"""Logs stay readable while a broker is away, and nothing of ours is ever left out."""

from __future__ import annotations

import logging

import pytest

from streams.logging import REPEAT_S, Telling


def record(name: str, message: str, at: float, level: int = logging.ERROR) -> logging.LogRecord:
    made = logging.LogRecord(name, level, __file__, 1, message, ("node",), None)
    made.created = at
    return made


def test_a_repeated_complaint_is_told_once_and_counted() -> None:
    telling = Telling()
    told = [telling.filter(record("aiokafka", "cannot reach %s", at=100 + n / 100)) for n in range(50)]
    assert told == [True] + [False] * 49
    next_one = record("aiokafka", "cannot reach %s", at=100 + REPEAT_S)
    assert telling.filter(next_one)
    assert next_one.getMessage() == "cannot reach node (and 49 more like it)"


def test_different_complaints_are_told() -> None:
    telling = Telling()
    assert telling.filter(record("aiokafka", "cannot reach %s", at=1))
    assert telling.filter(record("aiokafka", "no answer of %s", at=1))
    assert telling.filter(record("aiokafka.consumer", "cannot reach %s", at=1))


@pytest.mark.parametrize("name", ["streams.engine", "projections.sink", "streams"])
def test_ours_are_never_left_out(name: str) -> None:
    telling = Telling()
    assert all(telling.filter(record(name, "stopped %s", at=1)) for _ in range(5))


def test_announcements_of_services_are_not_told() -> None:
    telling = Telling()
    assert not telling.filter(record("streams.engine", "[^--Store]: Starting %s", at=1, level=logging.INFO))
    assert telling.filter(record("streams.engine", "ready %s", at=1, level=logging.INFO))
