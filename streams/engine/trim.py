"""Deletes seen ids from Kafka when they cannot be needed any more.

Kafka's own retention must not: it goes by its clock, the memory of ids by the ledger's, and a partition without traffic
or behind by days still needs what Kafka would call old. So the topics are kept permanently, and what the memory has
forgotten, and the committed state says so, is deleted from the front of the log. Not doing it costs disk, nothing else.
"""

from __future__ import annotations

import contextlib
import logging

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from streams.engine.internal_topics import seen_topic
from streams.engine.seen import Blob, BlobError
from streams.errors import KafkaUnavailableError
from streams.kafka.clients import admin_config
from streams.kafka.reader import CommittedReader
from streams.seals import unsealed
from streams.settings import Settings

log = logging.getLogger(__name__)

DELETE_TIMEOUT_S = 30.0


def trim(settings: Settings, window: str, number: int, oldest_bucket: int) -> None:
    """Delete the blobs of partition `number` that lie before the first one of `oldest_bucket` or later. Blocks."""
    topic = seen_topic(settings.app_id, window)
    reader = CommittedReader(settings, "trim")
    try:
        low, high = reader.ends(topic, number)
        keep_from = _first_kept(reader, topic, number, low, high, oldest_bucket)
        if keep_from > low:
            admin = AdminClient(admin_config(settings))
            deleted = admin.delete_records([TopicPartition(topic, number, keep_from)])
            for future in deleted.values():
                future.result(DELETE_TIMEOUT_S)
    except (KafkaException, KafkaUnavailableError, BlobError, TimeoutError) as error:
        log.warning("Forgotten ids of %s/%s stay in Kafka for now: %s", topic, number, error or "no answer")
    finally:
        reader.close()


def _first_kept(reader: CommittedReader, topic: str, number: int, low: int, high: int, oldest_bucket: int) -> int:
    with contextlib.closing(reader.read(topic, number, low, high)) as batches:
        for record in (record for batch in batches for record in batch):
            value = record.value()
            if not isinstance(value, bytes):
                raise BlobError("a record of ids has no value")
            if Blob.decode(unsealed(value)).bucket >= oldest_bucket:
                return int(record.offset() or 0)
    return high
