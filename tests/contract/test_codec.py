"""The codec in columns against fastavro, the reference: good bytes, every kind of bad ones, other writers."""

from __future__ import annotations

import copy
import io
import random
import resource
from collections.abc import Callable
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import (
    FRAME_BYTES,
    RegistryUnavailableError,
    UndecodableError,
    batch_of,
    decode_columns,
    decode_one,
    encode_columns,
    encode_one,
    frame,
    rows_of,
)
from schemas.enums import DeadLetterCode
from schemas.records import (
    AvroSchema,
    BundledSchemas,
    arrow_schema,
    avro_schema,
    bundled_id,
    plain_schema,
    record_names,
)
from schemas.resolution import full_differences
from schemas.writer_safety import VALUES_MAX
from tests.contract.samples import full, minimal, rows, samples

BUNDLED = BundledSchemas()
USAGE_ID = bundled_id("usage")


class Writers:
    """A registry with the released schemas and others."""

    def __init__(self, others: dict[int, AvroSchema]) -> None:
        self.others = others

    def writer(self, schema_id: int) -> AvroSchema | None:
        return self.others.get(schema_id) or BUNDLED.writer(schema_id)


class Unreachable:
    """A registry that cannot be asked."""

    def writer(self, schema_id: int) -> AvroSchema | None:
        raise RegistryUnavailableError(f"cannot ask for schema {schema_id}")


