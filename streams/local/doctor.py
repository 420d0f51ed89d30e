"""What the system needs from its surroundings, looked at one thing after the other.

The rules of this file: a check changes nothing, takes seconds at most, and says what to do in one sentence. What is
not there because nothing has been started yet is not a fault. A check that rests on a failed one is skipped.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from schemas.codec import RegistryUnavailableError
from schemas.enums import DeadLetterCode
from schemas.partitioner import REMEDY
from schemas.topics import Topics
from streams.errors import KafkaUnavailableError, OperatorError
from streams.text_safety import redacted_address

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from streams.settings import Settings

ANSWER_TIMEOUT_S = 3.0
MINUTE_S = 60.0
DISK_LOW_GIB = 5.0
DISK_FULL_GIB = 0.5
FILES_MIN = 4096
LETTERS_READ_MAX = 1_000
"""How many offsets of each partition of the dead letters are looked at, the newest."""
GIB = 1024**3


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was found, and what to do where something is wrong."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Check]:
    """All checks, in an order in which later ones rest on earlier ones."""
    yield _python()
    yield _variables(settings)
    yield _disk(settings.data_dir)
    yield _files()
    yield from _local_kafka_parts(settings)
    admin, kafka = _kafka(settings)
    yield kafka
    yield _topics(settings, admin)
    yield _registry(settings, admin)
    yield _dead_letters(settings, admin)
    serving = _serving(settings)
    yield _http(settings, serving)
    yield _clickhouse(settings, serving)
    yield _workers(settings, admin)
    yield _projectors(settings, admin)
    yield _partitioners(settings, admin)


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return Check("python", Verdict.OK, found)


def _variables(settings: Settings) -> Check:
    """A setting that is misspelt has no effect and no error of its own: other programs' variables may begin alike."""
    known = {f"CREDITS_{name.upper()}" for name in type(settings).model_fields}
    unknown = sorted(name for name in os.environ if name.startswith("CREDITS_") and name not in known)
    if not unknown:
        return Check("settings", Verdict.OK, "every CREDITS_ variable is one")
    near = [f"{name} (meant {near[0]}?)" if (near := get_close_matches(name, known, 1)) else name for name in unknown]
    return Check("settings", Verdict.NOTE, f"no settings: {', '.join(near)}", "see `credits config show`")


def _disk(data_dir: Path) -> Check:
    place = data_dir.absolute()
    existing = next(each for each in (place, *place.parents) if each.exists())
    free_gib = shutil.disk_usage(existing).free / GIB
    found = f"{free_gib:.1f} GiB free for {place}"
    if not os.access(existing, os.W_OK):
        return Check("data folder", Verdict.FAILED, f"{existing} is not writable", "set CREDITS_DATA_DIR")
    if free_gib < DISK_FULL_GIB:
        return Check("data folder", Verdict.FAILED, found, "free some space, or set CREDITS_DATA_DIR to another disk")
    if free_gib < DISK_LOW_GIB:
        return Check("data folder", Verdict.NOTE, found, "enough to try, little for real use")
    return Check("data folder", Verdict.OK, found)


def _files() -> Check:
    try:
        import resource
    except ImportError:  # not on this system
        return Check("open files", Verdict.SKIPPED, "no limit known")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < FILES_MIN:
        return Check("open files", Verdict.NOTE, f"at most {most}", f"raise it (ulimit -n {FILES_MIN})")
    return Check("open files", Verdict.OK, "no limit" if most == resource.RLIM_INFINITY else f"at most {most:,}")


