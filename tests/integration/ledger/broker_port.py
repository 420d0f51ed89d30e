"""The port to a ledger on the real broker: real topics, a real worker, and time as the records say it.

Rules of this file:
1. Every record has the time of its arrival as its Kafka timestamp. With `CREDITS_CLOCK=log` the ledger knows no other
   time, so a month passes in seconds.
2. Time passes by a record that changes nothing: a price of what nobody calls.
3. Kafka keeps the order of a topic, not that of several. So before a record of another topic is sent, what was sent is
   dealt with: it lies behind the committed position, the legs that it caused too, and nothing of what is due waits.
4. A worker reads all prices when it starts and then follows them in its own time. So the prices come first.
"""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, IsolationLevel, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.codec import decode_columns, rows_of
from schemas.enums import InputKind
from schemas.topics import BY_KEY
from streams.client.dead_letters import dead_letter_of
from streams.client.follower import Fetch, Follower
from streams.engine.accounts import Accounts
from streams.engine.positions import POSITION_KEY, PositionRecord, decode_position
from streams.kafka.clients import admin_config, consumer_config, producer_config
from streams.kafka.consume import Offsets
from streams.kafka.reader import read_range
from tests.integration.engine.workers import until
from tests.integration.ledger.installation import LedgerInstallation
from tests.model.memory import sent
from tests.products.memory_port import ALERT_TOPICS, id_of
from tests.products.scenario import Results, Row

TIMEOUT_S = 60.0
WAIT_S = 0.05
OUTPUTS = ("ledger", *ALERT_TOPICS, "decisions", "topup_requests", "balances", "dead_letters")
PASSING_TIME: Row = {
    "price_id": "passing-time",
    "operation": "nobody calls this",
    "unit_price_nanos": 1,
    "billing_unit": "request",
    "wallet": "USD",
    "valid_from": 0,
}


class BrokerPort:
    """An installation with one partition and no worker yet; it is given one when the first record is not a price."""

    def __init__(self, installation: LedgerInstallation) -> None:
        settings = installation.settings
        assert (settings.partitions, settings.clock) == (1, "log")
        self.installation = installation
        self._namespace = settings.namespace
        self._producer = Producer(producer_config(settings, linger_ms=1))
        self._admin = AdminClient(admin_config(settings))
        self._progress = Progress(installation)
        self._keys = {installation.topics.name(key): key for key in OUTPUTS}
        self._ends: dict[str, int] = {}
        self._kind: InputKind | None = None

    def send(self, kind: InputKind, record: Row, at: int) -> None:
        """Produce the record with the timestamp `at`; what went to another topic is dealt with before."""
        if kind is not self._kind:
            self._settle()
        if kind is not InputKind.PRICE and not self.installation.workers:
            self._producer.flush()
            self.installation.ready_worker()
        self._kind = kind
        record_sent = sent(kind, record, at)
        self._producer.produce(
            self._namespace + record_sent.topic,
            key=record_sent.key,
            value=record_sent.value,
            timestamp=at // 1_000,
            on_delivery=self._delivered,
        )
        if kind is InputKind.TRANSFER:
            self._settle()

    def advance(self, at: int) -> None:
        """Let the log say that it is `at`."""
        self.send(InputKind.PRICE, PASSING_TIME, at)
        self._settle()

    def results(self) -> Results:
        """Everything committed, once all that was sent is dealt with; topics without this installation's prefix."""
        self._settle()
        until(
            lambda: self._ended(IsolationLevel.READ_COMMITTED) == self._ended(IsolationLevel.READ_UNCOMMITTED),
            20,
            "the last transaction's end",
        )
        values: dict[str, list[Message]] = {key: [] for key in OUTPUTS}
        for batch in read_range(self.installation.settings, {}, self._ended(IsolationLevel.READ_COMMITTED)):
            for message in batch:
                values[self._keys[str(message.topic())]].append(message)
        rows = {key: self._decoded(key, messages) for key, messages in values.items() if key != "dead_letters"}
        return Results(
            ledger=[
                {**row, "source_topic": row["source_topic"].removeprefix(self._namespace)} for row in rows["ledger"]
            ],
            alerts=[row for key in ALERT_TOPICS for row in rows[key]],
            decisions=rows["decisions"],
            topup_requests=rows["topup_requests"],
            dead_letters=[(dead_letter_of(each).code, id_of(each.value())) for each in values["dead_letters"]],
            balances={row["org_id"]: row for row in rows["balances"]},
        )

    def close(self) -> None:
        """Leave the broker."""
        self._progress.close()

    def _delivered(self, error: Any, message: Message) -> None:
        assert error is None, error
        topic, offset = message.topic(), message.offset()
        assert topic is not None
        assert offset is not None
        self._ends[topic] = offset + 1

    def _settle(self) -> None:
        assert self._producer.flush(TIMEOUT_S) == 0
        if not self.installation.workers:
            return
        deadline = time.monotonic() + TIMEOUT_S
        while not self._progress.dealt_with(self._ends):
            worker = self.installation.workers[0]
            assert worker.process.poll() is None, worker.output
            assert time.monotonic() < deadline, f"not dealt with: {self._progress.missing(self._ends)}"

    def _decoded(self, key: str, messages: list[Message]) -> list[Row]:
        record = BY_KEY[key].record
        assert record is not None
        decoded = decode_columns(record, [message.value() for message in messages], self.installation.registry)
        assert not decoded.failures
        return rows_of(decoded.batch)

    def _ended(self, isolation: IsolationLevel) -> Offsets:
        """Where each output ends. Where the two answers are one, no transaction is open."""
        wanted = {TopicPartition(name, 0): OffsetSpec.latest() for name in self._keys}
        answers = self._admin.list_offsets(wanted, isolation_level=isolation, request_timeout=15)
        return {(place.topic, place.partition): answer.result().offset for place, answer in answers.items()}


