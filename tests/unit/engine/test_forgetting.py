"""When ids may be forgotten: not by the latest clock alone, but when every input has passed them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np

from streams.engine.accounts import Accounts
from streams.engine.ports import Partition
from streams.engine.positions import PositionRecord
from streams.engine.pump import Pump, PumpSetup
from streams.engine.restore import Restored
from streams.engine.seen import SeenMemory, contents, digests
from streams.settings import Settings

WINDOW_US = 1_000
LATER_US = 10 * WINDOW_US


class Fetching:
    """An input is caught up with when its name is in `ends`."""

    def __init__(self) -> None:
        self.ends: set[str] = set()
        self.ago_us = 0

    def caught_up_us(self, partition: int, next_offsets: Mapping[str, int]) -> int | None:
        """Just now, if all of these topics are."""
        return self.ago_us if set(next_offsets) <= self.ends else None


class Idle:
    """A processor that is only asked to load."""

    def load(self, partition: Partition) -> None:
        """Nothing."""


def pump_at(clock_at: int, memory: SeenMemory, fetching: Fetching) -> Pump:
    setup = PumpSetup(
        settings=Settings(_env_file=None),
        processor=cast(Any, Idle()),
        metrics=cast(Any, None),
        executor=cast(Any, None),
        trimming=ThreadPoolExecutor(1),
        large_batches=cast(Any, None),
        fetching=cast(Any, fetching),
        dead_letters=cast(Any, None),
        restore=cast(Any, None),
        now=lambda: clock_at,
        stop_worker=cast(Any, None),
    )
    accounts = Accounts({})
    seen = {"usage": memory}
    position = PositionRecord(clock_at=clock_at, next_offsets={"usage": 5, "purchases": 3})
    restored = Restored(Partition(0, accounts, seen, clock_at), accounts, seen, position, cast(Any, None), 0, 0.0)
    return Pump(setup, restored, {"usage": 0, "purchases": 0})


def remembering(at: int) -> tuple[SeenMemory, Any]:
    memory = SeenMemory(WINDOW_US)
    ids = digests([b"one"], 1)
    memory.add(ids, contents([b"said"], 1), 0, np.asarray([at]))
    return memory, ids


def test_an_input_that_is_behind_keeps_what_its_backlog_may_repeat() -> None:
    memory, ids = remembering(0)
    fetching = Fetching()
    pump = pump_at(LATER_US, memory, fetching)
    fetching.ends = {"purchases"}  # the clock is theirs; usage was not read yet
    pump._forget_ids()
    assert memory.lookup(ids).known.all()
    pump._arrived_at["usage"] = WINDOW_US // 2
    pump._forget_ids()
    assert memory.lookup(ids).known.all()


def test_what_every_input_has_passed_is_forgotten() -> None:
    memory, ids = remembering(0)
    fetching = Fetching()
    pump = pump_at(LATER_US, memory, fetching)
    fetching.ends = {"purchases"}
    pump._arrived_at["usage"] = LATER_US
    pump._forget_ids()
    assert not np.any(memory.lookup(ids).known)
    assert pump._forgotten == {"usage": memory.oldest_bucket(LATER_US)}


def test_an_end_that_was_seen_long_ago_says_nothing_of_what_came_since() -> None:
    memory, ids = remembering(0)
    fetching = Fetching()
    pump = pump_at(LATER_US, memory, fetching)
    fetching.ends = {"purchases", "usage"}
    fetching.ago_us = LATER_US
    pump._forget_ids()
    assert memory.lookup(ids).known.all()
    fetching.ago_us = 0
    pump._forget_ids()
    assert not np.any(memory.lookup(ids).known)
