"""The structs of the ledger are the Avro records, field by field."""

from __future__ import annotations

import msgspec
import pytest

from schemas.enums import AlertKind, BillingUnit, EntryKind, GrantKind, PurchaseKind, PurchaseStatus
from schemas.records import avro_schema
from streams.ledger.commands import Hold, Purchase, Refund, Setting, Transfer, Usage
from streams.ledger.entry import Alert, Entry, HoldDecision, Leg, Lot, Slice, TopupRequest
from streams.ledger.rating import Price

DERIVED = {"entry_id"}
"""Made from other fields when a record is written."""


def fields_of(record: str) -> list[str]:
    return [field["name"] for field in avro_schema(record)["fields"]]


def item_fields(record: str, field: str) -> list[str]:
    found = next(part for part in avro_schema(record)["fields"] if part["name"] == field)
    return [part["name"] for part in found["type"]["items"]["fields"]]


@pytest.mark.parametrize(
    ("struct", "record"),
    [
        (Usage, "usage"),
        (Purchase, "purchase"),
        (Transfer, "transfer"),
        (Refund, "refund"),
        (Hold, "hold"),
        (Setting, "setting"),
        (Price, "price"),
        (Entry, "entry"),
        (Alert, "alert"),
        (Leg, "leg"),
        (TopupRequest, "topup_request"),
        (HoldDecision, "decision"),
    ],
)
def test_fields_are_those_of_the_avro_record(struct: type[msgspec.Struct], record: str) -> None:
    assert list(struct.__struct_fields__) == [field for field in fields_of(record) if field not in DERIVED]


def test_parts_are_those_of_the_avro_record() -> None:
    assert list(Slice.__struct_fields__) == item_fields("entry", "slices")
    assert list(Lot.__struct_fields__) == item_fields("entry", "grants") == item_fields("leg", "grants")


def test_an_entry_survives_its_record() -> None:
    entry = Entry(
        "acme", 7, EntryKind.USAGE, "USD", -5, 10, 8, 2, 1, 2, "e1", "topic", 3, 4,
        (Slice("purchase/p1", GrantKind.PURCHASED, 5, 99),),
        (Lot("x", GrantKind.PROMOTIONAL, 1, 50),),
        billing_unit=BillingUnit.REQUEST,
        attributes={"a": "b"},
    )  # fmt: skip
    record = entry.to_record()
    assert set(record) == set(fields_of("entry"))
    assert (record["entry_id"], record["kind"]) == ("acme:7", "usage")
    assert list(record["slices"]) == [
        {"grant_id": "purchase/p1", "kind": "purchased", "amount_nanos": 5, "expires_at": 99}
    ]
    assert Entry.from_record(record) == entry


@pytest.mark.parametrize(("nanos", "percent"), [(None, None), (80 * 10**9, 80.0), (33_333_333_333, 33.33), (0, 0.0)])
def test_percentages_leave_as_doubles_rounded_down(nanos: int | None, percent: object) -> None:
    alert = Alert("i", "o", "w", AlertKind.BALANCE_LOW, "low", 0, 1, "10", 1, 1, nanos, nanos, 1, 1)
    assert alert.to_record()["used_percent"] == percent


def test_absent_fields_of_a_command_take_their_default() -> None:
    record = dict.fromkeys(fields_of("purchase")) | {
        "purchase_id": "p", "org_id": "o", "occurred_at": 1, "wallet": "USD", "amount_nanos": 1,
    }  # fmt: skip
    purchase = Purchase.from_record(record)
    assert (purchase.kind, purchase.status, purchase.priority) == (PurchaseKind.PURCHASED, PurchaseStatus.COMPLETED, 50)


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        Purchase.from_record(
            {"purchase_id": "p", "org_id": "o", "occurred_at": 1, "wallet": "USD", "amount_nanos": 1, "kind": "stolen"}
        )
