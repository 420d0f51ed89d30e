"""Whole columns are judged as the models judge single records."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.amounts import AMOUNT_MAX
from schemas.checks import invalid_rows, model_of
from schemas.codec import batch_of
from schemas.enums import DeadLetterCode, InputKind
from schemas.fields import first_fault
from schemas.times import TIME_MAX
from tests.contract.samples import full

BAD: list[tuple[str, str, Any, DeadLetterCode]] = [
    ("usage", "event_id", "", DeadLetterCode.INVALID_FIELD),
    ("usage", "event_id", "x" * 129, DeadLetterCode.INVALID_FIELD),
    ("usage", "org_id", "a\tb", DeadLetterCode.INVALID_FIELD),
    ("usage", "org_id", "a\u200b", DeadLetterCode.INVALID_FIELD),
    ("usage", "occurred_at", -1, DeadLetterCode.INVALID_FIELD),
    ("usage", "occurred_at", TIME_MAX + 1, DeadLetterCode.INVALID_FIELD),
    ("usage", "occurred_at", 1_769_860_800_000, DeadLetterCode.INVALID_FIELD),
    ("usage", "occurred_at", 1_769_860_800, DeadLetterCode.INVALID_FIELD),
    ("purchase", "expires_at", 1_769_860_800_000, DeadLetterCode.INVALID_FIELD),
    ("usage", "input_tokens", -1, DeadLetterCode.INVALID_FIELD),
    ("usage", "cost_nanos", -1, DeadLetterCode.INVALID_FIELD),
    ("usage", "cost_nanos", AMOUNT_MAX + 1, DeadLetterCode.AMOUNT_OUT_OF_RANGE),
    ("usage", "quantity_nanos", 2**63 - 1, DeadLetterCode.AMOUNT_OUT_OF_RANGE),
    ("usage", "replicas", -1, DeadLetterCode.INVALID_FIELD),
    ("usage", "endpoint", "é" * 257, DeadLetterCode.INVALID_FIELD),
    ("usage", "attributes", {"": "x"}, DeadLetterCode.INVALID_FIELD),
    ("usage", "attributes", {"a": "x" * 1025}, DeadLetterCode.INVALID_FIELD),
    ("usage", "attributes", {str(n): "" for n in range(65)}, DeadLetterCode.INVALID_FIELD),
    ("purchase", "amount_nanos", -AMOUNT_MAX - 1, DeadLetterCode.AMOUNT_OUT_OF_RANGE),
    ("purchase", "priority", 101, DeadLetterCode.INVALID_FIELD),
    ("purchase", "kind", "stolen", DeadLetterCode.INVALID_FIELD),
    ("transfer", "actor", "", DeadLetterCode.INVALID_FIELD),
    ("refund", "target", "transfer", DeadLetterCode.INVALID_FIELD),
    ("hold", "action", "", DeadLetterCode.INVALID_FIELD),
    ("setting", "kind", "colour", DeadLetterCode.INVALID_FIELD),
    ("setting", "body", "x" * 65_537, DeadLetterCode.INVALID_FIELD),
    ("price", "unit_price_nanos", -1, DeadLetterCode.INVALID_FIELD),
    ("price", "valid_to", 1, DeadLetterCode.INVALID_FIELD),
]


@pytest.mark.parametrize(("record", "field", "value", "code"), BAD, ids=lambda value: str(value)[:20])
def test_the_row_and_the_field_are_named(record: str, field: str, value: Any, code: DeadLetterCode) -> None:
    good = full(record)
    batch = batch_of(record, [good, {**good, field: value}, good])
    (invalid,) = invalid_rows(record, batch)
    assert (invalid.row, invalid.code) == (1, code)
    assert invalid.field.startswith(field)
    assert invalid.message
    assert [found.row for found in invalid_rows(record, batch.slice(1))] == [0]


@pytest.mark.parametrize("record", list(InputKind))
def test_full_records_are_valid(record: str) -> None:
    assert invalid_rows(record, batch_of(record, [full(record)] * 3)) == []
    assert invalid_rows(record, batch_of(record, [])) == []


@pytest.mark.parametrize(
    ("record", "field", "value"),
    [
        ("usage", "event_id", "Ünïcode-id"),
        ("usage", "event_id", "ж" * 128),
        ("usage", "endpoint", "é" * 256),
        ("usage", "team", ""),
        ("usage", "cost_nanos", AMOUNT_MAX),
        ("usage", "attributes", {"ключ": "ж" * 1024}),
        ("purchase", "amount_nanos", 0),
        ("purchase", "amount_nanos", -5),
        ("transfer", "amount_nanos", 0),
        ("refund", "amount_nanos", -1),
        ("hold", "amount_nanos", 0),
    ],
)
def test_what_passes_from_a_topic(record: str, field: str, value: Any) -> None:
    """Also what a client must not send, because the ledger answers it with a `rejected` entry."""
    assert invalid_rows(record, batch_of(record, [{**full(record), field: value}])) == []


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=3) | st.sampled_from(
    ["", "a" * 128, "a" * 129, "é" * 128, "é" * 129, "x" * 256, "x" * 257, "a\x00", "place", "usage"]
)
NUMBER = st.sampled_from(
    [
        -(2**63),
        -AMOUNT_MAX - 1,
        -AMOUNT_MAX,
        -1,
        0,
        1,
        100,
        101,
        TIME_MAX,
        TIME_MAX + 1,
        AMOUNT_MAX,
        AMOUNT_MAX + 1,
        10**9,
        10**12,
        10**13,
    ]
)


def changes(value: Any) -> st.SearchStrategy[Any]:
    """Other values of the same type."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, str):
        return TEXT
    if isinstance(value, dict):
        return st.dictionaries(TEXT, TEXT, max_size=3)
    return st.sampled_from([-1, 0, 2**31 - 1]) if value == 3 else NUMBER


@pytest.mark.parametrize("record", list(InputKind))
@given(data=st.data())
def test_columns_and_models_agree(record: str, data: st.DataObject) -> None:
    good = full(record)
    documents = []
    for _ in range(data.draw(st.integers(1, 4))):
        names = data.draw(st.lists(st.sampled_from(sorted(good)), max_size=2, unique=True))
        documents.append({**good, **{name: data.draw(changes(good[name])) for name in names}})
    try:
        batch = batch_of(record, documents)
    except ValueError:  # a number beyond the column's 32 bits never gets out of the codec
        return
    expected = []
    for row, fields in enumerate(documents):
        try:
            model_of(record).from_record(fields)
        except ValidationError as error:
            expected.append((row, first_fault(error).code, first_fault(error).field))
    assert [(found.row, found.code, found.field) for found in invalid_rows(record, batch)] == expected
