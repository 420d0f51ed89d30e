"""Drop everything projected and fold it again from the topics.

Rules of this file: no projection may be at work meanwhile: one that kept its buckets in memory would write them, and
its positions, into the new tables. What is dropped comes back from the topics alone; a rebuild that is broken off goes
on where it stood, by itself, with the next `serve`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from clickhouse_connect.driver.client import Client
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from projections.clickhouse import migrate
from projections.sink import PROJECTED, Sink, TopicAndPartition, caught_up
from schemas.topics import Topics
from streams.kafka.clients import admin_config, consumer_config
from streams.kafka.consume import read_to
from streams.kafka.groups import group_members
from streams.kafka.inbound import Inbound
from streams.kafka.registry import connect_registry
from streams.kafka.silence import SilenceLimit
from streams.seals import Seals

if TYPE_CHECKING:
    from streams.settings import Settings

ANSWER_TIMEOUT_S = 15.0
# Rows of one write, as the sink's own pace: about 130 MB with columns and copies.
ROWS_MAX = 65_536
# Bytes of one write: dead letters may hold 8 MiB each, and 65,536 of those would be 512 GiB.
BYTES_MAX = 64 * 1024 * 1024

# What one question brings is bounded in bytes by the client's own queue (64 MiB).
FETCH_RECORDS_MAX = 10_000

Advance = Callable[[int], None]
"""Called with the number of further records that were projected."""


class ProjectionAtWorkError(Exception):
    """A projection is running, so the tables cannot be dropped under it."""


def rebuild(settings: Settings, client: Client, advance: Advance = lambda _records: None) -> int:
    """Drop and refold; returns the number of records projected.

    1. Refuse when a projection is at work (`ProjectionAtWorkError`; `KafkaUnavailableError` when Kafka does not say).
    2. Drop every table and view, and migrate. 3. Read the projected topics from their beginning to where they end now,
    and apply them. A crash in 3 leaves a part of the rows with their positions: the next sink adds what is missing.
    """
    refuse_while_projecting(settings)
    drop(client)
    migrate(client)
    return refold(settings, client, advance)


def refuse_while_projecting(settings: Settings) -> None:
    """Raises `ProjectionAtWorkError` when the projection's consumer group has members, `KafkaUnavailableError`."""
    group = settings.projection_id
    # Kept in a variable: a client that is collected never answers.
    admin = AdminClient({**admin_config(settings), "log_level": 0})
    members = group_members(admin, group)
    if members:
        raise ProjectionAtWorkError(f"the consumer group {group} has members")


def drop(client: Client) -> list[str]:
    """Drop every table and view of the client's database; their names."""
    rows = client.query(
        "SELECT name, engine FROM system.tables WHERE database = currentDatabase() ORDER BY engine = 'View' DESC, name"
    ).result_rows
    for name, engine in rows:
        client.command(f"DROP {'VIEW' if engine == 'View' else 'TABLE'} `{name}` SYNC")
    return [name for name, _ in rows]


def refold(settings: Settings, client: Client, advance: Advance = lambda _records: None) -> int:
    """Project from the positions in ClickHouse to where the topics end now; returns the number of records."""
    topics = Topics(settings.namespace)
    sink = Sink(client, topics, connect_registry(settings), None, settings.partitions, Seals.of(settings))
    group = f"{settings.projection_id}-rebuild"
    consumer = Consumer({**consumer_config(settings, group, enable_partition_eof=True), "log_level": 0})
    try:
        ends = _ends(consumer, [topics.name(key) for key in PROJECTED])
        starts = sink.restore(ends)
        consumer.assign(
            [
                TopicPartition(*topic_partition, offset)
                for topic_partition, offset in starts.items()
                if offset < ends[topic_partition]
            ]
        )
        return _project(consumer, sink, starts, ends, advance, SilenceLimit(settings.read_timeout_s))
    finally:
        consumer.close()


def _project(
    consumer: Consumer,
    sink: Sink,
    starts: dict[TopicAndPartition, int],
    ends: dict[TopicAndPartition, int],
    advance: Advance,
    silence: SilenceLimit,
) -> int:
    reached = dict(starts)
    records = 0
    waiting: list[Message] = []
    waiting_bytes = 0
    for fetched in read_to(consumer, reached, ends, silence, FETCH_RECORDS_MAX):
        waiting += fetched
        waiting_bytes += sum(map(len, fetched))
        if len(waiting) >= ROWS_MAX or waiting_bytes >= BYTES_MAX or caught_up(reached, ends):
            sink.apply(_batches(waiting, reached, starts))
            records += len(waiting)
            advance(len(waiting))
            waiting, waiting_bytes = [], 0
            silence.progressed()  # ClickHouse may have taken its time
    return records


def _batches(
    messages: Iterable[Message], reached: dict[TopicAndPartition, int], starts: dict[TopicAndPartition, int]
) -> list[Inbound]:
    """The messages by partition, in order; each batch begins where the last one of its partition ended."""
    batches: dict[TopicAndPartition, Inbound] = {}
    for message in messages:
        topic_partition = (message.topic(), message.partition())
        batch = batches.get(topic_partition)
        if batch is None:
            batch = batches[topic_partition] = Inbound(
                *topic_partition, first_offset=starts[topic_partition], next_offset=0
            )
        batch.offsets.append(message.offset())
        batch.timestamps_ms.append(message.timestamp()[1])
        batch.keys.append(message.key())
        batch.values.append(message.value())
        batch.headers.append(message.headers() or [])
    for topic_partition, batch in batches.items():
        batch.next_offset = starts[topic_partition] = max(reached[topic_partition], batch.offsets[-1] + 1)
    return list(batches.values())


def _ends(consumer: Consumer, names: Iterable[str]) -> dict[TopicAndPartition, int]:
    """Where the committed records of each partition end now."""
    known = consumer.list_topics(timeout=ANSWER_TIMEOUT_S).topics
    topic_partitions = [(name, number) for name in names if name in known for number in known[name].partitions]
    return {
        topic_partition: consumer.get_watermark_offsets(TopicPartition(*topic_partition), timeout=ANSWER_TIMEOUT_S)[1]
        for topic_partition in topic_partitions
    }
