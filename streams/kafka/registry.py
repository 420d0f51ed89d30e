"""The schema registry as the rest of the code sees it: a port, and its two adapters.

The rules of this file:
1. An id means one schema permanently, so an answer is cached. Only "no such id" is looked up again, after a second.
2. "No such id" and "registry unavailable" are different answers. The first makes a dead letter; the second makes the
   caller wait (`RegistryUnavailableError`). An unavailable registry is never reported as an unknown id.
3. The released schemas are known without a request: with the built-in registry their ids are fixed.
4. The adapters block. On an event loop, call them in a thread or use `CachedRegistry.cached_schemas`.
5. Ids in corrupt records can have any value, so lookups are limited to one per `ASK_INTERVAL_S`. Further ones wait.
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
"""Schemas in memory; a ledger needs about twenty. The oldest is evicted first, but never one used for writing."""

UNKNOWN_CACHED_S = 1.0
UNKNOWN_IDS_MAX = 10_000
ASK_TIMEOUT_S = 5.0
# 200 lookups a second: a registry can serve that besides its other work, and a batch of 8,192 records that each name
# a different id is resolved within 41 s.
ASK_INTERVAL_S = 0.005


class Registry(Protocol):
    """Schemas by id, and the ids to write with. It is a `schemas.codec.WriterSchemas`."""

    def writer(self, schema_id: int) -> WriterSchema | None:
        """The schema with that id; None when there is none. Raises `RegistryUnavailableError`."""
        ...

    def schema_id(self, key: str) -> int:
        """The id to write the values of topic `key` with (newest released schema). Raises the same."""
        ...


class SchemaNotCachedError(Exception):
    """The cache does not know this id: the registry must be asked."""

    def __init__(self, schema_id: int) -> None:
        super().__init__(f"schema id {schema_id} is not in memory")


def connect_registry(settings: Settings) -> CachedRegistry:
    """The registry of these settings. It sends no request before the first use."""
    if settings.schema_registry_url is not None:
        return CachedRegistry(ConfluentRegistry(settings.schema_registry_url, Topics(settings.namespace)))
    from streams.kafka.registry_topic import TopicRegistry

    return CachedRegistry(TopicRegistry(settings))


class CachedRegistry:
    """A registry whose answers are cached in memory. Thread-safe."""

    def __init__(self, upstream: Registry, fetch_interval_s: float = ASK_INTERVAL_S) -> None:
        self.upstream = upstream
        self.cached_schemas = CachedSchemas(self)
        """Answers from memory only: for an event loop."""
        self._writers: dict[int, WriterSchema] = {}
        self._unknown: dict[int, float] = {}
        self._ids: dict[str, int] = {}
        self._lock = threading.Lock()
        self._fetch_interval_s = fetch_interval_s
        self._next_fetch_at = 0.0

    def writer(self, schema_id: int) -> WriterSchema | None:
        """See `Registry.writer`. Blocks when the answer is not in memory."""
        try:
            return self.cached_writer(schema_id)
        except SchemaNotCachedError:
            with self._lock:
                return self._fetch(schema_id)

    def writers(self, schema_ids: Iterable[int]) -> Mapping[int, WriterSchema | None]:
        """`writer` of each of these ids."""
        return {schema_id: self.writer(schema_id) for schema_id in schema_ids}

    def cached_writer(self, schema_id: int) -> WriterSchema | None:
        """What `writer` would return, from memory alone. Never blocks; raises `SchemaNotCachedError`."""
        found = self._writers.get(schema_id)
        if found is None and time.monotonic() - self._unknown.get(schema_id, -UNKNOWN_CACHED_S) >= UNKNOWN_CACHED_S:
            raise SchemaNotCachedError(schema_id)
        return found

    def _fetch(self, schema_id: int) -> WriterSchema | None:
        """Ask the registry, unless another thread did so while this one waited."""
        try:
            return self.cached_writer(schema_id)
        except SchemaNotCachedError:
            time.sleep(max(0.0, self._next_fetch_at - time.monotonic()))
            self._next_fetch_at = time.monotonic() + self._fetch_interval_s
        found = self.upstream.writer(schema_id)
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
            found = self._ids[key] = self.upstream.schema_id(key)
        return found


class CachedSchemas:
    """The writer schemas that a `CachedRegistry` has in memory; a `schemas.codec.WriterSchemas`."""

    def __init__(self, cached: CachedRegistry) -> None:
        self._cached = cached

    def writer(self, schema_id: int) -> WriterSchema | None:
        """See `CachedRegistry.cached_writer`."""
        return self._cached.cached_writer(schema_id)


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
