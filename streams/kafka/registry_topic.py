"""The built-in schema registry: a compacted topic of one partition, folded.

The rules of this file:
1. A record of the topic claims (subject, version, id, schema). The topic's order decides: the first claim wins, a claim
   that contradicts an earlier one is as if it were not there. So any number of writers need no other agreement: write,
   read back, see who won.
2. Every claim has a key of its own, so that compaction takes none away.
3. Released schemas are not in the topic: they come with the code, under the ids of `schemas/ids.json`. Ids in the
   topic begin at `DYNAMIC_ID_MIN`.
4. A new version must be compatible with all before it, in both directions (FULL_TRANSITIVE), and its records must be
   read. A claim of one that is not has no effect, from any writer. Nothing is deleted.
5. Over HTTP nothing is registered unless `CREDITS_REGISTRY_READ_ONLY` is false: who may write a version decides what
   every reader of the topic gets. `credits schemas register` is for operators, who may write the topic itself.
"""

from __future__ import annotations

import functools
import json
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import fastavro
from fastavro.schema import SchemaParseException, UnknownType

from schemas.codec import RegistryUnavailableError, WriterSchema
from schemas.records import avro_text, bundled_ids
from schemas.resolution import NO_SCHEMA, full_differences
from schemas.topics import BY_KEY, Topics
from schemas.writer_safety import fault_of, parse_schema_text, readable_schema
from streams.kafka.clients import consumer_config, producer_config
from streams.kafka.silence import NoProgressError, SilenceLimit

if TYPE_CHECKING:
    from confluent_kafka import Consumer

    from streams.settings import Settings

DYNAMIC_ID_MIN = 10_001
SUBJECT_CHARS_MAX = 300
SCHEMAS_MAX = 10_000
ID_GAP_MAX = 10_000
"""How far an id may be beyond the next one: `propose` leaves no gap, except where a claim was refused. 10,000 schemas
with such gaps reach 100,000,000. So no claim uses up the ids, which are four bytes in the frame of a value."""
KAFKA_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 5.0
"""For a caller that waits for its answer over HTTP."""
ATTEMPTS_MAX = 20
RETRY_S = 0.2


class InvalidSchemaError(ValueError):
    """The text is not an Avro schema, or too long."""


class IncompatibleSchemaError(ValueError):
    """The schema is not compatible with the earlier versions; `reasons` says why, one sentence each."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


@dataclass(frozen=True)
class Registered:
    """One version of a subject."""

    subject: str
    version: int
    schema_id: int
    schema: str


class Claims:
    """What the claims say, folded in the topic's order on top of the released schemas. Pure: no I/O, no clock."""

    def __init__(self, topics: Topics) -> None:
        self._subjects: dict[str, list[Registered]] = {}
        self._meanings: dict[str, list[str]] = {}
        """Of each subject, version by version. Only what is registered is kept: a caller may ask about anything."""
        self._by_id: dict[int, str] = {}
        self._ids: dict[str, int] = {}
        self._dynamic_id_next = DYNAMIC_ID_MIN
        for subject, record in topics.subjects.items():
            released = [(version, schema_id) for (name, version), schema_id in bundled_ids().items() if name == record]
            for version, schema_id in sorted(released):
                claim = Registered(subject, version, schema_id, avro_text(record, version))
                self._add(claim, _released_meaning(record, version))

    def fold(self, claim: Registered) -> bool:
        """Take one claim of the topic.

        False when an earlier one (or a released schema) contradicts it, or when `register` would not have written it.
        """
        try:
            self.check(claim.subject, claim.schema)
            meaning = meaning_of(claim.schema)
        except (InvalidSchemaError, IncompatibleSchemaError):
            return False
        versions = self._subjects.get(claim.subject, [])
        if claim.version != len(versions) + 1 or meaning in self._meanings.get(claim.subject, ()):
            return False
        known = self._ids.get(meaning)
        if known is not None and known != claim.schema_id:
            return False
        if known is None and not self._may_be_new(claim.schema_id):
            return False
        self._add(claim, meaning)
        return True

    def _may_be_new(self, schema_id: int) -> bool:
        return schema_id not in self._by_id and DYNAMIC_ID_MIN <= schema_id <= self._dynamic_id_next + ID_GAP_MAX

    def check(self, subject: str, schema: str) -> None:
        """Raise `InvalidSchemaError` or `IncompatibleSchemaError` unless it may be the subject's next version."""
        if not 0 < len(subject) <= SUBJECT_CHARS_MAX or not subject.isprintable():
            raise InvalidSchemaError(f"a subject has 1 to {SUBJECT_CHARS_MAX} printable characters")
        if len(self) >= SCHEMAS_MAX:
            raise InvalidSchemaError(f"the registry holds {SCHEMAS_MAX} schemas and takes no more")
        reasons = incompatibilities(schema, [each.schema for each in self._subjects.get(subject, ())])
        if reasons:
            raise IncompatibleSchemaError(reasons)

    def propose(self, subject: str, schema: str) -> Registered:
        """The claim to write for a schema that the subject does not have."""
        schema_id = self._ids.get(meaning_of(schema), self._dynamic_id_next)
        return Registered(subject, len(self._subjects.get(subject, [])) + 1, schema_id, schema)

    def schema(self, schema_id: int) -> str | None:
        """The schema of an id."""
        return self._by_id.get(schema_id)

    def subjects(self) -> list[str]:
        """All subjects, sorted."""
        return sorted(self._subjects)

    def versions(self, subject: str) -> list[Registered]:
        """The versions of a subject, oldest first; empty for a subject that is not there."""
        return list(self._subjects.get(subject, ()))

    def find(self, subject: str, schema: str) -> Registered | None:
        """The subject's version that means the same as `schema`."""
        meaning, known = meaning_of(schema), self._meanings.get(subject, [])
        return self._subjects[subject][known.index(meaning)] if meaning in known else None

    def using(self, schema_id: int) -> list[Registered]:
        """Every version of every subject that has this id."""
        return [each for subject in self.subjects() for each in self._subjects[subject] if each.schema_id == schema_id]

    def __len__(self) -> int:
        return len(self._by_id)

    def _add(self, registered: Registered, meaning: str) -> None:
        self._subjects.setdefault(registered.subject, []).append(registered)
        self._meanings.setdefault(registered.subject, []).append(meaning)
        self._by_id.setdefault(registered.schema_id, registered.schema)
        self._ids.setdefault(meaning, registered.schema_id)
        self._dynamic_id_next = max(self._dynamic_id_next, registered.schema_id + 1)


