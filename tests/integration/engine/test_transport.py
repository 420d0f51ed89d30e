"""The batch transport by itself, on a real broker: what the projections rely on too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import faust
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from faust.types import TP

from streams.app import build_app
from streams.kafka.clients import admin_config, consumer_config, producer_config
from streams.kafka.inbound import Inbound
from streams.kafka.transport import batch_topic, commit_offsets, use_batches
from streams.settings import Settings
from tests.unit.engine.test_lenient import RawName

PARTITIONS = 2


@pytest.fixture
def topic(settings: Settings) -> str:
    """A topic with committed, aborted and plain records in partition 0, and headers on one in partition 1."""
    name = f"{settings.namespace}mixed"
    admin = AdminClient(admin_config(settings))
    for future in admin.create_topics([NewTopic(name, PARTITIONS, 1)]).values():
        future.result(30)
    plain = Producer(producer_config(settings))
    transactional = Producer(producer_config(settings, transactional_id=f"{settings.namespace}writer"))
    transactional.init_transactions(20)
    for number in range(3):
        plain.produce(name, b"plain%d" % number, b"key", partition=0)  # offsets 0 to 2
    plain.flush()
    transactional.begin_transaction()
    transactional.produce(name, b"committed", b"key", partition=0)  # 3, marker 4
    transactional.commit_transaction()
    transactional.begin_transaction()
    transactional.produce(name, b"aborted", b"key", partition=0)  # 5, marker 6
    transactional.flush()
    transactional.abort_transaction()
    plain.produce(name, None, None, partition=1)
    plain.produce(name, b"with", b"key", partition=1, headers={"ce_id": "7"})
    plain.flush()
    return name


@asynccontextmanager
async def reading(
    settings: Settings, topic: str, records_max: int = 8_192
) -> AsyncIterator[tuple[faust.App, list[Inbound]]]:
    """A Faust app that collects the batches of a topic."""
    app = build_app(settings)
    use_batches(app, records_max=records_max)
    batches: list[Inbound] = []

    async def collect(stream: Any) -> None:
        async for inbound in stream:
            batches.append(inbound)  # noqa: PERF401 - a stream has no end

    app.agent(batch_topic(app, topic), name="collect")(collect)
    await app.start()
    try:
        yield app, batches
    finally:
        await app.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Wait up to 20 s for a condition."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


def run(test: Awaitable[None]) -> None:
    """Run one test's coroutine in a loop of its own."""

    async def main() -> None:
        await test

    asyncio.run(main())


def values(batches: list[Inbound], partition: int) -> list[bytes | None]:
    return [value for batch in batches if batch.partition == partition for value in batch.values]


def reached(batches: list[Inbound], partition: int) -> int:
    return max((batch.next_offset for batch in batches if batch.partition == partition), default=0)


def test_committed_records_only_and_offsets_that_join(settings: Settings, topic: str) -> None:
    async def test() -> None:
        async with reading(settings, topic) as (_, batches):
            await until(lambda: reached(batches, 0) == 7 and reached(batches, 1) == 2)
            assert values(batches, 0) == [b"plain0", b"plain1", b"plain2", b"committed"]
            for partition in range(PARTITIONS):
                position = 0
                for batch in (each for each in batches if each.partition == partition):
                    assert batch.first_offset == position
                    assert all(position <= offset < batch.next_offset for offset in batch.offsets)
                    assert len(batch.offsets) == len(batch.timestamps_ms) == len(batch.keys) == len(batch.values)
                    position = batch.next_offset
            assert values(batches, 1) == [None, b"with"]
            headers = [each for batch in batches if batch.partition == 1 for each in batch.headers]
            assert [list(each) for each in headers if each] == [[("ce_id", b"7")]]

    run(test())


def test_after_a_restart_it_goes_on_from_the_group_offsets(settings: Settings, topic: str) -> None:
    async def first() -> None:
        async with reading(settings, topic) as (app, batches):
            await until(lambda: reached(batches, 0) == 7 and reached(batches, 1) == 2)
            assert await commit_offsets(app, {TP(topic, 0): 2, TP(topic, 1): 2})
            assert not await commit_offsets(app, {TP(topic, 99): 1})

    async def second() -> None:
        async with reading(settings, topic) as (_, batches):
            await until(lambda: reached(batches, 0) == 7)
            assert values(batches, 0) == [b"plain2", b"committed"]
            assert batches[0].first_offset == 2
            assert values(batches, 1) == []

    run(first())
    run(second())
    consumer = Consumer(consumer_config(settings, settings.app_id))
    offsets = consumer.committed([TopicPartition(topic, number) for number in range(PARTITIONS)], 10)
    consumer.close()
    assert [each.offset for each in offsets] == [2, 2]  # nothing was committed behind our back


def test_held_partitions_rest_and_go_on_at_once(settings: Settings, topic: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with reading(settings, topic) as (app, batches):
            await until(lambda: reached(batches, 0) == 7 and reached(batches, 1) == 2)
            app.consumer.pause([TP(topic, 0)])
            plain = Producer(producer_config(settings))
            plain.produce(topic, b"later", b"key", partition=0)
            plain.produce(topic, b"now", b"key", partition=1)
            plain.flush()
            await until(lambda: b"now" in values(batches, 1))
            await asyncio.sleep(0.5)
            assert b"later" not in values(batches, 0)
            app.consumer.resume([TP(topic, 0)])
            async with asyncio.timeout(0.8):
                await until(lambda: b"later" in values(batches, 0))

    run(test())


def test_batches_are_bounded_by_kafka_batches(settings: Settings, topic: str) -> None:
    async def test() -> None:
        async with reading(settings, topic, records_max=1) as (_, batches):
            await until(lambda: reached(batches, 0) == 7)
            # The three plain records are one Kafka batch, the committed one is another.
            assert [len(batch) for batch in batches if batch.partition == 0 and len(batch)] == [3, 1]

    run(test())


def test_a_header_name_that_is_not_utf_8_does_not_stop_the_partition(settings: Settings, topic: str) -> None:
    async def test() -> None:
        async with (
            AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers) as producer,
            reading(settings, topic) as (_, batches),
        ):
            batch = producer.create_batch()
            batch._builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, -1, 1 << 20)
            batch.append(key=b"key", value=b"odd", timestamp=None, headers=[(RawName("x"), b"1")])
            batch.append(key=b"key", value=b"neighbour", timestamp=None, headers=[("ce_id", b"8")])
            await (await producer.send_batch(batch, topic, partition=1))
            await until(lambda: reached(batches, 1) == 4)
            assert values(batches, 1) == [None, b"with", b"odd", b"neighbour"]
            headers = [each for batch in batches if batch.partition == 1 for each in batch.headers]
            assert [list(each) for each in headers if each][1:] == [[("\\xff\\xfex", b"1")], [("ce_id", b"8")]]

    run(test())
