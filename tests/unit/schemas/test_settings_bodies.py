"""Bodies of settings: the contract's examples pass, shapes and rules are told apart."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.amounts import NANOS
from schemas.enums import SettingKind
from schemas.settings_bodies import (
    BODIES,
    InvalidSettingError,
    OrgBody,
    ThresholdsBody,
    WalletBody,
    parse_body,
    parse_shape,
)
from tests.unit.schemas.bodies import BAD_SHAPES, BROKEN_RULES, GOOD, KEPT_RULES


def test_every_kind_has_a_model_and_an_example() -> None:
    assert set(BODIES) == set(SettingKind) == {kind for kind, _ in GOOD}


@pytest.mark.parametrize(("kind", "body"), GOOD + KEPT_RULES)
def test_good_bodies(kind: SettingKind, body: dict[str, Any]) -> None:
    parsed = parse_body(kind, json.dumps(body))
    assert parse_body(kind, parsed.model_dump_json(by_alias=True)) == parsed


@pytest.mark.parametrize(("kind", "body", "named"), BAD_SHAPES)
def test_bad_shapes(kind: SettingKind, body: Any, named: str) -> None:
    with pytest.raises(InvalidSettingError, match=named):
        parse_shape(kind, json.dumps(body))


@pytest.mark.parametrize(("kind", "body", "expected"), BROKEN_RULES)
def test_broken_rules(kind: SettingKind, body: dict[str, Any], expected: str) -> None:
    """The shape is right, so a client may send it; the ledger refuses it."""
    assert parse_shape(kind, json.dumps(body)).refusal()
    with pytest.raises(InvalidSettingError, match=expected):
        parse_body(kind, json.dumps(body))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"x"',
        '{"unit": NaN}',
        '{"unit": Infinity}',
        '{"unit": "USD", "unit": "EUR"}',
        "[" * 100_000,
        '{"unit": "' + "x" * 70_000 + '"}',
    ],
    ids=range(10),
)
def test_what_is_no_json_object(text: str) -> None:
    with pytest.raises(InvalidSettingError):
        parse_shape(SettingKind.WALLET, text)


def test_defaults_of_a_wallet_and_an_org() -> None:
    """A wallet that nobody set up: no allowance, threshold 10, limits 0."""
    wallet = parse_body(SettingKind.WALLET, '{"unit": "USD"}')
    assert isinstance(wallet, WalletBody)
    assert wallet.low_balance_threshold_nanos == 10 * NANOS
    amounts = (wallet.allowance_nanos, wallet.rollover_max_nanos, wallet.low_credit_limit_nanos)
    assert (*amounts, wallet.negative_limit_nanos) == (0, 0, 0, 0)
    org = parse_body(SettingKind.ORG, "{}")
    assert isinstance(org, OrgBody)
    assert (org.time_zone, org.closed, org.administrators, org.tier) == ("UTC", False, (), None)


def test_amounts_become_nanos() -> None:
    body = parse_body(
        SettingKind.THRESHOLDS,
        '{"unit": "USD", "rules": [{"rule_id": "r", "type": "used_percent", "level": "12.5"}]}',
    )
    assert isinstance(body, ThresholdsBody)
    assert body.rules[0].level_nanos == 12_500_000_000


def test_the_negative_limit_is_a_depth() -> None:
    for text in ('"50"', '"-50"'):
        body = parse_body(SettingKind.WALLET, f'{{"unit": "USD", "negative_limit": {text}}}')
        assert isinstance(body, WalletBody)
        assert body.negative_limit_nanos == 50 * NANOS
