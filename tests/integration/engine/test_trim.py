"""Forgotten ids are deleted from the front of their topic, and nothing else."""

from __future__ import annotations

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from streams.engine.internal_topics import seen_topic
from streams.engine.seen import Blob, contents, digests
from streams.engine.trim import trim
from streams.kafka.clients import admin_config, consumer_config, producer_config
from streams.settings import Settings


def test_blobs_before_the_oldest_kept_bucket_go(settings: Settings) -> None:
    topic = seen_topic(settings.app_id, "usage")
    admin = AdminClient(admin_config(settings))
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    producer = Producer(producer_config(settings))
    for bucket in (1, 2, 2, 3):
        blob = Blob(bucket, bucket, 0, digests([b"id"], 1), contents([b"said"], 1))
        producer.produce(topic, value=blob.encode(), partition=0)
    assert producer.flush(30) == 0
    trim(settings, "usage", 0, 3)
    consumer = Consumer(consumer_config(settings, f"{settings.namespace}look"))
    try:
        assert consumer.get_watermark_offsets(TopicPartition(topic, 0), 10) == (3, 4)
    finally:
        consumer.close()
