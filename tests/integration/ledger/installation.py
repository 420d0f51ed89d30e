"""A whole installation for tests: real topics, real workers as processes, and the audit of what they wrote."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.codec import decode_columns, rows_of
from schemas.enums import InputKind
from schemas.events import INPUTS
from schemas.records import bundled_id
from schemas.topics import BY_KEY, Topics
from streams.client.dead_letters import DeadLetter, read_dead_letters
from streams.client.producer import CreditsProducer
from streams.kafka import topics_admin
from streams.kafka.reader import committed_ends, read_range
from streams.kafka.registry import connect_registry
from streams.settings import Settings
from streams.verify.audit import Report, audit
from streams.verify.sources import POSITION_KEY, positions_of
from tests.integration.engine.workers import REPOSITORY, Worker, until

READY = "Worker is ready"


@dataclass
class LedgerInstallation:
    """Topics of a namespace, a producer, and the ledger workers on them."""

    settings: Settings
    folder: Path
    workers: list[Worker] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        topics_admin.apply(self.settings)
        self.topics = Topics(self.settings.namespace)
        self.registry = connect_registry(self.settings)
        self.producer = CreditsProducer(self.settings, registry=self.registry)

    def __enter__(self) -> LedgerInstallation:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def send(self, kind: InputKind, records: Iterable[Mapping[str, Any]]) -> None:
        """Records of one kind, acknowledged when this returns."""
        for fields in records:
            self.producer.produce(kind, INPUTS[kind].from_record(dict(fields)))
            self.sent += kind is not InputKind.PRICE
        self.producer.flush()

    def send_bytes(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Bytes as they are, to the topic that the catalogue calls `topic`."""
        self.producer.produce_raw(self.topics.name(topic), key, value)
        self.producer.flush()
        self.sent += 1

    def environment(self) -> dict[str, str]:
        """Variables of a process that is part of the installation."""
        settings = self.settings
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CREDITS_")},
            "CREDITS_KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
            "CREDITS_NAMESPACE": settings.namespace,
            "CREDITS_PARTITIONS": str(settings.partitions),
        }
        if settings.schema_registry_url is not None:
            variables["CREDITS_SCHEMA_REGISTRY_URL"] = settings.schema_registry_url
        if settings.internal_key is not None:
            variables["CREDITS_INTERNAL_KEY"] = settings.internal_key.get_secret_value()
        return variables

    def worker(self, **more: str) -> Worker:
        """Start one more worker; keywords are more variables of its environment."""
        settings = self.settings
        environment = {
            **self.environment(),
            "CREDITS_SESSION_TIMEOUT_MS": str(settings.session_timeout_ms),
            "CREDITS_CLOCK": settings.clock,
            "CREDITS_DATA_DIR": str(self.folder / f"worker-{len(self.workers)}"),
            **more,
        }
        log = self.folder / f"ledger-worker-{len(self.workers)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "streams", "worker"],
                cwd=REPOSITORY,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.workers.append(Worker(process, log))
        return self.workers[-1]

    def ready_worker(self, **more: str) -> Worker:
        """Start one more worker and wait until it serves."""
        worker = self.worker(**more)
        until(lambda: READY in worker.output or worker.process.poll() is not None, 60, "a ready worker")
        assert READY in worker.output, worker.output
        return worker

    def wait_until_booked(self, timeout_s: float = 90.0) -> None:
        """Wait until every record that was sent has its end: entry, rejection, dead letter or duplicate."""
        until(lambda: self.ended() >= self.sent, timeout_s, f"{self.sent} records booked")
        until(lambda: not self.report().transfers_on_the_way, timeout_s, "transfers that have arrived")

    def ended(self) -> int:
        """How many records sent by `send` and `send_bytes` lie behind the committed positions of the ledger."""
        others = {self.topics.name("prices"), self.topics.name("transfer_legs")}
        found: dict[int | None, bytes] = {}
        for batch in read_range(self.settings, {}, committed_ends(self.settings, [self.topics.name("accounts")])):
            found |= {each.partition(): each.value() or b"" for each in batch if each.key() == POSITION_KEY}
        counted = [positions_of(value).counters for value in found.values()]
        return sum(sum(ends.values()) for each in counted for topic, ends in each.items() if topic not in others)

    def report(self) -> Report:
        """The audit of everything that is committed."""
        return audit(self.settings)

    def rows(self, key: str) -> list[dict[str, Any]]:
        """The committed records of an output topic, decoded, partition by partition."""
        record = BY_KEY[key].record
        assert record is not None
        ends = committed_ends(self.settings, [self.topics.name(key)])
        values = [message.value() for batch in read_range(self.settings, {}, ends) for message in batch]
        decoded = decode_columns(record, values, self.registry)
        assert not decoded.failures
        return rows_of(decoded.batch)

    def dead_letters(self) -> list[DeadLetter]:
        """Every dead letter."""
        return list(read_dead_letters(self.settings))

    def codes(self) -> Counter[str]:
        """Dead letters by code."""
        return Counter(str(letter.code) for letter in self.dead_letters())

    def stop(self) -> None:
        """Kill what still runs."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()


def schema_id(kind: InputKind) -> int:
    """Under which id the built-in registry has the newest schema of a kind."""
    return bundled_id(kind.value)
