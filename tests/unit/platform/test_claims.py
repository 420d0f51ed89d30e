"""The built-in registry's fold: the topic's order decides, and one meaning has one id."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import RegistryUnavailableError
from schemas.records import avro_text, bundled_id
from schemas.topics import Topics
from streams.kafka.registry_topic import (
    DYNAMIC_ID_MIN,
    ID_GAP_MAX,
    SCHEMAS_MAX,
    SUBJECT_CHARS_MAX,
    Claims,
    InvalidSchemaError,
    Registered,
    TopicRegistry,
    meaning_of,
)
from tests.brokers import test_settings


def record(name: str, *fields: str) -> str:
    """A record schema of string fields with defaults."""
    return json.dumps(
        {
            "type": "record",
            "name": name,
            "fields": [{"name": field, "type": "string", "default": ""} for field in fields],
        }
    )


IN_MILLISECONDS = avro_text("usage").replace("timestamp-micros", "timestamp-millis")
NEVER_READ = json.dumps(
    {"type": "record", "name": "A", "fields": [{"name": "x", "type": {"type": "array", "items": "null"}}]}
)


def claims() -> Claims:
    return Claims(Topics("ns."))


def test_released_schemas_are_there_without_a_topic() -> None:
    usage = claims().versions("ns.credits.usage.v1-value")
    assert [(each.version, each.schema_id) for each in usage] == [
        (1, bundled_id("usage", 1)),
        (2, bundled_id("usage", 2)),
    ]
    assert claims().schema(bundled_id("entry")) == avro_text("entry")


def test_alert_topics_share_one_id() -> None:
    ids = {claims().versions(f"ns.credits.alerts.{each}.v1-value")[0].schema_id for each in ("threshold", "topup")}
    assert ids == {bundled_id("alert")}


def test_the_first_claim_wins_and_the_loser_leaves_no_trace() -> None:
    folded = claims()
    assert folded.fold(Registered("a", 1, DYNAMIC_ID_MIN, record("A", "x")))
    assert not folded.fold(Registered("a", 1, DYNAMIC_ID_MIN + 1, record("A", "y")))
    assert not folded.fold(Registered("b", 1, DYNAMIC_ID_MIN, record("B", "x")))
    assert folded.schema(DYNAMIC_ID_MIN) == record("A", "x")
    assert folded.schema(DYNAMIC_ID_MIN + 1) is None
    assert folded.versions("b") == []


@pytest.mark.parametrize(
    "claim",
    [
        Registered("a", 2, DYNAMIC_ID_MIN, record("A", "x")),
        Registered("a", 0, DYNAMIC_ID_MIN, record("A", "x")),
        Registered("a", 1, 1, record("A", "x")),
        Registered("a", 1, DYNAMIC_ID_MIN - 1, record("A", "x")),
        Registered("a", 1, DYNAMIC_ID_MIN, "{"),
        Registered("ns.credits.usage.v1-value", 1, DYNAMIC_ID_MIN, record("usage", "x")),
        Registered("ns.credits.usage.v1-value", 2, bundled_id("usage"), avro_text("usage")),
        Registered("a", 1, 10**20, record("A", "x")),
        Registered("a", 1, 2**31 - 1, record("A", "x")),
        Registered("", 1, DYNAMIC_ID_MIN, record("A", "x")),
        Registered("a" * (SUBJECT_CHARS_MAX + 1), 1, DYNAMIC_ID_MIN, record("A", "x")),
        Registered("\ud800", 1, DYNAMIC_ID_MIN, record("A", "x")),
        Registered("ns.credits.usage.v1-value", 2, DYNAMIC_ID_MIN, IN_MILLISECONDS),
        Registered("ns.credits.usage.v1-value", 2, DYNAMIC_ID_MIN, record("Usage", "x")),
        Registered("a", 1, DYNAMIC_ID_MIN, NEVER_READ),
    ],
    ids=[
        "gap",
        "zero",
        "bundled id",
        "reserved id",
        "no schema",
        "version of a release",
        "a release again",
        "an id that no frame can hold",
        "the last id",
        "no subject",
        "a subject too long",
        "a subject that is no text",
        "milliseconds",
        "incompatible",
        "records that are not read",
    ],
)
def test_a_claim_that_contradicts_is_ignored(claim: Registered) -> None:
    folded = claims()
    before = (folded.subjects(), len(folded), folded.versions(claim.subject))
    assert not folded.fold(claim)
    assert (folded.subjects(), len(folded), folded.versions(claim.subject)) == before


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"[" * 200_000,
        b"{",
        b"\xff",
        b"[]",
        json.dumps({"subject": "a", "version": [1], "schema_id": DYNAMIC_ID_MIN, "schema": '"string"'}).encode(),
        json.dumps({"subject": "a", "version": 1, "schema_id": DYNAMIC_ID_MIN, "schema": "[" * 200_000}).encode(),
    ],
    ids=["null", "nested deep", "no JSON", "no text", "a list", "a version that is none", "a schema nested deep"],
)
def test_what_is_no_claim_stops_nobody(value: bytes | None, tmp_path: Path) -> None:
    registry = TopicRegistry(test_settings(tmp_path))
    before = len(registry._claims)
    registry._claims_of(value)
    assert len(registry._claims) == before
    assert registry._claims.propose("a", '"string"').schema_id == DYNAMIC_ID_MIN


class Noted:
    """A lock that says when a thread begins to wait for it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.waits = threading.Semaphore(0)

    def acquire(self, blocking: bool = True) -> bool:
        self.waits.release()
        return self._lock.acquire(blocking)

    def release(self) -> None:
        self._lock.release()


