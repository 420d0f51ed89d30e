"""One transaction in a partition that no worker serves: for commands that repair what is stored.

The partition is taken over as a worker does it (fence, restore, check), one output is committed with its position, and
the partition is let go. A worker that runs all the same is fenced, and restores it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from streams.engine.limits import DeadLetterLimit
from streams.engine.ports import EngineMetrics, Output, Processor
from streams.engine.pump import LARGE_BATCHES_MAX, Pump, PumpSetup
from streams.engine.restore import OwnTopics, Restored, restore
from streams.settings import Settings

CLOSE_TIMEOUT_S = 5.0


class _NotFetching:
    """Nothing is fetched: whether the inputs are read to their end is not known."""

    def pause(self, partition: int) -> None:
        """Nothing to hold."""

    def resume(self, partition: int) -> None:
        """Nothing to release."""

    def pause_topic(self, partition: int, topic: str) -> None:
        """Nothing is fetched."""

    def resume_topic(self, partition: int, topic: str) -> None:
        """Nothing is fetched."""

    async def seek(self, partition: int, next_offsets: Mapping[str, int]) -> None:
        """Nothing to seek."""

    def caught_up_us(self, partition: int, next_offsets: Mapping[str, int]) -> int | None:
        """Not known, so that no id is forgotten."""
        return None


async def book_output(
    settings: Settings, processor: Processor[Any, Any], number: int, decide: Callable[[Any], Output]
) -> None:
    """Take partition `number` over, and commit what `decide` makes of its state.

    Raises `KafkaUnavailableError`, `StateLostError`, `CommitRefusedError`, with nothing written; `PartitionLostError`:
    whether it was is to be read.
    """

    def taken(partition: int, wanted: Callable[[], bool]) -> Restored:
        topics = OwnTopics(processor.ledger_topic, processor.outputs, processor.seen_windows)
        return restore(settings, partition, topics, wanted)

    failed: list[BaseException] = []
    with ThreadPoolExecutor(2, thread_name_prefix="maintenance") as executor:
        setup = PumpSetup(
            settings=settings,
            processor=processor,
            metrics=EngineMetrics(),
            executor=executor,
            trimming=executor,
            large_batches=asyncio.Semaphore(LARGE_BATCHES_MAX),
            fetching=_NotFetching(),
            dead_letters=DeadLetterLimit(settings.dead_letters_per_minute_max),
            restore=taken,
            now=lambda: 0,
            stop_worker=failed.append,
        )
        restored = await asyncio.to_thread(taken, number, lambda: True)
        pump = Pump(setup, restored, restored.position.next_offsets)
        try:
            await pump.book(decide)
        finally:
            await pump.close(CLOSE_TIMEOUT_S)
