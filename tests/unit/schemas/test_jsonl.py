"""JSON lines: good ones become records; a bad one names its line and its field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.enums import InputKind, SettingKind
from schemas.events import INPUTS
from schemas.jsonl import LINE_BYTES_MAX, BadLine, Parsed, read_json_lines
from tests.unit.schemas.bodies import BAD_SHAPES, BROKEN_RULES, GOOD

AT = "2026-01-31T12:00:00Z"
AT_MICROS = 1_769_860_800_000_000

LINES: dict[InputKind, dict[str, Any]] = {
    InputKind.USAGE: {"event_id": "e1", "org_id": "acme", "occurred_at": AT, "operation": "chat.completion"},
    InputKind.PURCHASE: {"purchase_id": "p1", "org_id": "acme", "occurred_at": AT, "wallet": "USD", "amount": "12.5"},
    InputKind.TRANSFER: {
        "transfer_id": "t1", "org_id": "acme", "target_org_id": "labs", "occurred_at": AT, "wallet": "USD",
        "amount": "12.5", "actor": "alice",
    },
    InputKind.REFUND: {
        "refund_id": "r1", "org_id": "acme", "occurred_at": AT, "target": "usage", "target_id": "e1", "amount": "12.5",
    },
    InputKind.HOLD: {
        "hold_id": "h1", "org_id": "acme", "occurred_at": AT, "action": "place", "wallet": "USD", "amount": "12.5",
    },
    InputKind.SETTING: {
        "setting_id": "s1", "org_id": "acme", "occurred_at": AT, "actor": "alice", "actor_role": "owner",
        "kind": "wallet", "body": {"unit": "USD", "allowance": "100"},
    },
    InputKind.PRICE: {
        "price_id": "gpt-4o-in", "operation": "chat.completion", "unit_price": "2.5", "billing_unit": "1000000_tokens",
        "wallet": "USD", "valid_from": AT,
    },
}  # fmt: skip


def read(kind: InputKind, *fields: Any) -> list[Parsed | BadLine]:
    return list(read_json_lines(kind, [line if isinstance(line, str | bytes) else json.dumps(line) for line in fields]))


def only(record: InputKind, /, **changes: Any) -> Parsed | BadLine:
    (result,) = read(record, {**LINES[record], **changes})
    return result


def refused(record: InputKind, /, **changes: Any) -> BadLine:
    result = only(record, **changes)
    assert isinstance(result, BadLine)
    return result


def accepted(record: InputKind, /, **changes: Any) -> Any:
    result = only(record, **changes)
    assert isinstance(result, Parsed), result
    return result.record


@pytest.mark.parametrize("kind", InputKind)
def test_every_kind(kind: InputKind) -> None:
    record = accepted(kind)
    assert type(record) is INPUTS[kind]
    row = record.to_record()
    assert row.get("occurred_at", row.get("valid_from")) == AT_MICROS


@pytest.mark.parametrize("kind", [kind for kind, fields in LINES.items() if "amount" in fields])
def test_amounts_stand_as_decimals_or_nanos(kind: InputKind) -> None:
    assert accepted(kind).amount_nanos == 12_500_000_000
    assert accepted(kind, amount=None, amount_nanos=5).amount_nanos == 5
    both = refused(kind, amount_nanos=12_500_000_000)
    assert both.field == "amount"


def test_every_nanos_field_has_a_short_name() -> None:
    usage = accepted(InputKind.USAGE, quantity="1.5", cost="0.000000001")
    assert (usage.quantity_nanos, usage.cost_nanos) == (1_500_000_000, 1)
    assert accepted(InputKind.PRICE).unit_price_nanos == 2_500_000_000
    assert accepted(InputKind.PURCHASE, price_paid="10").price_paid_nanos == 10 * 10**9


def test_what_is_wrong_with_an_amount_is_told_as_it_was_written() -> None:
    assert str(refused(InputKind.PURCHASE, amount="0")) == "line 1, amount: the amount must be above 0"
    assert str(refused(InputKind.PRICE, unit_price="-1.50")) == "line 1, unit_price: must be at least 0, is -1.5"
    assert refused(InputKind.USAGE, cost_nanos=-5).message == "must be at least 0, is -5"


AMOUNTS: list[Any] = ["1e3", "NaN", "", "0.0000000001", "9000000001", 0.1, 12, True, [], {}, "-1", "0", 1e400]


@pytest.mark.parametrize("amount", AMOUNTS, ids=repr)
@pytest.mark.parametrize("kind", [InputKind.PURCHASE, InputKind.TRANSFER, InputKind.REFUND, InputKind.HOLD])
def test_bad_amounts(kind: InputKind, amount: Any) -> None:
    line = json.dumps({**LINES[kind], "amount": amount})
    (result,) = read(kind, line)
    assert isinstance(result, BadLine)
    whole_line = amount == 1e400  # json.dumps writes Infinity, which is not JSON
    assert result.field == ("" if whole_line else "amount")


@pytest.mark.parametrize("amount", [0.1, 1.0, "5", True, 2**63, 9 * 10**18 + 1, -(10**40)], ids=repr)
def test_bad_nanos(amount: Any) -> None:
    result = refused(InputKind.USAGE, cost_nanos=amount)
    assert (result.line_no, result.field) == (1, "cost_nanos")


def test_a_number_too_large_for_a_float() -> None:
    (result,) = read(InputKind.USAGE, json.dumps(LINES[InputKind.USAGE])[:-1] + ', "cost_nanos": 1e400}')
    assert isinstance(result, BadLine)
    assert result.field == "cost_nanos"


@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    [
        (InputKind.USAGE, {"event_id": ""}, "event_id"),
        (InputKind.USAGE, {"event_id": "x" * 129}, "event_id"),
        (InputKind.USAGE, {"event_id": "a\nb"}, "event_id"),
        (InputKind.USAGE, {"event_id": "\ud800"}, "event_id"),
        (InputKind.USAGE, {"event_id": 7}, "event_id"),
        (InputKind.USAGE, {"event_id": None}, "event_id"),
        (InputKind.USAGE, {"occurred_at": "2026-01-31T12:00:00"}, "occurred_at"),
        (InputKind.USAGE, {"occurred_at": 1.5}, "occurred_at"),
        (InputKind.USAGE, {"input_tokens": -1}, "input_tokens"),
        (InputKind.USAGE, {"input_tokens": 1.0}, "input_tokens"),
        (InputKind.USAGE, {"output_tokens": "5"}, "output_tokens"),
        (InputKind.USAGE, {"quantity": "-1"}, "quantity"),
        (InputKind.USAGE, {"quantity_nanos": -1}, "quantity_nanos"),
        (InputKind.USAGE, {"cost": "-1"}, "cost"),
        (InputKind.PURCHASE, {"amount": "0"}, "amount"),
        (InputKind.PURCHASE, {"amount": None}, "amount_nanos"),
        (InputKind.PURCHASE, {"price_paid": "-1"}, "price_paid"),
        (InputKind.TRANSFER, {"amount": "0"}, "amount"),
        (InputKind.TRANSFER, {"amount": None, "amount_nanos": 0}, "amount_nanos"),
        (InputKind.REFUND, {"amount": "-2"}, "amount"),
        (InputKind.HOLD, {"amount": "0"}, "amount"),
        (InputKind.USAGE, {"replicas": 2**31}, "replicas"),
        (InputKind.USAGE, {"revision": -1}, "revision"),
        (InputKind.USAGE, {"voided": "true"}, "voided"),
        (InputKind.USAGE, {"team": "x" * 257}, "team"),
        (InputKind.USAGE, {"team": "\udfff"}, "team"),
        (InputKind.USAGE, {"attributes": {"a": 1}}, "attributes.a"),
        (InputKind.USAGE, {"attributes": {str(n): "" for n in range(65)}}, "attributes"),
        (InputKind.USAGE, {"attributes": []}, "attributes"),
        (InputKind.USAGE, {"colour": "red"}, "colour"),
        (InputKind.PURCHASE, {"kind": "stolen"}, "kind"),
        (InputKind.PURCHASE, {"priority": 101}, "priority"),
        (InputKind.PURCHASE, {"expires_at": "soon"}, "expires_at"),
        (InputKind.REFUND, {"target": "transfer"}, "target"),
        (InputKind.HOLD, {"action": "keep"}, "action"),
        (InputKind.HOLD, {"action": "capture", "amount": "-1"}, "amount"),
        (InputKind.PRICE, {"billing_unit": "tokens"}, "billing_unit"),
        (InputKind.PRICE, {"unit_price": "-1"}, "unit_price"),
        (InputKind.PRICE, {"valid_to": AT}, "valid_to"),
        (InputKind.SETTING, {"kind": "colour"}, "kind"),
        (InputKind.SETTING, {"actor_role": "king"}, "actor_role"),
        (InputKind.SETTING, {"body": 5}, "body"),
        (InputKind.SETTING, {"body": None}, "body"),
        (InputKind.SETTING, {"body": '{"unit": 5}'}, "body"),
        (InputKind.SETTING, {"body": {"unit": "USD", "allowance": 0.1}}, "body"),
    ],
)
def test_the_field_is_named(kind: InputKind, changes: dict[str, Any], field: str) -> None:
    result = refused(kind, **changes)
    assert result.field == field
    assert result.message
    assert str(result).startswith(f"line 1, {field}: ")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "5",
        "null",
        "not json",
        "[" * 100_000,
        '{"event_id": "a", "event_id": "b"}',
        b"\xff\xfe{}",
        '{"a": NaN}',
    ],
    ids=range(9),
)
def test_what_is_no_json_object(line: str | bytes) -> None:
    (result,) = read(InputKind.USAGE, line)
    assert isinstance(result, BadLine)
    assert (result.line_no, result.field) == (1, "")


def test_a_line_too_long() -> None:
    (result,) = read(InputKind.USAGE, "x" * (LINE_BYTES_MAX + 1))
    assert isinstance(result, BadLine)
    assert "longer" in result.message


def test_lines_are_counted_from_one_and_all_are_read() -> None:
    good = json.dumps(LINES[InputKind.USAGE])
    results = read(InputKind.USAGE, "\ufeff" + good, "", "   ", b"\xef\xbb\xbf" + good.encode(), "{", good + "\n")
    assert [result.line_no for result in results] == [1, 4, 5, 6]
    assert [isinstance(result, Parsed) for result in results] == [True, True, False, True]


def test_null_counts_as_absent() -> None:
    usage = accepted(InputKind.USAGE, revision=None, voided=None, model=None, attributes=None, cost=None)
    assert usage == accepted(InputKind.USAGE)


def test_amounts_that_need_not_be_above_zero() -> None:
    assert accepted(InputKind.PURCHASE, amount="-1", kind="adjustment").amount_nanos == -(10**9)
    assert accepted(InputKind.PURCHASE, amount="0", status="failed").amount_nanos == 0
    assert accepted(InputKind.HOLD, action="capture", amount="0").amount_nanos == 0
    assert accepted(InputKind.HOLD, action="release", amount="0").amount_nanos == 0


@pytest.mark.parametrize(("kind", "body"), GOOD)
def test_settings_carry_their_body_either_way(kind: SettingKind, body: dict[str, Any]) -> None:
    as_object = accepted(InputKind.SETTING, kind=kind.value, body=body)
    as_text = accepted(InputKind.SETTING, kind=kind.value, body=json.dumps(body))
    assert json.loads(as_object.body) == json.loads(as_text.body) == body


@pytest.mark.parametrize(("kind", "body", "named"), BAD_SHAPES)
def test_a_body_of_the_wrong_shape_is_not_sent(kind: SettingKind, body: Any, named: str) -> None:
    result = refused(InputKind.SETTING, kind=kind.value, body=body)
    assert result.field == "body"
    assert named in result.message


@pytest.mark.parametrize(("kind", "body", "expected"), BROKEN_RULES)
def test_a_body_that_breaks_a_rule_is_the_ledgers_to_refuse(
    kind: SettingKind, body: dict[str, Any], expected: str
) -> None:
    assert json.loads(accepted(InputKind.SETTING, kind=kind.value, body=body).body) == body
