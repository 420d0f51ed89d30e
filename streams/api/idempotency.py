"""`Idempotency-Key`: the same request sent again gets the same answer, and is not done again, at whichever process.

The rules of this file:
1. A key belongs to its caller and to the call. The same key with another body is refused (422,
   `idempotency_key_reused`), and so is a second request while the first is being answered (409,
   `idempotency_key_in_use`).
2. What decides is a log that all processes read (`streams.api.idempotency_log`). A process claims the key, and goes
   on when it has read its own claim back as the first. So of two processes one does it, whatever they know at first.
3. Only what was accepted is remembered, for `KEPT_S`: after a failure the same key may be used again, with any body.
4. A claim whose process died is free for the same body after `TAKEOVER_S`. That may send the record a second time:
   the key is the record's id where the body names none, and the ledger drops what it has by its id.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from schemas.fields import ID_CHARACTERS_MAX
from streams.api.problems import ProblemError
from streams.errors import KafkaUnavailableError
from streams.recent import remember

KEYS_MAX: Final = 100_000
"""About 700 bytes each: 70 MB. The oldest is forgotten first."""
KEPT_S: Final = 24 * 3600
TAKEOVER_S: Final = 30
"""Longer than a request may wait for Kafka."""
FAILED_MAX: Final = 10_000

Call = tuple[str, str, str]
"""Caller, call (method and path), key."""

Answer = dict[str, Any]


@dataclass(slots=True)
class Use:
    """The claim that holds a key. Times are the log's, in milliseconds."""

    digest: str
    claim: str
    at_ms: int
    answer: Answer | None = None
    """None: being answered."""


class Uses:
    """What the log says of the keys, record by record: the same in every process. Pure."""

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        self._uses: OrderedDict[str, Use] = OrderedDict()

    def __len__(self) -> int:
        return len(self._uses)

    def get(self, name: str, now_ms: int) -> Use | None:
        """The use of a key; None: it is free."""
        use = self._uses.get(name)
        return None if use is None or now_ms - use.at_ms >= KEPT_S * 1_000 else use

    def fold(self, name: str, value: bytes, at_ms: int) -> None:
        """Take a record of the log; what is none is passed over."""
        try:
            record = json.loads(value)
            what, claim, digest = str(record["what"]), str(record["claim"]), str(record.get("digest", ""))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return
        use = self.get(name, at_ms)
        if what == "claim" and (use is None or _gives_way(use, digest, str(record.get("instead", "")), at_ms)):
            remember(self._uses, name, Use(digest, claim, at_ms), self._keys_max)
        elif use is not None and use.claim == claim and use.answer is None:
            if what == "answered" and isinstance(record.get("answer"), dict):
                use.answer = record["answer"]
            elif what == "failed":
                del self._uses[name]


def _gives_way(use: Use, digest: str, instead: str, at_ms: int) -> bool:
    """Whether a claim without an answer gives way to another: of the process that gave it up, or after a while."""
    if use.answer is not None:
        return False
    return use.claim == instead or (use.digest == digest and at_ms - use.at_ms >= TAKEOVER_S * 1_000)


class KeyLog(Protocol):
    """Where the uses of keys are written down, in one order for all processes."""

    uses: Uses

    async def write(self, name: str, value: bytes) -> None:
        """Write a record; returns when it and all before it are folded into `uses`.

        Raises `KafkaUnavailableError` and `BusyError`.
        """
        ...

    def offer(self, name: str, value: bytes) -> None:
        """Write a record that nothing waits for, and that may be lost."""
        ...


class UsedKeys:
    """The keys that were used lately. Belongs to one event loop. `now_ms`: the wall clock."""

    def __init__(self, log: KeyLog, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._log = log
        self._now_ms = now_ms
        self._claims: dict[Call, str] = {}
        self._given_up: OrderedDict[str, None] = OrderedDict()

    async def begin(self, call: Call, body: bytes) -> Answer | None:
        """The answer when this was answered before; None: do it, and say `accepted` or `failed`."""
        name, digest = name_of(call), hashlib.sha256(body).hexdigest()
        use = self._log.uses.get(name, self._now_ms())
        instead = use.claim if use is not None and use.claim in self._given_up else ""
        if use is None or _gives_way(use, digest, instead, self._now_ms()):
            claim = secrets.token_hex(16)
            await self._log.write(name, _record("claim", claim, digest=digest, instead=instead))
            use = self._log.uses.get(name, self._now_ms())
            if use is not None and use.claim == claim:
                self._claims[call] = claim
                return None
        if use is None or (use.answer is None and use.digest == digest):
            raise ProblemError(409, "idempotency_key_in_use", "the first request with this key is still being answered")
        if use.digest != digest:
            raise ProblemError(422, "idempotency_key_reused", "this Idempotency-Key was used with another body")
        return use.answer

    async def accepted(self, call: Call, answer: Answer) -> None:
        """It was done, with this answer."""
        claim = self._claims.pop(call)
        # Where that cannot be written, it stays a claim without an answer: rule 4.
        with contextlib.suppress(KafkaUnavailableError, ProblemError):
            await self._log.write(name_of(call), _record("answered", claim, answer=answer))

    def failed(self, call: Call) -> None:
        """It was not done. This process knows it at once, others as soon as Kafka has it."""
        claim = self._claims.pop(call)
        remember(self._given_up, claim, None, FAILED_MAX)
        self._log.offer(name_of(call), _record("failed", claim))


def _record(what: str, claim: str, **more: Any) -> bytes:
    return json.dumps({"what": what, "claim": claim, **more}, separators=(",", ":")).encode("ascii")


class OwnLog:
    """The log of a single process, in memory: for tests. `now_ms` is its clock."""

    def __init__(self, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self.uses = Uses()
        self._now_ms = now_ms

    async def write(self, name: str, value: bytes) -> None:
        """See `KeyLog.write`."""
        self.offer(name, value)

    def offer(self, name: str, value: bytes) -> None:
        """See `KeyLog.offer`."""
        self.uses.fold(name, value, self._now_ms())


def name_of(call: Call) -> str:
    """The key of a call's records: nothing of the caller can be read from it."""
    return hashlib.sha256(json.dumps(call).encode()).hexdigest()


def idempotency_key(header: str | None) -> str | None:
    """The key of a request; None when it has none. Raises `ProblemError` for what cannot be an id."""
    if header is None:
        return None
    key = header.strip().strip('"')
    if not 0 < len(key) <= ID_CHARACTERS_MAX or not key.isascii() or not key.isprintable():
        detail = f"an Idempotency-Key has 1 to {ID_CHARACTERS_MAX} printable ASCII characters"
        raise ProblemError(422, "invalid_idempotency_key", detail)
    return key
