"""The part of Confluent's schema registry interface that serializers use, over the built-in registry.

The rules of this file: paths, bodies and error codes are Confluent's, so that its clients in every language work as
they are. Compatibility is FULL_TRANSITIVE for all subjects and cannot be changed; nothing can be deleted. While the
registry is read-only, a schema that is there gets its id, and no other is taken. Paths and bodies are anybody's: all of
them are read here, by hand, and each has an answer below 500. While Kafka is away the answer is 503, with Confluent's
code and `Retry-After`.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from schemas.codec import RegistryUnavailableError
from schemas.records import avro_text
from streams.api.problems import RETRY_AFTER_S, TRY_AGAIN
from streams.kafka.registry_topic import (
    Claims,
    IncompatibleSchemaError,
    InvalidSchemaError,
    Registered,
    TopicRegistry,
    incompatibilities,
)

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
LEVEL = "FULL_TRANSITIVE"
LEVELS = {"NONE", *(f"{way}{reach}" for way in ("BACKWARD", "FORWARD", "FULL") for reach in ("", "_TRANSITIVE"))}
MODES = {"READWRITE", "READONLY", "READONLY_OVERRIDE", "IMPORT", "FORWARD"}
NUMBER_MAX = 2**31 - 1
BODY_BYTES_MAX: Final = 2 * 1024 * 1024
"""A schema of `writer_safety.TEXT_CHARACTERS_MAX`, each character escaped as JSON in JSON."""

_PROBLEM: Final[dict[str, Any]] = {
    "schema": {
        "type": "object",
        "required": ["error_code", "message"],
        "properties": {"error_code": {"type": "integer"}, "message": {"type": "string"}},
    }
}
PROBLEMS_TOLD: Final[dict[int | str, dict[str, Any]]] = {
    status: {
        "description": text,
        "content": {
            MEDIA_TYPE: _PROBLEM | {"example": {"error_code": code, "message": why}},
            # An address or a method that is not there, and what the door refuses.
            "application/problem+json": {},
        },
    }
    for status, text, code, why in (
        (400, "the request is no JSON", 400, "The request is no JSON object."),
        (404, "no such subject, version or schema", 40401, "Subject 'mine-value' not found."),
        (409, "incompatible with an earlier version", 409, "Schema being registered is incompatible with an earlier …"),
        (413, "too large", 413, "A request may have 2,097,152 bytes."),
        (422, "invalid, or not to be changed", 42201, "Invalid schema: Empty schema"),
        (503, "Kafka is away: try again", 50002, "the registry's topic cannot be read: timed out"),
    )
}
"""Confluent's own form of a problem. What the door answers is a problem document that has both members too."""

EXAMPLE_RECORD: Final = "hold"

_NUMBER = re.compile("[0-9]{1,10}")

Json = dict[str, Any]


class RegistryAnswer(JSONResponse):
    """JSON under the registry's media type."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        """ASCII, so that there is nothing that UTF-8 cannot hold."""
        return json.dumps(content, separators=(",", ":")).encode("ascii")


class RegistryProblem(Exception):  # noqa: N818 - named as what it is on the wire
    """An error as the registry's clients know it: a status, a code of five digits, a sentence."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def answer(self) -> RegistryAnswer:
        """The response."""
        headers = {"Retry-After": str(RETRY_AFTER_S)} if self.status in TRY_AGAIN else None
        document = {"error_code": self.code, "message": self.message}
        return RegistryAnswer(document, status_code=self.status, headers=headers)


def unavailable(error: RegistryUnavailableError, code: int) -> RegistryProblem:
    """Confluent's code for a store that does not answer, with the status that says: try again."""
    return RegistryProblem(503, code, str(error))


def subject_not_found(subject: str) -> RegistryProblem:
    """Confluent's 40401."""
    return RegistryProblem(404, 40401, f"Subject '{subject}' not found.")


