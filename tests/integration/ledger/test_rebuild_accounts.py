"""Accounts, positions and remembered ids lost from Kafka, and made again by `credits rebuild --accounts`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from pydantic import SecretStr

from schemas.amounts import NANOS
from schemas.enums import InputKind
from streams.agents.processor import make_processor
from streams.engine.internal_topics import changelog_config, changelog_topic, seen_topic
from streams.engine.restore import OwnTopics, Restored, restore
from streams.kafka.clients import admin_config, producer_config
from streams.kafka.reader import committed_ends, read_range
from tests.integration.engine.workers import REPOSITORY, Worker, until
from tests.integration.ledger.events import PRICE_LIST, Fields, Traffic, administrators, now_us
from tests.integration.ledger.installation import LedgerInstallation

REMEDY = "credits rebuild --accounts"


def holds(orgs: list[str]) -> list[Fields]:
    """One that stays, one that is captured, one that is released, and a second capture, which is refused."""
    made: list[Fields] = []
    for org in orgs:
        base = {"org_id": org, "occurred_at": now_us(), "wallet": "USD", "amount_nanos": NANOS}
        made += [{**base, "hold_id": f"{org}-{name}", "action": "place"} for name in ("stays", "taken", "freed")]
        made += [{**base, "hold_id": f"{org}-taken", "action": "capture"}]
        made += [{**base, "hold_id": f"{org}-freed", "action": "release"}]
        made += [{**base, "hold_id": f"{org}-never", "action": "capture"}]
    return made


class Sent:
    """Everything that was sent, to be sent again."""

    def __init__(self, installation: LedgerInstallation) -> None:
        self.installation = installation
        self.records: list[tuple[InputKind, list[Fields]]] = []

    def send(self, kind: InputKind, records: list[Fields]) -> None:
        self.records.append((kind, records))
        self.installation.send(kind, records)

    def send_again(self) -> None:
        for kind, records in self.records:
            self.installation.send(kind, records)


def live(installation: LedgerInstallation) -> Sent:
    """Some life of a few orgs, with what is refused and what cannot be read."""
    traffic, sent = Traffic(7), Sent(installation)
    installation.send(InputKind.PRICE, PRICE_LIST)
    sent.send(InputKind.SETTING, [administrators(f"s-{org}", org, "ann") for org in traffic.orgs])
    sent.send(InputKind.PURCHASE, traffic.purchases(40))
    usages = traffic.usages(200)
    sent.send(InputKind.USAGE, usages)
    installation.wait_until_booked()
    sent.send(InputKind.TRANSFER, traffic.transfers(25))
    sent.send(InputKind.HOLD, holds(traffic.orgs[:6]))
    sent.send(InputKind.REFUND, traffic.refunds(usages[:40]))
    sent.send(InputKind.USAGE, [{**usages[0], "revision": 1, "input_tokens": 7}, {**usages[1], "input_tokens": 8}])
    installation.send_bytes("usage", b"org-1", b"\x07no record")
    installation.wait_until_booked()
    return sent


def states(installation: LedgerInstallation) -> list[Restored]:
    """What Kafka holds of every partition's state."""
    processor = make_processor(installation.settings)
    topics = OwnTopics(processor.ledger_topic, processor.outputs, processor.seen_windows)
    found = [restore(installation.settings, n, topics, lambda: True) for n in range(installation.settings.partitions)]
    for each in found:
        each.producer.close()
    return found


def booked(entries: list[Fields]) -> int:
    """How many records were booked. (A capture that was refused asks again, and is refused again.)"""
    return sum(row["kind"] != "rejected" and row["source_topic"] != "" for row in entries)


def stop(worker: Worker) -> None:
    """Stop a worker in order."""
    worker.signal(signal.SIGTERM)
    assert worker.ends_with(30) == 0, worker.output


