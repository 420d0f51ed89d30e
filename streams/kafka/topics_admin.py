"""The topics of an installation: created from the catalogue, and checked against it.

The rules of this file:
1. Every topic is made from `schemas.topics.CATALOGUE`; nothing else creates topics.
2. The number of partitions never changes after creation: an org's records would move to another partition than its
   state. Where it disagrees with the settings, everything refuses to start and names the setting.
3. Settings that the ledger's correctness rests on (`ESSENTIAL`) must be as the catalogue says. Others, such as
   retention, are an operator's choice: a difference is reported, and changed only on request.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from schemas.topics import Topic, Topics
from streams.errors import KafkaUnavailableError, SettingRefusedError
from streams.kafka.clients import admin_config, offsets_answered

if TYPE_CHECKING:
    from concurrent.futures import Future

    from streams.settings import Settings

ANSWER_TIMEOUT_S = 10.0
CREATE_TIMEOUT_S = 60.0
POLL_S = 0.05

# LogAppendTime: the ledger's clock is the input log's. cleanup.policy: a compacted ledger is no ledger.
ESSENTIAL = ("cleanup.policy", "message.timestamp.type")

# The farthest that a producer's time may lie ahead of the broker's: as far as can be said.
AHEAD_MS_MAX = 2**63 - 1

Result = TypeVar("Result")


@dataclass(frozen=True)
class Difference:
    """A topic's setting that is not as the catalogue says."""

    topic: str
    setting: str
    wanted: str
    found: str


@dataclass(frozen=True)
class Applied:
    """What `apply` found and did."""

    created: list[str] = field(default_factory=list)
    existing: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    changed: list[Difference] = field(default_factory=list)


def apply(settings: Settings, *, change: bool = False) -> Applied:
    """Create the topics that are missing and check the rest; with `change`, set what differs.

    1. Ask which topics exist. 2. Refuse a wrong number of partitions. 3. Create what is missing and wait for leaders.
    4. Compare the settings of those that existed. A crash anywhere costs nothing: the next call goes on.

    Raises `KafkaUnavailableError` when no broker answers, `SettingRefusedError` for what must not be gone on with.
    """
    admin = connect(settings)
    topics = Topics(settings.namespace)
    found = partition_counts(admin)
    wanted = wanted_partitions(settings)
    check_partitions(wanted, found)
    missing = [name for name in wanted if name not in found]
    if missing:
        _create(admin, [_new_topic(topics, name, wanted[name], settings) for name in missing])
        _wait_for_leaders(admin, wanted, time.monotonic() + CREATE_TIMEOUT_S)
    existing = [name for name in wanted if name in found]
    differences = compare(admin, topics, existing, settings)
    changed = _change(admin, differences) if change else []
    left = [each for each in differences if each not in changed]
    for each in left:
        if each.setting in ESSENTIAL:
            raise SettingRefusedError(
                f"topic {each.topic} has {each.setting}={each.found}, and the ledger needs {each.wanted}",
                "run `credits topics apply --change`",
            )
    return Applied(missing, existing, left, changed)


def connect(settings: Settings, timeout_s: float = ANSWER_TIMEOUT_S) -> AdminClient:
    """An admin client whose broker has answered; raises `KafkaUnavailableError` when none does in time."""
    admin = AdminClient({**admin_config(settings), "log_level": 0})
    try:
        admin.list_topics(timeout=timeout_s)
    except KafkaException as error:
        raise unavailable(settings, error) from error
    return admin


def unavailable(settings: Settings, error: KafkaException) -> KafkaUnavailableError:
    """The error to tell when Kafka does not answer."""
    given = settings.kafka_bootstrap_servers is not None
    remedy = "check CREDITS_KAFKA_BOOTSTRAP_SERVERS and the login" if given else "start it with `credits up`"
    return KafkaUnavailableError(f"no Kafka answers at {settings.bootstrap_servers} ({error.args[0].str()})", remedy)


