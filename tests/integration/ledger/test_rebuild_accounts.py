"""Accounts, positions and remembered ids lost from Kafka, and made again by `credits rebuild --accounts`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.amounts import NANOS
from schemas.enums import InputKind
from streams.agents.processor import make_processor
from streams.engine.internal_topics import changelog_topic, seen_topic
from streams.engine.restore import OwnTopics, Restored, restore
from streams.kafka_clients import admin_config
from tests.integration.engine.workers import REPOSITORY, Worker
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
    usages = traffic.usages(600)
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
    topics = OwnTopics(processor.witness, processor.outputs, processor.seen_windows)
    found = [restore(installation.settings, n, topics, lambda: True) for n in range(installation.settings.partitions)]
    for each in found:
        each.producer.close()
    return found


def stop(worker: Worker) -> None:
    worker.signal(signal.SIGTERM)
    assert worker.ends_with(30) == 0, worker.said


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


def lose_ids(installation: LedgerInstallation) -> None:
    """What the changelog counts is on no topic: it was cut."""
    topic = changelog_topic(installation.settings.app_id)
    admin = AdminClient(admin_config(installation.settings))
    log = installation.rows  # noqa: F841
    places = [TopicPartition(topic, number, -1) for number in range(installation.settings.partitions)]
    for future in admin.delete_records(places).values():
        future.result(30)


def refused(installation: LedgerInstallation) -> Worker:
    """A worker that refuses to start: its last line is the operator's."""
    worker = installation.worker()
    assert worker.ends_with(60) == 1, worker.said
    last = worker.said.strip().splitlines()[-1]
    assert REMEDY in last, worker.said
    assert "Event loop is closed" not in worker.said, worker.said
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


def test_lost_state_is_made_again(installation: LedgerInstallation) -> None:
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
    told: dict[str, Any] = json.loads(done(rebuild(installation, "--json")).stdout)
    assert told["ok"]
    assert sum(each["entries"] for each in told["partitions"]) == len(entries)
    same(before, states(installation))

    worker = installation.ready_worker()
    sent.send_again()
    sent.send(InputKind.USAGE, Traffic(8).usages(50))
    installation.wait_until_booked()
    report = installation.report()
    assert report.ok, report


def done(run: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """The run, which must have gone well."""
    assert run.returncode == 0, run.stderr
    return run