def reference(record: str, fields: dict[str, Any]) -> bytes:
    """The bytes as fastavro writes them."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, plain_schema(avro_schema(record)), fields)
    return frame(bundled_id(record)) + stream.getvalue()


def usage(number: int = 0) -> dict[str, Any]:
    return {**full("usage"), "event_id": f"e-{number}"}


# --- good bytes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("record", "name", "fields"), samples(), ids=lambda value: value if type(value) is str else "")
def test_columns_write_and_read_what_fastavro_does(record: str, name: str, fields: dict[str, Any]) -> None:
    value = reference(record, fields)
    assert encode_one(record, fields, bundled_id(record)) == value
    batch = batch_of(record, [fields])
    assert encode_columns(record, batch, bundled_id(record)) == [value]
    decoded = decode_columns(record, [value], BUNDLED)
    assert decoded.positions is None
    assert decoded.failures == []
    assert decoded.batch.schema == arrow_schema(record)
    assert rows_of(decoded.batch) == [decode_one(record, value, BUNDLED)]


@pytest.mark.parametrize("record", record_names())
@given(data=st.data())
def test_any_record_the_same_both_ways(record: str, data: st.DataObject) -> None:
    records = data.draw(st.lists(rows(record), min_size=1, max_size=5))
    values = [reference(record, fields) for fields in records]
    assert encode_columns(record, batch_of(record, records), bundled_id(record)) == values
    assert [encode_one(record, fields, bundled_id(record)) for fields in records] == values
    decoded = decode_columns(record, values, BUNDLED)
    assert decoded.positions is None
    assert rows_of(decoded.batch) == records
    assert [decode_one(record, value, BUNDLED) for value in values] == records


def test_times_are_microseconds() -> None:
    value = encode_one("usage", minimal("usage"), USAGE_ID)
    at = minimal("usage")["occurred_at"]
    assert decode_one("usage", value, BUNDLED)["occurred_at"] == at
    assert decode_columns("usage", [value], BUNDLED).batch.column("occurred_at").to_pylist() == [at]
    assert arrow_schema("usage").field("occurred_at").type == pa.int64()


def test_nothing_in_nothing_out() -> None:
    decoded = decode_columns("usage", [], BUNDLED)
    assert (decoded.batch.num_rows, decoded.failures) == (0, [])
    assert decoded.batch.schema == arrow_schema("usage")
    assert decoded.contents() == []
    assert encode_columns("usage", decoded.batch, USAGE_ID) == []


def test_the_frame_is_confluents() -> None:
    assert frame(0x01020304) == b"\x00\x01\x02\x03\x04"
    assert encode_one("usage", minimal("usage"), 258)[:FRAME_BYTES] == b"\x00\x00\x00\x01\x02"


# --- bad bytes ------------------------------------------------------------------------------------------------------


def truncated(value: bytes) -> bytes:
    return value[: len(value) // 2]


def left_over(value: bytes) -> bytes:
    return value + b"\x00"


def bad_utf8(value: bytes) -> bytes:
    return value.replace(b"org_id", b"org\xff\xfed")


def wrong_magic(value: bytes) -> bytes:
    return b"\x01" + value[1:]


def frame_only(value: bytes) -> bytes:
    return value[:FRAME_BYTES]


def noise(value: bytes) -> bytes:
    return frame(USAGE_ID) + random.Random(7).randbytes(len(value))


def number_beyond_64_bits(value: bytes) -> bytes:
    """input_tokens = 7,000,000,000 written as a varint of ten bytes that holds more than a long."""
    tokens = b"\x80\x98\xdc\x93\x34"
    assert tokens in value
    return value.replace(tokens, b"\xff" * 9 + b"\x7f", 1)


def number_beyond_32_bits(value: bytes) -> bytes:
    """replicas = 3 written as a varint of 2^40."""
    marker = b"\x02\x06\x02"  # branch 1, 3, and the branch of cost_nanos
    assert value.count(marker) == 1
    return value.replace(marker, b"\x02\x80\x80\x80\x80\x80\x80\x01\x02")


def unknown_schema(value: bytes) -> bytes:
    return frame(4_000_000_000) + value[FRAME_BYTES:]


def null(value: bytes) -> None:
    return None


BAD: list[tuple[Callable[[bytes], bytes | None], DeadLetterCode]] = [
    (truncated, DeadLetterCode.UNDECODABLE),
    (left_over, DeadLetterCode.UNDECODABLE),
    (bad_utf8, DeadLetterCode.UNDECODABLE),
    (wrong_magic, DeadLetterCode.UNDECODABLE),
    (frame_only, DeadLetterCode.UNDECODABLE),
    (noise, DeadLetterCode.UNDECODABLE),
    (number_beyond_64_bits, DeadLetterCode.UNDECODABLE),
    (number_beyond_32_bits, DeadLetterCode.UNDECODABLE),
    (unknown_schema, DeadLetterCode.UNKNOWN_SCHEMA),
    (null, DeadLetterCode.NULL_VALUE),
]


@pytest.mark.parametrize(("spoil", "code"), BAD, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("records", [1, 3, 500])
def test_a_bad_record_and_its_neighbours(
    spoil: Callable[[bytes], bytes | None], code: DeadLetterCode, records: int
) -> None:
    values: list[bytes | None] = [encode_one("usage", usage(number), USAGE_ID) for number in range(records)]
    at = records // 2
    good = values[at]
    assert good is not None
    values[at] = spoil(good)
    decoded = decode_columns("usage", values, BUNDLED)
    assert [(failure.position, failure.code) for failure in decoded.failures] == [(at, code)]
    assert decoded.failures[0].message
    others = [number for number in range(records) if number != at]
    assert decoded.positions == others
    assert rows_of(decoded.batch) == [usage(number) for number in others]
    with pytest.raises(UndecodableError) as caught:
        decode_one("usage", values[at], BUNDLED)
    assert caught.value.code is code


def test_all_bad() -> None:
    decoded = decode_columns("usage", [b"", None, b"\x00", b"x" * 90], BUNDLED)
    assert [failure.position for failure in decoded.failures] == [0, 1, 2, 3]
    assert decoded.batch.num_rows == 0
    assert decoded.positions == []


@given(seed=st.integers(0, 2**32), bad=st.integers(0, 12))
def test_spoilt_bytes_are_judged_as_fastavro_judges_them(seed: int, bad: int) -> None:
    """Random damage anywhere: columns never raise, and accept exactly what the reference accepts, as the same row."""
    chance = random.Random(seed)
    values: list[bytes | None] = [encode_one("usage", usage(number), USAGE_ID) for number in range(40)]
    for _ in range(bad):
        at = chance.randrange(len(values))
        value = bytearray(values[at] or b"")
        where = chance.randrange(FRAME_BYTES, len(value)) if len(value) > FRAME_BYTES else 0
        match chance.randrange(4):
            case 0:
                value[where:] = b""
            case 1:
                value[where : where + 1] = bytes([chance.randrange(256)])
            case 2:
                value[where:where] = bytes([chance.choice([0, 1, 0x7F, 0x80, 0xFF])]) * chance.randrange(1, 12)
            case _:
                value += chance.randbytes(3)
        values[at] = bytes(value)
    decoded = decode_columns("usage", values, BUNDLED)
    read: list[int] = []
    refused: list[int] = []
    expected = []
    for position, value_or_none in enumerate(values):
        try:
            expected.append(decode_one("usage", value_or_none, BUNDLED))
            read.append(position)
        except UndecodableError:
            refused.append(position)
    assert rows_of(decoded.batch) == expected
    assert [failure.position for failure in decoded.failures] == refused
    assert decoded.positions == (None if not refused and decoded.positions is None else read)


@pytest.mark.parametrize("writer", [avro_schema("usage"), None], ids=["our own", "a foreign one"])
def test_a_record_of_too_many_values_is_refused(writer: AvroSchema | None) -> None:
    """Written as it should be, so that nothing but the count is wrong."""
    schema = writer or with_field("usage", name="region", type=["null", "string"], default=None)
    for attributes, read in ((VALUES_MAX // 2 - 50, True), (VALUES_MAX // 2 + 50, False)):
        stream = io.BytesIO()
        fields = {**usage(), "attributes": {str(number): "" for number in range(attributes)}, "region": None}
        known = {field["name"]: fields[field["name"]] for field in schema["fields"]}
        fastavro.schemaless_writer(stream, plain_schema(schema), known)
        value = frame(20_001) + stream.getvalue()
        decoded = decode_columns("usage", [value], Writers({20_001: schema}))
        assert (decoded.batch.num_rows, len(decoded.failures)) == ((1, 0) if read else (0, 1))
        if not read:
            assert f"more than {VALUES_MAX:,} values" in decoded.failures[0].message


def test_another_encoding_of_the_same_record_is_read() -> None:
    """Avro lets a writer put maps into blocks with a byte count, as Java's blocking encoder does."""
    value = encode_one("usage", usage(), USAGE_ID)
    plain = b"\x02\x14request_id\x06r-1\x00"
    head, _, rest = value.partition(plain)
    assert rest
    pair = plain[1:-1]
    blocked = head + b"\x01" + bytes([len(pair) * 2]) + pair + b"\x00" + rest
    decoded = decode_columns("usage", [value, blocked], BUNDLED)
    assert decoded.failures == []
    assert rows_of(decoded.batch) == [usage(), usage()]
    assert decoded.contents()[0] == decoded.contents()[1]


