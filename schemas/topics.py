"""The topic catalogue: every topic's name, record, retention and place in the flow.

Rules of this file: topics, registry subjects and the reference in schemas/README.md are made from `CATALOGUE` and from
nothing else. Names here are without the installation's namespace; `Topics` puts it in front. Every topic has
`CREDITS_PARTITIONS` partitions and is keyed by org (prices: by price id) with murmur2, so that an org's records meet in
one partition; the exceptions are `schemas`, `api_keys` and `dismissals`, with one
partition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from schemas.enums import AlertKind, InputKind

DAY_MS = 24 * 60 * 60 * 1000

RECORD_BYTES_MAX = 1024 * 1024
"""The largest record an input topic takes."""

DEAD_LETTER_BYTES_MAX = 8 * 1024 * 1024
"""A dead letter is an input record that may not compress as well again, and headers (`schemas.dead_letters`)."""

ACCOUNT_BYTES_MAX = 8 * 1024 * 1024
"""The largest state of an account."""

# Kafka compacts closed segments only: what a restart reads is one segment, and the accounts once or twice. A record of
# a small state is some 60 bytes in a compressed segment, so 8 MiB are about 140,000 records, two thirds of a second.
# Compacting as soon as a tenth has changed would copy all the accounts ten times for each change of all of them.
CHANGELOG_CONFIGURATION: Mapping[str, str] = MappingProxyType(
    {
        "segment.bytes": str(8 * 1024 * 1024),
        "segment.index.bytes": str(1024 * 1024),
        "min.cleanable.dirty.ratio": "0.5",
        "delete.retention.ms": str(DAY_MS),
    }
)
"""Small segments that are compacted soon, so that a restart is short."""

# A price must be judged before a later record under its key lets Kafka drop it: stopped workers have a week.
PRICES_CONFIGURATION: Mapping[str, str] = MappingProxyType({"min.compaction.lag.ms": str(7 * DAY_MS)})

# The ledger's producers compress with LZ4, one codec for all topics of a transaction. Not every client can read it.
# The broker unpacks these topics as it writes them: that costs it less than packing them again with gzip.
FOR_EVERY_CLIENT: Mapping[str, str] = MappingProxyType({"compression.type": "uncompressed"})
"""Topics that others read are stored without compression."""

Cleanup = Literal["delete", "compact"]


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic, as it is to be created and documented."""

    key: str
    """How code names it."""
    name: str
    """Name without the namespace."""
    record: str | None
    """Avro record of the values; None: not Avro."""
    retention_ms: int | None
    """None: kept permanently."""
    cleanup: Cleanup
    written_by: str
    read_by: str
    input: bool = False
    """Read by the ledger worker, co-partitioned with the other inputs."""
    single_partition: bool = False
    record_bytes_max: int = RECORD_BYTES_MAX
    internal: bool = False
    more: Mapping[str, str] = field(default_factory=dict)
    """Further configuration of the topic."""

    @property
    def log_append_time(self) -> bool:
        """Whether the broker stamps the records: the ledger's time is the input log's."""
        return self.input

    def configuration(self) -> dict[str, str]:
        """The topic's configuration for Kafka's admin interface."""
        configuration = {
            "cleanup.policy": self.cleanup,
            "message.timestamp.type": "LogAppendTime" if self.log_append_time else "CreateTime",
            "max.message.bytes": str(self.record_bytes_max),
        }
        if self.cleanup == "delete":
            configuration["retention.ms"] = "-1" if self.retention_ms is None else str(self.retention_ms)
            configuration["retention.bytes"] = "-1"
        return configuration | dict(self.more)


