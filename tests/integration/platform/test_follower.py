"""A follower with a name: nothing is missed while it is away, and each alert is handed out once. On a real broker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.codec import decode_one, encode_one
from schemas.enums import AlertKind
from schemas.records import BundledSchemas, bundled_id
from schemas.topics import Topics
from streams.client.follower import Follower, PositionLostError
from streams.kafka import topics_admin
from streams.kafka.clients import admin_config, producer_config
from streams.settings import Settings
from tests.integration.engine.workers import REPOSITORY

SOON_S = 20.0
SCHEMAS = BundledSchemas()


def alert(alert_id: str) -> bytes:
    fields: dict[str, Any] = {
        "alert_id": alert_id,
        "org_id": "acme",
        "wallet": "USD",
        "kind": AlertKind.THRESHOLD_CROSSED.value,
    }
    fields |= {"balance_nanos": 0, "available_nanos": 0, "occurred_at": 1_700_000_000_000_000, "entry_seq": 1}
    return encode_one("alert", fields, bundled_id("alert"))


def alert_id(message: Message) -> str:
    return str(decode_one("alert", message.value(), SCHEMAS)["alert_id"])


@pytest.fixture
def topic(settings: Settings) -> str:
    topics_admin.apply(settings)
    return Topics(settings.namespace).name("alerts_threshold")


class Writer:
    """Writes alerts as the ledger does: in transactions."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._topic = topic
        self._producer = Producer(producer_config(settings, transactional_id=f"{settings.namespace}test"))
        self._producer.init_transactions(20)

    def write(self, *ids: str, partition: int = 0, commit: bool = True) -> None:
        """One transaction with these alerts."""
        self._producer.begin_transaction()
        for each in ids:
            self._producer.produce(self._topic, key=b"acme", value=alert(each), partition=partition)
        self._producer.flush(20)
        (self._producer.commit_transaction if commit else self._producer.abort_transaction)(20)


@pytest.fixture
def write(settings: Settings, topic: str) -> Callable[..., None]:
    return Writer(settings, topic).write


def follow(settings: Settings, topic: str, **more: Any) -> Follower:
    return Follower(settings, [topic], name="mail", id_of=alert_id, **more)


def handed(follower: Follower, count: int) -> list[str]:
    """The ids of the next `count` alerts."""
    found: list[str] = []
    deadline = time.monotonic() + SOON_S
    while len(found) < count and time.monotonic() < deadline:
        found += map(alert_id, follower.next(0.2))
    return found


@pytest.mark.fault(
    "subscriber-down",
    title="A subscriber that is down for a while",
    provoked="alerts are committed, and one is aborted, while nobody follows under the name",
    holds="the next follower of the name gets each committed one",
)
def test_a_subscriber_that_was_down_misses_nothing(
    settings: Settings, topic: str, write: Callable[..., None], seen: Callable[[str], None]
) -> None:
    write("before")
    with follow(settings, topic) as first:
        assert handed(first, 1) == ["before"]
        first.commit()
    write("aborted", commit=False)
    write("away-1", "away-2")
    write("away-3", partition=1)
    with follow(settings, topic) as second:
        assert sorted(handed(second, 3)) == ["away-1", "away-2", "away-3"]
        second.commit()
        write("live")
        assert handed(second, 1) == ["live"]
    seen("3 of 3 alerts handed out after the restart, the aborted one never")


def test_what_was_not_committed_is_handed_out_again(settings: Settings, topic: str, write: Callable[..., None]) -> None:
    """The cost of a crash between handling and commit: repeats with the same ids, no gap."""
    write("a", "b", "c")
    with follow(settings, topic) as crashing:
        assert handed(crashing, 3) == ["a", "b", "c"]
    with follow(settings, topic) as one_by_one:
        while not (first := one_by_one.next(0.2, records_max=1)):
            pass
        assert alert_id(first[0]) == "a"
        one_by_one.commit()
        while not (second := one_by_one.next(0.2, records_max=1)):
            pass
        assert alert_id(second[0]) == "b"
    with follow(settings, topic) as last:
        assert handed(last, 2) == ["b", "c"]


