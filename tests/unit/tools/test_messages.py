"""Waves as bytes: repeats are the same bytes, damage is what its name says, the rest can be read back."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.codec import UndecodableError, decode_columns, decode_one
from schemas.enums import DeadLetterCode, InputKind
from schemas.records import BundledSchemas, bundled_id
from streams.demo.usage import DAMAGE_CODES
from streams.loadgen.sender import WRONG_KEY, messages
from streams.loadgen.waves import Damage, Wave

SCHEMA_ID = bundled_id("usage")


def wave(count: int) -> Wave:
    columns: dict[str, list[Any]] = {
        "event_id": [f"e{number}" for number in range(count)],
        "org_id": ["acme"] * count,
        "occurred_at": [1_780_000_000_000_000] * count,
        "operation": ["chat"] * count,
        "attributes": [{"a": "b"}] * count,
    }
    return Wave(InputKind.USAGE, columns)


def test_whole_records_read_back() -> None:
    made = messages(wave(3), SCHEMA_ID)
    rows = decode_columns("usage", made.values, BundledSchemas()).batch
    assert rows.column("event_id").to_pylist() == made.ids == ["e0", "e1", "e2"]
    assert made.keys == [b"acme"] * 3


def test_a_repeat_is_the_same_message() -> None:
    repeating = wave(3)
    repeating.repeats[2] = 0
    made = messages(repeating, SCHEMA_ID)
    assert made.values[2] == made.values[0]
    assert made.values[1] != made.values[0]


@pytest.mark.parametrize("damage", [each for each in Damage if each is not Damage.WRONG_KEY])
def test_damage_cannot_be_read(damage: Damage) -> None:
    spoilt = wave(2)
    spoilt.damage[1] = damage
    made = messages(spoilt, SCHEMA_ID)
    assert decode_one("usage", made.values[0], BundledSchemas())["event_id"] == "e0"
    with pytest.raises(UndecodableError) as refused:
        decode_one("usage", made.values[1], BundledSchemas())
    assert refused.value.code is DAMAGE_CODES[damage]


def test_a_wrong_key_leaves_the_record_alone() -> None:
    spoilt = wave(1)
    spoilt.damage[0] = Damage.WRONG_KEY
    made = messages(spoilt, SCHEMA_ID)
    assert made.keys == [WRONG_KEY]
    assert decode_one("usage", made.values[0], BundledSchemas())["org_id"] == "acme"
    assert DAMAGE_CODES[Damage.WRONG_KEY] is DeadLetterCode.KEY_MISMATCH