CATALOGUE: tuple[Topic, ...] = (
    Topic(
        "usage",
        "credits.usage.v1",
        "usage",
        retention_ms=30 * DAY_MS,
        cleanup="delete",
        written_by="producer services, the HTTP API",
        read_by="the ledger",
        input=True,
    ),
    Topic(
        "purchases",
        "credits.purchases.v1",
        "purchase",
        retention_ms=None,
        cleanup="delete",
        written_by="payment service, the HTTP API",
        read_by="the ledger",
        input=True,
    ),
    Topic(
        "transfers",
        "credits.transfers.v1",
        "transfer",
        retention_ms=None,
        cleanup="delete",
        written_by="admin tools, the HTTP API",
        read_by="the ledger",
        input=True,
    ),
    Topic(
        "refunds",
        "credits.refunds.v1",
        "refund",
        retention_ms=None,
        cleanup="delete",
        written_by="payment service, support, the HTTP API",
        read_by="the ledger",
        input=True,
    ),
    Topic(
        "holds",
        "credits.holds.v1",
        "hold",
        retention_ms=7 * DAY_MS,
        cleanup="delete",
        written_by="gateways, the HTTP API",
        read_by="the ledger",
        input=True,
    ),
    Topic(
        "settings",
        "credits.settings.v1",
        "setting",
        retention_ms=None,
        cleanup="delete",
        written_by="admin tools, the HTTP API",
        read_by="the ledger, the HTTP API",
        input=True,
    ),
    Topic(
        "prices",
        "credits.prices.v1",
        "price",
        retention_ms=None,
        cleanup="compact",
        written_by="admin tools, the HTTP API; key = price id",
        read_by="every worker, projections, the HTTP API",
        input=True,
        more=PRICES_CONFIGURATION,
    ),
    Topic(
        "ledger",
        "credits.ledger.v1",
        "entry",
        retention_ms=None,
        cleanup="delete",
        written_by="the ledger",
        read_by="projections, verify, payment service, subscribers",
    ),
    Topic(
        "alerts_threshold",
        "credits.alerts.threshold.v1",
        "alert",
        retention_ms=90 * DAY_MS,
        cleanup="delete",
        written_by="the ledger",
        read_by="projections, notifiers, the HTTP API",
        more=FOR_EVERY_CLIENT,
    ),
    Topic(
        "alerts_depletion",
        "credits.alerts.depletion.v1",
        "alert",
        retention_ms=90 * DAY_MS,
        cleanup="delete",
        written_by="the ledger",
        read_by="projections, notifiers, the HTTP API",
        more=FOR_EVERY_CLIENT,
    ),
    Topic(
        "alerts_topup",
        "credits.alerts.topup.v1",
        "alert",
        retention_ms=90 * DAY_MS,
        cleanup="delete",
        written_by="the ledger",
        read_by="projections, notifiers, the HTTP API",
        more=FOR_EVERY_CLIENT,
    ),
    Topic(
        "topup_requests",
        "credits.topup-requests.v1",
        "topup_request",
        retention_ms=90 * DAY_MS,
        cleanup="delete",
        written_by="the ledger",
        read_by="payment service",
        more=FOR_EVERY_CLIENT,
    ),
    Topic(
        "decisions",
        "credits.decisions.v1",
        "decision",
        retention_ms=7 * DAY_MS,
        cleanup="delete",
        written_by="the ledger",
        read_by="gateways, the HTTP API",
        more=FOR_EVERY_CLIENT,
    ),
    Topic(
        "balances",
        "credits.balances.v1",
        "balance",
        retention_ms=None,
        cleanup="compact",
        written_by="the ledger; latest per org",
        read_by="projections, gateways, the HTTP API",
        more=FOR_EVERY_CLIENT,
    ),
    Topic(
        "dead_letters",
        "credits.dead-letters.v1",
        None,
        retention_ms=None,
        cleanup="delete",
        written_by="the ledger",
        read_by="projections, `credits dead-letters`",
        record_bytes_max=DEAD_LETTER_BYTES_MAX,
        more=FOR_EVERY_CLIENT,
    ),
    Topic(
        "transfer_legs",
        "credits.internal.transfer-legs.v1",
        "leg",
        retention_ms=None,
        cleanup="delete",
        written_by="the ledger; key = receiving org",
        read_by="the ledger",
        input=True,
        internal=True,
    ),
    Topic(
        "replays",
        "credits.internal.replays.v1",
        None,
        retention_ms=None,
        cleanup="compact",
        written_by="`credits dead-letters replay`; key = the dead letter's partition:offset",
        read_by="`credits dead-letters`, projections",
        internal=True,
    ),
    Topic(
        "dismissals",
        "credits.internal.dismissals.v1",
        None,
        retention_ms=None,
        cleanup="compact",
        written_by="the HTTP API; key = the alert's id",
        read_by="the HTTP API, projections",
        single_partition=True,
        internal=True,
    ),
    Topic(
        "kept_prices",
        "credits.internal.prices.v1",
        "price",
        retention_ms=None,
        cleanup="compact",
        written_by="the ledger; key = price id",
        read_by="every worker, projections, the HTTP API",
        internal=True,
    ),
    Topic(
        "refused_calls",
        "credits.internal.refused-calls.v1",
        None,
        retention_ms=90 * DAY_MS,
        cleanup="delete",
        written_by="the HTTP API; key = the organisation that the call named",
        read_by="projections",
        internal=True,
    ),
    Topic(
        "used_keys",
        "credits.internal.idempotency-keys.v1",
        None,
        retention_ms=2 * DAY_MS,
        cleanup="delete",
        written_by="the HTTP API; key = hash of caller, call and Idempotency-Key",
        read_by="the HTTP API",
        internal=True,
        more=MappingProxyType({"message.timestamp.type": "LogAppendTime"}),
    ),
    Topic(
        "accounts",
        "credits-ledger-accounts-changelog",
        None,
        retention_ms=None,
        cleanup="compact",
        written_by="the ledger",
        read_by="the ledger at its start, the HTTP API",
        record_bytes_max=ACCOUNT_BYTES_MAX,
        internal=True,
        more=CHANGELOG_CONFIGURATION,
    ),
    Topic(
        "api_keys",
        "credits.internal.api-keys.v1",
        None,
        retention_ms=None,
        cleanup="compact",
        written_by="`credits keys`; key = the API key's id",
        read_by="the HTTP API",
        single_partition=True,
        internal=True,
    ),
    Topic(
        "schemas",
        "credits.internal.schemas.v1",
        None,
        retention_ms=None,
        cleanup="compact",
        written_by="the built-in schema registry",
        read_by="everybody who decodes; without another registry",
        single_partition=True,
        internal=True,
    ),
)