# --- other writers --------------------------------------------------------------------------------------------------


def with_field(record: str, **field: Any) -> AvroSchema:
    schema = copy.deepcopy(avro_schema(record))
    schema["fields"].insert(3, field)
    return schema


def without_field(record: str, name: str) -> AvroSchema:
    schema = copy.deepcopy(avro_schema(record))
    schema["fields"] = [field for field in schema["fields"] if field["name"] != name]
    return schema


def java_strings(record: str) -> AvroSchema:
    """As Java registers it: every string says which class it becomes."""
    schema = copy.deepcopy(avro_schema(record))
    for field in schema["fields"]:
        if field["type"] == "string":
            field["type"] = {"type": "string", "avro.java.string": "String"}
    return schema


def required_where_optional(record: str, name: str) -> AvroSchema:
    schema = copy.deepcopy(avro_schema(record))
    for field in schema["fields"]:
        if field["name"] == name:
            field["type"] = field["type"][1]
            del field["default"]
    return schema


def narrower(record: str, name: str) -> AvroSchema:
    """A writer whose long is an int: columns do not fit, fastavro widens it."""
    schema = copy.deepcopy(avro_schema(record))
    for field in schema["fields"]:
        if field["name"] == name:
            field["type"] = ["null", "int"]
    return schema


