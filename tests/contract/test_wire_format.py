"""Our bytes are those of Confluent's own serializer, and it reads ours."""

from __future__ import annotations

import json
from typing import Any

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from schemas.codec import decode_one, encode_one
from schemas.records import avro_text, plain_schema
from schemas.topics import CATALOGUE
from tests.contract.samples import full

STRATEGY = {"subject.name.strategy": topic_subject_name_strategy}
TOPICS = [(topic.name, topic.record) for topic in CATALOGUE if topic.record is not None]


class Asked:
    """Writer schemas by asking a registry's client."""

    def __init__(self, client: SchemaRegistryClient) -> None:
        self.client = client

    def writer(self, schema_id: int) -> dict[str, Any] | None:
        text = self.client.get_schema(schema_id).schema_str
        schema: dict[str, Any] = json.loads(text)
        return schema


@pytest.mark.parametrize(("topic", "record"), TOPICS)
def test_official_serializer(topic: str, record: str) -> None:
    client = SchemaRegistryClient.new_client({"url": f"mock://{topic}"})
    plain = json.dumps(plain_schema(json.loads(avro_text(record))))  # whole numbers for times on both sides
    serialize = AvroSerializer(client, plain, conf=STRATEGY)
    context = SerializationContext(topic, MessageField.VALUE)
    theirs = serialize(full(record), context)
    assert theirs is not None
    schema_id = int.from_bytes(theirs[1:5], "big")
    ours = encode_one(record, full(record), schema_id)
    assert ours == theirs
    assert decode_one(record, theirs, Asked(client)) == full(record)
    deserialize = AvroDeserializer(client, conf=STRATEGY)
    assert deserialize(ours, context) == full(record)
