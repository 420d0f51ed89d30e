"""Inputs that wait behind an open transaction: since when, and who is told."""

from __future__ import annotations

import logging

import pytest
from faust.types import TP

from streams.engine.ports import EngineMetrics
from streams.engine.stalled import STALL_REPORTED_S, StalledInputs
from streams.kafka.transport import FetchedEnds

HOLDS = TP("holds", 3)


class Seconds(EngineMetrics):
    """The last seconds of each input."""

    def __init__(self) -> None:
        self.of: dict[TP, float] = {}

    def stalled(self, topic: str, partition: int, seconds: float) -> None:
        """Remember."""
        self.of[TP(topic, partition)] = seconds


def test_a_stall_is_told_with_its_place_and_age_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Seconds()
    inputs = StalledInputs(metrics)
    with caplog.at_level(logging.INFO):
        inputs.observe({HOLDS: FetchedEnds(7, 9, 0.0)}, 100.0)
        inputs.observe({HOLDS: FetchedEnds(7, 12, 0.0)}, 105.0)
        assert metrics.of[HOLDS] == 5.0
        assert inputs.sentences(105.0) == []
        inputs.observe({HOLDS: FetchedEnds(7, 12, 0.0)}, 100.0 + STALL_REPORTED_S)
        sentence = f"holds/3 waits behind an open transaction at offset 7 since {STALL_REPORTED_S:.0f} s"
        assert inputs.sentences(100.0 + STALL_REPORTED_S) == [sentence]
        inputs.observe({HOLDS: FetchedEnds(7, 12, 0.0)}, 101.0 + STALL_REPORTED_S)
        assert [record.levelname for record in caplog.records] == ["WARNING"], "told once"
        inputs.observe({HOLDS: FetchedEnds(12, 12, 0.0)}, 130.0)
    assert metrics.of[HOLDS] == 0.0
    assert inputs.sentences(130.0) == []
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_transactions_that_come_and_go_are_no_stall() -> None:
    inputs = StalledInputs(EngineMetrics())
    for second in range(100):
        inputs.observe({HOLDS: FetchedEnds(second, second + 2, 0.0)}, float(second))
    assert inputs.sentences(100.0) == []


def test_a_broker_that_does_not_answer_ends_no_stall(caplog: pytest.LogCaptureFixture) -> None:
    inputs = StalledInputs(EngineMetrics())
    with caplog.at_level(logging.INFO):
        inputs.observe({HOLDS: FetchedEnds(7, 9, 0.0)}, 0.0)
        inputs.observe({HOLDS: FetchedEnds(7, 9, 0.0)}, 30.0)
        inputs.observe({HOLDS: None}, 36.0)
        inputs.observe({HOLDS: FetchedEnds(7, 9, 0.0)}, 40.0)
    assert inputs.sentences(40.0) == ["holds/3 waits behind an open transaction at offset 7 since 40 s"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_partition_that_is_no_longer_owned_is_forgotten() -> None:
    metrics = Seconds()
    inputs = StalledInputs(metrics)
    inputs.observe({HOLDS: FetchedEnds(7, 9, 0.0)}, 0.0)
    inputs.observe({}, 50.0)
    assert inputs.sentences(60.0) == []
    assert metrics.of[HOLDS] == 0.0
