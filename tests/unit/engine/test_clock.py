"""The clock that timers go by: the broker's answer, carried on by the monotonic clock."""

from __future__ import annotations

from pathlib import Path

from streams.engine.clock import BrokerClock
from tests.brokers import test_settings


def test_time_goes_on_from_the_last_answer_and_never_from_the_host(tmp_path: Path) -> None:
    monotonic = [100.0]
    clock = BrokerClock(test_settings(tmp_path), monotonic=lambda: monotonic[0])
    assert clock.now() == 0  # nobody has told the time: no timer is due
    clock.set(5_000_000)
    monotonic[0] += 2.5
    assert clock.now() == 7_500_000
    clock.set(6_000_000)  # the broker's clock was set back: followed, not argued with
    assert clock.now() == 6_000_000