def meaning_of(schema: str) -> str:
    """A text that two schemas share exactly when they mean the same: full names, no documentation, sorted keys.

    Java, Python and a person write one schema in different ways; they must get one id.
    Raises `InvalidSchemaError`.
    """
    try:
        parsed = fastavro.parse_schema(parse_schema_text(schema))
    except (SchemaParseException, UnknownType, *NO_SCHEMA) as error:
        raise InvalidSchemaError(f"not an Avro schema: {error}") from error
    return json.dumps(_without_documentation(parsed), sort_keys=True, separators=(",", ":"))


@functools.cache
def _released_meaning(record: str, version: int) -> str:
    return meaning_of(avro_text(record, version))


def _without_documentation(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_documentation(each) for each in schema]
    if isinstance(schema, dict):
        left = {key: value for key, value in schema.items() if key != "doc" and not key.startswith("__")}
        if left.keys() == {"type"}:  # {"type": "string"} and "string" are one
            return _without_documentation(left["type"])
        return {key: value if key == "default" else _without_documentation(value) for key, value in left.items()}
    return schema


class TopicRegistry:
    """The registry over Kafka itself; no other process is needed. Safe to use from several threads.

    While Kafka is away one thread at a time finds out whether it is back. The others get the last failure at once, so
    that a hundred requests do not wait one after the other.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.read_only = settings.registry_read_only
        """Whether others may ask only, and not register (`streams.api.registry_routes`)."""
        self._topic = Topics(settings.namespace).name("schemas")
        self._claims = Claims(Topics(settings.namespace))
        self._consumer: Consumer | None = None
        self._place = (self._topic, 0)
        self._reached: dict[tuple[str, int], int] = {}
        self._lock = threading.RLock()
        self._failure: str | None = None
        """Why the topic could not be read last time; None: it could."""
        self._failures = 0

    def writer(self, schema_id: int) -> WriterSchema | None:
        """See `streams.kafka.registry.Registry.writer`; the topic is read only for an id that is not known yet."""
        text = self._claims.schema(schema_id)
        if text is None and schema_id >= DYNAMIC_ID_MIN:
            self.refresh()
            text = self._claims.schema(schema_id)
        return None if text is None else readable_schema(text)

    def schema_id(self, key: str) -> int:
        """See `streams.kafka.registry.Registry.schema_id`; never asks Kafka."""
        record = BY_KEY[key].record
        if record is None:
            raise KeyError(f"topic {key!r} has no schema")
        return max((version, schema_id) for (name, version), schema_id in bundled_ids().items() if name == record)[1]

    def read(self) -> Claims:
        """The claims as of now, within `ANSWER_TIMEOUT_S`. Raises `RegistryUnavailableError`."""
        self.refresh(ANSWER_TIMEOUT_S)
        return self._claims

    def register(self, subject: str, schema: str) -> Registered:
        """The version of `subject` with this schema; a new one when there is none.

        1. Read to the end. 2. Refuse what is invalid or incompatible. 3. Write a claim. 4. Read back: did it win?
        Where it lost, another writer was faster, and everything is judged again. A crash between 3 and 4 leaves a
        valid claim without an answer: the next call finds it.

        Raises `InvalidSchemaError`, `IncompatibleSchemaError`, `RegistryUnavailableError`.
        """
        self.refresh(ANSWER_TIMEOUT_S)  # before the lock: while Kafka is away, callers do not wait for each other
        with self._lock:
            for _ in range(ATTEMPTS_MAX):
                self.refresh()
                found = self._claims.find(subject, schema)
                if found is not None:
                    return found
                self._claims.check(subject, schema)
                self._write(self._claims.propose(subject, schema))
        raise RegistryUnavailableError(f"{ATTEMPTS_MAX} other schemas were registered meanwhile; try again")

    def refresh(self, timeout_s: float = KAFKA_TIMEOUT_S) -> None:
        """Read the topic to its end. Raises `RegistryUnavailableError` when Kafka does not answer."""
        failures = self._failures
        if not self._lock.acquire(blocking=self._failure is None):
            raise RegistryUnavailableError(f"{self._failure}; it is being tried again")
        try:
            if self._failures != failures and self._failure is not None:  # it failed while this thread waited
                raise RegistryUnavailableError(self._failure)
            self._read_until(time.monotonic() + timeout_s)
            self._failure = None
        except RegistryUnavailableError as error:
            self._failure = str(error)
            self._failures += 1
            raise
        finally:
            self._lock.release()

    def _read_until(self, deadline: float) -> None:
        from confluent_kafka import KafkaError, KafkaException

        while True:
            try:
                self._read(deadline)
                return
            except KafkaException as error:
                self._close()
                passing = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
                if error.args[0].code() not in passing or time.monotonic() > deadline:
                    message = f"the registry's topic cannot be read: {error.args[0].str()}"
                    raise RegistryUnavailableError(message) from error
                time.sleep(RETRY_S)  # a new leader is being chosen
            except NoProgressError as error:
                self._close()
                message = f"{self._topic} could not be read to its end in time"
                raise RegistryUnavailableError(message) from error

    def _read(self, deadline: float) -> None:
        from confluent_kafka import Consumer, TopicPartition

        from streams.kafka.consume import read_to

        start = self._reached.get(self._place, 0)
        if self._consumer is None:
            group = f"{self._settings.app_id}-registry-reader"
            self._consumer = Consumer(consumer_config(self._settings, group, enable_partition_eof=True, log_level=0))
            self._consumer.assign([TopicPartition(*self._place, start)])
        left_s = max(deadline - time.monotonic(), RETRY_S)
        _, end = self._consumer.get_watermark_offsets(TopicPartition(*self._place), timeout=left_s)
        for records in read_to(self._consumer, self._reached, {self._place: end}, SilenceLimit(left_s)):
            for record in records:
                self._claims_of(record.value())

    def close(self) -> None:
        """Let go of the connection to Kafka."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _claims_of(self, value: bytes | None) -> None:
        try:
            claim = Registered(**json.loads(value or b""))
        except (ValueError, TypeError, RecursionError):  # not ours: another program wrote into the topic
            return
        if (
            isinstance(claim.subject, str)
            and isinstance(claim.schema, str)
            and type(claim.schema_id) is int
            and type(claim.version) is int
        ):
            self._claims.fold(claim)

    def _write(self, claim: Registered) -> None:
        from confluent_kafka import KafkaException, Producer

        failed: list[Any] = []
        try:
            producer = Producer(producer_config(self._settings, linger_ms=0, log_level=0))
            producer.produce(
                self._topic,
                key=uuid.uuid4().hex,
                value=json.dumps(asdict(claim)),
                on_delivery=lambda error, _: failed.append(error) if error is not None else None,
            )
            left = producer.flush(KAFKA_TIMEOUT_S)
        except KafkaException as error:
            raise RegistryUnavailableError(f"the claim was not written: {error.args[0].str()}") from error
        if left or failed:
            raise RegistryUnavailableError(f"the claim was not written: {failed[0].str() if failed else 'timed out'}")


def incompatibilities(schema: str, earlier: Iterable[str]) -> list[str]:
    """Why `schema` may not follow the `earlier` ones (FULL_TRANSITIVE); empty when it may.

    Raises `InvalidSchemaError`, also for a schema whose records are not read.
    """
    meaning_of(schema)
    document = parse_schema_text(schema)
    fault = fault_of(document)
    if fault is not None:
        raise InvalidSchemaError(fault)
    return full_differences(document, [json.loads(each) for each in earlier])