async def json_body(request: Request) -> Json:
    """The object that a request brings; raises `RegistryProblem` as the registry's own parser would."""
    read = bytearray()
    async for some in request.stream():
        read += some
        if len(read) > BODY_BYTES_MAX:
            raise RegistryProblem(413, 413, f"A request may have {BODY_BYTES_MAX:,} bytes.")
    try:
        body = json.loads(bytes(read))
    except (ValueError, RecursionError) as error:
        raise RegistryProblem(400, 400, f"The request is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise RegistryProblem(400, 400, "The request is no JSON object.")
    return body


SchemaBody = Annotated[Json, Depends(json_body)]
TAKES_SCHEMA: Final[Json] = {
    "requestBody": {
        "required": True,
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "type": "object",
                    "required": ["schema"],
                    "properties": {"schema": {"type": "string"}, "schemaType": {"enum": ["AVRO"]}},
                },
                "example": {"schema": avro_text(EXAMPLE_RECORD), "schemaType": "AVRO"},
            }
        },
    }
}


def takes(name: str, value: str) -> Json:
    """What OpenAPI says of a body with one text."""
    schema = {"type": "object", "required": [name], "properties": {name: {"type": "string"}}}
    return {"requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": schema, "example": {name: value}}}}}


def number_of(text: str) -> int | None:
    """A whole number of at most 31 bits in plain digits, or None."""
    return int(text) if _NUMBER.fullmatch(text) and int(text) <= NUMBER_MAX else None


def read_only(subject: str) -> RegistryProblem:
    """Confluent's 42205, with what to do."""
    return RegistryProblem(
        422,
        42205,
        f"Subject {subject} is in read-only mode: this registry takes no schemas over HTTP. An operator registers one "
        "with `credits schemas register`, or serves with CREDITS_REGISTRY_READ_ONLY=false.",
    )


class Lookup:
    """What the claims say, with the registry's own problems where they say nothing."""

    def __init__(self, registry: TopicRegistry) -> None:
        self._registry = registry

    def claims(self) -> Claims:
        """The claims as of now."""
        try:
            return self._registry.read()
        except RegistryUnavailableError as error:
            raise unavailable(error, 50002) from error

    def versions(self, subject: str) -> list[Registered]:
        """The versions of a subject that has some."""
        found = self.claims().versions(subject)
        if not found:
            raise subject_not_found(subject)
        return found

    def one(self, subject: str, version: str) -> Registered:
        """A version by its number; `latest` is the newest."""
        found = self.versions(subject)
        number = len(found) if version in {"latest", "-1"} else number_of(version)
        if not number:
            raise RegistryProblem(
                422,
                42202,
                f"The specified version '{version[:20]}' is not a valid version id: 1 to 2^31-1 or 'latest'.",
            )
        if number > len(found):
            raise RegistryProblem(404, 40402, f"Version {number} not found.")
        return found[number - 1]

    def by_id(self, schema_id: str) -> tuple[int, str]:
        """An id as a number, and its schema."""
        if not schema_id.isascii() or not schema_id.isdigit():
            raise RegistryProblem(404, 404, "HTTP 404 Not Found")
        number = number_of(schema_id)
        text = None if number is None else self.claims().schema(number)
        if number is None or text is None:
            raise RegistryProblem(404, 40403, f"Schema {schema_id[:20]} not found")
        return number, text


@contextlib.contextmanager
def invalid_schemas_told() -> Iterator[None]:
    """What is no schema is Confluent's 42201."""
    try:
        yield
    except InvalidSchemaError as error:
        raise RegistryProblem(422, 42201, f"Invalid schema: {error}") from error


def registry_router(registry: TopicRegistry) -> APIRouter:
    """The routes. Handlers are plain functions: they block on Kafka, and run in the server's threads."""
    router = APIRouter(tags=["schema registry"], default_response_class=RegistryAnswer, responses=PROBLEMS_TOLD)
    known = Lookup(registry)
    _add_registering(router, registry, known)
    _add_subjects(router, known)
    _add_schemas(router, known)
    _add_compatibility(router, known)
    _add_levels(router)
    _add_modes(router, registry)
    return router