KILLED = """
import sys
from pathlib import Path
from streams.settings import Settings
from tests.integration.platform.test_follower import alert_id, follow
with follow(Settings(_env_file=None), sys.argv[1]) as follower:
    while True:
        for message in follower.next(0.2, records_max=1):
            print(alert_id(message), flush=True)
            sys.stdin.readline()
        follower.commit()
"""


@pytest.mark.slow
@pytest.mark.fault(
    "subscriber-killed",
    title="kill -9 of a subscriber between handling an alert and saying so",
    provoked="SIGKILL after the second of three alerts was handled, before its commit",
    holds="the second comes again under the same id, the third once, none is lost",
)
def test_kill_9_between_handling_and_commit_repeats_one_alert_and_loses_none(
    settings: Settings, topic: str, write: Callable[..., None], seen: Callable[[str], None]
) -> None:
    write("a", "b", "c")
    environment = {
        **os.environ,
        "CREDITS_KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "CREDITS_NAMESPACE": settings.namespace,
    }
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, topic],
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == "a\n"
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.stdout.readline() == "b\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    # Kafka notices that the killed one is gone after its session; a new member waits for that.
    with follow(settings, topic) as after:
        found: list[str] = []
        deadline = time.monotonic() + 90
        while len(found) < 2 and time.monotonic() < deadline:
            found += map(alert_id, after.next(0.2))
    assert found == ["b", "c"]
    seen("handed out a, b, then b and c again after the kill")


def test_an_id_is_handed_out_once(
    settings: Settings, topic: str, write: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.client.follower.IDS_MAX", 3)
    write("a", "b")
    with follow(settings, topic) as follower:
        assert handed(follower, 2) == ["a", "b"]
        write("b", "a", "c")
        assert handed(follower, 1) == ["c"]
        write("d", "a", "end")
        assert handed(follower, 3) == ["d", "a", "end"]  # of the last three ids, "a" is none any more
        assert len(follower._ids) == 3


def test_two_followers_of_a_name_share_and_each_alert_is_handed_out_once(
    settings: Settings, topic: str, write: Callable[..., None]
) -> None:
    """Partitions change hands in the middle: what was committed is not repeated, what was not is deduplicated."""
    for partition in range(settings.partitions):
        write(*(f"{partition}-{number}" for number in range(5)), partition=partition)
    with follow(settings, topic) as first:
        found = handed(first, 5 * settings.partitions)
        first.commit()
        with follow(settings, topic) as second:
            late: list[str] = []
            for partition in range(settings.partitions):
                write(f"late-{partition}", partition=partition)
            deadline = time.monotonic() + SOON_S
            parts = {id(first): 0, id(second): 0}
            while len(late) < settings.partitions and time.monotonic() < deadline:
                for each in (first, second):
                    ids = [alert_id(message) for message in each.next(0.05)]
                    parts[id(each)] += len(ids)
                    late += ids
                    each.commit()
    assert sorted(found) == sorted(f"{p}-{n}" for p in range(settings.partitions) for n in range(5))
    assert sorted(late) == sorted(f"late-{p}" for p in range(settings.partitions))


def test_a_position_that_retention_passed_is_an_error(
    settings: Settings, topic: str, write: Callable[..., None]
) -> None:
    write("a")
    with follow(settings, topic) as first:
        assert handed(first, 1) == ["a"]
        first.commit()
    write("b", "c")
    admin = AdminClient(admin_config(settings))
    ((_, deleted),) = admin.delete_records([TopicPartition(topic, 0, 4)]).items()
    deleted.result(20)
    with follow(settings, topic) as second, pytest.raises(PositionLostError, match="not followed yet"):
        handed(second, 1)


@pytest.mark.parametrize("name", ["", "a b", "x" * 101])
def test_a_name_is_a_group_name(settings: Settings, name: str) -> None:
    with pytest.raises(ValueError, match="a name has"):
        Follower(settings, ["t"], name=name)
    with pytest.raises(ValueError, match="a position of its own"):
        Follower(settings, ["t"], name="mail", begin={})
