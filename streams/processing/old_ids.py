"""Usage booked under an id that was made before the window of ids: it may have been booked once already.

An id is remembered for a window. The same usage sent again after it, with the time of sending as its `occurred_at`, is
new to the ledger. Nothing that is kept says otherwise, but the id may: a UUIDv7 and a ULID begin with the time at which
they were made. Such usage is booked, and counted for the operator (`NoticeName` `old_id`).

Both write their time first, in digits whose order is that of the text. So the first eight characters tell of nearly
every id that it is too young, in a few nanoseconds; only the others are read.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Int64s = npt.NDArray[np.int64]
Octets = npt.NDArray[np.uint8]

UUID_CHARACTERS: Final = 36
ULID_CHARACTERS: Final = 26
EARLIEST_US: Final = 1_577_836_800_000_000
"""2020. Text of 26 letters and digits that is no ULID reads as a time between 1970 and 10889, hardly ever between this
and now; both kinds of id are younger."""

_NO_DIGIT: Final = 255
_UUID_TIME: Final = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12)
_UUID_DASHES: Final = (8, 13, 18, 23)
_UUID_VERSION: Final = 14


_LOWER_CASE: Final = np.uint64(0x2020202020202020)
"""Set in eight characters: letters become small, digits stay."""
_PREFIX: Final = 8


def _digits(alphabet: str) -> Octets:
    table = np.full(256, _NO_DIGIT, np.uint8)
    for value, letter in enumerate(alphabet):
        table[[ord(letter), ord(letter.lower())]] = value
    return table


_HEX_DIGITS: Final = "0123456789ABCDEF"
_CROCKFORD_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_HEX: Final = _digits(_HEX_DIGITS)
_CROCKFORD: Final = _digits(_CROCKFORD_DIGITS)


def old_ids(ids: pa.Array, arrived: Int64s, window_us: int) -> int:
    """How many of the ids (text, none null) were made more than the window before they arrived; microseconds."""
    lengths = pc.binary_length(ids).to_numpy(zero_copy_only=False)
    return sum(
        _made_too_early(ids, arrived, lengths == characters, characters, window_us)
        for characters in (UUID_CHARACTERS, ULID_CHARACTERS)
        if (lengths == characters).any()
    )


def _made_too_early(
    ids: pa.Array, arrived: Int64s, mask: npt.NDArray[np.bool_], characters: int, window_us: int
) -> int:
    of_length = ids.filter(pa.array(mask))
    start = of_length.offset * characters
    octets = np.frombuffer(of_length.buffers()[2], np.uint8)[start : start + len(of_length) * characters]
    rows, arrived = octets.reshape(len(of_length), characters), arrived[mask]
    uuids = characters == UUID_CHARACTERS
    prefix_of = _uuid_prefix if uuids else _ulid_prefix
    prefixes = np.ascontiguousarray(rows[:, :_PREFIX]).view(">u8").ravel().astype(np.uint64) | _LOWER_CASE
    doubts = prefixes <= prefix_of(max(EARLIEST_US, int(arrived.max()) - window_us))
    doubts &= prefixes >= prefix_of(EARLIEST_US)
    if not doubts.any():
        return 0
    made, known = (_uuid_times if uuids else _ulid_times)(rows[doubts])
    old = known & (made >= EARLIEST_US) & (made < arrived[doubts] - window_us)
    return int(old.sum())


def _uuid_prefix(at: int) -> np.uint64:
    return _as_number(f"{at // 1_000:012x}")


def _ulid_prefix(at: int) -> np.uint64:
    return _as_number("".join(_CROCKFORD_DIGITS[at // 1_000 >> 5 * index & 31] for index in reversed(range(10))))


def _as_number(text: str) -> np.uint64:
    """The first eight characters, so that numbers are in the order of the text."""
    return np.uint64(int.from_bytes(text[:_PREFIX].encode(), "big")) | _LOWER_CASE


def _uuid_times(rows: Octets) -> tuple[Int64s, npt.NDArray[np.bool_]]:
    """When each UUID was made, in microseconds, and whether it is of version 7."""
    known = rows[:, _UUID_VERSION] == ord("7")
    if not known.any():
        return np.zeros(len(rows), np.int64), known
    for column in _UUID_DASHES:
        known &= rows[:, column] == ord("-")
    return _times(_HEX[rows[:, _UUID_TIME]], 4, known)


def _ulid_times(rows: Octets) -> tuple[Int64s, npt.NDArray[np.bool_]]:
    """When each ULID was made, in microseconds, and whether it is one."""
    digits = _CROCKFORD[rows]
    known = (digits[:, 0] < 8) & (digits != _NO_DIGIT).all(axis=1)
    return _times(digits[:, :10], 5, known)


def _times(digits: Octets, bits: int, known: npt.NDArray[np.bool_]) -> tuple[Int64s, npt.NDArray[np.bool_]]:
    made = np.zeros(len(digits), np.int64)
    for column in range(digits.shape[1]):
        made = made << bits | (digits[:, column] & ((1 << bits) - 1))
    return made * 1_000, known & (digits != _NO_DIGIT).all(axis=1)
