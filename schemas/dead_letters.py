"""What a dead letter says, and how much of its record it holds.

Rules of this file:
1. Value and key are the record's own bytes; its own headers come first, then what the ledger adds, from
   `__streams.errors.topic` on.
2. A record of up to `WHOLE_BYTES_MAX` is held whole. Kafka measures a batch when it is compressed, so an input topic
   may hand over a record of any size; one that is larger is cut, part by part, and the dead letter says so. Nothing
   stops a partition.
3. Headers say the original size of a part that is cut and, where it is one piece, its hash (`CUT_PREFIXES`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from schemas.topics import DEAD_LETTER_BYTES_MAX, RECORD_BYTES_MAX

ERROR_PREFIX: Final = "__streams.errors."
TOPIC_HEADER: Final = f"{ERROR_PREFIX}topic"
PARTITION_HEADER: Final = f"{ERROR_PREFIX}partition"
OFFSET_HEADER: Final = f"{ERROR_PREFIX}offset"
EXCEPTION_HEADER: Final = f"{ERROR_PREFIX}exception"
MESSAGE_HEADER: Final = f"{ERROR_PREFIX}message"
CODE_HEADER: Final = "credits.error.code"
VALUE_PREFIX: Final = "credits.value."
KEY_PREFIX: Final = "credits.key."
HEADERS_PREFIX: Final = "credits.headers."
CUT_PREFIXES: Final = (VALUE_PREFIX, KEY_PREFIX, HEADERS_PREFIX)
"""How the headers begin that tell what was cut."""

DEAD_LETTER_HEADERS: Final = {
    TOPIC_HEADER: "topic that the record came from",
    PARTITION_HEADER: "its partition there",
    OFFSET_HEADER: "its offset there",
    EXCEPTION_HEADER: "the code, once more",
    MESSAGE_HEADER: "a sentence for people",
    CODE_HEADER: "the code: one of the closed list",
    f"{VALUE_PREFIX}bytes": "of a value that was cut: how many bytes it had",
    f"{VALUE_PREFIX}sha256": "of a value that was cut: SHA-256 of the whole, in hex",
    f"{KEY_PREFIX}bytes": "of a key that was cut: how many bytes it had",
    f"{KEY_PREFIX}sha256": "of a key that was cut: SHA-256 of the whole, in hex",
    f"{HEADERS_PREFIX}bytes": "where headers were left out: how much room all of them took",
    f"{HEADERS_PREFIX}left_out": "where headers were left out: how many",
}
"""What each header says that the ledger adds, in this order."""

WHOLE_BYTES_MAX: Final = DEAD_LETTER_BYTES_MAX - 64 * 1024
"""Key, value and headers together, not compressed; the 64 KiB are for what is added, a tenth of it at most."""

VALUE_KEPT_BYTES: Final = RECORD_BYTES_MAX
KEY_KEPT_BYTES: Final = 64 * 1024
HEADERS_KEPT_BYTES: Final = 64 * 1024
"""How much of each is left in a dead letter that is cut."""

HEADER_FRAME_BYTES: Final = 10
"""What a header takes besides its name and value: the two lengths, of 5 bytes at most."""


def header_bytes(name: str, value: bytes | None) -> int:
    """How much room a header takes."""
    return len(name.encode()) + len(value or b"") + HEADER_FRAME_BYTES


def record_bytes(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> int:
    """How much room a record takes."""
    return len(key or b"") + len(value or b"") + sum(header_bytes(*header) for header in headers)
