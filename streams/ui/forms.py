"""Forms made from the JSON Schemas of settings (`schemas/json`), and settings made from forms. Pure.

The rules of this file:
1. A form has what the schema has: label, kind of input, bounds, default, and what it means. What the schema says in a
   way that is not known here is a field of JSON, so that a new kind of setting needs nothing here.
2. A body has every field that was filled in; what is empty is left out, or null where the schema allows that and has no
   other default.
3. A list of objects has a row for each, and `ROWS_MORE` empty ones; a row without its first field is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

ROWS_MORE: Final = 2
AMOUNT_PATTERN: Final = "[0-9]{1,9}"

Schema = Mapping[str, Any]
Given = Mapping[str, Sequence[str]]


@dataclass(slots=True)
class Field:
    """One input. `value`: text, or a list for choices and rows; `fault`: why it was refused."""

    name: str
    label: str
    kind: str
    """`text`, `amount`, `whole`, `flag`, `choice`, `choices`, `lines`, `time`, `json`, `group`, `rows`."""
    means: str = ""
    value: Any = ""
    required: bool = False
    choices: Sequence[str] = ()
    minimum: int | None = None
    maximum: int | None = None
    default: str = ""
    fault: str = ""
    inner: list[Any] = field(default_factory=list)
    """Fields of a group; of rows: a list of fields for each."""


def fields_of(schema: Schema, body: Mapping[str, Any]) -> list[Field]:
    """The inputs for a body, with its values."""
    return _fields(schema, schema, body, "")


def body_of(schema: Schema, given: Given) -> dict[str, Any]:
    """The body that a form says."""
    return _body(schema, schema, given, "")


def given_of(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """The values of a form by name."""
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        given.setdefault(name, []).append(value)
    return given


def place_fault(fields: Sequence[Field], name: str, message: str) -> bool:
    """Put a refusal at the field that it is about; False when no field has this name."""
    for each in fields:
        inner = [one for row in each.inner for one in (row if isinstance(row, list) else [row])]
        if each.name == name or place_fault(inner, name, message):
            each.fault = each.fault or (message if each.name == name else "")
            return True
    return False


def _fields(root: Schema, schema: Schema, body: Mapping[str, Any], prefix: str) -> list[Field]:
    required = set(schema.get("required", ()))
    return [
        _field(root, _resolved(root, each), f"{prefix}{name}", name, body.get(name), name in required)
        for name, each in schema.get("properties", {}).items()
    ]


def _field(root: Schema, schema: Schema, path: str, name: str, value: Any, required: bool) -> Field:
    kind = _kind(root, schema)
    found = Field(
        path, name.replace("_", " "), kind, str(schema.get("description", "")).replace("`", ""), required=required
    )
    default = schema.get("default")
    found.default = "" if default in (None, [], {}, "") or isinstance(default, dict) else _shown(default)
    shown = default if value is None else value
    match kind:
        case "group":
            found.inner = _fields(root, schema, shown if isinstance(shown, dict) else {}, f"{path}.")
        case "rows":
            item = _resolved(root, schema["items"])
            rows = [each for each in shown or [] if isinstance(each, dict)]
            found.inner = [
                _fields(root, item, row, f"{path}.{number}.") for number, row in enumerate([*rows, *[{}] * ROWS_MORE])
            ]
            for row in found.inner[len(rows) :]:
                _optional(row)
        case "choices":
            found.choices = _resolved(root, schema["items"])["enum"]
            found.value = list(shown or [])
        case "lines":
            found.value = "\n".join(map(str, shown or []))
        case "flag":
            found.value = bool(shown)
        case "json":
            found.value = "" if shown is None else json.dumps(shown, ensure_ascii=False)
        case _:
            found.value = "" if shown is None else _shown(shown)
            found.choices = schema.get("enum", ())
            found.minimum, found.maximum = schema.get("minimum"), schema.get("maximum")
    return found


def _optional(row: Sequence[Field]) -> None:
    """The fields of a row that may stay empty."""
    for each in row:
        each.required = False


def _shown(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _resolved(root: Schema, schema: Schema) -> Schema:
    """The schema itself in place of a reference or of `this or null`; keywords at the reference stand before it."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return {**root["$defs"][name], **{key: value for key, value in schema.items() if key != "$ref"}}
    choices = schema.get("anyOf", ())
    plain = [each for each in choices if each.get("type") != "null"]
    if plain and (len(plain) == 1 or any(each.get("format") == "date-time" for each in plain)):
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        nullable = {"nullable": True} if len(plain) < len(choices) else {}
        return {**_resolved(root, plain[0]), **rest, **nullable}
    return schema


def _kind(root: Schema, schema: Schema) -> str:
    match schema.get("type"):
        case "boolean":
            return "flag"
        case "integer":
            return "whole"
        case "object" if "properties" in schema:
            return "group"
        case "array":
            item = _resolved(root, schema.get("items", {}))
            if "enum" in item:
                return "choices"
            if "properties" in item:
                return "rows"
            return "lines" if item.get("type") == "string" else "json"
        case "string":
            if "enum" in schema:
                return "choice"
            if schema.get("format") == "date-time":
                return "time"
            return "amount" if AMOUNT_PATTERN in schema.get("pattern", "") else "text"
    return "json"


def _body(root: Schema, schema: Schema, given: Given, prefix: str) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name, each in schema.get("properties", {}).items():
        found = _value(root, _resolved(root, each), given, f"{prefix}{name}")
        if found is not None:
            body[name] = found
    return body


def _value(root: Schema, schema: Schema, given: Given, path: str) -> Any:
    """What a form says of one field; None: it was left empty."""
    texts = [each.strip() for each in given.get(path, ())]
    text = texts[-1] if texts else ""
    match _kind(root, schema):
        case "flag":
            return text == "yes"
        case "group":
            return _body(root, schema, given, f"{path}.")
        case "rows":
            return _rows(root, _resolved(root, schema["items"]), given, path)
        case "choices":
            return [each for each in texts if each]
        case "lines":
            return [line.strip() for line in text.splitlines() if line.strip()]
        case "whole" if text.lstrip("-").isdigit() and len(text) < 20:
            return int(text)
        case "json" if text:
            try:
                return json.loads(text)
            except ValueError:
                return text
    return text or None


def _rows(root: Schema, item: Schema, given: Given, path: str) -> list[Any]:
    numbers = {name.removeprefix(f"{path}.").partition(".")[0] for name in given if name.startswith(f"{path}.")}
    first = next(iter(item["properties"]))
    filled = [
        number
        for number in sorted((each for each in numbers if each.isdigit()), key=int)
        if any(each.strip() for each in given.get(f"{path}.{number}.{first}", ()))
    ]
    return [_body(root, item, given, f"{path}.{number}.") for number in filled]