def test_while_kafka_is_away_one_thread_asks_and_the_others_get_its_failure(tmp_path: Path) -> None:
    """Else each of a hundred requests would wait its own five seconds, one after the other."""
    registry, lock, go_on, asked = TopicRegistry(test_settings(tmp_path)), Noted(), threading.Event(), []

    def read(deadline: float) -> None:
        asked.append(deadline)
        assert go_on.wait(30)
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    registry._read = read  # type: ignore[method-assign]
    registry._lock = lock  # type: ignore[assignment]
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(registry.read) for _ in range(8)]
        for _ in waiting:
            assert lock.waits.acquire(timeout=30)
        go_on.set()
        for each in waiting:
            with pytest.raises(RegistryUnavailableError):
                each.result(30)
        assert len(asked) == 1
        go_on.clear()
        again = pool.submit(registry.read)
        assert lock.waits.acquire(timeout=30)
        with pytest.raises(RegistryUnavailableError, match="it is being tried again"):  # at once
            registry.read()
        go_on.set()
        with pytest.raises(RegistryUnavailableError):
            again.result(30)
    registry._read = lambda deadline: None  # type: ignore[method-assign]
    assert len(registry.read()) == len(claims())


def test_ids_are_never_used_up() -> None:
    assert DYNAMIC_ID_MIN + (SCHEMAS_MAX + 1) * (ID_GAP_MAX + 1) < 2**31


def test_the_same_schema_elsewhere_has_the_same_id() -> None:
    folded = claims()
    proposed = folded.propose("b", avro_text("usage"))
    assert (proposed.version, proposed.schema_id) == (1, bundled_id("usage"))
    assert folded.fold(proposed)
    assert {each.subject for each in folded.using(bundled_id("usage"))} == {"b", "ns.credits.usage.v1-value"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('{"type":"string"}', '"string"', True),
        (record("A", "x"), json.dumps({**json.loads(record("A", "x")), "doc": "words"}), True),
        (
            '{"type":"record","name":"n.A","fields":[]}',
            '{"fields":[],"namespace":"n","name":"A","type":"record"}',
            True,
        ),
        (record("A", "x"), record("A", "y"), False),
        (record("A", "x", "y"), record("A", "y", "x"), False),
        ('{"type":"long","logicalType":"timestamp-micros"}', '"long"', False),
    ],
    ids=["short form", "documentation", "full name", "other field", "other order", "logical type"],
)
def test_meaning(one: str, other: str, same: bool) -> None:
    assert (meaning_of(one) == meaning_of(other)) is same


@pytest.mark.parametrize("text", ["", "{", "[]x", '{"type":"recrd"}', '{"type":"record"}', "nul", '"nosuch"', "7"])
def test_what_is_no_schema_is_refused(text: str) -> None:
    with pytest.raises(InvalidSchemaError):
        meaning_of(text)


some_claims = st.lists(
    st.builds(
        Registered,
        subject=st.sampled_from(["a", "b"]),
        version=st.integers(0, 4),
        schema_id=st.integers(DYNAMIC_ID_MIN - 1, DYNAMIC_ID_MIN + 4),
        schema=st.sampled_from([record("A"), record("A", "x"), record("A", "x", "y"), "{"]),
    ),
    max_size=30,
)


@given(some_claims)
def test_whatever_is_in_the_topic_ids_are_unique_and_versions_have_no_gaps(topic: Sequence[Registered]) -> None:
    folded = claims()
    for claim in topic:
        before = {subject: folded.versions(subject) for subject in folded.subjects()}
        taken = folded.fold(claim)
        after = {subject: folded.versions(subject) for subject in folded.subjects()}
        assert (before != after) is taken
        assert all(after[subject][: len(versions)] == versions for subject, versions in before.items())
    for subject in folded.subjects():
        versions = folded.versions(subject)
        assert [each.version for each in versions] == list(range(1, len(versions) + 1))
        for each in versions:
            assert meaning_of(folded.schema(each.schema_id) or "") == meaning_of(each.schema)