DECIMAL = ["null", {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 9}]
FIXED = {"type": "fixed", "name": "two", "size": 2}
WRITERS = {
    "newer, one field more": with_field("usage", name="region", type=["null", "string"], default=None),
    "older, one field less": without_field("usage", "hold_id"),
    "Java's strings": java_strings("usage"),
    "required where we are not": required_where_optional("usage", "wallet"),
    "an int where we have a long": narrower("usage", "input_tokens"),
    "a decimal, which columns do not hold": with_field("usage", name="list_price", type=DECIMAL, default=None),
    "a fixed": with_field("usage", name="digest", type=FIXED, default="\0\0"),
}

INSIDE_ITSELF = {"type": "record", "name": "node", "fields": [{"name": "next", "type": ["null", "node"]}]}
"""Of which 5,000 in one another take 5 KB and end a process."""

HURTFUL = {
    "a record inside itself": with_field("usage", name="tree", type=["null", INSIDE_ITSELF], default=None),
    "a list without end": with_field("usage", name="none", type={"type": "array", "items": "null"}, default=[]),
}


@pytest.mark.parametrize("name", WRITERS)
def test_other_writers_are_read(name: str) -> None:
    writer = WRITERS[name]
    written = {**usage(), "region": "eu", "input_tokens": 12, "list_price": b"\x01\x02", "digest": b"ab"}
    fields = {field["name"]: written[field["name"]] for field in writer["fields"]}
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, plain_schema(writer), fields)
    foreign = frame(20_000) + stream.getvalue()
    own = encode_one("usage", usage(1), USAGE_ID)
    writers = Writers({20_000: writer})

    expected = {**usage(), "input_tokens": 12}
    if "hold_id" not in fields:
        expected["hold_id"] = None
    decoded = decode_columns("usage", [foreign, own, foreign], writers)
    assert decoded.failures == []
    assert decoded.positions is None
    assert rows_of(decoded.batch) == [expected, usage(1), expected]
    assert rows_of(decode_columns("usage", [foreign], writers).batch) == [expected]
    assert decode_one("usage", foreign, writers) == expected
    again = decode_columns("usage", [encode_one("usage", expected, USAGE_ID)], BUNDLED)
    assert decoded.contents()[0] == again.contents()[0]


@pytest.mark.parametrize("name", HURTFUL)
def test_a_writer_whose_records_could_hurt_is_not_read(name: str) -> None:
    deep = frame(20_000) + encode_one("usage", usage(), USAGE_ID)[FRAME_BYTES:] + b"\x02" * 5_000 + b"\x00"
    own = encode_one("usage", usage(), USAGE_ID)
    writers = Writers({20_000: HURTFUL[name]})
    decoded = decode_columns("usage", [deep, own], writers)
    assert [(failure.position, failure.code) for failure in decoded.failures] == [(0, DeadLetterCode.UNDECODABLE)]
    assert decoded.positions == [1]
    assert full_differences(HURTFUL[name], [avro_schema("usage")]), "the registry takes no such schema"


def test_a_writer_of_another_record_is_undecodable() -> None:
    foreign = encode_one("purchase", full("purchase"), bundled_id("purchase"))
    own = encode_one("usage", usage(), USAGE_ID)
    decoded = decode_columns("usage", [foreign, own], BUNDLED)
    assert [(failure.position, failure.code) for failure in decoded.failures] == [(0, DeadLetterCode.UNDECODABLE)]
    assert f"schema {bundled_id('purchase')}" in decoded.failures[0].message
    assert decoded.positions == [1]


def test_a_registry_out_of_reach_says_nothing_about_the_record() -> None:
    value = encode_one("usage", usage(), USAGE_ID)
    with pytest.raises(RegistryUnavailableError):
        decode_columns("usage", [value], Unreachable())
    with pytest.raises(RegistryUnavailableError):
        decode_columns("usage", [None, value], Unreachable())
    with pytest.raises(RegistryUnavailableError):
        decode_one("usage", value, Unreachable())


