"""Amounts: exact both ways, and nothing that looks like an amount becomes one."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.amounts import (
    AMOUNT_MAX,
    NANOS,
    AmountOutOfRangeError,
    check_amount,
    div_half_up,
    format_amount,
    parse_amount,
)

AMOUNTS = st.integers(-AMOUNT_MAX, AMOUNT_MAX)


@pytest.mark.parametrize(
    ("value", "nanos"),
    [
        ("12.5", 12_500_000_000),
        ("0", 0),
        ("-0", 0),
        ("+7", 7 * NANOS),
        ("-0.000000001", -1),
        ("007.10", 7_100_000_000),
        ("9000000000", AMOUNT_MAX),
        ("-9000000000.000000000", -AMOUNT_MAX),
        (12, 12 * NANOS),
        (-3, -3 * NANOS),
        (Decimal("12.5"), 12_500_000_000),
        (Decimal("1E+3"), 1000 * NANOS),
        (Decimal("1E-9"), 1),
    ],
)
def test_parse(value: Any, nanos: int) -> None:
    assert parse_amount(value) == nanos


@pytest.mark.parametrize(
    "value",
    [
        0.1, 12.0, float("nan"), float("inf"), True, False, None, b"1", [1],
        "", " ", "1 ", " 1", "1e3", "1E3", "0x1", "1_000", "1,5", "1.", ".5", "--1", "NaN", "nan", "Infinity", "١٢",
        "1.0000000001", "1" * 65, "1\n",
        Decimal("NaN"), Decimal("Infinity"), Decimal("0.1E-9"),
    ],
    ids=repr,
)  # fmt: skip
def test_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"amount|decimals"):
        parse_amount(value)


@pytest.mark.parametrize(
    "value", ["9000000000.000000001", "-9000000000.000000001", "1" * 40, 9 * 10**9 + 1, 10**400, Decimal("1e400")]
)
def test_out_of_range(value: Any) -> None:
    with pytest.raises(AmountOutOfRangeError):
        parse_amount(value)


def test_check_amount() -> None:
    assert check_amount(AMOUNT_MAX) == AMOUNT_MAX
    assert check_amount(-AMOUNT_MAX) == -AMOUNT_MAX
    for nanos in (AMOUNT_MAX + 1, -AMOUNT_MAX - 1):
        with pytest.raises(AmountOutOfRangeError):
            check_amount(nanos)


@pytest.mark.parametrize(
    ("nanos", "text"),
    [(12_500_000_000, "12.5"), (-1, "-0.000000001"), (0, "0"), (100 * NANOS, "100"), (-NANOS - 10**8, "-1.1")],
)
def test_format(nanos: int, text: str) -> None:
    assert format_amount(nanos) == text


@given(AMOUNTS)
def test_there_and_back(nanos: int) -> None:
    assert parse_amount(format_amount(nanos)) == nanos
    assert parse_amount(Decimal(format_amount(nanos))) == nanos


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**15))
def test_div_half_up(numerator: int, denominator: int) -> None:
    exact = Fraction(numerator, denominator)
    rounded = div_half_up(numerator, denominator)
    assert abs(rounded - exact) <= Fraction(1, 2)
    if abs(rounded - exact) == Fraction(1, 2):
        assert abs(rounded) > abs(exact)
    assert div_half_up(-numerator, denominator) == -rounded


@pytest.mark.parametrize(
    ("n", "d", "result"), [(5, 10, 1), (4, 10, 0), (-5, 10, -1), (-4, 10, 0), (15, 10, 2), (0, 3, 0)]
)
def test_halves_round_up(n: int, d: int, result: int) -> None:
    assert div_half_up(n, d) == result


@pytest.mark.parametrize("denominator", [0, -1])
def test_no_denominator(denominator: int) -> None:
    with pytest.raises(ValueError, match="denominator"):
        div_half_up(1, denominator)
