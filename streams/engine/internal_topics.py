"""The engine's own topics: the account changelog, one topic of seen ids per window, and one to ask for the time.

Names begin with the app id, so that two installations share nothing. Both have the inputs' number of partitions, and
partition p belongs to the owner of input partition p.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.topics import BY_KEY
from streams.engine.ports import SeenWindow
from streams.engine.seen import BUCKETS_PER_WINDOW
from streams.engine.transaction import MESSAGE_BYTES_MAX
from streams.errors import KafkaUnavailableError, SettingRefusedError
from streams.kafka.clients import admin_config
from streams.settings import Settings

ANSWER_TIMEOUT_S = 30.0
SEGMENT_MS_MIN = 60 * 60 * 1000
CLOCK_RETENTION_MS = 60 * 60 * 1000


def changelog_topic(app_id: str) -> str:
    """The topic of account states and positions; its name is what Faust gives to a table called `accounts`."""
    return f"{app_id}-accounts-changelog"


def seen_topic(app_id: str, window: str) -> str:
    """The topic of seen ids of one window."""
    return f"{app_id}-seen-{window}"


def clock_topic(app_id: str) -> str:
    """The topic that workers write to, to learn the broker's time; it is never read."""
    return f"{app_id}-clock"


def changelog_config() -> dict[str, str]:
    """Compacted soon and in small segments, so that a restart is short; as the catalogue says."""
    return BY_KEY["accounts"].configuration()


def seen_config(window: SeenWindow) -> dict[str, str]:
    """Kept permanently by Kafka: what has passed the window by the ledger's own clock is deleted by `trim`."""
    bucket_ms = window.window_us // 1000 // BUCKETS_PER_WINDOW
    return {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "segment.ms": str(max(SEGMENT_MS_MIN, bucket_ms)),
        "max.message.bytes": str(MESSAGE_BYTES_MAX),
    }


def clock_config() -> dict[str, str]:
    """Stamped by the broker, and soon deleted."""
    return {
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": "delete",
        "retention.ms": str(CLOCK_RETENTION_MS),
        "segment.ms": str(CLOCK_RETENTION_MS),
    }


def prepare_topics(
    settings: Settings, inputs: Iterable[str], outputs: Iterable[str], windows: Sequence[SeenWindow]
) -> int:
    """Check that all topics agree on the number of partitions, create the engine's own; returns that number.

    Raises `SettingRefusedError` where topics are missing or disagree, `KafkaUnavailableError` when no broker answers.
    """
    admin = AdminClient({**admin_config(settings), "log_level": 0})
    try:
        existing = _partition_counts(admin)
        own = {changelog_topic(settings.app_id): changelog_config()}
        own[clock_topic(settings.app_id)] = clock_config()
        own |= {seen_topic(settings.app_id, window.name): seen_config(window) for window in windows}
        given = {name: existing.get(name) for name in (*inputs, *outputs)}
        check_partitions(settings.partitions, given, {name: existing[name] for name in own if name in existing})
        _create(admin, settings, {name: config for name, config in own.items() if name not in existing})
    except KafkaException as failure:
        error = failure.args[0]
        raise KafkaUnavailableError(
            f"no Kafka answers at {settings.bootstrap_servers} ({error.str()})", "check that it runs"
        ) from failure
    return settings.partitions


def check_partitions(partitions: int, given: Mapping[str, int | None], own: Mapping[str, int]) -> None:
    """Refuses, naming the setting, unless every topic has `partitions` partitions."""
    missing = [name for name, count in given.items() if count is None]
    if missing:
        raise SettingRefusedError(f"topic {missing[0]} does not exist", "run `credits topics apply`")
    for name, count in (*given.items(), *own.items()):
        if count != partitions:
            raise SettingRefusedError(
                f"topic {name} has {count} partitions, CREDITS_PARTITIONS says {partitions}",
                f"set CREDITS_PARTITIONS={count}: all topics must have the number they were created with"
                if len({*given.values(), *own.values()}) == 1
                else "the topics disagree with each other; use another CREDITS_NAMESPACE, or recreate them",
            )


def _partition_counts(admin: AdminClient) -> dict[str, int]:
    metadata = admin.list_topics(timeout=ANSWER_TIMEOUT_S)
    return {name: len(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None}


def _create(admin: AdminClient, settings: Settings, missing: Mapping[str, dict[str, str]]) -> None:
    if not missing:
        return
    replicas = settings.replication_factor
    extra = {"min.insync.replicas": "2"} if replicas >= 3 else {}
    new = [
        NewTopic(name, settings.partitions, replication_factor=replicas, config={**config, **extra})
        for name, config in missing.items()
    ]
    created: dict[str, Future[Any]] = admin.create_topics(new, operation_timeout=ANSWER_TIMEOUT_S)
    for name, future in created.items():
        try:
            future.result(timeout=ANSWER_TIMEOUT_S)
        except KafkaException as failure:
            error = failure.args[0]
            # Several workers start at once; the first one has created the same topic.
            if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise SettingRefusedError(
                    f"Kafka does not create {name} ({error.str()})", "let the ledger's Kafka user create it"
                ) from failure
