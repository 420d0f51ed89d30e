"""Content: equal exactly when two records say the same, however they were written."""

from __future__ import annotations

import io
import itertools
import json
from typing import Any

import fastavro
import pyarrow as pa
import pyruhvro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import FRAME_BYTES, decode_columns, encode_one, frame
from schemas.content import Content
from schemas.records import BundledSchemas, avro_schema, bundled_id, plain_schema
from tests.contract.samples import full, rows

BUNDLED = BundledSchemas()
USAGE_ID = bundled_id("usage")


def contents(*documents: dict[str, Any]) -> list[bytes]:
    return decode_columns("usage", [encode_one("usage", fields, USAGE_ID) for fields in documents], BUNDLED).contents()


def test_the_usual_content_is_the_body_that_came() -> None:
    """As version 1 has it: what later versions added, and is not said, does not count."""
    first = {field["name"] for field in avro_schema("usage", 1)["fields"]}
    fields = {name: value for name, value in full("usage").items() if name in first}
    newest = encode_one("usage", fields, USAGE_ID)
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, plain_schema(avro_schema("usage", 1)), fields)
    assert newest.startswith(stream.getvalue(), FRAME_BYTES)
    of_first = frame(bundled_id("usage", 1)) + stream.getvalue()
    for value in (newest, of_first):
        assert decode_columns("usage", [value], BUNDLED).contents() == [stream.getvalue()]


def test_later_fields_are_told_as_json_in_the_order_of_their_names() -> None:
    """However they are made: what was remembered before is compared with it."""
    later = {"service_tier": 'a "b"', "cache_read_tokens": 5, "quantities": {"b": 2, "a": 1}}
    fields = {name: value for name, value in full("usage").items() if name not in avro_later()}
    silent, said = contents(fields, {**fields, **later})
    assert said == silent + json.dumps(later, sort_keys=True).encode()


def avro_later() -> set[str]:
    first = {field["name"] for field in avro_schema("usage", 1)["fields"]}
    return {field["name"] for field in avro_schema("usage")["fields"]} - first


def test_the_order_of_attributes_does_not_count() -> None:
    pairs = [("b", "1"), ("a", "2"), ("Ü", "3"), ("c", "4")]
    documents = [{**full("usage"), "attributes": dict(order)} for order in itertools.permutations(pairs)]
    assert len(set(contents(*documents))) == 1


@pytest.mark.parametrize("name", [field["name"] for field in avro_schema("usage")["fields"]])
def test_every_field_counts(name: str) -> None:
    """A record that differs in one field only has another content."""
    other: dict[Any, Any] = {
        str: "other",
        int: 5,
        bool: False,
        dict: {"web_searches": 4} if name == "quantities" else {"request_id": "r-2"},
    }
    documents = full("usage")
    changed = {**documents, name: other[type(documents[name])]}
    assert changed != documents
    first, second = contents(documents, changed)
    assert first != second


@given(documents=st.lists(rows("usage"), min_size=1, max_size=6), shuffle=st.randoms(use_true_random=False))
def test_content_tells_equal_from_different(documents: list[dict[str, Any]], shuffle: Any) -> None:
    again = []
    for fields in documents:
        pairs = list(fields["attributes"].items())
        shuffle.shuffle(pairs)
        again.append({**fields, "attributes": dict(pairs)})
    found = contents(*documents, *again)
    for one, content in zip([*documents, *again], found, strict=True):
        for other, other_content in zip([*documents, *again], found, strict=True):
            assert (content == other_content) == (one == other)


def test_content_does_not_change_when_a_field_is_added() -> None:
    """A hash remembered before an upgrade is still true after it; the new field counts once it says something."""
    first = plain_schema(avro_schema("usage", 1))
    second = plain_schema(avro_schema("usage"))
    second["fields"].insert(4, {"name": "region", "type": ["null", "string"], "default": None})
    arrow = pyruhvro.avro_to_arrow_schema(json.dumps(second))
    documents = [{**full("usage"), "region": region} for region in (None, "eu", "us")]
    columns = []
    for field in arrow:
        values = [fields[field.name] for fields in documents]
        columns.append(pa.array([list(v.items()) if isinstance(v, dict) else v for v in values], field.type))
    batch = pa.RecordBatch.from_arrays(columns, schema=arrow)
    silent, europe, america = Content(first, second).of(batch, None)
    assert [silent] == contents(full("usage"))
    assert len({silent, europe, america}) == 3