def _local_kafka_parts(settings: Settings) -> Iterator[Check]:
    from streams.local.broker import BrokerError, LocalBroker, find_java, jars_dir, java_major, kafka_version

    names = ("java", "kafka jars", "broker port")
    if settings.kafka_bootstrap_servers is not None:
        for name in names:
            yield Check(name, Verdict.SKIPPED, "not needed: CREDITS_KAFKA_BOOTSTRAP_SERVERS is set")
        return
    try:
        java = find_java()
        yield Check("java", Verdict.OK, f"version {java_major(java)}, {java}")
    except BrokerError as error:
        yield Check("java", Verdict.FAILED, error.problem, error.remedy)
    if jars_dir().is_dir():
        yield Check("kafka jars", Verdict.OK, f"Apache Kafka {kafka_version()} in {jars_dir()}")
    elif shutil.which("mvn"):
        yield Check("kafka jars", Verdict.OK, f"Maven fetches Apache Kafka {kafka_version()} at the first start")
    else:
        yield Check("kafka jars", Verdict.FAILED, "neither there nor Maven to fetch them", "install Maven (mvn)")
    running = LocalBroker(settings).running()
    if running is not None:
        yield Check("broker port", Verdict.OK, f"{running.port}, our broker listens (process {running.pid})")
    elif _answers("127.0.0.1", settings.broker_port):
        yield Check(
            "broker port",
            Verdict.FAILED,
            f"{settings.broker_port} is taken by another program",
            "set CREDITS_BROKER_PORT, or CREDITS_KAFKA_BOOTSTRAP_SERVERS if that is the Kafka to use",
        )
    else:
        yield Check("broker port", Verdict.OK, f"{settings.broker_port} is free")


def _kafka(settings: Settings) -> tuple[AdminClient | None, Check]:
    from streams.kafka.topics_admin import connect

    if settings.kafka_bootstrap_servers is None and not _answers("127.0.0.1", settings.broker_port):
        return None, Check("kafka", Verdict.NOTE, "not running", "`credits up` starts it")
    try:
        admin = connect(settings, ANSWER_TIMEOUT_S)
    except OperatorError as error:
        return None, Check("kafka", Verdict.FAILED, error.problem, error.remedy)
    metadata = admin.list_topics(timeout=ANSWER_TIMEOUT_S)
    brokers = len(metadata.brokers)
    found = f"{brokers} broker{'s' if brokers != 1 else ''} at {settings.bootstrap_servers}"
    if settings.replication_factor > brokers:
        remedy = f"set CREDITS_REPLICATION_FACTOR to at most {brokers}"
        return admin, Check("kafka", Verdict.FAILED, f"{found}, fewer than the copies wanted", remedy)
    return admin, Check("kafka", Verdict.OK, found)


def _topics(settings: Settings, admin: AdminClient | None) -> Check:
    from streams.kafka import topics_admin

    if admin is None:
        return Check("topics", Verdict.SKIPPED, "no Kafka to ask")
    topics = Topics(settings.namespace)
    counts = topics_admin.partition_counts(admin)
    existing = [name for name in topics.names if name in counts]
    if not existing:
        return Check("topics", Verdict.NOTE, "none yet", "`credits up`, or `credits topics apply`, creates them")
    try:
        topics_admin.check_partitions(topics_admin.wanted_partitions(settings), counts)
    except OperatorError as error:
        return Check("topics", Verdict.FAILED, error.problem, error.remedy)
    missing = [name for name in topics.names if name not in counts]
    if missing:
        found = f"{len(missing)} missing, {missing[0]} the first of them"
        return Check("topics", Verdict.FAILED, found, "run `credits topics apply`")
    differences = topics_admin.compare(admin, topics, existing, settings)
    if differences:
        first = differences[0]
        found = f"{len(differences)} settings differ: {first.topic} has {first.setting}={first.found}"
        essential = any(each.setting in topics_admin.ESSENTIAL for each in differences)
        remedy = "run `credits topics apply --change` unless it is meant"
        return Check("topics", Verdict.FAILED if essential else Verdict.NOTE, found, remedy)
    return Check("topics", Verdict.OK, f"{len(existing)}, {settings.partitions} partitions each")


