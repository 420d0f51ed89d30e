"""The description of the interface (`/openapi.json`): what the routes say of themselves, and what holds for all.

The rules of this file:
1. Nothing is decided here: it describes. A test holds the description and the answers together (schemathesis).
2. Each problem of a call is an example under its status, by its code: of the codes that the route's description of that
   answer names, and of those of every call (`problem_catalogue`).
3. Each call has an example of its body, of its answer and of the values in its address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from fastapi.openapi.utils import get_openapi

from schemas.amounts import AMOUNT_MAX
from schemas.enums import InputKind
from schemas.events import INPUTS
from schemas.fields import NumberLimit, TextLimit, limits_of
from streams.api.call_examples import ANSWERS, VALUES
from streams.api.door import OPEN
from streams.api.problem_catalogue import BEHIND_THE_DOOR, EVERYWHERE, PROBLEMS
from streams.api.problems import MEDIA_TYPE, RETRY_AFTER_S, TRY_AGAIN, TYPE_PREFIX
from streams.api.reading_models import EXAMPLES

if TYPE_CHECKING:
    from fastapi import FastAPI

Json = dict[str, Any]

METHODS: Final = ("get", "put", "post", "delete", "patch")
PROBLEM_SCHEMA: Final[Json] = {
    "type": "object",
    "description": "A problem (RFC 9457). `code` is stable; `detail` is a sentence for people. More members may stand.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
    },
}
BEARER: Final[Json] = {"type": "http", "scheme": "bearer", "description": "An API key, of `credits keys create`"}
RETRY_AFTER: Final[Json] = {
    "description": "seconds until it is worth trying again",
    "schema": {"type": "integer", "minimum": 1},
    "example": RETRY_AFTER_S,
}
DECIMAL: Final[Json] = {
    "type": "string",
    "pattern": r"^[+-]?[0-9]{1,10}(\.[0-9]{1,9})?$",
    "description": "a decimal string; the same name with `_nanos` takes whole nano-units",
}

_WORD: Final = re.compile(r"[a-z_]+")


def describe(api: FastAPI) -> None:
    """Have `/openapi.json` answer the whole description. It is made once, when it is first asked for."""
    api.openapi = _once(lambda: described(api))  # type: ignore[method-assign]


def _once(make: Callable[[], Json]) -> Callable[[], Json]:
    made: list[Json] = []

    def openapi() -> Json:
        if not made:
            made.append(make())
        return made[0]

    return openapi


def described(api: FastAPI) -> Json:
    """The description."""
    document = get_openapi(
        title=api.title, version=api.version, description=api.description, routes=api.routes, tags=api.openapi_tags
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = PROBLEM_SCHEMA
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    document["components"]["securitySchemes"] = {"bearer": BEARER}
    for path, call in calls(document):
        name = f"{call[0].upper()} {path}"
        _add_problems(call[1], needs_key=path not in OPEN)
        _add_examples(name, call[1])
        if path not in OPEN:
            call[1]["security"] = [{"bearer": []}]
    return document


def calls(document: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, Json]]]:
    """Path, and method with description, of each call."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, (method, item[method])


def problem_example(code: str) -> Json:
    """The document of a problem."""
    known = PROBLEMS[code]
    head = {"type": TYPE_PREFIX + code, "title": code.replace("_", " "), "status": known.status}
    return {**head, "detail": known.detail, "code": code, **known.members}


def _add_problems(call: Json, *, needs_key: bool) -> None:
    """Every problem of a call under its status, each with an example."""
    answers: Json = call["responses"]
    answers.get("422", {}).get("content", {}).pop("application/json", None)  # FastAPI's own form, which is not answered
    common = {**EVERYWHERE, **(BEHIND_THE_DOOR if needs_key else {})}
    for status in sorted({*common, *(int(each) for each in answers if each.isdigit() and int(each) >= 400)}):
        answer = answers.setdefault(str(status), {"description": ""})
        named = [word for word in _WORD.findall(answer["description"]) if word in PROBLEMS]
        codes = list(dict.fromkeys([*named, *common.get(status, ()), *(("invalid_field",) if status == 422 else ())]))
        missing = [code for code in codes if code not in answer["description"]]
        if answer["description"] == "Validation Error":
            answer["description"], missing = "", codes
        answer["description"] = ", ".join(filter(None, [answer["description"], *missing]))
        content = answer.setdefault("content", {})
        if codes or MEDIA_TYPE in content:
            content[MEDIA_TYPE] = {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {code: {"value": problem_example(code)} for code in codes},
            }
        if status in TRY_AGAIN:
            answer.setdefault("headers", {})["Retry-After"] = RETRY_AFTER
    call["responses"] = dict(sorted(answers.items()))


def _add_examples(name: str, call: Json) -> None:
    """Examples of the values in the address and of the answer."""
    for parameter in call.get("parameters", ()):
        value = VALUES.get((name, parameter["name"]), VALUES.get(parameter["name"]))
        if value is not None and "example" not in parameter:
            parameter["example"] = value
    for answer in call["responses"].values():
        content = answer.get("content", {}).get("application/json", {})
        example = EXAMPLES.get(str(content.get("schema", {}).get("$ref", "")).rpartition("/")[2])
        if example is not None:  # given here, because FastAPI leaves out what is null
            content["example"] = example
    for content_type, example in ANSWERS.get(name, {}).items():
        status, _, media_type = content_type.partition(" ")
        content = call["responses"].setdefault(status, {"description": ""}).setdefault("content", {})
        content.setdefault(media_type, {}).setdefault("example", example)


def record_schema(kind: InputKind, *, optional: tuple[str, ...] = ()) -> Json:
    """The JSON Schema of a kind of record as HTTP and JSON lines take it. `optional`: what the address gives."""
    model = INPUTS[kind]
    schema = model.model_json_schema()
    shared = schema.get("$defs", {})
    limits = limits_of(model)
    fields: Json = {}
    for name, field in schema["properties"].items():
        if name.endswith("_nanos"):
            fields[name.removesuffix("_nanos")] = DECIMAL
            continue
        branches = [_plain(each, shared) for each in field.get("anyOf", [field]) if each.get("type") != "null"]
        limit = limits.get(name)
        for branch in branches:
            if isinstance(limit, TextLimit) and branch.get("type") == "string" and "format" not in branch:
                branch |= {"minLength": limit.least, "maxLength": limit.most}
            if isinstance(limit, NumberLimit) and branch.get("type") == "integer":
                branch |= {"minimum": max(limit.least, -AMOUNT_MAX), "maximum": min(limit.most, AMOUNT_MAX)}
        fields[name] = branches[0] if len(branches) == 1 else {"anyOf": branches}
    if kind is InputKind.SETTING:
        fields["body"] = {"type": "object", "description": "of the kind: schemas/json/<kind>.schema.json"}
    required = [name.removesuffix("_nanos") for name in schema["required"] if name not in optional]
    return {"type": "object", "additionalProperties": False, "required": required, "properties": fields}


def _plain(field: Mapping[str, Any], shared: Mapping[str, Any]) -> Json:
    """A field without references and titles."""
    named = str(field.get("$ref", ""))
    found = shared[named.rpartition("/")[2]] if named else field
    return {name: value for name, value in found.items() if name not in ("title", "default", "description")}
