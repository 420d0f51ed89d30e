"""The latest balances, read from the compacted balances topic into memory.

The rules of this file:
1. `balance` contains everything that was committed when the question came (`streams.kafka.latest`): it asks Kafka for
   the log's end each time.
2. `latest` makes no call (`streams.kafka.current`).
3. Values stay bytes until they are asked for; 100,000 orgs are a few dozen megabytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from confluent_kafka import Message

from schemas.amounts import format_amount
from schemas.codec import UndecodableError, WriterSchemas, decode_one
from schemas.facts import BALANCE_AMOUNTS
from streams.errors import KafkaUnavailableError
from streams.kafka.current import MIN_SEQ_WAIT_S, CurrentRecords
from streams.kafka.latest import ASK_TIMEOUT_S

if TYPE_CHECKING:
    from streams.settings import Settings


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


class BalanceReader(CurrentRecords):
    """The latest balance of each organisation. Start it, ask it from any thread, close it."""

    def __init__(self, settings: Settings, writers: WriterSchemas) -> None:
        super().__init__(settings, "balances")
        self._writers = writers
        self._latest: dict[bytes, bytes] = {}

    async def latest(self, org_id: str, min_seq: int = 0, timeout_s: float = MIN_SEQ_WAIT_S) -> dict[str, Any] | None:
        """The org's balance record from memory, with entry `min_seq` in it; None when the ledger knows no such org.

        Makes no call: the answer is as old as reading takes, and `CURRENT_WITHIN_S` old at most. Raises
        `KafkaUnavailableError` when that cannot be said, and `NotYetError` when the entry does not come in time.
        """
        await self.require_current()
        found = self._decoded(org_id)
        if min_seq <= (0 if found is None else found["seq"]):
            return found

        def arrived() -> bool:
            nonlocal found
            found = self._decoded(org_id)
            return found is not None and found["seq"] >= min_seq

        await self.wait_for(org_id, min_seq, arrived, timeout_s)
        return found

    def in_memory(self, org_id: str) -> dict[str, Any] | None:
        """As `latest`, without waiting for anything; None also when it cannot be said that it is current."""
        return self._decoded(org_id) if self.is_current else None

    def _keep(self, message: Message) -> None:
        key, value = message.key() or b"", message.value()
        if value is None:
            self._latest.pop(key, None)
        else:
            self._latest[key] = value
        self._changed(key)

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
