"""Sends usage, and reads what the ledger booked of it: client.py BOOTSTRAP REGISTRY NAMESPACE RUN COUNT"""

import io
import json
import struct
import sys
import time
import urllib.request
from typing import Any

import fastavro
from confluent_kafka import Consumer, Producer

bootstrap, registry, namespace, run, count = sys.argv[1:6]


def ask(path: str) -> Any:
    with urllib.request.urlopen(f"{registry}{path}") as answer:
        return json.load(answer)


# Framing: byte 0, the schema's id in 4 bytes, the Avro body. The subject is the topic's name and "-value".
usage = namespace + "credits.usage.v1"
latest = ask(f"/subjects/{usage}-value/versions/latest")
usage_schema = fastavro.parse_schema(json.loads(latest["schema"]))


def framed(record: dict[str, Any]) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, usage_schema, record)
    return struct.pack(">bI", 0, latest["id"]) + body.getvalue()


def note(error: Any, _: Any) -> None:
    if error is not None:
        sys.exit(f"not sent: {error}")


producer = Producer(
    {
        "bootstrap.servers": bootstrap,
        "partitioner": "murmur2_random",  # librdkafka's default would put an organisation elsewhere
        "enable.idempotence": True,
        "compression.type": "lz4",
    }
)
for number in range(int(count)):
    record = {
        "event_id": f"{run}-{number}",
        "org_id": f"org-{number % 12}",
        "occurred_at": int(time.time() * 1_000_000),
        "operation": "chat.completion",
        "wallet": "USD",
        "cost_nanos": 9_007_199_254_740_993,
    }
    producer.produce(usage, key=record["org_id"], value=framed(record), on_delivery=note)
if producer.flush(30):
    sys.exit("Kafka does not answer")

# Without read_committed, entries of a transaction that was aborted would count.
consumer = Consumer(
    {
        "bootstrap.servers": bootstrap,
        "group.id": f"{namespace}credits-follower-{run}",
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
)
consumer.subscribe([namespace + "credits.ledger.v1"])
schemas: dict[int, Any] = {}
left = int(count)
while left:
    message = consumer.poll(60)
    if message is None or message.error() is not None:
        sys.exit(f"nothing to read: {message and message.error()}")
    _, schema_id = struct.unpack(">bI", message.value()[:5])
    if schema_id not in schemas:
        schemas[schema_id] = fastavro.parse_schema(json.loads(ask(f"/schemas/ids/{schema_id}")["schema"]))
    entry: Any = fastavro.schemaless_reader(io.BytesIO(message.value()[5:]), schemas[schema_id], None)
    if entry["event_id"].startswith(f"{run}-"):
        print(json.dumps({"event_id": entry["event_id"], "amount_nanos": str(entry["amount_nanos"])}))
        left -= 1
consumer.close()