class Progress:
    """How far the worker is, from what it commits: its positions, its clock, and when each account is due."""

    def __init__(self, installation: LedgerInstallation) -> None:
        settings, topics = installation.settings, installation.topics
        self._follower = Follower(settings, [topics.name("accounts")], begin=OFFSET_BEGINNING, fetch=Fetch(wait_ms=20))
        self._legs = TopicPartition(topics.name("transfer_legs"), 0, OFFSET_BEGINNING)
        # A leg is in its topic before anything of its transaction can be read as committed: so it cannot be missed.
        config = consumer_config(
            settings,
            f"{settings.namespace}legs",
            isolation_level="read_uncommitted",
            enable_partition_eof=True,
            fetch_wait_max_ms=20,
        )
        self._legs_consumer = Consumer(config)
        self._legs_end = 0
        self._legs_written = 0
        self._position = PositionRecord()
        self._due: dict[bytes, int] = {}

    def dealt_with(self, ends: dict[str, int]) -> bool:
        """Is everything below these offsets decided, its legs have arrived, and what was due then has happened?"""
        if self.missing(ends):
            self._read_on()
        return not self.missing(ends)

    def missing(self, ends: dict[str, int]) -> str:
        """What is not yet dealt with, for a person; empty: nothing."""
        position = self._position
        for topic, end in ends.items():
            if position.next_offsets.get(topic, 0) < end:
                return f"{topic} from {position.next_offsets.get(topic, 0)} to {end}"
        for key, due_at in self._due.items():
            if 0 < due_at <= position.clock_at:
                return f"{key.decode()}, due at {due_at}, now {position.clock_at}"
        arrived = sum(position.counters.get(self._legs.topic, {}).values())
        if arrived < self._count_legs():
            return f"legs beyond {arrived}"
        return ""

    def close(self) -> None:
        """Leave the broker."""
        self._legs_consumer.close()

    def _read_on(self) -> None:
        for message in self._follower.next(WAIT_S):
            key, value = message.key(), message.value()
            assert isinstance(key, bytes)
            if value is None:
                self._due.pop(key, None)
            elif key == POSITION_KEY:
                self._position = decode_position(value)
            else:
                self._due[key] = Accounts({"": value}).due_at("")

    def _count_legs(self) -> int:
        _, end = self._legs_consumer.get_watermark_offsets(self._legs, 15)
        if end != self._legs_end:
            self._legs_consumer.assign([self._legs])
            written = 0
            while True:
                message = self._legs_consumer.poll(15)
                assert message is not None
                if message.error() is not None:
                    break
                written += 1
            self._legs_end, self._legs_written = end, written
        return self._legs_written
