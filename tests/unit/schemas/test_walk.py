"""The walk through a body: what fits 64 bits passes, what does not is found wherever it stands."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.records import avro_schema, plain_schema
from schemas.varint_check import body_fault
from tests.contract.samples import rows

LONG = {"type": "record", "name": "r", "fields": [{"name": "n", "type": "long"}]}


def varint(coded: int) -> bytes:
    octets = []
    while coded >= 0x80:
        octets.append(coded & 0x7F | 0x80)
        coded >>= 7
    return bytes([*octets, coded])


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        (varint(0), True),
        (varint(2**64 - 1), True),
        (varint(2**64), False),
        (varint(2**69), False),
        (b"\x80" * 9 + b"\x00", True),  # zero, written long
        (b"\x80" * 10 + b"\x00", False),
        (b"\xff" * 20, False),
        (b"\x80", False),
        (b"", False),
        (varint(1) + b"\x00", False),
    ],
)
def test_one_number(body: bytes, fits: bool) -> None:
    assert (body_fault(LONG, body) is None) == fits


MIXED: dict[str, Any] = {
    "type": "record",
    "name": "r",
    "fields": [
        {"name": "e", "type": {"type": "enum", "name": "colour", "symbols": ["red", "blue"]}},
        {"name": "f", "type": {"type": "fixed", "name": "four", "size": 4}},
        {"name": "g", "type": ["null", "four"]},
        {"name": "b", "type": "bytes"},
        {"name": "x", "type": "float"},
        {"name": "l", "type": {"type": "array", "items": {"type": "map", "values": "int"}}},
    ],
}


def test_every_kind_of_type() -> None:
    stream = io.BytesIO()
    fields = {"e": "blue", "f": b"abcd", "g": b"efgh", "b": b"\xff\xff", "x": 1.5, "l": [{"a": 1}, {}, {"b": -7}]}
    fastavro.schemaless_writer(stream, fastavro.parse_schema(MIXED), fields)
    body = stream.getvalue()
    assert body_fault(MIXED, body) is None
    assert all(body_fault(MIXED, body[:cut]) for cut in range(len(body)))
    assert body_fault(MIXED, body + b"\x00") is not None


@given(fields=rows("entry"))
def test_every_record_we_write(fields: dict[str, Any]) -> None:
    schema = plain_schema(avro_schema("entry"))
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, schema, fields)
    assert body_fault(schema, stream.getvalue()) is None


@given(st.binary(max_size=60))
def test_noise_never_raises(body: bytes) -> None:
    body_fault(plain_schema(avro_schema("usage")), body)
