"""The port to a ledger in memory: the processor for real, no broker.

Rules of this file: records wait until a batch is full, time passes, or somebody looks; transfer legs come back as
records of their own before anything else arrives. So the size of batches is a parameter, and must not matter.
"""

from __future__ import annotations

from schemas.codec import decode_one
from schemas.enums import InputKind
from schemas.events import ID_FIELDS
from schemas.records import bundled_id
from tests.model.memory import FixedPrices, FixedSchemas, MemoryLedger, Sent, legs, sent
from tests.products.scenario import Results, Row

ALERT_TOPICS = ("alerts_threshold", "alerts_depletion", "alerts_topup")


class MemoryPort:
    """One partition in memory; `batch_records` records are handed over together.

    With `timers_first` the timers run before every record, else only when the scenario lets time pass.
    """

    def __init__(self, batch_records: int = 1, timers_first: bool = False) -> None:
        self.ledger = MemoryLedger(FixedPrices(()))
        self._batch_records = batch_records
        self._timers_first = timers_first
        self._waiting: list[Sent] = []
        self._legs_fed = 0

    def send(self, kind: InputKind, record: Row, at: int) -> None:
        """Put the record into the batch; a price is on the list at once."""
        if kind is InputKind.PRICE:
            self._flush()
            self.ledger.prices.publish([record], at)
        if self._timers_first:
            self.advance(at)
        self._waiting.append(sent(kind, record, at))
        if kind is InputKind.TRANSFER or len(self._waiting) >= self._batch_records:
            self._flush()

    def advance(self, at: int) -> None:
        """Let what is due at or before `at` happen."""
        self._flush()
        self.ledger.tick(at)
        self._flush()

    def results(self) -> Results:
        """Everything written so far."""
        self._flush()
        rows = self.ledger.rows
        return Results(
            ledger=rows("ledger"),
            alerts=[row for topic in ALERT_TOPICS for row in rows(topic)],
            decisions=rows("decisions"),
            topup_requests=rows("topup_requests"),
            dead_letters=[(code, id_of(value)) for code, value in self.ledger.dead_letters()],
            balances={row["org_id"]: row for row in rows("balances")},
        )

    def _flush(self) -> None:
        if self._waiting:
            batch, self._waiting = self._waiting, []
            self.ledger.feed(batch)
        while len(written := legs(self.ledger)) > self._legs_fed:
            fresh = written[self._legs_fed :]
            self._legs_fed = len(written)
            self.ledger.feed(fresh)


def id_of(value: bytes | None) -> str:
    """The id in a dead letter of any kind that was framed as its topic's record; else nothing."""
    for kind, name in ID_FIELDS.items():
        if value is not None and value[1:5] == bundled_id(kind.value).to_bytes(4, "big"):
            return str(decode_one(kind.value, value, FixedSchemas())[name])
    return ""