def partition_counts(admin: AdminClient) -> dict[str, int]:
    """The number of partitions of every topic of the cluster."""
    metadata = admin.list_topics(timeout=ANSWER_TIMEOUT_S)
    return {name: len(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None}


def wanted_partitions(settings: Settings) -> dict[str, int]:
    """The number of partitions that every topic of this installation has."""
    topics = Topics(settings.namespace)
    return {name: 1 if topic.single_partition else settings.partitions for name, topic in _topics(topics)}


def check_partitions(wanted: Mapping[str, int], found: Mapping[str, int]) -> None:
    """Raise `SettingRefusedError` where an existing topic has another number of partitions than it must."""
    wrong = [name for name, count in wanted.items() if name in found and found[name] != count]
    if not wrong:
        return
    counts = {found[name] for name in wrong if wanted[name] > 1}
    name = wrong[0]
    if len(counts) == 1 and all(found.get(each, next(iter(counts))) in counts for each in wanted if wanted[each] > 1):
        remedy = f"set CREDITS_PARTITIONS={counts.pop()}: the number is fixed when the topics are created"
    else:
        remedy = "the topics disagree with each other; use another CREDITS_NAMESPACE, or recreate them"
    problem = f"topic {name} has {found[name]} partitions, CREDITS_PARTITIONS says {wanted[name]}"
    raise SettingRefusedError(problem, remedy)


def compare(admin: AdminClient, topics: Topics, names: Sequence[str], settings: Settings) -> list[Difference]:
    """The settings of existing topics that are not as the catalogue says."""
    if not names:
        return []
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    differences = []
    for resource, future in admin.describe_configs(resources, request_timeout=ANSWER_TIMEOUT_S).items():
        have = {name: entry.value for name, entry in _answer(future).items()}
        topic = topics.topic(resource.name)
        assert topic is not None
        for setting, value in _configuration(topic, settings).items():
            if have.get(setting) != value:
                differences.append(Difference(resource.name, setting, value, str(have.get(setting))))
    return differences


def _configuration(topic: Topic, settings: Settings) -> dict[str, str]:
    """What the catalogue says; with `CREDITS_CLOCK=log` producers set the time of their records.

    Then nothing expires: the broker would hold a replayed year's times against today's date.
    """
    configuration = topic.configuration()
    if settings.clock == "log":
        configuration["message.timestamp.type"] = "CreateTime"
        configuration["message.timestamp.after.max.ms"] = str(AHEAD_MS_MAX)
        if "retention.ms" in configuration:
            configuration["retention.ms"] = "-1"
    return configuration


def _topics(topics: Topics) -> list[tuple[str, Topic]]:
    pairs = [(name, topics.topic(name)) for name in topics.names]
    return [(name, topic) for name, topic in pairs if topic is not None]


def _new_topic(topics: Topics, name: str, partitions: int, settings: Settings) -> NewTopic:
    topic = topics.topic(name)
    assert topic is not None
    configuration = _configuration(topic, settings)
    if settings.replication_factor >= 3:
        # One copy may be away without stopping writes, and no acknowledged write is on one disk only.
        configuration["min.insync.replicas"] = "2"
    return NewTopic(name, partitions, replication_factor=settings.replication_factor, config=configuration)


def _create(admin: AdminClient, new: list[NewTopic]) -> None:
    for name, future in admin.create_topics(new, operation_timeout=CREATE_TIMEOUT_S).items():
        try:
            _answer(future)
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.TOPIC_ALREADY_EXISTS:  # another process starts at the same time
                continue
            if code == KafkaError.INVALID_REPLICATION_FACTOR:
                raise SettingRefusedError(
                    f"Kafka cannot keep that many copies of {name} ({error.args[0].str()})",
                    "set CREDITS_REPLICATION_FACTOR to at most the number of brokers",
                ) from error
            raise SettingRefusedError(
                f"Kafka does not create topic {name} ({error.args[0].str()})",
                "check that CREDITS_KAFKA_SASL_USERNAME may create topics, or have them created as the catalogue says",
            ) from error


def _wait_for_leaders(admin: AdminClient, wanted: Mapping[str, int], deadline: float) -> None:
    def ready(metadata: Any) -> bool:
        for name, count in wanted.items():
            topic = metadata.topics.get(name)
            if topic is None or topic.error is not None or len(topic.partitions) != count:
                return False
            if any(partition.leader < 0 for partition in topic.partitions.values()):
                return False
        return True

    def serving() -> bool:
        """Whether the leaders know that they lead: for a moment after its creation a partition refuses everybody."""
        every = {TopicPartition(name, each): OffsetSpec.latest() for name in wanted for each in range(wanted[name])}
        try:
            offsets_answered(admin.list_offsets(every, request_timeout=ANSWER_TIMEOUT_S), CREATE_TIMEOUT_S)
        except KafkaException:
            return False
        return True

    while not (ready(admin.list_topics(timeout=ANSWER_TIMEOUT_S)) and serving()):
        if time.monotonic() > deadline:
            raise KafkaUnavailableError("the new topics have no leader yet", "try again, or look at the brokers' logs")
        time.sleep(POLL_S)
    check_partitions(wanted, partition_counts(admin))


def _change(admin: AdminClient, differences: Sequence[Difference]) -> list[Difference]:
    by_topic: dict[str, list[Difference]] = {}
    for each in differences:
        by_topic.setdefault(each.topic, []).append(each)
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            name,
            incremental_configs=[
                ConfigEntry(each.setting, each.wanted, incremental_operation=AlterConfigOpType.SET) for each in changes
            ],
        )
        for name, changes in by_topic.items()
    ]
    if resources:
        for future in admin.incremental_alter_configs(resources, request_timeout=ANSWER_TIMEOUT_S).values():
            _answer(future)
    return list(differences)


def _answer(future: Future[Result]) -> Result:
    return future.result(timeout=CREATE_TIMEOUT_S)
