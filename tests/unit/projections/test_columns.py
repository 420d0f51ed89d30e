"""Columns keep what they are given, to the last nano-credit."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from projections.columns import AMOUNT, COUNT, amounts, decimals_of_halves, ints, moments, numbers, struct_list, text

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.one_of(st.none(), INT64), max_size=20), st.integers(0, 5))
def test_amounts_are_exact_and_keep_nulls(nanos: list[int | None], skipped: int) -> None:
    """Also where the array is a slice of another, whose validity bitmap begins elsewhere."""
    column = pa.array(nanos, pa.int64()).slice(skipped)
    expected = [None if each is None else Decimal(each).scaleb(-9) for each in nanos[skipped:]]
    made = amounts(column)
    assert made.type == AMOUNT
    assert made.to_pylist() == expected


@given(st.lists(st.integers(-(2**94), 2**94), max_size=20))
def test_halves_are_the_integer(values: list[int]) -> None:
    high = np.array([value >> 32 for value in values], dtype=np.int64)
    low = np.array([value & (2**32 - 1) for value in values], dtype=np.int64)
    assert [int(made) for made in decimals_of_halves(high, low, COUNT).to_pylist()] == values


@given(st.lists(st.one_of(st.none(), st.integers(-(10**15), 10**17)), max_size=9))
def test_moments_are_the_same_microseconds(micros: list[int | None]) -> None:
    made = moments(pa.array(micros, pa.int64()))
    assert made.cast(pa.int64()).to_pylist() == micros
    assert str(made.type) == "timestamp[us, tz=UTC]"


def test_nothing_given_is_empty_text_and_zero() -> None:
    assert text(pa.array(["a", None])).to_pylist() == ["a", ""]
    assert numbers(pa.array([1, None])).to_pylist() == [1, 0]
    assert ints(pa.chunked_array([pa.array([1, None]), pa.array([3])])).tolist() == [1, 0, 3]


def test_lists_of_records_keep_their_rows_in_a_slice() -> None:
    lists = pa.array([[{"a": 1}], [], [{"a": 2}, {"a": 3}]]).slice(1)
    made = struct_list(lists, [("b", pa.array([20, 30]))])
    assert made.to_pylist() == [[], [{"b": 20}, {"b": 30}]]
