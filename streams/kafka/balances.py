"""The latest balances, read from the compacted balances topic into memory.

The rules of this file:
1. Committed records only, every partition, from the beginning: what is in memory is what the ledger said last.
2. An answer contains everything that was committed when the question came: the reader looks where the log ends, and
   waits until it has read so far. The balance does not lag behind the ledger (product rule 34). The end is the one
   with open transactions, since a commit is decided before its markers are written; a transaction that stays open
   longer than `OPEN_WAIT_S` (its worker died) is not waited for: it has not been committed.
3. Values stay bytes until somebody asks; 100,000 orgs are a few dozen megabytes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from confluent_kafka import IsolationLevel, Message

from schemas.amounts import format_amount
from schemas.codec import UndecodableError, WriterSchemas, decode_one
from schemas.facts import BALANCE_AMOUNTS
from schemas.partitioner import partitions_of
from schemas.topics import Topics
from streams.errors import KafkaUnavailableError
from streams.kafka.live import LiveTopics

if TYPE_CHECKING:
    from streams.settings import Settings

ASK_TIMEOUT_S = 5.0
OPEN_WAIT_S = 0.5
# A commit marker alone does not end the broker's waiting for records, and an answer waits for the marker: with
# librdkafka's 500 ms every second answer took half a second, with 20 ms a few milliseconds.
FETCH_WAIT_MS = 20


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


class BalanceReader:
    """Follows the balances topic in a thread of its own. Start it, ask it from any thread, close it."""

    def __init__(self, settings: Settings, writers: WriterSchemas) -> None:
        self._writers = writers
        self._topic = Topics(settings.namespace).name("balances")
        self._partitions = settings.partitions
        self._latest: dict[bytes, bytes] = {}
        self._live = LiveTopics(settings, [self._topic], self._take, name="balances", fetch_wait_ms=FETCH_WAIT_MS)
        self.start, self.close, self.idle_s = self._live.start, self._live.close, self._live.idle_s

    def balance(self, org_id: str, timeout_s: float = ASK_TIMEOUT_S) -> dict[str, Any] | None:
        """The org's balance record as of now; None when the ledger knows no such org.

        Raises `KafkaUnavailableError` when it cannot be known in time, for an outdated balance is worse than none.
        """
        self.wait_until_current(timeout_s)
        value = self._latest.get(org_id.encode())
        if value is None:
            return None
        try:
            return decode_one("balance", value, self._writers)
        except UndecodableError as error:
            raise KafkaUnavailableError(
                f"the balance record of {org_id!r} cannot be read ({error})", f"see who else writes to {self._topic}"
            ) from error

    def wait_until_current(self, timeout_s: float = ASK_TIMEOUT_S) -> None:
        """Return when everything that is committed now has been read. Raises `KafkaUnavailableError`."""
        live, deadline_s = self._live, time.monotonic() + timeout_s
        ends = live.ends(deadline_s, IsolationLevel.READ_UNCOMMITTED)
        if live.wait_for(ends, min(deadline_s, time.monotonic() + OPEN_WAIT_S)):
            return
        if not live.wait_for(live.ends(deadline_s), deadline_s):
            raise KafkaUnavailableError(
                f"the balances could not be read to their end within {timeout_s:g} s", "try again in a moment"
            )

    @property
    def orgs(self) -> int:
        """How many orgs have a balance."""
        return len(self._latest)

    def _take(self, messages: Sequence[Message]) -> None:
        homes = partitions_of([message.key() or b"" for message in messages], self._partitions)
        for message, home in zip(messages, homes, strict=True):
            key, value = message.key(), message.value()
            if message.partition() != home:
                pass  # of a second account, which an older version opened in a partition that is not the org's
            elif value is None:
                self._latest.pop(key, None)
            else:
                self._latest[key] = value
