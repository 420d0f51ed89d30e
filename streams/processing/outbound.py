"""What one batch causes, collected in order and encoded once.

Rules of this file:
1. The order in which entries are added is the order in the ledger; `seq` of every org follows it.
2. Usage entries come as columns, everything else as rows; each kind of record is encoded by one call at the end, for a
   call costs some 100 µs and a record of a large batch less than one.
3. Dead letters keep key, value and headers as they came; further headers say what is wrong (contract).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from schemas.codec import batch_of, encode_columns
from schemas.enums import DeadLetterCode
from schemas.kept_prices import position_headers
from schemas.topics import ALERT_TOPICS, Topics
from streams.engine.ports import Keyed, NoticeName, OutcomeName, Output
from streams.kafka.inbound import Inbound
from streams.kafka.kept_prices import seal_headers
from streams.ledger.entry import Alert, Entry, HoldDecision, Leg, Outcome, TopupRequest
from streams.ledger.usage_batch import SideOutputs
from streams.processing.dead_letters import dead_letter
from streams.processing.judged_prices import KeptPrice
from streams.seals import TAG_HEADER, Seals

Messages = list[dict[str, Any]]


class SchemaIds(Protocol):
    """Under which schema id the values of a topic are written."""

    def schema_id(self, key: str) -> int:
        """The id for the topic that the catalogue calls `key`."""
        ...


class Outbound:
    """The outputs of one batch of a partition, growing while it is decided."""

    def __init__(self, topics: Topics, ids: SchemaIds) -> None:
        self._topics = topics
        self._ids = ids
        self._entries: list[bytes | Entry] = []
        self._entry_keys: list[bytes] = []
        self._rows = 0
        self._alerts: list[Alert] = []
        self._legs: list[Leg] = []
        self._topup_requests: list[TopupRequest] = []
        self._decisions: list[HoldDecision] = []
        self._keyed: list[Keyed] = []
        self._outcomes: dict[str, dict[OutcomeName, int]] = {}
        self._notices: dict[str, dict[NoticeName, int]] = {}

    def encoded_entries(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Entries that are bytes already, next in the ledger's order."""
        self._entry_keys.extend(keys)
        self._entries.extend(values)

    def entry(self, entry: Entry) -> None:
        """One entry, next in the ledger's order."""
        self._entry_keys.append(entry.org_id.encode())
        self._entries.append(entry)
        self._rows += 1

    def outcome(self, outcome: Outcome) -> None:
        """Everything that a command came to."""
        for entry in outcome.entries:
            self.entry(entry)
        self.add_side_outputs(outcome)

    def add_side_outputs(self, outcome: Outcome | SideOutputs) -> None:
        """What leaves with the entries of an outcome, without the entries."""
        self._alerts += outcome.alerts
        self._legs += outcome.legs
        self._topup_requests += outcome.topup_requests
        self._decisions += outcome.decisions

    def dead_letter(self, inbound: Inbound, index: int, code: DeadLetterCode, message: str) -> None:
        """Record `index` of a batch could not be booked: all its bytes, and why. Counted as such."""
        self._keyed.append(dead_letter(self._topics.name("dead_letters"), inbound, index, code, message))
        self.count(inbound.topic, "dead_letters")
        if code is DeadLetterCode.WRONG_PARTITION:
            self.notice(inbound.topic, "wrong_partition")

    def keep_prices(self, partition: int, prices: Mapping[str, KeptPrice], seals: Seals) -> None:
        """What was judged of the price topic, by price id."""
        topic = self._topics.name("kept_prices")
        for price_id, kept in prices.items():
            key, headers = price_id.encode(), position_headers(kept.published, kept.judged)
            headers += seal_headers(seals, key, kept.published, kept.judged, kept.value)
            self._keyed.append(Keyed(topic, key, kept.value, headers, partition))

    def count(self, topic: str, name: OutcomeName, records: int = 1) -> None:
        """`records` of a topic ended like this."""
        if records:
            ended = self._outcomes.setdefault(topic, {})
            ended[name] = ended.get(name, 0) + records

    def notice(self, topic: str, name: NoticeName, records: int = 1) -> None:
        """An operator should know of `records` of a topic, whatever their end."""
        noticed = self._notices.setdefault(topic, {})
        noticed[name] = noticed.get(name, 0) + records

    @property
    def entry_schema_id(self) -> int:
        """Under which id entries are written."""
        return self._ids.schema_id("ledger")

    def touched_orgs(self) -> list[str]:
        """The orgs with new entries: every change of an account is an entry."""
        return [key.decode() for key in dict.fromkeys(self._entry_keys)]

    @property
    def empty(self) -> bool:
        """Nothing leaves, and no record ended."""
        return not (self._entries or self._keyed or self._outcomes or self._alerts or self._legs)

    def output(self, clock_at: int, balances: tuple[list[bytes], pa.RecordBatch] | None, seals: Seals) -> Output:
        """All of it as the engine takes it. `balances`: keys and columns of the balance records; `seals`: of legs."""
        output = Output(clock_at=clock_at, outcomes=self._outcomes, keyed=self._keyed, notices=self._notices)
        self._put(output, "ledger", self._entry_keys, self._entry_values())
        for key, alerts in self._alerts_by_topic().items():
            self._put_rows(output, key, "alert", alerts)
        self._put_rows(output, "topup_requests", "topup_request", self._topup_requests)
        self._put_rows(output, "decisions", "decision", self._decisions)
        if balances is not None:
            keys, columns = balances
            self._put(output, "balances", keys, encode_columns("balance", columns, self._ids.schema_id("balances")))
        legs = self._encoded("transfer_legs", "leg", self._legs)
        topic = self._topics.name("transfer_legs")
        for leg, value in zip(self._legs, legs, strict=True):
            org = leg.org_id.encode()
            headers = [(TAG_HEADER, seals.tag("leg", org, value))] if seals.writes else ()
            output.keyed.append(Keyed(topic, org, value, headers))
        return output

    def _entry_values(self) -> Sequence[bytes]:
        if not self._rows:
            return self._entries  # type: ignore[return-value]  # no rows: all are bytes
        rows = [entry for entry in self._entries if isinstance(entry, Entry)]
        encoded = iter(self._encoded("ledger", "entry", rows))
        return [next(encoded) if isinstance(entry, Entry) else entry for entry in self._entries]

    def _alerts_by_topic(self) -> Mapping[str, list[Alert]]:
        by_topic: dict[str, list[Alert]] = {}
        for alert in self._alerts:
            by_topic.setdefault(ALERT_TOPICS[alert.kind], []).append(alert)
        return by_topic

    def _put_rows(self, output: Output, key: str, record: str, rows: Sequence[_Row]) -> None:
        self._put(output, key, [row.org_id.encode() for row in rows], self._encoded(key, record, rows))

    def _put(self, output: Output, key: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        if keys:
            messages: Messages = [{"key": org, "value": value} for org, value in zip(keys, values, strict=True)]
            output.records.append((self._topics.name(key), messages))

    def _encoded(self, key: str, record: str, rows: Sequence[_Row]) -> list[bytes]:
        if not rows:
            return []
        return encode_columns(record, batch_of(record, [row.to_record() for row in rows]), self._ids.schema_id(key))


class _Row(Protocol):
    """A struct of the ledger that is an Avro record."""

    @property
    def org_id(self) -> str: ...

    def to_record(self) -> dict[str, Any]: ...
