"""What a dead letter says to the producer who sent the wrong thing: what it is, and what to do."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import fastavro
import pytest

from schemas.codec import FRAME_BYTES, UndecodableError, decode_columns, decode_one, encode_one, frame
from schemas.enums import InputKind
from schemas.events import INPUTS
from schemas.fields import first_fault
from schemas.records import AvroSchema, BundledSchemas, avro_schema, bundled_id
from schemas.writer_safety import UnreadableSchema
from tests.contract.samples import full, minimal

OWN = encode_one("usage", minimal("usage"), bundled_id("usage"))
NOON_MS = 1_769_860_800_000


class Writers(BundledSchemas):
    """The released schemas, and one under id 20,000."""

    def __init__(self, other: AvroSchema | UnreadableSchema) -> None:
        super().__init__()
        self.other = other

    def writer(self, schema_id: int) -> Any:
        return self.other if schema_id == 20_000 else super().writer(schema_id)


def fault(value: bytes, writers: BundledSchemas | None = None) -> str:
    """The same sentence both ways."""
    writers = writers or BundledSchemas()
    with pytest.raises(UndecodableError) as refused:
        decode_one("usage", value, writers)
    (failure,) = decode_columns("usage", [value], writers).failures
    assert failure.message == refused.value.message
    return failure.message


def container_file() -> bytes:
    stream = io.BytesIO()
    fastavro.writer(stream, avro_schema("usage"), [])
    return stream.getvalue()


@pytest.mark.fault(
    "not-framed-avro",
    title="bytes that are no framed Avro",
    provoked="JSON, bare Avro, single-object Avro, an Avro file, other first bytes, too few bytes",
    holds="the dead letter's message says what it is and what to send",
)
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (b'{"event_id": "e1"}', "is JSON, this topic takes Avro: send JSON with `credits produce usage`"),
        (b' \n[{"event_id": "e1"}]\n', "is JSON"),
        (b"{}", "is JSON"),
        (OWN[FRAME_BYTES:], "is Avro without the five bytes in front"),
        (b"\xc3\x01" + bytes(8) + OWN[FRAME_BYTES:], "single-object encoding"),
        (container_file(), "is an Avro file"),
        (b"{ no JSON", "first byte is 123, not 0"),
        (b"\x01" + OWN[1:], "first byte is 1, not 0"),
        (b"abc", "3 bytes are too short"),
    ],
)
def test_what_is_no_framed_avro_is_recognised(value: bytes, sentence: str, seen: Callable[[str], None]) -> None:
    assert sentence in fault(value)
    seen("each was recognised by its kind")


def of_another_type(name: str, type_: Any) -> AvroSchema:
    schema = avro_schema("usage")
    next(field for field in schema["fields"] if field["name"] == name)["type"] = type_
    return schema


def without(name: str) -> AvroSchema:
    schema = avro_schema("usage")
    schema["fields"] = [field for field in schema["fields"] if field["name"] != name]
    return schema


@pytest.mark.fault(
    "unreadable-writer",
    title="a writer's schema that cannot be read",
    provoked="fields missing, of other types, in milliseconds; another record; no Avro",
    holds="the message names the field, what is expected and what was found",
)
@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        (without("event_id"), "event_id: string is expected, the other has no such field"),
        (of_another_type("event_id", "long"), "event_id: string is expected, long was found"),
        (of_another_type("input_tokens", "double"), "input_tokens: null or long is expected, double was found"),
        (
            of_another_type("occurred_at", {"type": "long", "logicalType": "timestamp-millis"}),
            "occurred_at: long (timestamp-micros) is expected, long (timestamp-millis) was found",
        ),
        (
            of_another_type("attributes", {"type": "map", "values": "long"}),
            "attributes[]: string is expected, long was found",
        ),
        (avro_schema("purchase"), "record usage is expected, record purchase was found"),
        (UnreadableSchema("it is of type PROTOBUF"), "it is of type PROTOBUF"),
    ],
)
def test_a_writer_that_cannot_be_read_is_told_by_field(schema: Any, sentence: str, seen: Callable[[str], None]) -> None:
    message = fault(frame(20_000) + OWN[FRAME_BYTES:], Writers(schema))
    assert message.startswith("schema 20000 cannot be read as usage: ")
    assert sentence in message
    assert len(message) <= 500, "what a dead letter's header holds"
    seen("each message named its field, with both types")


def test_a_writer_that_states_no_logical_type_is_read() -> None:
    value = frame(20_000) + OWN[FRAME_BYTES:]
    assert decode_one("usage", value, Writers(of_another_type("occurred_at", "long"))) == decode_one(
        "usage", OWN, BundledSchemas()
    )


@pytest.mark.parametrize("kind", list(InputKind))
def test_every_time_of_every_record_is_checked_for_its_unit(kind: InputKind) -> None:
    model, fields = INPUTS[kind], full(kind)
    times = [field["name"] for field in avro_schema(kind)["fields"] if "timestamp-micros" in json.dumps(field["type"])]
    assert times
    for name in times:
        with pytest.raises(ValueError) as refused:
            model.from_record({**fields, name: NOON_MS})
        fault = first_fault(refused.value)  # type: ignore[arg-type]
        assert fault.field == name
        assert "looks like milliseconds" in fault.message
