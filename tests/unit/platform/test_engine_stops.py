"""The engine stops while it asks a consumer that answers no more: Faust's waits for the rebalance that asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from faust.types import TP

from streams.engine.engine import Engine
from tests.brokers import test_settings
from tests.integration.engine.counting import CountingProcessor

INPUT = TP("input", 0)


async def never_answers(*_: TP) -> Mapping[TP, int]:
    """As a consumer whose thread has stopped taking calls."""
    await asyncio.Event().wait()
    return {}


def test_it_waits_for_no_answer(tmp_path: Path) -> None:
    async def ask_and_stop() -> object:
        settings = test_settings(tmp_path)
        engine = Engine(settings, CountingProcessor(settings))
        asking = asyncio.create_task(engine._query_offsets(never_answers, [INPUT]))
        await asyncio.sleep(0)
        await engine.stop()
        return await asyncio.wait_for(asking, timeout=5)

    assert asyncio.run(ask_and_stop()) is None


def test_it_takes_nothing_over_any_more(tmp_path: Path) -> None:
    async def stop_and_rebalance() -> list[int]:
        settings = test_settings(tmp_path)
        engine = Engine(settings, CountingProcessor(settings))
        await engine.stop()
        await engine.rebalanced({INPUT})  # would ask the consumer, which is not there
        return engine.owned

    assert asyncio.run(stop_and_rebalance()) == []
