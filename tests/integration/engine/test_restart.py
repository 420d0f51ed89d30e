"""How fast and how big a restart is: 100,000 accounts and 5,000,000 remembered ids. Not in the default run."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from confluent_kafka import Producer

from streams.engine.accounts import frame_account
from streams.engine.internal_topics import changelog_topic, prepare_topics, seen_topic
from streams.engine.positions import POSITION_KEY, PositionRecord
from streams.engine.seen import SeenMemory
from streams.kafka.clients import producer_config
from streams.settings import Settings
from tests.integration.engine.counting import ACCOUNT, CountingProcessor
from tests.integration.engine.workers import Installation, until

PARTITIONS = 8
ACCOUNTS = 100_000
IDS = 5_000_000
BATCH = 8_192
ACCOUNT_BYTES = 600
# The changelog before compaction: each account several times.
VERSIONS = 3
READY_S_MAX = 15.0
RSS_MIB_MAX = 600.0
HOUR_US = 3600 * 1_000_000


@pytest.mark.slow
def test_a_large_state_is_served_soon_and_fits(settings: Settings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"partitions": PARTITIONS})
    installation = Installation(settings, tmp_path)
    try:
        installation.create_topics()
        processor = CountingProcessor(settings)
        prepare_topics(settings, processor.inputs, processor.outputs, processor.seen_windows)
        write_state(settings, processor)
        started_s = time.monotonic()
        worker = installation.worker()
        until(lambda: "Worker is ready" in worker.output, 120, "a ready worker")
        ready_s = time.monotonic() - started_s
        rss_mib = psutil.Process(worker.process.pid).memory_info().rss / 2**20
        print(f"ready after {ready_s:.1f} s with {rss_mib:.0f} MiB")
        assert worker.output.count(f"{ACCOUNTS // PARTITIONS} accounts, {ids_per_partition()} ids") == PARTITIONS
        assert ready_s < READY_S_MAX
        assert rss_mib < RSS_MIB_MAX
    finally:
        installation.stop()


def ids_per_partition() -> int:
    """Whole batches."""
    return -(-IDS // PARTITIONS // BATCH) * BATCH


def write_state(settings: Settings, processor: CountingProcessor) -> None:
    """What a worker would have written, straight into the engine's topics."""
    producer = Producer(producer_config(settings, queue_buffering_max_messages=1_000_000))
    window = processor.seen_windows[0]
    chance = np.random.default_rng(1)
    now = time.time_ns() // 1_000
    filler = os.urandom(ACCOUNT_BYTES - ACCOUNT.size)
    for number in range(PARTITIONS):
        memory = SeenMemory(window.window_us)
        batches = ids_per_partition() // BATCH
        for batch in range(batches):
            ids = chance.integers(0, 2**63, (BATCH, 2)).astype(np.uint64)
            at = now - (batches - batch) * (window.window_us - HOUR_US) // batches
            memory.add(ids, ids[:, 0], batch * BATCH, np.full(len(ids), at))
            for blob in memory.take_pending(1):
                producer.produce(seen_topic(settings.app_id, window.name), blob.encode(), partition=number)
        for _ in range(VERSIONS):
            for account in range(ACCOUNTS // PARTITIONS):
                framed = frame_account(0, ACCOUNT.pack(1, 0) + filler)
                key = f"org-{number}-{account}".encode()
                producer.produce(changelog_topic(settings.app_id), framed, key, partition=number)
            producer.flush()
        zero = dict.fromkeys(processor.inputs, 0)
        position = PositionRecord(
            next_offsets=zero, starts=zero, clock_at=now, commit=1, seed=1, seen={window.name: memory.counts}
        )
        producer.produce(changelog_topic(settings.app_id), position.encode(), POSITION_KEY, partition=number)
        assert producer.flush(60) == 0
