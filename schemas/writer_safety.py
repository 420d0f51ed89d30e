"""What the schema of another writer may be, so that no body of it costs more than its bytes are worth.

A few bytes of Avro can stand for any number of values: a record of two records of two records (depth 40: 2⁴⁰ reads), a
list of `{boolean, 1000 × null}`, a list of nulls. Rules of this file:
1. A schema is measured before any library parses it: by arithmetic, in one pass, a named type once. The time is linear
   in its size, whatever it says.
2. The measure bounds every body: one of `n` bytes holds at most `spread + n * values_per_byte` values. What could be
   above `VALUES_MAX` is counted before it is decoded (`schemas.varint_check`).
3. Refused: a record inside itself, a list of what takes no bytes, more nesting than a reader's stack is sure to bear,
   and what is no Avro schema at all.
4. Libraries disagree about namespaces, so types are known by their name alone, and one schema has a name once.
5. Columns (pyruhvro) are for the types listed here; what has others, such as `bytes` and `fixed`, is read by fastavro.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, NoReturn

COLUMN_TYPES: Final = {"null", "boolean", "int", "long", "float", "double", "string"}
PRIMITIVES: Final = COLUMN_TYPES | {"bytes"}
NAMED: Final = {"record", "enum", "fixed"}
COMPLEX: Final = NAMED | {"array", "map"}

TEXT_CHARACTERS_MAX: Final = 256 * 1024
"""Of a schema as JSON; the largest of ours has 9,000."""

NESTING_MAX: Final = 96
"""Levels of the JSON. A level of records takes three; the parsers take up to six calls for it, of the thousand that
Python's stack has."""

DEPTH_MAX: Final = 32
"""Values inside one another, as named types spread out; ours have three."""

SPREAD_MAX: Final = 4_000
"""Values in one record when every union shows all its branches and every list has one item; ours have up to 91. As
columns, a batch of 1,024 such records has 4 million cells, 32 MB."""

VALUES_PER_BYTE_MAX: Final = 256
"""Of the items of lists and maps. A union of null and a record of 250 fields, as an item, takes one byte when null."""

VALUES_MAX: Final = 20_000
"""Values that one record may hold: some 20 ms to count and decode, and 4 MB as Python objects. An entry of 500 slices,
the most that an organisation has grants, has 3,000."""

