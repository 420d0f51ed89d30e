"""Amounts of money and credits: whole nano-units, and decimal strings for people.

Rules of this file: an amount is an `int` of nano-units (10⁻⁹), at most 9·10¹⁸ either way (`AMOUNT_MAX`), which leaves
room below 2⁶³ ≈ 9.22·10¹⁸ to see an overflow before Avro does. A float never becomes an amount. Rounding happens in
one place, `div_half_up` (product rule 10). The largest amount is 9,000,000,000 whole units.
"""

from __future__ import annotations

import re
from decimal import Decimal

NANOS = 10**9
"""Nano-units in one unit."""

AMOUNT_MAX = 9 * 10**18
"""The largest absolute value of an amount, in nano-units."""

AMOUNT_TEXT_LENGTH_MAX = 64
"""Longer texts are refused unread; the longest amount has 21 characters: -9000000000.000000000."""

_DECIMAL_TEXT = re.compile(r"([+-]?)([0-9]+)(?:\.([0-9]+))?", re.ASCII)


class AmountOutOfRangeError(ValueError):
    """The amount is beyond ±9·10¹⁸ nano-units."""


def parse_amount(value: str | int | Decimal) -> int:
    """Nano-units of an amount in whole units: "12.5" → 12,500,000,000.

    Accepts decimal text, whole numbers and `Decimal`. Refuses floats, booleans, NaN and infinities, exponents
    ("1e3"), more than nine decimals, and what is beyond `AMOUNT_MAX`: raises ValueError with a sentence for people.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError(f'an amount is a decimal string such as "12.5", not {type(value).__name__}')
    if isinstance(value, int):
        return check_amount(value * NANOS)
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError("an amount must be finite, not NaN or infinity")
        if value.adjusted() > 20:  # spares writing out 1e400
            raise AmountOutOfRangeError(_RANGE_MESSAGE)
        value = format(value, "f")
    return _parse_text(value)


def _parse_text(text: str) -> int:
    if len(text) > AMOUNT_TEXT_LENGTH_MAX:
        raise ValueError(f"an amount has at most {AMOUNT_TEXT_LENGTH_MAX} characters")
    match = _DECIMAL_TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} is not an amount: write digits with a point, such as "12.5"')
    sign, whole, fraction = match.groups(default="")
    if len(fraction) > 9:
        raise ValueError(f"{text!r} has more than nine decimals")
    nanos = int(whole) * NANOS + int(fraction.ljust(9, "0"))
    return check_amount(-nanos if sign == "-" else nanos)


_RANGE_MESSAGE = "an amount is between -9000000000 and 9000000000 (in whole units)"


def check_amount(nanos: int) -> int:
    """`nanos` itself when it is within ±`AMOUNT_MAX`; else raises `AmountOutOfRangeError`."""
    if -AMOUNT_MAX <= nanos <= AMOUNT_MAX:
        return nanos
    raise AmountOutOfRangeError(_RANGE_MESSAGE)


def format_amount(nanos: int) -> str:
    """The shortest decimal text of an amount: 12_500_000_000 → "12.5"; the inverse of `parse_amount`."""
    whole, fraction = divmod(abs(nanos), NANOS)
    text = f"{whole}.{fraction:09d}".rstrip("0") if fraction else str(whole)
    return f"-{text}" if nanos < 0 else text


def div_half_up(numerator: int, denominator: int) -> int:
    """numerator / denominator, rounded half up in magnitude (away from zero), for a denominator above 0.

    The only rounding of the ledger (product rule 10); a cost and its reversal round to the same magnitude.
    """
    if denominator <= 0:
        raise ValueError("the denominator must be above 0")
    if numerator < 0:
        return -((-2 * numerator + denominator) // (2 * denominator))
    return (2 * numerator + denominator) // (2 * denominator)
