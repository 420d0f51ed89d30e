"""The registry on a real broker, asked by the official clients and by the ledger's own code.

The conformance suite runs on both adapters: the built-in registry, and the client of Confluent's interface, here
against our own server of that interface.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from schemas.codec import RegistryUnavailableError, decode_one, encode_one, frame
from schemas.records import BundledSchemas, avro_schema, avro_text, bundled_id, versions
from schemas.topics import Topics
from streams.kafka import topics_admin
from streams.kafka.registry import CachedRegistry, ConfluentRegistry, Registry
from streams.kafka.registry_topic import DYNAMIC_ID_MIN, IncompatibleSchemaError, TopicRegistry
from streams.settings import Settings
from tests.brokers import free_port
from tests.integration.registry_server import RegistryServer

HOLD: dict[str, Any] = {
    "hold_id": "h1",
    "org_id": "acme",
    "occurred_at": 1_700_000_000_000_001,
    "action": "place",
    "wallet": "USD",
    "amount_nanos": 5,
    "expires_at": None,
    "user_id": None,
    "project_id": None,
    "model": None,
    "tool": None,
    "operation": None,
    "on_shortage": None,
    "team": None,
    "department": None,
    "category": None,
    "provider": None,
}


@dataclass
class Served:
    """A registry with its HTTP interface."""

    url: str
    registry: TopicRegistry
    settings: Settings


@pytest.fixture
def registry(settings: Settings) -> Iterator[TopicRegistry]:
    topics_admin.apply(settings)
    registry = TopicRegistry(settings.model_copy(update={"registry_read_only": False}))
    yield registry
    registry.close()


@pytest.fixture
def served(registry: TopicRegistry, settings: Settings) -> Iterator[Served]:
    """The interface on a port of its own, by a real server."""
    server = RegistryServer(registry)
    server.start()
    yield Served(server.url, registry, settings)
    server.stop()


@pytest.fixture(params=["built-in", "confluent"])
def port(request: pytest.FixtureRequest) -> Registry:
    """Each adapter of the port."""
    served: Served = request.getfixturevalue("served")
    if request.param == "built-in":
        return CachedRegistry(TopicRegistry(served.settings))
    return CachedRegistry(ConfluentRegistry(served.url, Topics(served.settings.namespace)))


def newer_hold() -> str:
    """A next version of the hold record, compatible with the released one."""
    schema = avro_schema("hold")
    schema["fields"].append({"name": "note", "type": ["null", "string"], "default": None})
    return json.dumps(schema)


def test_released_schemas_have_an_id_to_write_with(port: Registry) -> None:
    schema_id = port.schema_id("usage")
    assert port.writer(schema_id) == avro_schema("usage")


def test_an_unknown_id_is_none(port: Registry) -> None:
    assert port.writer(DYNAMIC_ID_MIN + 77) is None
    assert port.writer(999) is None


def test_what_is_registered_later_is_found(port: Registry, served: Served) -> None:
    subject = Topics(served.settings.namespace).subject("holds")
    registered = served.registry.register(subject, newer_hold())
    assert registered.version == len(versions("hold")) + 1
    found = port.writer(registered.schema_id)
    assert isinstance(found, dict)
    assert found["fields"][-1]["name"] == "note"


def test_a_record_of_a_newer_writer_is_read(port: Registry, served: Served) -> None:
    subject = Topics(served.settings.namespace).subject("holds")
    client = SchemaRegistryClient({"url": served.url})
    serializer = AvroSerializer(client, newer_hold(), lambda value, _: value)
    context = SerializationContext(Topics(served.settings.namespace).name("holds"), MessageField.VALUE)
    value = serializer({**HOLD, "note": "new"}, context)
    assert value is not None
    assert len(client.get_versions(subject)) == len(versions("hold")) + 1
    assert decode_one("hold", value, port) == HOLD


def test_the_official_serializer_finds_the_released_schema_and_its_bytes_are_ours(served: Served) -> None:
    client = SchemaRegistryClient({"url": served.url})
    serializer = AvroSerializer(client, avro_text("hold"), lambda value, _: value)
    context = SerializationContext(Topics(served.settings.namespace).name("holds"), MessageField.VALUE)
    value = serializer(HOLD, context)
    assert value == encode_one("hold", HOLD, bundled_id("hold"))
    read: Any = AvroDeserializer(client)(value, context)
    assert read["hold_id"] == "h1"


def test_the_official_client_walks_the_registry(served: Served) -> None:
    topics = Topics(served.settings.namespace)
    client = SchemaRegistryClient({"url": served.url})
    assert client.get_subjects() == sorted(topics.subjects)
    latest = client.get_latest_version(topics.subject("usage"))
    assert (latest.version, latest.schema_id) == (len(versions("usage")), bundled_id("usage"))
    assert client.get_version(topics.subject("usage"), 1).schema_id == bundled_id("usage", 1)
    assert client.get_versions(topics.subject("usage")) == [1, 2]
    assert client.lookup_schema(topics.subject("usage"), Schema(avro_text("usage"), "AVRO")).version == 2
    assert json.loads(client.get_schema(bundled_id("entry")).schema_str or "") == avro_schema("entry")
    assert client.get_compatibility() == "FULL_TRANSITIVE"
    assert client.get_global_mode() == "READWRITE"
    assert client.test_compatibility(topics.subject("holds"), Schema(newer_hold(), "AVRO")) is True
    assert client.test_compatibility(topics.subject("holds"), Schema('"string"', "AVRO")) is False


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/subjects/nosuch/versions", None, 404, 40401),
        ("GET", "/subjects/{usage}/versions/7", None, 404, 40402),
        ("GET", "/subjects/{usage}/versions/x", None, 422, 42202),
        ("GET", "/subjects/{usage}/versions/0", None, 422, 42202),
        ("GET", "/schemas/ids/12345", None, 404, 40403),
        ("POST", "/subjects/{usage}", {"schema": '"string"'}, 404, 40403),
        ("POST", "/subjects/nosuch", {"schema": '"string"'}, 404, 40401),
        ("POST", "/subjects/{usage}/versions", {"schema": "{"}, 422, 42201),
        ("POST", "/subjects/{usage}/versions", {"schema": ""}, 422, 42201),
        ("POST", "/subjects/{usage}/versions", {}, 422, 42201),
        ("POST", "/subjects/{usage}/versions", {"schema": "{}", "schemaType": "PROTOBUF"}, 422, 42201),
        ("POST", "/subjects/{usage}/versions", {"schema": '"string"'}, 409, 409),
        ("DELETE", "/subjects/{usage}", None, 422, 42205),
        ("DELETE", "/subjects/{usage}/versions/1", None, 422, 42205),
        ("PUT", "/config", {"compatibility": "SOME"}, 422, 42203),
        ("PUT", "/config", {"compatibility": "NONE"}, 422, 42205),
        ("PUT", "/mode", {"mode": "SOME"}, 422, 42204),
        ("PUT", "/mode", {"mode": "IMPORT"}, 422, 42205),
        ("POST", "/subjects/{usage}", [], 400, 400),
        ("GET", "/schemas/ids/x", None, 404, 404),
    ],
)
def test_refusals_have_confluents_codes(
    served: Served, method: str, path: str, body: object, status: int, code: int
) -> None:
    usage = Topics(served.settings.namespace).subject("usage")
    answer = httpx.request(method, served.url + path.replace("{usage}", usage), json=body, trust_env=False)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert answer.headers["content-type"] == "application/vnd.schemaregistry.v1+json"


def test_an_incompatible_schema_is_refused_and_leaves_no_trace(registry: TopicRegistry, settings: Settings) -> None:
    subject = Topics(settings.namespace).subject("usage")
    with pytest.raises(IncompatibleSchemaError):
        registry.register(subject, json.dumps({"type": "record", "name": "usage", "fields": []}))
    assert len(TopicRegistry(settings).read().versions(subject)) == len(versions("usage"))


def test_writers_at_once_agree(registry: TopicRegistry, settings: Settings) -> None:
    """Eight registries race for versions of one subject; each must get an id that all others see the same way."""

    def schema(number: int) -> str:
        fields = [{"name": f"f{each}", "type": "string", "default": ""} for each in range(number % 4)]
        return json.dumps({"type": "record", "name": "raced", "fields": fields})

    registries = [TopicRegistry(settings) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda pair: pair[1].register("raced", schema(pair[0])), enumerate(registries)))
    truth = registry.read()
    assert [each.version for each in truth.versions("raced")] == [1, 2, 3, 4]
    assert len({each.schema_id for each in truth.versions("raced")}) == 4
    for number, each in enumerate(results):
        assert truth.find("raced", schema(number)) == each
    for each_registry in registries:
        each_registry.close()


def test_a_registry_that_does_not_answer_is_not_an_unknown_id(settings: Settings) -> None:
    silent = f"127.0.0.1:{free_port()}"
    ours = TopicRegistry(settings.model_copy(update={"kafka_bootstrap_servers": silent}))
    theirs = ConfluentRegistry(f"http://{silent}", Topics(settings.namespace))
    assert ours.writer(bundled_id("usage")) == avro_schema("usage")
    with pytest.raises(RegistryUnavailableError):
        theirs.writer(1)
    with pytest.raises(RegistryUnavailableError):
        ours.writer(DYNAMIC_ID_MIN)


def test_what_others_write_into_the_topic_does_no_harm(registry: TopicRegistry, settings: Settings) -> None:
    from confluent_kafka import Producer

    from streams.kafka.clients import producer_config

    producer = Producer(producer_config(settings))
    for value in (
        b"",
        None,
        b"\xff",
        b"[]",
        b"{}",
        frame(1),
        b'{"subject": 1, "version": 1, "schema_id": 1, "schema": 1}',
    ):
        producer.produce(Topics(settings.namespace).name("schemas"), key=b"x", value=value)
    assert producer.flush(10) == 0
    assert registry.register("mine", '"string"').schema_id == DYNAMIC_ID_MIN
    assert BundledSchemas().writer(DYNAMIC_ID_MIN) is None
