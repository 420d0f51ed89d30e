"""The part of Confluent's schema registry interface that serializers use, over the built-in registry.

The rules of this file: paths, bodies and error codes are Confluent's, so that its clients in every language work as
they are. Compatibility is FULL_TRANSITIVE for all subjects and cannot be changed; nothing can be deleted.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query
from fastapi.responses import JSONResponse

from schemas.codec import RegistryUnavailableError
from streams.registry_topic import (
    Claims,
    IncompatibleSchemaError,
    InvalidSchemaError,
    Registered,
    TopicRegistry,
    incompatibilities,
)

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
LEVEL = "FULL_TRANSITIVE"
MODE = "READWRITE"
VERSION_MAX = 2**31 - 1

Json = dict[str, Any]
SchemaBody = Annotated[Json, Body(examples=[{"schema": '{"type": "record", …}', "schemaType": "AVRO"}])]


class RegistryAnswer(JSONResponse):
    """JSON under the registry's media type."""

    media_type = MEDIA_TYPE


class RegistryProblem(Exception):  # noqa: N818 - named as what it is on the wire
    """An error as the registry's clients know it: a status, a code of five digits, a sentence."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def answer(self) -> RegistryAnswer:
        """The response."""
        return RegistryAnswer({"error_code": self.code, "message": self.message}, status_code=self.status)


def subject_not_found(subject: str) -> RegistryProblem:
    """Confluent's 40401."""
    return RegistryProblem(404, 40401, f"Subject '{subject}' not found.")


