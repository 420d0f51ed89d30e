"""The schema registry as the rest of the code sees it: a port, and its two adapters.

The rules of this file:
1. An id means one schema for ever. So an answer is kept; only "no such id" is asked again after a second.
2. "No such id" and "cannot be asked" are different answers: the first makes a dead letter, the second makes wait
   (`RegistryUnavailableError`). What looks like the second is never told as the first.
3. The released schemas are known without asking anybody: with the built-in registry, their ids are fixed.
4. The adapters block; on an event loop call them in a thread, or let `Kept.remembered` answer from memory.
5. Ids in poisoned records are anything: nobody is asked for more than one in `ASK_INTERVAL_S`. Who needs more waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from schemas.codec import RegistryUnavailableError, WriterSchema
from schemas.records import avro_text
from schemas.topics import BY_KEY, Topics
from schemas.writer_safety import UnreadableSchema, readable_schema

if TYPE_CHECKING:
    from streams.settings import Settings

KNOWN_IDS_MAX = 2_000
"""Schemas in memory; a ledger meets some twenty. The one met first makes room, but for those that are written with."""

UNKNOWN_KEPT_S = 1.0
UNKNOWN_IDS_MAX = 10_000
ASK_TIMEOUT_S = 5.0
# 200 questions a second: a registry answers that beside its other work, and a batch of 8,192 records that all name an
# id of their own is told apart within 41 s.
ASK_INTERVAL_S = 0.005


class Registry(Protocol):
    """Schemas by id, and the ids to write with. It is a `schemas.codec.WriterSchemas`."""

    def writer(self, schema_id: int) -> WriterSchema | None:
        """The schema with that id; None when there is none. Raises `RegistryUnavailableError`."""
        ...

    def schema_id(self, key: str) -> int:
        """The id to write the values of topic `key` with (newest released schema). Raises the same."""
        ...


class NotAskedError(Exception):
    """Whether there is a schema with that id is not in memory: somebody must be asked."""

    def __init__(self, schema_id: int) -> None:
        super().__init__(f"schema id {schema_id} is not in memory")


def connect_registry(settings: Settings) -> Kept:
    """The registry of these settings. Nothing is asked before the first use."""
    if settings.schema_registry_url is not None:
        return Kept(ConfluentRegistry(settings.schema_registry_url, Topics(settings.namespace)))
    from streams.kafka.registry_topic import TopicRegistry

    return Kept(TopicRegistry(settings))


class Kept:
    """A registry whose answers are kept in memory; safe to use from several threads."""

    def __init__(self, asked: Registry, ask_interval_s: float = ASK_INTERVAL_S) -> None:
        self.asked = asked
        self.remembered = Remembered(self)
        """What is in memory and nothing else: for an event loop."""
        self._writers: dict[int, WriterSchema] = {}
        self._unknown: dict[int, float] = {}
        self._ids: dict[str, int] = {}
        self._lock = threading.Lock()
        self._ask_interval_s = ask_interval_s
        self._ask_again_at = 0.0

    def writer(self, schema_id: int) -> WriterSchema | None:
        """See `Registry.writer`. Blocks when the answer is not in memory."""
        try:
            return self.recall(schema_id)
        except NotAskedError:
            with self._lock:
                return self._ask(schema_id)

    def writers(self, schema_ids: Iterable[int]) -> Mapping[int, WriterSchema | None]:
        """`writer` of each of these ids."""
        return {schema_id: self.writer(schema_id) for schema_id in schema_ids}

    def recall(self, schema_id: int) -> WriterSchema | None:
        """What `writer` would say, without asking anybody. Never blocks; raises `NotAskedError`."""
        found = self._writers.get(schema_id)
        if found is None and time.monotonic() - self._unknown.get(schema_id, -UNKNOWN_KEPT_S) >= UNKNOWN_KEPT_S:
            raise NotAskedError(schema_id)
        return found

    def _ask(self, schema_id: int) -> WriterSchema | None:
        """Ask, unless another thread has while this one waited."""
        try:
            return self.recall(schema_id)
        except NotAskedError:
            time.sleep(max(0.0, self._ask_again_at - time.monotonic()))
            self._ask_again_at = time.monotonic() + self._ask_interval_s
        found = self.asked.writer(schema_id)
        if found is not None:
            if len(self._writers) >= KNOWN_IDS_MAX:
                ours = set(self._ids.values())
                del self._writers[next(known for known in self._writers if known not in ours)]
            self._writers[schema_id] = found
            return found
        if len(self._unknown) >= UNKNOWN_IDS_MAX:
            self._unknown.clear()
        self._unknown[schema_id] = time.monotonic()
        return None

    def schema_id(self, key: str) -> int:
        """See `Registry.schema_id`."""
        found = self._ids.get(key)
        if found is None:
            found = self._ids[key] = self.asked.schema_id(key)
        return found


class Remembered:
    """The writer schemas that a `Kept` has in memory. It is a `schemas.codec.WriterSchemas`."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def writer(self, schema_id: int) -> WriterSchema | None:
        """See `Kept.recall`."""
        return self._kept.recall(schema_id)


class ConfluentRegistry:
    """A registry that speaks Confluent's REST interface (Confluent, Redpanda, Karapace, Apicurio).

    Credentials may stand in the address: `https://user:password@host`.
    """

    def __init__(self, url: str, topics: Topics) -> None:
        from confluent_kafka.schema_registry import SchemaRegistryClient

        self._topics = topics
        configuration = {"url": url, "timeout": ASK_TIMEOUT_S, "max.retries": 1, "retries.max.wait.ms": 500}
        self._client = SchemaRegistryClient(configuration)

    def writer(self, schema_id: int) -> WriterSchema | None:
        """See `Registry.writer`."""
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        if schema_id < 0:
            return None
        try:
            found = self._client.get_schema(schema_id)
        except SchemaRegistryError as error:
            if error.http_status_code == 404:
                return None
            raise RegistryUnavailableError(f"the schema registry answers {error}") from error
        except _transport_errors() as error:
            raise RegistryUnavailableError(f"the schema registry does not answer: {error}") from error
        if (found.schema_type or "AVRO") != "AVRO":
            return UnreadableSchema(f"it is of type {found.schema_type}, and records are written in Avro")
        if found.references:
            return UnreadableSchema("it refers to other schemas; write it in full")
        schema: WriterSchema = readable_schema(found.schema_str or "")
        return schema

    def schema_id(self, key: str) -> int:
        """See `Registry.schema_id`; registers the schema when the subject does not have it."""
        from confluent_kafka.schema_registry import Schema
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        record = BY_KEY[key].record
        if record is None:
            raise KeyError(f"topic {key!r} has no schema")
        try:
            return int(self._client.register_schema(self._topics.subject(key), Schema(avro_text(record), "AVRO")))
        except SchemaRegistryError as error:
            raise RegistryUnavailableError(f"the schema registry refuses the schema of {key}: {error}") from error
        except _transport_errors() as error:
            raise RegistryUnavailableError(f"the schema registry does not answer: {error}") from error


def _transport_errors() -> tuple[type[Exception], ...]:
    """What the client raises when no answer came: its HTTP library is whichever of the two is installed."""
    import httpx
    import httpx2

    return (httpx.TransportError, httpx2.TransportError, OSError)
