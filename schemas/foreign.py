"""What the schemas of other writers may be made of, so that no record of theirs can hurt whoever reads it.

Rules of this file, on a schema in its plain form:
1. A record inside itself is refused: a body of a few kilobytes could nest so deep that the reader's stack ends, and the
   process with it.
2. A list of what takes no bytes is refused: a body of ten bytes could hold 10¹⁸ of them.
3. Columns (pyruhvro) are for the types listed here; what has others, such as `bytes` and `fixed`, is read by fastavro.
"""

from __future__ import annotations

from typing import Any

COLUMN_TYPES = {"null", "boolean", "int", "long", "float", "double", "string"}
PRIMITIVES = COLUMN_TYPES | {"bytes"}


def fault_of(schema: Any) -> str | None:
    """Why records written with this schema are not read; None when they are."""
    return _fault(schema, {}, ())


def read_by_columns(schema: Any) -> bool:
    """Whether every part is of a type that columns are known to hold."""
    if isinstance(schema, list):
        return all(map(read_by_columns, schema))
    if isinstance(schema, str):
        return schema in COLUMN_TYPES
    match schema["type"]:
        case "record":
            return all(read_by_columns(field["type"]) for field in schema["fields"])
        case "array":
            return read_by_columns(schema["items"])
        case "map":
            return read_by_columns(schema["values"])
        case "enum":
            return True
        case kind:
            return isinstance(kind, str) and kind in COLUMN_TYPES


def _fault(schema: Any, known: dict[str, Any], around: tuple[str, ...]) -> str | None:
    """`known`: the named types so far, by name; `around`: the names of the records that this part is inside of."""
    if isinstance(schema, list):
        return next((fault for branch in schema if (fault := _fault(branch, known, around))), None)
    if isinstance(schema, str):
        return f"{schema} is inside itself" if schema.rpartition(".")[2] in around else None
    name = schema.get("name", "").rpartition(".")[2]
    if name:
        known[name] = schema
    match schema["type"]:
        case "record":
            inside = (*around, name)
            return next((fault for field in schema["fields"] if (fault := _fault(field["type"], known, inside))), None)
        case "array" | "map" as kind:
            items = schema["items" if kind == "array" else "values"]
            if kind == "array" and _takes_no_bytes(items, known):
                return "a list of what takes no bytes has no bound"
            return _fault(items, known, around)
        case _:
            return None


def _takes_no_bytes(schema: Any, known: dict[str, Any]) -> bool:
    if isinstance(schema, str) and schema not in PRIMITIVES:
        schema = known.get(schema.rpartition(".")[2], schema)
    if isinstance(schema, str):
        return schema == "null"
    if isinstance(schema, list):
        return False  # the branch's number takes one
    match schema["type"]:
        case "record":
            return all(_takes_no_bytes(field["type"], known) for field in schema["fields"])
        case "fixed":
            return bool(schema["size"] == 0)
        case kind:
            return bool(kind == "null")
