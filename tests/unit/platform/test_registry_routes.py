"""The registry's routes, for any client: Confluent's answers, never a 5xx, nothing taken while read-only."""

from __future__ import annotations

import json
import re
import string
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from schemas.codec import RegistryUnavailableError
from schemas.records import avro_schema, avro_text, bundled_id
from schemas.topics import Topics
from streams.api.registry_routes import BODY_BYTES_MAX, RegistryProblem, registry_router
from streams.kafka.registry_topic import (
    Claims,
    IncompatibleSchemaError,
    InvalidSchemaError,
    Registered,
    incompatibilities,
)
from tests.unit.schemas.test_writer_safety import doubling, nested

USAGE = "credits.usage.v1-value"


class MemoryRegistry:
    """The registry without a topic."""

    def __init__(self, *, read_only: bool) -> None:
        self.read_only = read_only
        self.claims = Claims(Topics(""))

    def read(self) -> Claims:
        return self.claims

    def register(self, subject: str, schema: str) -> Registered:
        found = self.claims.find(subject, schema)
        if found is not None:
            return found
        reasons = incompatibilities(schema, [each.schema for each in self.claims.versions(subject)])
        if reasons:
            raise IncompatibleSchemaError(reasons)
        claim = self.claims.propose(subject, schema)
        if not self.claims.fold(claim):
            raise InvalidSchemaError("not taken")
        return claim


def client(*, read_only: bool, registry: type[MemoryRegistry] = MemoryRegistry) -> TestClient:
    api = FastAPI()
    api.include_router(registry_router(registry(read_only=read_only)))  # type: ignore[arg-type]

    @api.exception_handler(RegistryProblem)
    async def answer(_: Any, error: RegistryProblem) -> Any:
        return error.answer()

    return TestClient(api, raise_server_exceptions=False)


READ_ONLY = client(read_only=True)
OPEN = client(read_only=False)


def changed(**change: Any) -> str:
    """The usage schema with another type of `occurred_at`, or with one field more."""
    schema = avro_schema("usage")
    if "field" in change:
        schema["fields"].append(change["field"])
    else:
        next(field for field in schema["fields"] if field["name"] == "occurred_at")["type"] = change["type"]
    return json.dumps(schema)


@pytest.mark.fault(
    "open-registry",
    title="The registry takes versions from anybody",
    provoked="a client registered a version of the usage subject, and one of a subject of its own",
    holds="while the registry is read-only it gives ids for what is there, and takes nothing",
)
def test_a_read_only_registry_gives_and_does_not_take(seen: Callable[[str], None]) -> None:
    path = f"/subjects/{USAGE}/versions"
    assert READ_ONLY.post(path, json={"schema": avro_text("usage")}).json() == {"id": bundled_id("usage")}
    more = changed(field={"name": "note", "type": ["null", "string"], "default": None})
    for subject, schema in ((USAGE, more), ("mine-value", '"string"')):
        refused = READ_ONLY.post(f"/subjects/{subject}/versions", json={"schema": schema})
        assert (refused.status_code, refused.json()["error_code"]) == (422, 42205)
        assert "credits schemas register" in refused.json()["message"]
    assert READ_ONLY.get("/mode").json() == {"mode": "READONLY"}
    assert "mine-value" not in READ_ONLY.get("/subjects").json()
    assert OPEN.post(path, json={"schema": more}).status_code == 200
    seen("the released schema got its id; a new version and a new subject were answered with 422, 42205")


def test_a_409_says_which_field_what_is_expected_and_what_was_found() -> None:
    path = f"/subjects/{USAGE}/versions"
    cases = {
        changed(type={"type": "long", "logicalType": "timestamp-millis"}): (
            "occurred_at: long (timestamp-micros) is expected, long (timestamp-millis) was found"
        ),
        changed(type="long"): "occurred_at: long (timestamp-micros) is expected, long was found",
        changed(type="string"): "occurred_at: long (timestamp-micros) is expected, string was found",
        changed(field={"name": "more", "type": "string"}): "more: string is expected, the other has no such field",
    }
    for schema, reason in cases.items():
        refused = OPEN.post(path, json={"schema": schema})
        assert (refused.status_code, refused.json()["error_code"]) == (409, 409)
        assert reason in refused.json()["message"]
        asked = OPEN.post(f"/compatibility{path}", json={"schema": schema}).json()
        assert not asked["is_compatible"]
        assert any(reason in message for message in asked["messages"])


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", f"/subjects/{USAGE}/versions/²", None, 422, 42202),
        ("GET", f"/subjects/{USAGE}/versions/" + "9" * 5_000, None, 422, 42202),
        ("GET", f"/subjects/{USAGE}/versions/%ED%A0%80", None, 422, 42202),
        ("GET", f"/subjects/{USAGE}/versions/-1", None, 200, None),
        ("GET", "/schemas/ids/²", None, 404, 404),
        ("GET", "/schemas/ids/" + "9" * 5_000, None, 404, 40403),
        ("GET", "/schemas/ids/-1", None, 404, 404),
        ("GET", "/subjects/%FF/versions", None, 404, 40401),
        ("POST", f"/subjects/{USAGE}/versions", b"{", 400, 400),
        ("POST", f"/subjects/{USAGE}/versions", b"\xff\xfe", 400, 400),
        ("POST", f"/subjects/{USAGE}/versions", b"[" * 100_000, 400, 400),
        ("POST", f"/subjects/{USAGE}/versions", b'{"schema": ' + b"9" * 5_000 + b"}", 400, 400),
        ("POST", f"/subjects/{USAGE}/versions", b" " * (BODY_BYTES_MAX + 1), 413, 413),
        ("POST", f"/subjects/{USAGE}/versions", {"schema": "\ud800"}, 422, 42201),
        ("POST", f"/subjects/{USAGE}/versions", {"schema": '{"type": "\\ud800"}'}, 422, 42201),
        ("POST", f"/subjects/{USAGE}/versions", {"schema": "[" * 50_000}, 422, 42201),
        ("POST", f"/subjects/{USAGE}/versions", {"schema": json.dumps(nested(200))}, 422, 42201),
        ("POST", f"/subjects/{USAGE}/versions", {"schema": '{"default": NaN}'}, 422, 42201),
        ("POST", f"/subjects/{USAGE}/versions", {"schema": "9" * 5_000}, 422, 42201),
        ("POST", "/subjects/bomb/versions", {"schema": json.dumps(doubling(40))}, 422, 42201),
        ("POST", f"/subjects/{USAGE}", {"schema": ["record"]}, 422, 42201),
    ],
)
def test_what_is_malformed_has_confluents_answers(method: str, path: str, body: Any, status: int, code: Any) -> None:
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    answer = OPEN.request(method, path, content=content)
    assert (answer.status_code, answer.json().get("error_code")) == (status, code)
    assert answer.headers["content-type"] == "application/vnd.schemaregistry.v1+json"


