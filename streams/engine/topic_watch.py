"""Whether the topics of a running worker are still those it started with.

A consumer waits silently for a topic that was deleted, and a topic made again under the same name starts at offset 0
with other records: positions, seen ids and balances then mean nothing. So a worker looks at the ids of its topics and
stops when one is gone or another.

Rules of this file:
1. The first look remembers the ids. The start of the worker (`prepare_topics`) has checked that all topics exist.
2. Missing is believed after two looks in a row: a broker that starts may not know every topic yet. Another id is
   believed at once.
3. While no broker answers nothing is known, and nothing is said: the pumps wait for the broker by themselves.
"""

from __future__ import annotations

from collections.abc import Collection

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from streams.engine.failures import TopicGoneError, topic_deleted
from streams.kafka.clients import admin_config
from streams.settings import Settings

LOOK_INTERVAL_S = 2.0
ANSWER_TIMEOUT_S = 10.0


class TopicWatch:
    """Looks at topics by name. Blocks; for one thread at a time."""

    def __init__(self, settings: Settings, names: Collection[str]) -> None:
        self._settings = settings
        self._names = list(names)
        self._ids: dict[str, str] = {}
        self._missing: set[str] = set()

    def look(self) -> None:
        """Raise `TopicGoneError` when a topic is not the one it was. Says nothing when no broker answers."""
        # A new client each time: one that is kept answers for a while from what it knew.
        admin = AdminClient({**admin_config(self._settings), "log_level": 0})
        missing = set()
        asked = admin.describe_topics(TopicCollection(self._names), request_timeout=ANSWER_TIMEOUT_S)
        for name, future in asked.items():
            try:
                found = str(future.result(ANSWER_TIMEOUT_S * 2).topic_id)
            except KafkaException as failure:
                if failure.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    return
                missing.add(name)
                continue
            if self._ids.setdefault(name, found) != found:
                raise TopicGoneError(
                    f"topic {name} was deleted and created again while the worker ran",
                    "restore it from a copy, with the ledger's other topics of the same time, or use another "
                    "CREDITS_NAMESPACE",
                )
        for name in sorted(missing & self._missing):
            raise topic_deleted(name)
        self._missing = missing
