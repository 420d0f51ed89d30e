"""Records to encode: for each record the smallest one, a full one and one at the limits; and hypothesis strategies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from schemas.amounts import AMOUNT_MAX
from schemas.records import avro_schema, plain_schema, record_names

Fields = dict[str, Any]

INT_MAX, LONG_MAX = 2**31 - 1, 2**63 - 1

# Words that a model takes, by record and field: the full sample is also a valid model.
WORDS: Mapping[str, Fields] = {
    "purchase": {"status": "completed", "kind": "promotional", "priority": 10},
    "refund": {"target": "usage", "components": []},  # only a usage that is rated again has components
    "hold": {"action": "place", "on_shortage": "cap"},
    "setting": {"actor_role": "owner", "kind": "wallet", "body": '{"unit":"USD"}'},
    "price": {
        "billing_unit": "1000000_tokens",
        "direction": "output",
        "meter": "output_tokens",
        "valid_to": 1_900_000_000_000_000,
    },
    "entry": {"kind": "usage", "reason": "grant_expired", "billing_unit": "minute", "details": "{}"},
    "slice": {"kind": "purchased"},
    "component": {"billing_unit": "minute"},
    "grant": {"kind": "promotional", "priority": 50},
    "alert": {"kind": "credit_balance_low", "channels": ["banner", "email"], "level": "12.5"},
    "topup_request": {"reason": "below_threshold"},
    "decision": {"action": "place", "code": "ok", "limit_window": "month"},
    "wallet_balance": {"status": "ok", "health": "green"},
    "leg": {"kind": "credit"},
}


def minimal(record: str) -> Fields:
    """The required fields only."""
    return _sample(plain_schema(avro_schema(record)), "smallest")


def full(record: str) -> Fields:
    """Every field at a value that is not its default."""
    return _sample(plain_schema(avro_schema(record)), "full")


def extreme(record: str) -> Fields:
    """Every field at a limit of its Avro type, texts beyond ASCII."""
    return _sample(plain_schema(avro_schema(record)), "extreme")


def samples() -> list[tuple[str, str, Fields]]:
    """Record, name and fields of every sample."""
    kinds = {"minimal": minimal, "full": full, "extreme": extreme}
    return [(record, name, make(record)) for record in record_names() for name, make in kinds.items()]


def _sample(schema: Any, size: str) -> Fields:
    words = WORDS.get(schema["name"], {}) if size != "extreme" else {}
    fields: Fields = {}
    for field in schema["fields"]:
        if size == "smallest" and "default" in field:
            continue
        fields[field["name"]] = words.get(field["name"], _value(field["name"], field["type"], size))
    return fields


def _value(name: str, kind: Any, size: str) -> Any:
    match kind:
        case ["null", branch]:
            return _value(name, branch, size)
        case {"type": "array", "items": "string"}:
            return [f"{name}-1", "ключ"] if size == "extreme" else [f"{name}-1"]
        case {"type": "array", "items": items}:
            return [_sample(items, size), _sample(items, "full")] if size == "extreme" else [_sample(items, size)]
        case {"type": "map", "values": "long"}:
            return {"seiten": LONG_MAX, "b": -LONG_MAX - 1} if size == "extreme" else {"web_searches": 3_000_000_000}
        case {"type": "map"}:
            return {"région": "Île-de-France", "b": ""} if size == "extreme" else {"request_id": "r-1"}
        case "string":
            return f"{name}-üß漢🙂" * 8 if size == "extreme" else f"{name}-1"
        case "boolean":
            return True
        case "double":
            return 1e-300 if size == "extreme" else 12.5
        case "int":
            return -INT_MAX - 1 if size == "extreme" else 3
        case "long":
            if size == "extreme":
                return -LONG_MAX - 1 if len(name) % 2 else LONG_MAX
            return 1_790_000_000_000_000 + len(name) if name.endswith(("_at", "_of", "_from")) else 7_000_000_000
        case _:
            raise AssertionError(f"no sample for {kind}")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def rows(record: str) -> st.SearchStrategy[Fields]:
    """Any fields that the newest Avro schema of the record can hold, every field given."""
    return _records(plain_schema(avro_schema(record)))


def _records(schema: Any) -> st.SearchStrategy[Fields]:
    return st.fixed_dictionaries({field["name"]: _values(field["type"]) for field in schema["fields"]})


def _values(kind: Any) -> st.SearchStrategy[Any]:
    match kind:
        case ["null", branch]:
            return st.none() | _values(branch)
        case {"type": "array", "items": items}:
            return st.lists(_values(items), max_size=2)
        case {"type": "record"}:
            return _records(kind)
        case {"type": "map", "values": values}:
            return st.dictionaries(TEXTS, _values(values), max_size=3)
        case "string":
            return TEXTS
        case "boolean":
            return st.booleans()
        case "double":
            return st.floats(allow_nan=False)
        case "int":
            return st.integers(-INT_MAX - 1, INT_MAX)
        case "long":
            return st.integers(-LONG_MAX - 1, LONG_MAX) | st.sampled_from([0, AMOUNT_MAX, -AMOUNT_MAX])
        case _:
            raise AssertionError(f"no strategy for {kind}")