BY_KEY: Mapping[str, Topic] = MappingProxyType({topic.key: topic for topic in CATALOGUE})

INPUT_TOPICS: Mapping[InputKind, str] = MappingProxyType(
    {
        InputKind.USAGE: "usage",
        InputKind.PURCHASE: "purchases",
        InputKind.TRANSFER: "transfers",
        InputKind.REFUND: "refunds",
        InputKind.HOLD: "holds",
        InputKind.SETTING: "settings",
        InputKind.PRICE: "prices",
    }
)
"""Topic key of each kind of input record."""

ALERT_TOPICS: Mapping[AlertKind, str] = MappingProxyType(
    {
        AlertKind.THRESHOLD_CROSSED: "alerts_threshold",
        AlertKind.BALANCE_LOW: "alerts_threshold",
        AlertKind.LIMIT_ALERT: "alerts_threshold",
        AlertKind.LIMIT_REACHED: "alerts_threshold",
        AlertKind.BUDGET_REACHED: "alerts_threshold",
        AlertKind.FREE_EXPIRED: "alerts_threshold",
        AlertKind.EXPIRING: "alerts_threshold",
        AlertKind.RESOLVED: "alerts_threshold",
        AlertKind.DAYS_LEFT: "alerts_threshold",
        AlertKind.BALANCE_DEPLETED: "alerts_depletion",
        AlertKind.NEGATIVE_LIMIT_CROSSED: "alerts_depletion",
        AlertKind.BALANCE_RESTORED: "alerts_depletion",
        AlertKind.AUTO_RECHARGE_TRIGGERED: "alerts_topup",
        AlertKind.PURCHASE_FAILED: "alerts_topup",
        AlertKind.AUTO_RECHARGE_CAPPED: "alerts_topup",
    }
)
"""Topic key of each kind of alert."""


class Topics:
    """The catalogue as one installation sees it: names with its namespace in front."""

    def __init__(self, namespace: str = "") -> None:
        self.namespace = namespace
        self._by_name = {f"{namespace}{topic.name}": topic for topic in CATALOGUE}

    def name(self, key: str) -> str:
        """Physical name of the topic that code calls `key`; KeyError when there is none."""
        return f"{self.namespace}{BY_KEY[key].name}"

    def subject(self, key: str) -> str:
        """Registry subject of the topic's values (TopicNameStrategy)."""
        return f"{self.name(key)}-value"

    def topic(self, name: str) -> Topic | None:
        """The catalogue's line of a physical name, or None when it is not ours."""
        return self._by_name.get(name)

    @property
    def names(self) -> list[str]:
        """Every physical name, in the catalogue's order."""
        return list(self._by_name)

    @property
    def inputs(self) -> list[str]:
        """Physical names of the topics that the ledger reads, co-partitioned."""
        return [name for name, topic in self._by_name.items() if topic.input]

    @property
    def subjects(self) -> dict[str, str]:
        """Record name of each registry subject."""
        return {f"{name}-value": topic.record for name, topic in self._by_name.items() if topic.record is not None}
