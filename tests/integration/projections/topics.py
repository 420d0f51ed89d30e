"""What the projection reads, written as the ledger writes it: Avro in transactions, on the org's partition."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import faust
from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer
from faust.contrib.asgi import faust_app_running

from projections.projector import Pace, build_projection_app
from schemas.codec import batch_of, encode_columns
from schemas.partitioner import partition_of
from schemas.records import bundled_id
from schemas.topics import BY_KEY, Topics
from streams.kafka.clients import producer_config
from streams.settings import Settings

WAIT_S = 40.0
PARTITIONS = 4
"""As many as the settings of the integration tests say."""
QUICK = Pace(interval_s=0.1, retry_first_s=0.1, retry_max_s=0.4)


def org_in(partition: int) -> str:
    """An organisation whose partition this is: entries of one in another partition are left out of ClickHouse."""
    names = (f"org-{number}" for number in itertools.count())
    return next(name for name in names if partition_of(name.encode(), PARTITIONS) == partition)


class Ledger:
    """Writes records to the output topics in transactions."""

    def __init__(self, settings: Settings) -> None:
        self._topics = Topics(settings.namespace)
        self._producer = Producer(
            producer_config(settings, transactional_id=f"{settings.namespace}test", queue_buffering_max_messages=10**6)
        )
        self._producer.init_transactions(WAIT_S)

    def write(self, key: str, partition: int, rows: Sequence[Mapping[str, Any]], *, abort: bool = False) -> None:
        """One transaction; aborted, nobody may ever see it."""
        record = BY_KEY[key].record
        assert record is not None
        values = encode_columns(record, batch_of(record, rows), bundled_id(record))
        field = "price_id" if key == "prices" else "org_id"
        self._producer.begin_transaction()
        for row, value in zip(rows, values, strict=True):
            self._producer.produce(self._topics.name(key), value, row[field].encode(), partition)
        self._end(abort)

    def write_raw(
        self, key: str, partition: int, record_key: bytes, value: bytes | None, headers: dict[str, bytes]
    ) -> None:
        """One record as it is."""
        self._producer.begin_transaction()
        self._producer.produce(self._topics.name(key), value, record_key, partition, headers=headers)
        self._end(abort=False)

    def _end(self, abort: bool) -> None:
        self._producer.flush(WAIT_S)
        if abort:
            self._producer.abort_transaction(WAIT_S)
        else:
            self._producer.commit_transaction(WAIT_S)


@contextlib.asynccontextmanager
async def projecting(settings: Settings, client: Client, pace: Pace = QUICK) -> AsyncIterator[faust.App]:
    """The projection at work, until the block ends."""
    app = build_projection_app(settings, client, pace)
    async with faust_app_running(app, discover=False):
        yield app


async def until(condition: Callable[[], bool], app: faust.App | None = None) -> None:
    """Waits until a condition holds; fails after `WAIT_S`, or when the app has crashed meanwhile."""
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while not await asyncio.to_thread(condition):
        assert app is None or not app.crashed, f"the projection crashed: {app.crash_reason!r}"
        assert asyncio.get_running_loop().time() < deadline, "waited too long"
        await asyncio.sleep(0.05)
