"""A small installation for the engine's tests: topics, counting workers as processes, and an auditor of the output."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from streams.engine.internal_topics import changelog_topic
from streams.engine.positions import POSITION_KEY, PositionRecord, decode_position
from streams.kafka.clients import admin_config, consumer_config, producer_config
from streams.settings import Settings
from tests.integration.engine.counting import input_topics, output_topic

REPOSITORY = Path(__file__).parents[3]
POLL_S = 0.05


def until(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Wait for a condition; fails the test, saying what was waited for.

    A condition that is expensive is not asked more than half of the time: what is waited for needs the processor, too.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        asked = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        assert now < deadline, f"waited {timeout_s} s for: {what}"
        time.sleep(max(POLL_S, now - asked))


@dataclass
class Worker:
    """One worker process and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        """Everything it has logged."""
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(10)

    def ends_with(self, timeout_s: float) -> int:
        """Wait for the process to end by itself; its exit code."""
        return self.process.wait(timeout_s)


@dataclass
class Installation:
    """Topics of a namespace, what was sent to them, and the workers on them."""

    settings: Settings
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    sent: int = 0
    workers: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inputs = input_topics(self.settings)
        self.output = output_topic(self.settings)
        self.random = random.Random(1)

    def create_topics(self, **configs: dict[str, str]) -> None:
        """The inputs and the output; a keyword names a topic without namespace and gives its configuration."""
        new = []
        for name in (*self.inputs, self.output):
            config = {"message.timestamp.type": "LogAppendTime" if name != self.output else "CreateTime"}
            config |= configs.get(name.removeprefix(self.settings.namespace), {})
            new.append(NewTopic(name, self.settings.partitions, 1, config=config))
        # The client must outlive its answers.
        admin = AdminClient(admin_config(self.settings))
        for future in admin.create_topics(new).values():
            future.result(30)

    def worker(self, **environment: str) -> Worker:
        """Start one more worker; keywords are more variables of its environment."""
        settings = self.settings
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CREDITS_")},
            "CREDITS_KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
            "CREDITS_NAMESPACE": settings.namespace,
            "CREDITS_PARTITIONS": str(settings.partitions),
            "CREDITS_SESSION_TIMEOUT_MS": str(settings.session_timeout_ms),
            "CREDITS_DATA_DIR": str(self.folder / f"worker-{len(self.workers)}"),
            **self.environment,
            **environment,
        }
        log = self.folder / f"worker-{len(self.workers)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.engine.counting"],
                cwd=REPOSITORY,
                env=variables,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.workers.append(Worker(process, log))
        return self.workers[-1]

    def ready_worker(self, **environment: str) -> Worker:
        """Start one more worker and wait until it serves."""
        worker = self.worker(**environment)
        until(lambda: "Worker is ready" in worker.output, 40, f"a ready worker:\n{worker.output}")
        return worker

    def send(self, records: int, orgs: int = 50, duplicates: int = 0) -> None:
        """Send that many new records to random inputs, and some of the earlier ones again."""
        values = [b"v%d" % number for number in range(self.sent, self.sent + records)]
        self.sent += records
        pairs = [(f"o{self.random.randrange(orgs)}", value) for value in values]
        pairs += self.random.choices(pairs, k=duplicates)
        self.send_values([(org, value, self.inputs[hash(value) % 2]) for org, value in pairs])

    def send_values(self, records: Sequence[tuple[str, bytes, str]]) -> None:
        """Send (org, value, topic)."""
        producer = Producer(producer_config(self.settings))
        for org, value, topic in records:
            producer.produce(topic, key=org.encode(), value=value)
            producer.poll(0)
        assert producer.flush(30) == 0

    def outputs(self) -> Iterator[Message]:
        """The committed records of the output topic, as of now, partition by partition."""
        for number in range(self.settings.partitions):
            yield from self.read(self.output, number)

    def read(self, topic: str, number: int) -> list[Message]:
        """The committed records of one partition, as of now."""
        consumer = Consumer(
            consumer_config(self.settings, f"{self.settings.namespace}audit", enable_partition_eof=True)
        )
        try:
            consumer.assign([TopicPartition(topic, number, 0)])
            records: list[Message] = []
            while True:
                for message in consumer.consume(10_000, 0.05):
                    if message.error() is not None:
                        return records
                    records.append(message)
        finally:
            consumer.close()

    def copy(self, topic: str) -> list[list[Message]]:
        """The committed records of a topic, partition by partition."""
        return [self.read(topic, number) for number in range(self.settings.partitions)]

    def position(self, number: int) -> PositionRecord | None:
        """The committed position record of a partition."""
        values = [
            record.value()
            for record in self.read(changelog_topic(self.settings.app_id), number)
            if record.key() == POSITION_KEY
        ]
        return decode_position(bytes(values[-1])) if values else None

    def stop(self) -> None:
        """Kill what still runs."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.signal(signal.SIGCONT)
                worker.kill()


@dataclass(frozen=True)
class Audit:
    """What the output topic says."""

    counted: int
    doubled: int
    broken: int
    ticks: list[tuple[str, int, int]]
    others: list[bytes]


def audit(installation: Installation) -> Audit:
    """Read the whole output: each source offset at most once, each org's counts without a gap."""
    sources: Counter[tuple[str, int, int]] = Counter()
    counts: dict[bytes, int] = {}
    broken = 0
    ticks: list[tuple[str, int, int]] = []
    others: list[bytes] = []
    for record in installation.outputs():
        key, value = record.key(), record.value()
        assert isinstance(key, bytes)
        assert isinstance(value, bytes)
        first, *rest = value.split(b"|")
        if first == b"tick":
            ticks.append((key.decode(), int(rest[0]), int(rest[1])))
        elif not first.isdigit():
            others.append(value)
        else:
            sources[rest[0].decode(), int(record.partition() or 0), int(rest[1])] += 1
            broken += int(first) != counts.get(key, 0) + 1
            counts[key] = int(first)
    return Audit(len(sources), sum(sources.values()) - len(sources), broken, ticks, others)


def wait_for_counts(installation: Installation, records: int, timeout_s: float = 60.0) -> Audit:
    """Wait until that many records are in the output; then the audit, which must be clean."""
    consumer = Consumer(consumer_config(installation.settings, f"{installation.settings.namespace}wait"))
    try:

        def enough() -> bool:
            ends = 0
            for number in range(installation.settings.partitions):
                try:
                    _, high = consumer.get_watermark_offsets(TopicPartition(installation.output, number), 10)
                except KafkaException:
                    return False
                ends += high
            return ends >= records and audit(installation).counted >= records

        until(enough, timeout_s, f"{records} records in the output")
    finally:
        consumer.close()
    found = audit(installation)
    assert (found.counted, found.doubled, found.broken) == (records, 0, 0)
    return found
