"""What was released stays readable, and the check that says so can fail."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from schemas.compatibility import check_released, golden_records
from schemas.records import BUNDLED_ID_MAX, BundledSchemas, avro_schema, bundled_ids, record_names, versions
from schemas.resolution import full_differences, read_differences


def test_all_is_well() -> None:
    assert check_released() == []


def test_every_version_has_golden_records() -> None:
    released = {(record, version) for record in record_names() for version in versions(record)}
    by_version: dict[tuple[str, int], set[str]] = {}
    for golden in golden_records():
        by_version.setdefault((golden.record, golden.version), set()).add(golden.name)
    assert by_version == {key: {"minimal", "full", "extreme"} for key in released}


def test_ids_are_fixed() -> None:
    """Typed from the release: consumers have them in stored bytes."""
    names = [
        "usage",
        "purchase",
        "transfer",
        "refund",
        "hold",
        "setting",
        "price",
        "entry",
        "alert",
        "topup_request",
        "decision",
        "balance",
        "leg",
    ]
    assert {name: bundled_ids()[name, 1] for name in names} == {name: index + 1 for index, name in enumerate(names)}
    assert max(bundled_ids().values()) < BUNDLED_ID_MAX
    assert BundledSchemas().writer(bundled_ids()["usage", 1]) == avro_schema("usage", 1)
    assert BundledSchemas().writer(BUNDLED_ID_MAX) is None


def changed(record: str, change: Any) -> dict[str, Any]:
    schema = copy.deepcopy(avro_schema(record))
    change(schema)
    return schema


def drop(name: str) -> Any:
    return lambda schema: schema.update(fields=[field for field in schema["fields"] if field["name"] != name])


def add(**field: Any) -> Any:
    return lambda schema: schema["fields"].append(field)


def retype(name: str, kind: Any) -> Any:
    def change(schema: dict[str, Any]) -> None:
        next(field for field in schema["fields"] if field["name"] == name)["type"] = kind

    return change


def rename(name: str, other: str) -> Any:
    def change(schema: dict[str, Any]) -> None:
        next(field for field in schema["fields"] if field["name"] == name)["name"] = other

    return change


CHANGES = [
    ("add with a default", add(name="region", type=["null", "string"], default=None), True),
    ("add without a default", add(name="region", type="string"), False),
    ("drop an optional field", drop("hold_id"), True),
    ("drop a required field", drop("event_id"), False),
    ("retype", retype("event_id", "long"), False),
    ("widen one way only", retype("replicas", ["null", "long"]), False),
    ("rename", rename("operation", "action"), False),
]


@pytest.mark.parametrize(("change", "compatible"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_what_a_next_version_may_change(change: Any, compatible: bool) -> None:
    differences = full_differences(changed("usage", change), [avro_schema("usage")])
    assert (differences == []) == compatible


def test_every_older_version_counts() -> None:
    """Version 3 fits version 2 but not version 1: FULL_TRANSITIVE refuses it, and names the version."""
    first = avro_schema("usage")
    second = changed("usage", add(name="region", type=["null", "string"], default=None))
    third = changed("usage", add(name="region", type="string"))
    differences = full_differences(third, [first, second])
    assert differences
    assert any("version 1" in difference for difference in differences)


def test_what_is_no_schema_is_a_difference() -> None:
    assert read_differences(reader=avro_schema("usage"), writer={"type": "nonsense"})
