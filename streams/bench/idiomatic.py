"""The yardstick: a Faust agent as the documentation teaches it. One event at a time, one sum per org in a table.

Run as `python -m streams.bench.idiomatic`. It decodes the same Avro records with fastavro, adds a cost to the table,
and does nothing else: no ids are remembered, nothing is rated from a price list, no entry is written. On standard
output it says how many events it has done in how many seconds, when the time is over or all are done.
"""

from __future__ import annotations

import io
import os
import sys
import time
from typing import Any

import fastavro
import faust

from schemas.records import avro_schema, plain_schema
from schemas.topics import Topics
from streams.kafka.clients import faust_broker_urls, faust_credentials
from streams.settings import Settings

EVENTS_VARIABLE = "BENCH_EVENTS"
SECONDS_VARIABLE = "BENCH_SECONDS"
FRAME_BYTES = 5
"""Magic byte and schema id."""

INPUT_NANOS, OUTPUT_NANOS = 2_500, 10_000


def main() -> None:
    """Run the agent until it has done its share."""
    settings = Settings()
    wanted, seconds = int(os.environ[EVENTS_VARIABLE]), float(os.environ[SECONDS_VARIABLE])
    schema = fastavro.parse_schema(plain_schema(avro_schema("usage")))
    app = faust.App(
        f"{settings.namespace}bench-idiomatic",
        broker=faust_broker_urls(settings),
        broker_credentials=faust_credentials(settings),
        store="memory://",
        topic_partitions=settings.partitions,
        datadir=str(settings.data_dir / "faust-bench"),
        web_enabled=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
    )
    usage = app.topic(Topics(settings.namespace).name("usage"), value_type=bytes, value_serializer="raw")
    spent = app.Table("spent", default=int, partitions=settings.partitions)
    done = 0
    begun = 0.0

    @app.agent(usage)  # type: ignore[untyped-decorator]
    async def add(stream: Any) -> None:
        nonlocal done, begun
        async for value in stream:
            if not done:
                begun = time.monotonic()
            event: Any = fastavro.schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), schema, None)
            cost = (event["input_tokens"] or 0) * INPUT_NANOS + (event["output_tokens"] or 0) * OUTPUT_NANOS
            spent[event["org_id"]] += cost
            done += 1
            if done >= wanted or (done % 1_000 == 0 and time.monotonic() - begun > seconds):
                os.write(1, f"{done} {time.monotonic() - begun:.3f}\n".encode())  # Faust takes `print` for its log
                os._exit(0)

    sys.argv = [sys.argv[0], "worker", "-l", "warn", "--without-web"]
    app.main()


if __name__ == "__main__":
    main()