def _add_registering(router: APIRouter, registry: TopicRegistry, known: Lookup) -> None:
    @router.post("/subjects/{subject:path}/versions", openapi_extra=TAKES_SCHEMA)
    def register(subject: str, body: SchemaBody) -> Json:
        """Register a schema; the same schema has the same id everywhere."""
        try:
            with invalid_schemas_told():
                schema = schema_of(body)
                if not registry.read_only:
                    return {"id": registry.register(subject, schema).schema_id}
                found = known.claims().find(subject, schema)
        except IncompatibleSchemaError as error:
            message = (
                f"Schema being registered is incompatible with an earlier schema for subject '{subject}', "
                f"details: {error}"
            )
            raise RegistryProblem(409, 409, message) from error
        except RegistryUnavailableError as error:
            raise unavailable(error, 50001) from error
        if found is None:
            raise read_only(subject)
        return {"id": found.schema_id}


def _add_subjects(router: APIRouter, known: Lookup) -> None:
    @router.get("/subjects")
    def subjects(prefix: Annotated[str, Query(alias="subjectPrefix")] = "") -> list[str]:
        """All subjects."""
        return [subject for subject in known.claims().subjects() if subject.startswith(prefix)]

    @router.get("/subjects/{subject:path}/versions")
    def versions(subject: str) -> list[int]:
        """The versions of a subject."""
        return [each.version for each in known.versions(subject)]

    @router.get("/subjects/{subject:path}/versions/{version}/schema", response_class=Response)
    def bare(subject: str, version: str) -> Response:
        """The schema of a version, and nothing else."""
        return Response(known.one(subject, version).schema, media_type=MEDIA_TYPE)

    @router.get("/subjects/{subject:path}/versions/{version}/referencedby")
    def referenced_by(subject: str, version: str) -> list[int]:
        """Schemas that refer to this one: none, references are not supported."""
        known.one(subject, version)
        return []

    @router.get("/subjects/{subject:path}/versions/{version}")
    def version(subject: str, version: str) -> Json:
        """One version of a subject; `latest` is the newest."""
        return document_of(known.one(subject, version))

    @router.get("/subjects/{subject:path}/metadata")
    def metadata(subject: str) -> Json:
        """The newest version: schemas carry no metadata here."""
        return document_of(known.one(subject, "latest"))

    @router.post("/subjects/{subject:path}", openapi_extra=TAKES_SCHEMA)
    def lookup(subject: str, body: SchemaBody) -> Json:
        """The version of the subject that has this schema."""
        known.versions(subject)
        with invalid_schemas_told():
            found = known.claims().find(subject, schema_of(body))
        if found is None:
            raise RegistryProblem(404, 40403, "Schema not found")
        return document_of(found)

    @router.delete("/subjects/{subject:path}", status_code=422)
    def delete(subject: str) -> Json:
        """Refused: what was written with a schema must stay readable."""
        raise RegistryProblem(422, 42205, f"'{subject}' cannot be deleted: records written with it stay permanently.")


def _add_schemas(router: APIRouter, known: Lookup) -> None:
    @router.get("/schemas/types")
    def types() -> list[str]:
        """The kinds of schema that are taken."""
        return ["AVRO"]

    @router.get("/schemas/ids/{schema_id}")
    def schema(schema_id: str) -> Json:
        """The schema of an id."""
        return {"schema": known.by_id(schema_id)[1]}

    @router.get("/schemas/ids/{schema_id}/schema", response_class=Response)
    def bare_schema(schema_id: str) -> Response:
        """The schema of an id, and nothing else."""
        return Response(known.by_id(schema_id)[1], media_type=MEDIA_TYPE)

    @router.get("/schemas/ids/{schema_id}/subjects")
    def subjects_of(schema_id: str) -> list[str]:
        """The subjects that use an id."""
        return sorted({each.subject for each in known.claims().using(known.by_id(schema_id)[0])})

    @router.get("/schemas/ids/{schema_id}/versions")
    def versions_using(schema_id: str) -> list[Json]:
        """The versions that use an id."""
        found = known.claims().using(known.by_id(schema_id)[0])
        return [{"subject": each.subject, "version": each.version} for each in found]

    @router.get("/contexts")
    def contexts() -> list[str]:
        """The only context."""
        return ["."]


