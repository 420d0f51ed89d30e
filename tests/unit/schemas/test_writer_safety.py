"""What a schema may be, measured before anybody reads with it: bombs are refused in no time, ordinary ones are not."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from schemas.records import avro_schema, record_names, versions
from schemas.writer_safety import (
    DEPTH_MAX,
    NESTING_MAX,
    SPREAD_MAX,
    TEXT_CHARACTERS_MAX,
    VALUES_MAX,
    VALUES_PER_BYTE_MAX,
    BodyBounds,
    SchemaFaultError,
    UnreadableSchema,
    bounds_of,
    fault_of,
    parse_schema_text,
    readable_schema,
)


def record(name: str, *types: Any) -> dict[str, Any]:
    fields = [{"name": f"f{number}", "type": each} for number, each in enumerate(types)]
    return {"type": "record", "name": name, "fields": fields}


def doubling(depth: int) -> dict[str, Any]:
    """`Rn {a: Rn-1, b: Rn-1}`, each defined beside the other: the JSON is flat, a body of no bytes is 2ⁿ reads."""
    return record("top", record("R0"), *(record(f"R{n}", f"R{n - 1}", f"R{n - 1}") for n in range(1, depth)))


def chain(depth: int) -> dict[str, Any]:
    """The same with one field each: no more than `depth` values, but one inside the other."""
    return record("top", record("R0"), *(record(f"R{n}", f"R{n - 1}") for n in range(1, depth)))


def nested(depth: int) -> Any:
    inner: Any = "string"
    for number in range(depth):
        inner = record(f"N{number}", inner)
    return inner


@pytest.mark.parametrize("name", record_names())
def test_ours_are_far_from_every_limit(name: str) -> None:
    for version in versions(name):
        bounds = bounds_of(avro_schema(name, version))
        assert bounds.spread <= SPREAD_MAX / 20
        assert bounds.safe_bytes >= 9_000


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        (doubling(40), "more than 4,000 values"),
        (doubling(5_000), "deep|more than 4,000 values"),
        ({"type": "array", "items": record("r", "boolean", *["null"] * 1_000)}, "can stand for 1,002 values"),
        ({"type": "array", "items": "null"}, "no bound"),
        ({"type": "array", "items": record("r", "null", record("e"))}, "no bound"),
        (nested(400), "nested more than"),
        (nested(31), None),
        (chain(DEPTH_MAX - 1), None),
        (chain(DEPTH_MAX), "deep in one another"),
        (record("r", ["null", "r"]), "inside itself"),
        (record("r", {"type": "array", "items": "a.r"}), "inside itself"),
        (record("r", *["null"] * SPREAD_MAX), "more than 4,000 values"),
        ({"type": "map", "values": "null"}, None),
        (record("top", record("a.R", *["null"] * 100), record("b.R"), *["a.R"] * 40), "two types are named R"),
        (record("long"), "word of Avro's"),
        (record("r", "other"), "no type 'other'"),
        (record("r", None), "not NoneType"),
        (record("r", []), "no types"),
        ({"type": "record", "name": "r"}, "no list of fields"),
        ({"type": "record", "name": 5, "fields": []}, "no name"),
        ({"type": "record", "name": "r", "fields": [5]}, "no name"),
        ({"type": "enum", "name": "e", "symbols": 5}, "symbols"),
        ({"type": "fixed", "name": "f", "size": -1}, "size"),
        ({"type": "fixed", "name": "f", "size": True}, "size"),
        ({"type": "fixed", "name": "f", "size": 2**40}, "size"),
        ({}, "not NoneType"),
        (5, "not int"),
    ],
)
def test_what_is_refused_and_why(schema: Any, fault: str | None) -> None:
    if fault is None:
        assert fault_of(schema) is None
        return
    with pytest.raises(SchemaFaultError, match=fault):
        bounds_of(schema)


def test_a_measure_takes_time_in_proportion_to_the_schema() -> None:
    """Names are measured once: with the names measured at each reference, depth 18 took seconds."""
    assert fault_of(chain(30)) is None
    assert fault_of(doubling(3_000)) is not None
    # Four times as deep is some six times the work; were it measured at each reference, every level would double it.
    for few, many in ((chain(8), chain(32)), (doubling(750), doubling(3_000))):
        assert spent_s(many) < 15 * spent_s(few)


def spent_s(schema: dict[str, Any]) -> float:
    """Seconds of the processor for ten measures, at best."""
    spent = []
    for _ in range(5):
        started = time.process_time()
        for _ in range(10):
            fault_of(schema)
        spent.append(time.process_time() - started)
    return min(spent)


def test_the_bound_of_a_body() -> None:
    item = record("item", "long", ["null", "string"])
    bounds = bounds_of(record("r", "string", {"type": "array", "items": item}))
    # the record, the text, the list, and one item of four values, which takes at least two bytes
    assert bounds == BodyBounds(spread=1 + 1 + 1 + 4, values_per_byte=2)
    assert 7 + 2 * bounds.safe_bytes <= VALUES_MAX < 7 + 2 * (bounds.safe_bytes + 1)
    assert bounds_of(record("r", "string")).safe_bytes > 2**40
    assert VALUES_PER_BYTE_MAX >= 250


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('"' + "x" * TEXT_CHARACTERS_MAX + '"', "characters"),
        ("[" * 5_000 + "]" * 5_000, "nested more than"),
        ("[" * (NESTING_MAX + 1) + "]" * (NESTING_MAX + 1), "nested more than"),
        ("{", "not JSON"),
        ("9" * 5_000, "not JSON"),
        ('{"default": NaN}', "NaN"),
        ('"\\ud800"', "UTF-8"),
        ('"\ud800"', "UTF-8"),
    ],
    ids=["huge", "very deep", "deep", "half", "5,000 digits", "no number", "lone surrogate", "raw surrogate"],
)
def test_a_text_that_is_no_schema(text: str, fault: str) -> None:
    with pytest.raises(SchemaFaultError, match=fault):
        parse_schema_text(text)
    answer = readable_schema(text)
    assert isinstance(answer, UnreadableSchema)
    assert fault in answer.reason


def test_our_own_texts_are_their_documents() -> None:
    assert parse_schema_text(json.dumps(avro_schema("entry"))) == avro_schema("entry")