def registry_router(registry: TopicRegistry) -> APIRouter:
    """The routes. Handlers are plain functions: they block on Kafka, and run in the server's threads."""
    router = APIRouter(tags=["schema registry"], default_response_class=RegistryAnswer)

    def claims() -> Claims:
        try:
            return registry.read()
        except RegistryUnavailableError as error:
            raise RegistryProblem(500, 50002, str(error)) from error

    def versions_of(subject: str) -> list[Registered]:
        found = claims().versions(subject)
        if not found:
            raise subject_not_found(subject)
        return found

    def one(subject: str, version: str) -> Registered:
        found = versions_of(subject)
        number = len(found) if version in {"latest", "-1"} else int(version) if version.isdigit() else 0
        if not 0 < number <= VERSION_MAX:
            raise RegistryProblem(
                422, 42202, f"The specified version '{version}' is not a valid version id: 1 to 2^31-1 or 'latest'."
            )
        if number > len(found):
            raise RegistryProblem(404, 40402, f"Version {number} not found.")
        return found[number - 1]

    def by_id(schema_id: int) -> str:
        text = claims().schema(schema_id)
        if text is None:
            raise RegistryProblem(404, 40403, f"Schema {schema_id} not found")
        return text

    @router.get("/subjects")
    def subjects(prefix: Annotated[str, Query(alias="subjectPrefix")] = "") -> list[str]:
        """All subjects."""
        return [subject for subject in claims().subjects() if subject.startswith(prefix)]

    @router.get("/subjects/{subject:path}/versions")
    def versions(subject: str) -> list[int]:
        """The versions of a subject."""
        return [each.version for each in versions_of(subject)]

    @router.post("/subjects/{subject:path}/versions")
    def register(subject: str, body: SchemaBody) -> Json:
        """Register a schema; the same schema has the same id everywhere."""
        try:
            return {"id": registry.register(subject, schema_of(body)).schema_id}
        except InvalidSchemaError as error:
            raise RegistryProblem(422, 42201, f"Invalid schema: {error}") from error
        except IncompatibleSchemaError as error:
            message = f"Schema being registered is incompatible with an earlier schema for subject '{subject}': {error}"
            raise RegistryProblem(409, 409, message) from error
        except RegistryUnavailableError as error:
            raise RegistryProblem(500, 50001, str(error)) from error

    @router.get("/subjects/{subject:path}/versions/{version}/schema")
    def bare(subject: str, version: str) -> Any:
        """The schema of a version, and nothing else."""
        return json.loads(one(subject, version).schema)

    @router.get("/subjects/{subject:path}/versions/{version}/referencedby")
    def referenced_by(subject: str, version: str) -> list[int]:
        """Schemas that refer to this one: none, references are not supported."""
        one(subject, version)
        return []

    @router.get("/subjects/{subject:path}/versions/{version}")
    def version(subject: str, version: str) -> Json:
        """One version of a subject; `latest` is the newest."""
        return document_of(one(subject, version))

    @router.get("/subjects/{subject:path}/metadata")
    def metadata(subject: str) -> Json:
        """The newest version: schemas carry no metadata here."""
        return document_of(one(subject, "latest"))

    @router.post("/subjects/{subject:path}")
    def lookup(subject: str, body: SchemaBody) -> Json:
        """The version of the subject that has this schema."""
        try:
            versions_of(subject)
            found = claims().find(subject, schema_of(body))
        except InvalidSchemaError as error:
            raise RegistryProblem(422, 42201, f"Invalid schema: {error}") from error
        if found is None:
            raise RegistryProblem(404, 40403, "Schema not found")
        return document_of(found)

    @router.delete("/subjects/{subject:path}")
    def delete(subject: str) -> Json:
        """Refused: what was written with a schema must stay readable."""
        raise RegistryProblem(422, 42205, f"'{subject}' cannot be deleted: records written with it stay for ever.")

    @router.get("/schemas/types")
    def types() -> list[str]:
        """The kinds of schema that are taken."""
        return ["AVRO"]

    @router.get("/schemas/ids/{schema_id}")
    def schema(schema_id: Annotated[int, Path(ge=0)]) -> Json:
        """The schema of an id."""
        return {"schema": by_id(schema_id)}

    @router.get("/schemas/ids/{schema_id}/schema")
    def bare_schema(schema_id: Annotated[int, Path(ge=0)]) -> Any:
        """The schema of an id, and nothing else."""
        return json.loads(by_id(schema_id))

    @router.get("/schemas/ids/{schema_id}/subjects")
    def subjects_of(schema_id: Annotated[int, Path(ge=0)]) -> list[str]:
        """The subjects that use an id."""
        by_id(schema_id)
        return sorted({each.subject for each in claims().using(schema_id)})

    @router.get("/schemas/ids/{schema_id}/versions")
    def versions_using(schema_id: Annotated[int, Path(ge=0)]) -> list[Json]:
        """The versions that use an id."""
        by_id(schema_id)
        return [{"subject": each.subject, "version": each.version} for each in claims().using(schema_id)]

    def check(subject: str, body: Json, against: list[Registered]) -> Json:
        try:
            reasons = incompatibilities(schema_of(body), [each.schema for each in against])
        except InvalidSchemaError as error:
            raise RegistryProblem(422, 42201, f"Invalid schema: {error}") from error
        return {"is_compatible": not reasons, "messages": reasons}

    @router.post("/compatibility/subjects/{subject:path}/versions")
    def compatible(subject: str, body: SchemaBody) -> Json:
        """Whether a schema may become the next version of the subject."""
        return check(subject, body, claims().versions(subject))

    @router.post("/compatibility/subjects/{subject:path}/versions/{version}")
    def compatible_with(subject: str, version: str, body: SchemaBody) -> Json:
        """Whether a schema is compatible with one version, in both directions."""
        return check(subject, body, [one(subject, version)])

    @router.get("/config")
    @router.get("/config/{subject:path}")
    def level(subject: str = "") -> Json:
        """The compatibility of all subjects."""
        return {"compatibilityLevel": LEVEL}

    @router.put("/config")
    @router.put("/config/{subject:path}")
    def set_level(body: Annotated[Json, Body()], subject: str = "") -> Json:
        """Taken only when it changes nothing."""
        if str(body.get("compatibility", LEVEL)).upper() != LEVEL:
            raise RegistryProblem(422, 42203, f"The compatibility of this registry is {LEVEL} and cannot be changed.")
        return {"compatibility": LEVEL}

    @router.get("/mode")
    @router.get("/mode/{subject:path}")
    def mode(subject: str = "") -> Json:
        """Reads and writes are taken."""
        return {"mode": MODE}

    @router.get("/contexts")
    def contexts() -> list[str]:
        """The only context."""
        return ["."]

    return router


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
