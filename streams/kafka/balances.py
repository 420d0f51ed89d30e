"""The latest balances, read from the compacted balances topic into memory.

The rules of this file:
1. `balance` contains everything that was committed when the question came (`streams.kafka.latest`): it asks Kafka for
   the log's end each time.
2. `latest` makes no call. It lags behind the ledger by the milliseconds that reading takes (product rule 34); who has
   written waits for an entry by its number. A thread looks each second whether everything committed has been read, and
   when that cannot be said for `CURRENT_WITHIN_S`, there is no answer: an outdated balance is worse than none.
3. Values stay bytes until they are asked for; 100,000 orgs are a few dozen megabytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from confluent_kafka import Message

from schemas.amounts import format_amount
from schemas.codec import UndecodableError, WriterSchemas, decode_one
from schemas.facts import BALANCE_AMOUNTS
from streams.errors import KafkaUnavailableError, OperatorError
from streams.kafka.latest import ASK_TIMEOUT_S, LatestRecords

if TYPE_CHECKING:
    from streams.settings import Settings

CHECK_INTERVAL_S = 1.0
CURRENT_WITHIN_S = 5.0
MIN_SEQ_WAIT_S = 1.0


def balance_document(balance: Mapping[str, Any]) -> dict[str, Any]:
    """What `GET /v1/orgs/{org}/balance` and `credits balance` answer, from a decoded balance record."""
    return {
        "org_id": balance["org_id"],
        "seq": balance["seq"],
        "as_of": iso_time(balance["as_of"]),
        "wallets": [
            {
                "unit": wallet["unit"],
                **{name: format_amount(wallet[f"{name}_nanos"]) for name in BALANCE_AMOUNTS},
                "status": wallet["status"],
                "health": wallet["health"],
            }
            for wallet in balance["wallets"]
        ],
    }


def iso_time(micros: int) -> str:
    """ISO 8601 in UTC, of microseconds since the epoch."""
    return datetime.fromtimestamp(micros // 1_000_000, UTC).replace(microsecond=micros % 1_000_000).isoformat()


class NotYetError(OperatorError):
    """The entry that an answer was to include has not been read in time."""

    code = "not_yet"

    def __init__(self, org_id: str, seq: int) -> None:
        super().__init__(f"entry {seq} of {org_id!r} has not been read yet", "try again")


class BalanceReader(LatestRecords):
    """The latest balance of each organisation. Start it, ask it from any thread, close it."""

    def __init__(self, settings: Settings, writers: WriterSchemas) -> None:
        super().__init__(settings, "balances")
        self._writers = writers
        self._latest: dict[bytes, bytes] = {}
        self._waiting: dict[bytes, set[asyncio.Event]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._current_at: float | None = None

    def start_checking(self) -> None:
        """Begin to look, each second, whether everything committed has been read: `latest` needs it."""
        threading.Thread(target=self._check, name="balances are current", daemon=True).start()

    async def latest(self, org_id: str, min_seq: int = 0, timeout_s: float = MIN_SEQ_WAIT_S) -> dict[str, Any] | None:
        """The org's balance record from memory, with entry `min_seq` in it; None when the ledger knows no such org.

        Makes no call: the answer is as old as reading takes, and `CURRENT_WITHIN_S` old at most. Raises
        `KafkaUnavailableError` when that cannot be said, and `NotYetError` when the entry does not come in time.
        """
        if self._current_at is None:  # at the start, reading takes a moment
            await asyncio.to_thread(self._check_once)
        elif time.monotonic() - self._current_at > CURRENT_WITHIN_S:
            raise KafkaUnavailableError("the balances in memory may be outdated: Kafka does not answer", "try again")
        found = self._decoded(org_id)
        if min_seq <= (0 if found is None else found["seq"]):
            return found
        key = org_id.encode()
        self._loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        self._waiting.setdefault(key, set()).add(changed)
        try:
            async with asyncio.timeout(timeout_s):
                while (found := self._decoded(org_id)) is None or found["seq"] < min_seq:
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            raise NotYetError(org_id, min_seq) from None
        finally:
            waiting = self._waiting[key]
            waiting.discard(changed)
            if not waiting:
                del self._waiting[key]
        return found

    def _keep(self, message: Message) -> None:
        key, value = message.key() or b"", message.value()
        if value is None:
            self._latest.pop(key, None)
        else:
            self._latest[key] = value
        if key in self._waiting and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it all waiting
                self._loop.call_soon_threadsafe(self._wake, key)

    def _wake(self, key: bytes) -> None:
        for changed in self._waiting.get(key, ()):
            changed.set()

    def _check(self) -> None:
        while not self._live.stopping.wait(CHECK_INTERVAL_S):
            with contextlib.suppress(KafkaUnavailableError):
                self._check_once()

    def _check_once(self) -> None:
        asked_at = time.monotonic()
        self.wait_until_current()
        self._current_at = asked_at

    def _decoded(self, org_id: str) -> dict[str, Any] | None:
        value = self._latest.get(org_id.encode())
        if value is None:
            return None
        try:
            return decode_one("balance", value, self._writers)
        except UndecodableError as error:
            raise KafkaUnavailableError(
                f"the balance record of {org_id!r} cannot be read ({error})", f"see who else writes to {self._topic}"
            ) from error

    def balance(self, org_id: str, timeout_s: float = ASK_TIMEOUT_S) -> dict[str, Any] | None:
        """The org's balance record as of now; None when the ledger knows no such org.

        Raises `KafkaUnavailableError` when it cannot be known in time, for an outdated balance is worse than none.
        """
        self.wait_until_current(timeout_s)
        return self._decoded(org_id)

    @property
    def orgs(self) -> int:
        """How many orgs have a balance."""
        return len(self._latest)
