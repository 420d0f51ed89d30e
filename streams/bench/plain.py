"""The ceiling: fetch and decode, and nothing else. What a worker without any rule could do in this language.

Run as `python -m streams.bench.plain`; says on standard output how many events it decoded in how many seconds.
"""

from __future__ import annotations

import asyncio
import os
import time

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.codec import decode_columns
from schemas.topics import Topics
from streams.bench.idiomatic import EVENTS_VARIABLE
from streams.kafka.clients import aiokafka_config
from streams.kafka.registry import connect_registry
from streams.settings import Settings

BATCH_RECORDS_MAX = 8_192


async def run(settings: Settings, wanted: int) -> tuple[int, float]:
    """Read the usage topic from its start until this many events are decoded: (events, seconds)."""
    topic = Topics(settings.namespace).name("usage")
    registry = connect_registry(settings)
    consumer = AIOKafkaConsumer(**aiokafka_config(settings), isolation_level="read_committed")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(settings.partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        done = 0
        begun = 0.0
        while done < wanted:
            batches = await consumer.getmany(timeout_ms=1_000, max_records=BATCH_RECORDS_MAX)
            begun = begun or time.monotonic()
            for records in batches.values():
                decoded = decode_columns("usage", [record.value for record in records], registry)
                done += decoded.batch.num_rows
        return done, time.monotonic() - begun
    finally:
        await consumer.stop()


def main() -> None:
    """Measure, and print."""
    done, seconds = asyncio.run(run(Settings(), int(os.environ[EVENTS_VARIABLE])))
    print(f"{done} {seconds:.3f}", flush=True)


if __name__ == "__main__":
    main()