_FIXED_BYTES: Final = {"null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8, "string": 1, "bytes": 1}
"""The fewest bytes of a primitive value."""


class SchemaFaultError(ValueError):
    """The text or the document is no schema whose records are read; the message says why."""


@dataclass(frozen=True, slots=True)
class UnreadableSchema:
    """What a registry has under an id when that is no schema whose records are read; `reason` completes a sentence."""

    reason: str


@dataclass(frozen=True, slots=True)
class BodyBounds:
    """How much a body of a schema can hold."""

    spread: int
    """Values of a body whose lists have one item each, every branch of a union counted."""
    values_per_byte: int
    """Values that one more byte can stand for; 0 where there are no lists and maps."""

    @property
    def safe_bytes(self) -> int:
        """Bodies of up to this size hold at most `VALUES_MAX` values, whatever is in them."""
        return (VALUES_MAX - self.spread) // self.values_per_byte if self.values_per_byte else 2**62


def parse_schema_text(text: str) -> Any:
    """The document of a schema's JSON text; raises `SchemaFaultError`. Its shape is not looked at (`bounds_of`)."""
    if len(text) > TEXT_CHARACTERS_MAX:
        raise SchemaFaultError(f"a schema may have {TEXT_CHARACTERS_MAX:,} characters, this one has {len(text):,}")
    try:
        text.encode()
        document = json.loads(text, parse_constant=_no_constant)
    except UnicodeEncodeError as error:
        raise SchemaFaultError("not text that UTF-8 can hold") from error
    except RecursionError as error:
        raise SchemaFaultError(f"nested more than {NESTING_MAX} levels deep") from error
    except ValueError as error:
        raise SchemaFaultError(f"not JSON: {error}") from error
    _check_nesting(document)
    if _has_surrogates(document):  # written as \\ud800, which JSON allows and UTF-8 does not
        raise SchemaFaultError("not text that UTF-8 can hold")
    return document


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON value")


def _has_surrogates(document: Any) -> bool:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def readable_schema(text: str) -> Any:
    """The document of a registry's answer, or why it is none as an `UnreadableSchema`."""
    try:
        return parse_schema_text(text)
    except SchemaFaultError as fault:
        return UnreadableSchema(str(fault))


def fault_of(schema: Any) -> str | None:
    """Why records written with this schema are not read; None when they are."""
    try:
        bounds_of(schema)
    except SchemaFaultError as fault:
        return str(fault)
    return None


def bounds_of(schema: Any) -> BodyBounds:
    """What the bodies of a schema can hold; raises `SchemaFaultError` for one whose records are not read."""
    _check_nesting(schema)
    measuring = _Measuring()
    spread = measuring.size(schema).spread
    return BodyBounds(spread, measuring.values_per_byte)


def read_by_columns(schema: Any) -> bool:
    """Whether every part of a plain schema is of a type that columns are known to hold."""
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


def named_types(schema: Any) -> dict[str, Any]:
    """The records, enums and fixed of a schema, by name without namespace."""
    found: dict[str, Any] = {}
    level = [schema]
    while level:
        level = [part for each in level for part in _parts(each, found)]
    return found


def _parts(schema: Any, found: dict[str, Any]) -> list[Any]:
    if isinstance(schema, list):
        return schema
    if not isinstance(schema, dict):
        return []
    kind = schema.get("type")
    if not isinstance(kind, str):
        return [kind]
    if kind in NAMED:
        found[short_name(schema["name"])] = schema
    parts = [field["type"] for field in schema["fields"]] if kind == "record" else []
    return parts + [schema[inner] for inner in ("items", "values") if inner in schema]


def short_name(name: str) -> str:
    """A name without its namespace."""
    return name.rpartition(".")[2]


def _check_nesting(document: Any) -> None:
    """Level by level, so that no depth ends the stack."""
    level = [document]
    for _ in range(NESTING_MAX):
        level = [child for each in level for child in _children(each)]
        if not level:
            return
    raise SchemaFaultError(f"nested more than {NESTING_MAX} levels deep")


def _children(document: Any) -> list[Any]:
    if isinstance(document, dict):
        return list(document.values())
    return document if isinstance(document, list) else []


@dataclass(frozen=True, slots=True)
class _Size:
    spread: int
    depth: int
    bytes_least: int


class _Measuring:
    """Measures a schema part by part; a name refers to what was measured before it, as Avro has it."""

    def __init__(self) -> None:
        self.values_per_byte = 0
        self._named: dict[str, _Size | None] = {}
        """None while the type is being measured: a reference to it then is from inside."""

    def size(self, schema: Any) -> _Size:
        if isinstance(schema, list):
            return self._union(schema)
        if isinstance(schema, str):
            return self._reference(schema)
        if not isinstance(schema, dict):
            raise SchemaFaultError(f"a type is a name, an object or a list, not {type(schema).__name__}")
        kind = schema.get("type")
        if not isinstance(kind, str):
            return self.size(kind)
        match kind:
            case "record" | "enum" | "fixed":
                return self._definition(kind, schema)
            case "array":
                item = self.size(schema.get("items"))
                return self._list(item.spread, item.bytes_least, item)
            case "map":
                value = self.size(schema.get("values"))
                return self._list(value.spread + 1, value.bytes_least + 1, value)
            case name:
                return self._reference(name)

    def _union(self, branches: list[Any]) -> _Size:
        if not branches:
            raise SchemaFaultError("a union has no types")
        sizes = [self.size(branch) for branch in branches]
        return self._checked(
            sum(size.spread for size in sizes),
            max(size.depth for size in sizes),
            1 + min(size.bytes_least for size in sizes),
        )

    def _reference(self, name: str) -> _Size:
        if name in PRIMITIVES:
            return _Size(1, 1, _FIXED_BYTES[name])
        short = short_name(name)
        if short not in self._named:
            raise SchemaFaultError(f"there is no type {name!r}")
        size = self._named[short]
        if size is None:
            raise SchemaFaultError(f"{short} is inside itself")
        return size

    def _definition(self, kind: str, schema: dict[str, Any]) -> _Size:
        name = schema.get("name")
        if not isinstance(name, str) or not name:
            raise SchemaFaultError(f"a type of kind {kind} has no name")
        short = short_name(name)
        if short in PRIMITIVES or short in COMPLEX:
            raise SchemaFaultError(f"{short} is a word of Avro's, and no name")
        if short in self._named:
            raise SchemaFaultError(f"two types are named {short}; names count without their namespace")
        self._named[short] = None
        size = self._defined(kind, schema)
        self._named[short] = size
        return size

    def _defined(self, kind: str, schema: dict[str, Any]) -> _Size:
        if kind == "enum":
            symbols = schema.get("symbols")
            if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
                raise SchemaFaultError(f"the enum {schema['name']} has no list of symbols")
            return _Size(1, 1, 1)
        if kind == "fixed":
            octets = schema.get("size")
            if type(octets) is not int or not 0 <= octets < 2**31:
                raise SchemaFaultError(f"the fixed {schema['name']} has no size")
            return _Size(1, 1, octets)
        fields = schema.get("fields")
        if not isinstance(fields, list):
            raise SchemaFaultError(f"the record {schema['name']} has no list of fields")
        spread, depth, bytes_least = 1, 0, 0
        for field in fields:
            if not isinstance(field, dict) or not isinstance(field.get("name"), str):
                raise SchemaFaultError(f"a field of the record {schema['name']} has no name")
            size = self.size(field.get("type"))
            spread, depth = spread + size.spread, max(depth, size.depth)
            bytes_least += size.bytes_least
            self._checked(spread, depth, bytes_least)
        return self._checked(spread, depth + 1, bytes_least)

    def _list(self, spread: int, bytes_least: int, item: _Size) -> _Size:
        if bytes_least == 0:
            raise SchemaFaultError("a list of what takes no bytes has no bound")
        values = -(-spread // bytes_least)
        if values > VALUES_PER_BYTE_MAX:
            raise SchemaFaultError(f"a byte of a list can stand for {values:,} values; {VALUES_PER_BYTE_MAX} are read")
        self.values_per_byte = max(self.values_per_byte, values)
        return self._checked(1 + spread, item.depth + 1, 1)

    def _checked(self, spread: int, depth: int, bytes_least: int) -> _Size:
        if spread > SPREAD_MAX:
            raise SchemaFaultError(f"one record can hold more than {SPREAD_MAX:,} values")
        if depth > DEPTH_MAX:
            raise SchemaFaultError(f"values lie more than {DEPTH_MAX} deep in one another")
        return _Size(spread, depth, bytes_least)