def test_two_registries_may_give_one_id_to_two_schemas() -> None:
    other = without_field("usage", "hold_id")
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, plain_schema(other), {k: v for k, v in usage().items() if k != "hold_id"})
    value = frame(USAGE_ID) + stream.getvalue()
    assert decode_one("usage", value, Writers({USAGE_ID: other}))["hold_id"] is None
    own = encode_one("usage", usage(), USAGE_ID)
    assert decode_one("usage", own, BUNDLED) == usage()


# --- what cannot be encoded -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_tokens", 2**63),
        ("input_tokens", 1.0),
        ("input_tokens", True),
        ("replicas", 2**31),
        ("voided", 1),
        ("event_id", None),
        ("event_id", 5),
        ("attributes", {"a": 1}),
        ("attributes", None),
        ("colour", "red"),
    ],
)
def test_what_no_record_holds_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        encode_one("usage", {**usage(), field: value}, USAGE_ID)


def test_a_missing_field_is_refused() -> None:
    with pytest.raises(ValueError, match="org_id"):
        encode_one("usage", {"event_id": "e"}, USAGE_ID)
    with pytest.raises(ValueError, match="org_id"):
        batch_of("usage", [{"event_id": "e"}])


def test_columns_take_defaults_and_casts() -> None:
    columns = {
        "operation": pa.array(["a", "b"]),
        "event_id": pa.array(["1", "2"]),
        "org_id": pa.array(["o", "o"]),
        "occurred_at": pa.array([1, 2], pa.int32()),
        "model": pa.nulls(2),
    }
    batch = pa.RecordBatch.from_pydict(columns)
    values = encode_columns("usage", batch, USAGE_ID)
    fields = {"event_id": "1", "org_id": "o", "occurred_at": 1, "operation": "a"}
    assert values[0] == encode_one("usage", fields, USAGE_ID)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda columns: columns.pop("org_id"), "org_id"),
        (lambda columns: columns.update(colour=pa.array(["red"])), "colour"),
        (lambda columns: columns.update(org_id=pa.array([None], pa.string())), "org_id"),
        (lambda columns: columns.update(replicas=pa.array([2**40])), "replicas"),
    ],
)
def test_columns_that_no_record_holds_are_refused(change: Callable[[dict[str, Any]], Any], message: str) -> None:
    batch = batch_of("usage", [usage()])
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    change(columns)
    with pytest.raises(ValueError, match=message):
        encode_columns("usage", pa.RecordBatch.from_pydict(columns), USAGE_ID)


def test_a_slice_of_a_batch_is_encoded_as_its_rows() -> None:
    batch = batch_of("entry", [{**full("entry"), "seq": seq} for seq in range(1, 9)])
    values = encode_columns("entry", batch, bundled_id("entry"))
    assert encode_columns("entry", batch.slice(3, 2), bundled_id("entry")) == values[3:5]


def zigzag(number: int) -> bytes:
    coded = (number << 1) ^ (number >> 63)
    octets = []
    while coded >= 0x80:
        octets.append(coded & 0x7F | 0x80)
        coded >>= 7
    return bytes([*octets, coded])


@pytest.mark.parametrize("count", [2**62, -(2**62), 2**31, 10**6, -1], ids=str)
@pytest.mark.parametrize("tail", [b"", b"\x00", b"\x00" * 40])
def test_hostile_counts_cost_nothing(count: int, tail: bytes) -> None:
    """A map, a list or a text that claims to be huge is undecodable, without room being made for it."""
    usage_value = encode_one("usage", {**usage(), "attributes": {}}, USAGE_ID)
    entry_id = bundled_id("entry")
    entry_value = encode_one("entry", minimal("entry"), entry_id)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for record, value in (
        ("usage", usage_value[: usage_value.index(b"\x12hold_id-1") + 10] + zigzag(count) + tail),
        ("usage", frame(USAGE_ID) + zigzag(count) + tail),
        ("entry", entry_value[: entry_value.index(b"\x00\x01\x01") + 3] + zigzag(count) + tail),
    ):
        decoded = decode_columns(record, [value], BUNDLED)
        assert [failure.code for failure in decoded.failures] == [DeadLetterCode.UNDECODABLE]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 * 1024