class AwayRegistry(MemoryRegistry):
    """Its topic cannot be read."""

    def read(self) -> Claims:
        raise RegistryUnavailableError("Kafka is away")

    def register(self, subject: str, schema: str) -> Registered:
        raise RegistryUnavailableError("Kafka is away")


@pytest.mark.parametrize("read_only", [True, False])
def test_while_kafka_is_away_every_call_that_needs_it_is_503(read_only: bool) -> None:
    """Of every route that there is; those that need no topic answer as ever."""
    away = client(read_only=read_only, registry=AwayRegistry)
    body = {"schema": avro_text("usage"), "compatibility": "FULL_TRANSITIVE", "mode": "READONLY"}
    values = {"subject:path": "s", "subject": "s", "version": "latest", "schema_id": "1"}
    found = {}
    for route in registry_router(AwayRegistry(read_only=read_only)).routes:  # type: ignore[arg-type]
        assert isinstance(route, APIRoute)
        path = re.sub("{([^}]+)}", lambda name: values[name[1]], route.path)
        for method in route.methods or ():
            answer = away.request(method, path, json=body)
            found[f"{method} {route.path}"] = answer.status_code
            if answer.status_code == 503:
                assert answer.headers["Retry-After"] == "1"
                assert answer.json()["error_code"] in (50001, 50002)
    assert {status for status in found.values() if status >= 500} == {503}
    assert sum(status == 503 for status in found.values()) >= 13, found
    assert found["GET /config"] == found["GET /mode"] == found["GET /schemas/types"] == 200


types = st.recursive(
    st.sampled_from(["null", "int", "string", "nosuch", "r", 5, None, True, "\ud800", float("nan")]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["type", "name", "fields", "items", "values", "symbols", "size", "default", "logicalType"]),
            st.one_of(inner, st.sampled_from(["record", "array", "map", "enum", "fixed", "decimal", ""])),
            max_size=5,
        ),
    ),
    max_leaves=20,
)
segments = st.one_of(
    st.sampled_from(
        ["subjects", "versions", "schemas", "ids", "config", "mode", "latest", "1", "0", USAGE, "%00", ".."]
    ),
    st.text(string.printable, max_size=8)
    .map(lambda text: text.encode().hex())
    .map(lambda text: "".join(f"%{text[at : at + 2]}" for at in range(0, len(text), 2))),
)
bodies = st.one_of(
    st.binary(max_size=60),
    types.map(json.dumps).map(str.encode),
    st.fixed_dictionaries({"schema": types.map(json.dumps)}).map(json.dumps).map(str.encode),
    st.fixed_dictionaries({"schema": st.one_of(types, st.text(max_size=20)), "schemaType": types}).map(
        lambda body: json.dumps(body).encode()
    ),
)


@pytest.mark.parametrize("asked", [READ_ONLY, OPEN], ids=["read-only", "open"])
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    path=st.lists(segments, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts)),
    query=st.sampled_from(
        ["", "?deleted=true", "?subjectPrefix=%ff", "?version=²", "?subjectPrefix=a&subjectPrefix=b"]
    ),
    body=bodies,
)
def test_nothing_makes_it_fail(asked: TestClient, method: str, path: str, query: str, body: bytes) -> None:
    started = time.process_time()
    answer = asked.request(method, f"http://testserver{path}{query}", content=body)
    assert answer.status_code < 500
    assert time.process_time() - started < 5
    if method == "POST":
        register = asked.post(f"/subjects/{USAGE}/versions", content=body)
        compared = asked.post(f"/compatibility/subjects/{USAGE}/versions/latest", content=body)
        assert max(register.status_code, compared.status_code) < 500
