"""`Idempotency-Key`: the same request sent again gets the same answer, and is not done again.

The rules of this file:
1. A key belongs to its caller and to the call. The same key with another body is refused (422,
   `idempotency_key_reused`), and so is a second request while the first is being answered (409,
   `idempotency_key_in_use`).
2. Only what was accepted is remembered: after a failure the same key may be used again.
3. The key is also the record's id where the body names none. So what this process has forgotten (another process took
   the first request, 24 hours or `KEYS_MAX` keys ago) still has no second effect: the ledger drops the same record, and
   takes one with other content for a dead letter (`duplicate_with_different_content`).
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from schemas.fields import ID_CHARACTERS_MAX
from streams.api.problems import ProblemError

KEYS_MAX: Final = 100_000
"""About 500 bytes each: 50 MB."""
KEPT_S: Final = 24 * 3600.0

Call = tuple[str, str, str]
"""Caller, call (method and path), key."""


@dataclass(slots=True)
class _Use:
    digest: bytes
    at_s: float
    answer: dict[str, Any] | None = None
    """None: being answered."""


class UsedKeys:
    """The keys used of late. Belongs to one event loop. `clock_s`: monotonic seconds, for tests."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic, keys_max: int = KEYS_MAX) -> None:
        self._clock_s = clock_s
        self._keys_max = keys_max
        self._uses: OrderedDict[Call, _Use] = OrderedDict()

    def begin(self, call: Call, body: bytes) -> dict[str, Any] | None:
        """The answer when this was answered before; None: do it, and say `accepted` or `failed`."""
        digest = hashlib.sha256(body).digest()
        self._forget()
        use = self._uses.get(call)
        if use is None:
            self._uses[call] = _Use(digest, self._clock_s())
            return None
        if use.digest != digest:
            raise ProblemError(422, "idempotency_key_reused", "this Idempotency-Key was used with another body")
        if use.answer is None:
            raise ProblemError(409, "idempotency_key_in_use", "the first request with this key is still being answered")
        return use.answer

    def accepted(self, call: Call, answer: dict[str, Any]) -> None:
        """It was done, with this answer."""
        use = self._uses.get(call)
        if use is not None:
            use.answer = answer

    def failed(self, call: Call) -> None:
        """It was not done."""
        self._uses.pop(call, None)

    def _forget(self) -> None:
        """Make room: what is oldest first, and what is over; a use that is being answered is kept."""
        oldest = self._clock_s() - KEPT_S
        while self._uses:
            call, use = next(iter(self._uses.items()))
            if use.at_s > oldest and len(self._uses) < self._keys_max:
                return
            if use.answer is None:
                self._uses.move_to_end(call)
                return
            del self._uses[call]


def idempotency_key(header: str | None) -> str | None:
    """The key of a request; None when it has none. Raises `ProblemError` for what cannot be an id."""
    if header is None:
        return None
    key = header.strip().strip('"')
    if not 0 < len(key) <= ID_CHARACTERS_MAX or not key.isascii() or not key.isprintable():
        detail = f"an Idempotency-Key has 1 to {ID_CHARACTERS_MAX} printable ASCII characters"
        raise ProblemError(422, "invalid_idempotency_key", detail)
    return key