def rebuild(installation: LedgerInstallation, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "streams", "rebuild", "--accounts", "--yes", *options],
        cwd=REPOSITORY,
        env={**installation.environment(), "CREDITS_SESSION_TIMEOUT_MS": "6000"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def lose_topics(installation: LedgerInstallation) -> None:
    """The changelog and the seen ids are gone."""
    app_id = installation.settings.app_id
    topics = [changelog_topic(app_id), seen_topic(app_id, "usage"), seen_topic(app_id, "money")]
    admin = AdminClient(admin_config(installation.settings))
    for future in admin.delete_topics(topics).values():
        future.result(30)


def cut(installation: LedgerInstallation, *topics: str) -> None:
    """Everything is deleted from these topics, and they stay."""
    admin = AdminClient(admin_config(installation.settings))
    numbers = range(installation.settings.partitions)
    places = [TopicPartition(topic, number, -1) for topic in topics for number in numbers]
    for future in admin.delete_records(places).values():
        future.result(30)


def put_back(installation: LedgerInstallation, topic: str, copy: list[Message]) -> None:
    """A topic is made again from a copy of its records."""
    settings = installation.settings
    admin = AdminClient(admin_config(settings))
    for future in admin.delete_topics([topic]).values():
        future.result(30)
    until(lambda: topic not in admin.list_topics(timeout=10).topics, 30, f"{topic} is gone")
    new = NewTopic(topic, settings.partitions, replication_factor=1, config=changelog_config())
    for made in admin.create_topics([new]).values():
        made.result(30)
    producer = Producer(producer_config(settings))
    for message in copy:
        producer.produce(topic, message.value(), message.key(), partition=message.partition())
    assert producer.flush(30) == 0


def records(installation: LedgerInstallation, topic: str) -> list[Message]:
    """The committed records of a topic."""
    ends = committed_ends(installation.settings, [topic])
    return [message for batch in read_range(installation.settings, {}, ends) for message in batch]


def refused(installation: LedgerInstallation) -> Worker:
    """A worker that refuses to start: its last line is the operator's."""
    worker = installation.worker()
    assert worker.ends_with(60) == 1, worker.output
    last = worker.output.strip().splitlines()[-1]
    assert REMEDY in last, worker.output
    assert "Event loop is closed" not in worker.output, worker.output
    return worker


def same(before: list[Restored], after: list[Restored]) -> None:
    """The rebuilt states are those that were lost."""
    for old, new in zip(before, after, strict=True):
        number = old.partition.number
        assert {org: new.accounts.get(org) for org in old.accounts._framed} == {
            org: old.accounts.get(org) for org in old.accounts._framed
        }, number
        assert len(new.accounts) == len(old.accounts)
        assert {name: len(memory) for name, memory in new.seen.items()} == {
            name: len(memory) for name, memory in old.seen.items()
        }
        for topic, offset in old.position.next_offsets.items():
            assert new.position.next_offsets[topic] <= offset, topic


def done(run: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """The run, which must have gone well."""
    assert run.returncode == 0, run.stderr
    return run


@pytest.mark.slow
@pytest.mark.fault(
    "lost-state",
    title="Account changelog and remembered ids are lost",
    provoked="both topics deleted after a mixed stream; `credits rebuild --accounts`; everything sent again",
    holds="no start without them; after the rebuild the same accounts to the byte, duplicates are still duplicates",
    faults_row=13,
)
@pytest.mark.parametrize("key", [None, SecretStr("an internal key of the tests")], ids=["open", "sealed"])
def test_lost_state_is_made_again(
    installation: LedgerInstallation, seen: Callable[[str], None], key: SecretStr | None
) -> None:
    installation.settings = installation.settings.model_copy(update={"internal_key": key})
    worker = installation.ready_worker()
    sent = live(installation)
    running = rebuild(installation)
    assert running.returncode == 1
    assert "stop every `credits worker`" in running.stderr.strip().splitlines()[-1]
    stop(worker)
    before = states(installation)
    entries = installation.rows("ledger")

    lose_topics(installation)
    refused(installation)
    document: dict[str, Any] = json.loads(done(rebuild(installation, "--json")).stdout)
    assert document["ok"]
    assert sum(each["entries"] for each in document["partitions"]) == len(entries)
    same(before, states(installation))

    installation.ready_worker()
    sent.send_again()
    installation.wait_until_booked()
    assert booked(installation.rows("ledger")) == booked(entries)
    assert installation.report().ok, installation.report()
    seen(
        f"the start was refused with the command to run; {len(before)} partitions came back equal; verify found nothing"
    )


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.fault(
    "older-copies",
    title="Changelog or remembered ids from a copy of another age",
    provoked="remembered ids cut; later the changelog put back from a copy older than the ledger; rebuilt each time",
    holds="each start is refused; after each rebuild the accounts are those that were lost, to the byte",
    faults_row=33,
)
def test_copies_of_another_age_are_refused_and_made_again(
    installation: LedgerInstallation, seen: Callable[[str], None]
) -> None:
    worker = installation.ready_worker()
    live(installation)
    stop(worker)
    done(rebuild(installation))
    before = states(installation)
    app_id = installation.settings.app_id
    cut(installation, seen_topic(app_id, "usage"), seen_topic(app_id, "money"))
    refused(installation)
    done(rebuild(installation))
    same(before, states(installation))
    copy = records(installation, changelog_topic(app_id))

    worker = installation.ready_worker()
    installation.send(InputKind.USAGE, Traffic(8).usages(100))
    installation.wait_until_booked()
    stop(worker)
    before = states(installation)
    put_back(installation, changelog_topic(app_id), copy)
    refused(installation)
    done(rebuild(installation))
    same(before, states(installation))
    installation.ready_worker()
    installation.send(InputKind.USAGE, Traffic(9).usages(20))
    installation.wait_until_booked()
    assert installation.report().ok, installation.report()
    seen("both starts were refused with the command to run; both rebuilds gave the same accounts; verify found nothing")
