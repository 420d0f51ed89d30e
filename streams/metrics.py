"""The worker's metrics, in Prometheus' words.

Rules of this file: names are a closed set, listed in docs/reference; units last in the name; labels have few values
(topics, partitions, outcomes), never an org.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from streams.engine.ports import EngineMetrics, NoticeName, OutcomeName

STEP_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class PrometheusMetrics(EngineMetrics):
    """The engine's counters as Prometheus metrics."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._records = Counter(
            "credits_input_records_total",
            "Input records by how they ended: entries, rejected, dead_letters, duplicates",
            ("topic", "outcome"),
            registry=registry,
        )
        self._wrong_partition = Counter(
            "credits_wrong_partition_records_total",
            "Input records in a partition that is not their key's by murmur2; each is a dead letter wrong_partition",
            ("topic", "partition"),
            registry=registry,
        )
        self._old_ids = Counter(
            "credits_old_id_records_total",
            "Usage booked under an id (UUIDv7, ULID) made more than CREDITS_USAGE_WINDOW_HOURS before it arrived: what "
            "was booked then is booked twice",
            ("topic", "partition"),
            registry=registry,
        )
        self._batches = Counter("credits_transactions_total", "Committed transactions", registry=registry)
        self._phase = Histogram(
            "credits_batch_phase_seconds",
            "Time of a batch in each phase: gather, step, commit",
            ("phase",),
            buckets=STEP_SECONDS_BUCKETS,
            registry=registry,
        )
        self._paused = Gauge(
            "credits_input_paused",
            "1 while an input is paused for a flood of dead letters",
            ("topic", "partition"),
            registry=registry,
        )
        self._owned = Gauge("credits_partitions_owned", "Partitions this worker serves", registry=registry)
        self._queued = Gauge(
            "credits_queued_records", "Records waiting to be decided", ("partition",), registry=registry
        )
        self._restored = Histogram("credits_restore_seconds", "Time to restore a partition's state", registry=registry)
        self._accounts = Gauge("credits_accounts", "Accounts of a partition", ("partition",), registry=registry)
        self._stalled = Gauge(
            "credits_input_stalled_seconds",
            "How long records of an input have waited behind an open transaction of some producer",
            ("topic", "partition"),
            registry=registry,
        )
        self._seen_ids = Gauge("credits_seen_ids", "Ids remembered in a partition", ("partition",), registry=registry)

    def batch(self, partition: int, records: int, gather_s: float, step_s: float, commit_s: float) -> None:
        """One committed transaction."""
        self._batches.inc()
        for phase, seconds in (("gather", gather_s), ("step", step_s), ("commit", commit_s)):
            self._phase.labels(phase).observe(seconds)

    def outcome(self, topic: str, outcome: OutcomeName, records: int) -> None:
        """Committed ends of input records."""
        self._records.labels(topic, outcome).inc(records)

    def noticed(self, topic: str, partition: int, notice: NoticeName, records: int) -> None:
        """Committed records that an operator should know of."""
        counter = {"wrong_partition": self._wrong_partition, "old_id": self._old_ids}[notice]
        counter.labels(topic, str(partition)).inc(records)

    def paused(self, topic: str, partition: int, paused: bool) -> None:
        """Whether an input is paused for its dead letters."""
        self._paused.labels(topic, str(partition)).set(int(paused))

    def partitions(self, owned: int) -> None:
        """How many partitions this worker serves."""
        self._owned.set(owned)

    def queued(self, partition: int, records: int) -> None:
        """Records waiting in a partition's queue."""
        self._queued.labels(str(partition)).set(records)

    def restored(self, partition: int, accounts: int, seen_ids: int, seconds: float) -> None:
        """One partition restored from Kafka."""
        self._restored.observe(seconds)
        self._accounts.labels(str(partition)).set(accounts)
        self._seen_ids.labels(str(partition)).set(seen_ids)

    def stalled(self, topic: str, partition: int, seconds: float) -> None:
        """How long records of an input have waited behind an open transaction; 0 when none waits."""
        self._stalled.labels(topic, str(partition)).set(seconds)