def _registry(settings: Settings, admin: AdminClient | None) -> Check:
    from streams.kafka.registry import connect_registry
    from streams.kafka.registry_topic import TopicRegistry

    try:
        if settings.schema_registry_url is not None:
            connect_registry(settings).writer(1)
            return Check("registry", Verdict.OK, f"answers at {redacted_address(settings.schema_registry_url)}")
        if (
            admin is None
            or Topics(settings.namespace).name("schemas") not in admin.list_topics(timeout=ANSWER_TIMEOUT_S).topics
        ):
            return Check("registry", Verdict.SKIPPED, "built-in; no topic to read yet")
        registry = TopicRegistry(settings)
        try:
            found = f"built-in, {len(registry.read())} schemas"
        finally:
            registry.close()
        return Check("registry", Verdict.OK, found)
    except RegistryUnavailableError as error:
        remedy = "check CREDITS_SCHEMA_REGISTRY_URL" if settings.schema_registry_url else "see the broker's log"
        return Check("registry", Verdict.FAILED, str(error), remedy)


def _dead_letters(settings: Settings, admin: AdminClient | None) -> Check:
    """How many dead letters came lately: offsets of the topic, so a little more than there are records."""
    from confluent_kafka import KafkaException, TopicPartition
    from confluent_kafka.admin import OffsetSpec

    topic = Topics(settings.namespace).name("dead_letters")
    found = admin.list_topics(timeout=ANSWER_TIMEOUT_S).topics.get(topic) if admin is not None else None
    if admin is None or found is None:
        return Check("dead letters", Verdict.SKIPPED, "no topic to ask")
    places = [TopicPartition(topic, number) for number in found.partitions]
    minute_ago_ms = int((time.time() - MINUTE_S) * 1_000)
    answers = []
    try:
        for which in (OffsetSpec.latest(), OffsetSpec.for_timestamp(minute_ago_ms)):
            asked = admin.list_offsets(dict.fromkeys(places, which), request_timeout=ANSWER_TIMEOUT_S)
            answers.append({each: int(answer.result(ANSWER_TIMEOUT_S).offset) for each, answer in asked.items()})
    except (KafkaException, TimeoutError):
        return Check("dead letters", Verdict.SKIPPED, "the topic was not answered for")
    ends, since = answers
    # No record of the last minute: the answer is below 0.
    lately = sum(ends[place] - since[place] for place in places if since[place] >= 0)
    if lately > settings.dead_letters_per_minute_max:
        rate = f"about {lately:,} within a minute, the limit is {settings.dead_letters_per_minute_max:,}"
        flood = "their input is paused" if settings.dead_letter_flood == "pause" else "workers stop"
        remedy = "find the producer in `credits dead-letters list`"
        return Check("dead letters", Verdict.FAILED, f"{rate}: {flood}", remedy)
    return Check("dead letters", Verdict.OK, f"about {lately:,} within the last minute")


def _serving(settings: Settings) -> dict[str, Any] | None:
    """What `serve` or `api` says of itself; None when nothing answers at its address."""
    host = "127.0.0.1" if settings.http_host in {"0.0.0.0", "::"} else settings.http_host
    host = f"[{host}]" if ":" in host else host
    try:
        answer = httpx.get(f"http://{host}:{settings.http_port}/readyz", timeout=ANSWER_TIMEOUT_S, trust_env=False)
        document = answer.json()
    except (httpx.HTTPError, ValueError):
        return None
    return document if isinstance(document, dict) and "parts" in document else None


def _has_projection(serving: dict[str, Any]) -> bool:
    """It is `serve`, not `api`."""
    return "projection" in serving["parts"]


def _http(settings: Settings, serving: dict[str, Any] | None) -> Check:
    place = f"{settings.http_host}:{settings.http_port}"
    if serving is not None:
        name = "serve" if _has_projection(serving) else "api"
        faults = [f"{part}: {state}" for part, state in serving["parts"].items() if state != "ok"]
        if faults:
            return Check("http", Verdict.FAILED, f"{name} answers at {place}, {faults[0]}", f"see the log of {name}")
        return Check("http", Verdict.OK, f"{name} answers at {place} and is ready")
    if _answers("127.0.0.1", settings.http_port):
        return Check("http", Verdict.FAILED, f"{place} is taken by another program", "set CREDITS_HTTP_PORT")
    return Check("http", Verdict.NOTE, f"{place} is free; serve is not running", "`credits up` starts it")


