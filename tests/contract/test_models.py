"""The models, the Avro records and the ledger's structs are one thing: names, order, defaults, and every value."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticUndefined

from schemas.checks import model_of
from schemas.codec import batch_of, decode_one, encode_one
from schemas.enums import InputKind
from schemas.events import ID_FIELDS, INPUTS, PriceTier
from schemas.facts import FACTS, Component, Grant, Slice, WalletBalance
from schemas.fields import Record
from schemas.records import BundledSchemas, arrow_schema, avro_schema, bundled_id, record_names
from streams.ledger import entry as ledger_records
from tests.contract.samples import full, minimal

WRITERS = BundledSchemas()
MIN, MAX = datetime(1970, 1, 3), datetime(2299, 12, 29)
PARTS: dict[str, type[Record]] = {
    "slice": Slice,
    "grant": Grant,
    "wallet_balance": WalletBalance,
    "component": Component,
    "price_tier": PriceTier,
}


def schemas() -> list[tuple[type[Record], dict[str, Any]]]:
    """Every model with its Avro schema, the records inside records included."""
    pairs: list[tuple[type[Record], dict[str, Any]]] = []
    for record in record_names():
        pairs.append((model_of(record), avro_schema(record)))
        for field in avro_schema(record)["fields"]:
            items = field["type"].get("items") if isinstance(field["type"], dict) else None
            if isinstance(items, dict):
                pairs.append((PARTS[items["name"]], items))
    return pairs


def test_every_record_has_one_model() -> None:
    assert {*INPUTS, *FACTS} == set(record_names())


@pytest.mark.parametrize(("model", "schema"), schemas(), ids=lambda value: getattr(value, "__name__", ""))
def test_fields_order_and_defaults(model: type[Record], schema: dict[str, Any]) -> None:
    assert list(model.model_fields) == [field["name"] for field in schema["fields"]]
    for field in schema["fields"]:
        default = model.model_fields[field["name"]].get_default(call_default_factory=True, validated_data={})
        if "default" in field:
            assert default == field["default"], field["name"]
        else:
            assert default is PydanticUndefined, field["name"]


@pytest.mark.parametrize("record", record_names())
@pytest.mark.parametrize("make", [minimal, full])
def test_there_and_back(record: str, make: Any) -> None:
    fields = make(record)
    if make is minimal:
        fields = {name: value for name, value in full(record).items() if name in fields}
    model = model_of(record)
    made = model.from_record(fields)
    value = encode_one(record, made.to_record(), bundled_id(record))
    read = decode_one(record, value, WRITERS)
    assert model.from_record(read) == made
    assert made.to_record() == read


@pytest.mark.parametrize("record", record_names())
def test_models_and_avro_hold_the_same_types(record: str) -> None:
    """What a model makes of a full record fills every column with a value of the column's own type."""
    row = model_of(record).from_record(full(record)).to_record()
    batch = batch_of(record, [row])
    assert batch.schema == arrow_schema(record)
    assert [column.null_count for column in batch.columns] == [0] * batch.num_columns


@given(data=st.data())
def test_any_model_of_a_usage_survives_the_wire(data: st.DataObject) -> None:
    texts = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
    fields: dict[str, Any] = {
        "event_id": data.draw(texts),
        "org_id": data.draw(texts),
        "occurred_at": data.draw(st.datetimes(timezones=st.timezones(), min_value=MIN, max_value=MAX)),
        "operation": data.draw(texts),
        "attributes": data.draw(st.dictionaries(texts, texts, max_size=3)),
        "cost_nanos": data.draw(st.none() | st.integers(0, 9 * 10**18)),
        "replicas": data.draw(st.none() | st.integers(0, 2**31 - 1)),
    }
    usage = INPUTS[InputKind.USAGE].model_validate(fields)
    read = decode_one("usage", encode_one("usage", usage.to_record(), bundled_id("usage")), WRITERS)
    assert INPUTS[InputKind.USAGE].from_record(read) == usage


def test_ids_are_fields() -> None:
    for kind, name in ID_FIELDS.items():
        assert name in INPUTS[kind].model_fields


STRUCTS: list[tuple[type[msgspec.Struct], type[Record]]] = [
    (ledger_records.Entry, FACTS["entry"]),
    (ledger_records.Slice, Slice),
    (ledger_records.Lot, Grant),
    (ledger_records.Component, Component),
    (ledger_records.Alert, FACTS["alert"]),
    (ledger_records.Leg, FACTS["leg"]),
    (ledger_records.TopupRequest, FACTS["topup_request"]),
    (ledger_records.HoldDecision, FACTS["decision"]),
]


@pytest.mark.parametrize(("struct", "model"), STRUCTS, ids=lambda value: value.__name__)
def test_the_ledger_writes_these_records(struct: type[msgspec.Struct], model: type[Record]) -> None:
    derived = {"entry_id"}
    assert list(struct.__struct_fields__) == [field for field in model.model_fields if field not in derived]