def _add_compatibility(router: APIRouter, known: Lookup) -> None:
    def check(subject: str, body: Json, against: list[Registered]) -> Json:
        with invalid_schemas_told():
            reasons = incompatibilities(schema_of(body), [each.schema for each in against])
        return {"is_compatible": not reasons, "messages": reasons}

    @router.post("/compatibility/subjects/{subject:path}/versions", openapi_extra=TAKES_SCHEMA)
    def compatible(subject: str, body: SchemaBody) -> Json:
        """Whether a schema may become the next version of the subject."""
        return check(subject, body, known.claims().versions(subject))

    @router.post("/compatibility/subjects/{subject:path}/versions/{version}", openapi_extra=TAKES_SCHEMA)
    def compatible_with(subject: str, version: str, body: SchemaBody) -> Json:
        """Whether a schema is compatible with one version, in both directions."""
        return check(subject, body, [known.one(subject, version)])


def _add_levels(router: APIRouter) -> None:
    @router.get("/config")
    @router.get("/config/{subject:path}")
    def level(subject: str = "") -> Json:
        """The compatibility of all subjects."""
        return {"compatibilityLevel": LEVEL}

    @router.put("/config", openapi_extra=takes("compatibility", LEVEL))
    @router.put("/config/{subject:path}", openapi_extra=takes("compatibility", LEVEL))
    def set_level(body: SchemaBody, subject: str = "") -> Json:
        """Taken only when it changes nothing."""
        asked = str(body.get("compatibility", "")).upper()
        if asked not in LEVELS:
            raise RegistryProblem(
                422, 42203, f"Invalid compatibility level. Valid values are {', '.join(sorted(LEVELS))}."
            )
        if asked != LEVEL:
            raise RegistryProblem(422, 42205, f"The compatibility of this registry is {LEVEL} and cannot be changed.")
        return {"compatibility": LEVEL}


def _add_modes(router: APIRouter, registry: TopicRegistry) -> None:
    current_mode = "READONLY" if registry.read_only else "READWRITE"

    @router.get("/mode")
    @router.get("/mode/{subject:path}")
    def mode(subject: str = "") -> Json:
        """Whether schemas are taken, or given only."""
        return {"mode": current_mode}

    @router.put("/mode", openapi_extra=takes("mode", current_mode))
    @router.put("/mode/{subject:path}", openapi_extra=takes("mode", current_mode))
    def set_mode(body: SchemaBody, subject: str = "") -> Json:
        """Taken only when it changes nothing."""
        asked = str(body.get("mode", "")).upper()
        if asked not in MODES:
            raise RegistryProblem(422, 42204, f"Invalid mode. Valid values are {', '.join(sorted(MODES))}.")
        if asked != current_mode:
            raise RegistryProblem(
                422, 42205, "The mode is set by CREDITS_REGISTRY_READ_ONLY, where the registry is served."
            )
        return {"mode": asked}


def schema_of(body: Json) -> str:
    """The Avro text in a request; raises `RegistryProblem` or `InvalidSchemaError`."""
    if str(body.get("schemaType") or "AVRO").upper() != "AVRO":
        raise RegistryProblem(422, 42201, "Only schemas of type AVRO are taken.")
    if body.get("references"):
        raise RegistryProblem(422, 42201, "References to other schemas are not supported; write the schema in full.")
    schema = body.get("schema")
    if not isinstance(schema, str) or not schema.strip():
        raise RegistryProblem(422, 42201, "Empty schema")
    return schema


def document_of(registered: Registered) -> Json:
    """A version as the registry tells it."""
    return {
        "subject": registered.subject,
        "version": registered.version,
        "id": registered.schema_id,
        "schema": registered.schema,
        "schemaType": "AVRO",
    }