def _clickhouse(settings: Settings, serving: dict[str, Any] | None) -> Check:
    from projections.clickhouse import ClickHouseUnavailableError, clickhouse_url, connect

    url = redacted_address(clickhouse_url(settings))
    if serving is not None and url.startswith("chdb:"):
        if not _has_projection(serving):
            remedy = "set CREDITS_CLICKHOUSE_URL to the server that `credits projector` writes to"
            return Check("clickhouse", Verdict.NOTE, "none: api answers no questions about the past", remedy)
        return Check("clickhouse", Verdict.OK, f"in the process of serve, {url}")
    folder = Path(url.removeprefix("chdb://"))
    if url.startswith("chdb:") and not folder.exists():
        import chdb

        return Check("clickhouse", Verdict.OK, f"in process, engine {chdb.engine_version}; no data in {folder} yet")
    try:
        client = connect(settings)
    except ClickHouseUnavailableError as error:
        return Check("clickhouse", Verdict.FAILED, str(error), "check CREDITS_CLICKHOUSE_URL, or free the folder")
    try:
        return Check("clickhouse", Verdict.OK, f"version {client.server_version} at {url}")
    finally:
        client.close()


def _workers(settings: Settings, admin: AdminClient | None) -> Check:
    if admin is None:
        return Check("workers", Verdict.SKIPPED, "no Kafka to ask")
    members = _members(admin, settings.app_id)
    if members == 0:
        return Check("workers", Verdict.NOTE, "none runs", "`credits up`, or `credits worker`, starts one")
    if members > settings.partitions:
        return Check("workers", Verdict.NOTE, f"{members} run, more than partitions", "the surplus ones idle")
    return Check("workers", Verdict.OK, f"{members} run")


def _projectors(settings: Settings, admin: AdminClient | None) -> Check:
    """Who folds the ledger into ClickHouse: `serve`, or processes of `projector`."""
    name, start = "projection", "`credits up`, `credits serve` or `credits projector` starts one"
    if admin is None:
        return Check(name, Verdict.SKIPPED, "no Kafka to ask")
    members = _members(admin, settings.projection_id)
    if members == 0:
        return Check(name, Verdict.NOTE, "none runs: ClickHouse is not filled", start)
    if members > settings.partitions:
        return Check(name, Verdict.NOTE, f"{members} run, more than partitions", "the surplus ones idle")
    return Check(name, Verdict.OK, f"{members} run")


def _members(admin: AdminClient, group: str) -> int:
    from streams.kafka.groups import group_members

    try:
        return len(group_members(admin, group, ANSWER_TIMEOUT_S))
    except (KafkaUnavailableError, TimeoutError):
        return 0


def _partitioners(settings: Settings, admin: AdminClient | None) -> Check:
    """Whether the newest dead letters name records in partitions that are not their keys'."""
    from streams.client.dead_letters import newest_dead_letters
    from streams.client.replays import read_replays

    name = "partitioners"
    if (
        admin is None
        or Topics(settings.namespace).name("dead_letters") not in admin.list_topics(timeout=ANSWER_TIMEOUT_S).topics
    ):
        return Check(name, Verdict.SKIPPED, "no dead letters to read yet")
    replayed = read_replays(settings)
    found = Counter(
        (letter.topic, letter.source_partition)
        for letter in newest_dead_letters(settings, LETTERS_READ_MAX)
        if letter.code == DeadLetterCode.WRONG_PARTITION and letter.name not in replayed
    )
    if not found:
        return Check(name, Verdict.OK, "the newest dead letters name no record in a partition that is not its key's")
    (topic, partition), records = found.most_common(1)[0]
    places = f"{topic} partition {partition} ({records:,} records)" + (
        f" and {len(found) - 1} more" if len(found) > 1 else ""
    )
    remedy = f"most likely {REMEDY}; then `credits dead-letters replay --code wrong_partition`"
    return Check(name, Verdict.FAILED, f"records lie in partitions that are not their keys': {places}", remedy)


def _answers(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(ANSWER_TIMEOUT_S)
        return probe.connect_ex((host, port)) == 0
