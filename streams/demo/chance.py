"""Chance that is the same everywhere: whole numbers drawn from a seed.

Rules of this file: one source of bits (`random.Random(seed).random()`, the same on every platform and Python version),
and nothing but multiplication of it: no logarithms or cosines, whose last digit depends on the machine's C library.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import Generic, TypeVar

T = TypeVar("T")


class Chance:
    """A seeded sequence of choices."""

    __slots__ = ("_draw",)

    def __init__(self, seed: int) -> None:
        self._draw = Random(seed).random

    def below(self, bound: int) -> int:
        """A whole number from 0 to `bound` − 1."""
        return int(self._draw() * bound)

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self._draw() * (high - low + 1))

    def one_of(self, values: Sequence[T]) -> T:
        """One of the values, each as likely."""
        return values[int(self._draw() * len(values))]


class Weighted(Generic[T]):
    """Values with whole-number weights."""

    __slots__ = ("_bounds", "_total", "_values")

    def __init__(self, values: Sequence[T], weights: Sequence[int]) -> None:
        if len(values) != len(weights) or not values:
            raise ValueError("as many weights as values, and at least one")
        self._values = list(values)
        self._bounds = list(accumulate(weights))
        self._total = self._bounds[-1]

    def draw(self, chance: Chance) -> T:
        """One of the values, as likely as its weight."""
        return self._values[bisect_right(self._bounds, chance.below(self._total))]
