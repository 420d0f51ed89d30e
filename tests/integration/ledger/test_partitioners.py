"""Producers with other partitioners on the real broker (fault 30): no second account, and nothing lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from confluent_kafka import Producer

from schemas.amounts import NANOS
from schemas.codec import encode_one
from schemas.enums import DeadLetterCode, InputKind
from schemas.partitioner import partition_of
from schemas.topics import INPUT_TOPICS
from streams.local.doctor import Verdict, examine
from tests.brokers import free_port
from tests.integration.engine.workers import REPOSITORY, Worker, until
from tests.integration.ledger.events import PRICE_LIST, purchase, usage
from tests.integration.ledger.installation import READY, LedgerInstallation, schema_id

ORGS = [f"org-{number}" for number in range(12)]


def stock_producer(installation: LedgerInstallation) -> Producer:
    """librdkafka as it comes: its partitioner is CRC32 of the key (`consistent_random`)."""
    return Producer({"bootstrap.servers": installation.settings.bootstrap_servers, "log_level": 0})


def send(installation: LedgerInstallation, producer: Producer, usages: list[dict[str, Any]]) -> list[str]:
    """Send usage with a producer; the event ids that came to a partition that is not their key's."""
    astray: list[str] = []

    def note(event_id: str, error: object, message: Any) -> None:
        assert error is None
        if message.partition() != partition_of(message.key(), installation.settings.partitions):
            astray.append(event_id)

    for fields in usages:
        producer.produce(
            installation.topics.name("usage"),
            key=fields["org_id"].encode(),
            value=encode_one("usage", fields, schema_id(InputKind.USAGE)),
            on_delivery=partial(note, fields["event_id"]),
        )
    assert producer.flush(30) == 0
    installation.sent += len(usages)
    return astray


def run(installation: LedgerInstallation, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the installation, for machines."""
    return subprocess.run(
        [sys.executable, "-m", "streams", *arguments, "--json"],
        cwd=REPOSITORY,
        env=installation.environment() | {"CREDITS_DATA_DIR": str(installation.folder / "cli")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def credits(installation: LedgerInstallation, *arguments: str) -> dict[str, Any]:
    """What a command prints."""
    done = run(installation, *arguments)
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.fault(
    "wrong-partition",
    title="a record in a partition that is not its key's",
    provoked="the same usage by a producer with murmur2 and by a stock librdkafka one; more by that one alone",
    holds="each event is booked once, in one account; the others are dead letters `wrong_partition`; replayed, they "
    "are booked where they belong, or are duplicates",
    faults_row=30,
)
def test_the_same_events_by_two_partitioners_are_booked_once(
    installation: LedgerInstallation, seen: Callable[[str], None]
) -> None:
    """Cases 23: one producer with murmur2, a stock one of librdkafka; and what the stock one alone has sent."""
    installation.send(InputKind.PRICE, PRICE_LIST)
    installation.send(InputKind.PURCHASE, [purchase(f"p-{org}", org, 100 * NANOS) for org in ORGS])
    port = free_port()
    worker = installation.ready_worker(CREDITS_WORKER_METRICS_PORT=str(port))
    both = [usage(f"both-{n}", ORGS[n % 12], model="m1", input_tokens=1_000 + n) for n in range(60)]
    alone = [usage(f"alone-{n}", ORGS[n % 12], model="m2", input_tokens=2_000 + n) for n in range(36)]
    installation.send(InputKind.USAGE, both)
    astray = send(installation, stock_producer(installation), both + alone)
    installation.wait_until_booked()

    assert 0 < len(astray) < len(both + alone)
    assert installation.codes() == {DeadLetterCode.WRONG_PARTITION: len(astray)}
    lost = {event_id for event_id in astray if event_id.startswith("alone")}
    assert 0 < len(lost) < len(alone)
    booked = [row["event_id"] for row in installation.rows("ledger") if row["kind"] == "usage"]
    assert sorted(booked) == sorted(each["event_id"] for each in both + alone if each["event_id"] not in lost)
    assert installation.report().ok, installation.report().differences
    assert "lie in a partition that is not their key's" in worker.output
    assert "murmur2_random" in worker.output
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    check = next(check for check in examine(installation.settings) if check.name == "partitioners")
    counted = [line for line in lines if line.startswith("credits_wrong_partition_records_total{")]
    assert sum(float(line.rsplit(" ", 1)[1]) for line in counted) == len(astray)
    assert all(f'topic="{installation.topics.name("usage")}"' in line for line in counted)

    assert check.verdict is Verdict.FAILED
    assert f"{installation.topics.name('usage')} partition " in check.found
    assert "murmur2_random" in check.remedy

    replayed = credits(installation, "dead-letters", "replay", "--code", "wrong_partition")
    assert replayed["replayed"] == len(astray)
    installation.sent += len(astray)
    installation.wait_until_booked()
    booked = [row["event_id"] for row in installation.rows("ledger") if row["kind"] == "usage"]
    assert sorted(booked) == sorted(each["event_id"] for each in both + alone)
    assert installation.codes() == {DeadLetterCode.WRONG_PARTITION: len(astray)}
    report = installation.report()
    assert report.ok, report.differences
    check = next(check for check in examine(installation.settings) if check.name == "partitioners")
    assert check.verdict is Verdict.OK, check
    assert (report.entries, report.orgs) == (len(ORGS) + len(both + alone), len(ORGS))
    seen(
        f"{len(both) * 2 + len(alone)} records of {len(both + alone)} events: {len(astray)} dead letters "
        "wrong_partition, replayed; each event booked once; verify ok"
    )


OLDER_VERSION = """
import sys
from streams.processing.own_keys import OwnKeys
OwnKeys.foreign = lambda self, keys: frozenset()
OwnKeys.refuse = lambda self, key: None
from streams.cli import main
main(["worker"])
"""
"""A worker that does not look at partitions, as versions before this one."""


def older_worker(installation: LedgerInstallation) -> Worker:
    log = installation.folder / "older-worker.log"
    environment = installation.environment() | {
        "CREDITS_SESSION_TIMEOUT_MS": str(installation.settings.session_timeout_ms),
        "CREDITS_DATA_DIR": str(installation.folder / "older"),
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", OLDER_VERSION], cwd=REPOSITORY, env=environment, stdout=out, stderr=subprocess.STDOUT
        )
    worker = Worker(process, log)
    installation.workers.append(worker)
    until(lambda: READY in worker.output or process.poll() is not None, 60, "a ready worker")
    assert READY in worker.output, worker.output
    return worker


@pytest.mark.slow
@pytest.mark.fault(
    "split-account",
    title="an organisation whose account an older version opened in two partitions",
    provoked="a worker without the check books purchases and usage of one organisation in two partitions, some in both",
    holds="verify names the second account; merging it leaves the balance of one account that booked every id once",
    faults_row=30,
)
def test_an_account_that_an_older_version_split_is_named_and_merged(
    installation: LedgerInstallation, seen: Callable[[str], None]
) -> None:
    """The same purchase and usage on both sides count once; the rest moves; the balance is that of one account."""
    settings, org = installation.settings, "acme"
    home = partition_of(org.encode(), settings.partitions)
    away = (home + 1) % settings.partitions
    installation.send(InputKind.PRICE, PRICE_LIST)
    worker = older_worker(installation)

    def send_to(partition: int, kind: InputKind, *records: dict[str, Any]) -> None:
        producer = Producer({"bootstrap.servers": settings.bootstrap_servers})
        for fields in records:
            value = encode_one(kind.value, fields, schema_id(kind))
            topic = installation.topics.name(INPUT_TOPICS[kind])
            producer.produce(topic, key=org.encode(), value=value, partition=partition)
        assert producer.flush(30) == 0
        installation.sent += len(records)

    both = usage("u-both", org, cost_nanos=3 * NANOS, wallet="USD")
    bought = purchase("p-both", org, 50 * NANOS)
    for partition in (home, away):
        send_to(partition, InputKind.PURCHASE, bought)
        send_to(partition, InputKind.USAGE, both)
    send_to(home, InputKind.USAGE, usage("u-home", org, cost_nanos=5 * NANOS, wallet="USD"))
    send_to(away, InputKind.USAGE, usage("u-away", org, cost_nanos=7 * NANOS, wallet="USD"))
    send_to(away, InputKind.USAGE, usage("u-debt", org, cost_nanos=2 * NANOS + 1, wallet="EUR"))
    send_to(away, InputKind.PURCHASE, {**purchase("p-away", org, 11 * NANOS), "wallet": "tool_runs"})
    installation.wait_until_booked()
    report = installation.report()
    assert {each.code for each in report.differences} == {"wrong_partition"}, report.differences
    assert [(each.partition, each.home, each.merged) for each in report.split_accounts] == [(away, home, False)]
    assert "credits accounts merge acme" in report.differences[0].message

    refused = run(installation, "accounts", "merge", org, "--yes")
    assert refused.returncode == 1
    assert "workers run" in refused.stderr
    worker.signal(signal.SIGTERM)
    worker.ends_with(20)
    shown = credits(installation, "accounts", "merge", org)
    assert not shown["merged"]
    assert {each.code for each in installation.report().differences} == {"wrong_partition"}
    merged = credits(installation, "accounts", "merge", org, "--yes")
    (account,) = merged["accounts"]
    moved = {each["unit"]: (each["left"], each["counted_twice"], each["moves"]) for each in account["wallets"]}
    assert moved == {
        "EUR": ("-2.000000001", "0", "-2.000000001"),
        "USD": ("40", "47", "-7"),
        "tool_runs": ("11", "0", "11"),
    }
    installation.sent += 3
    assert credits(installation, "accounts", "merge", org, "--yes")["accounts"] == []  # once

    installation.ready_worker()
    installation.wait_until_booked()
    report = installation.report()
    assert report.ok, report.differences
    assert [(each.partition, each.merged) for each in report.split_accounts] == [(away, True)]
    assert not any(report.split_accounts[0].balances.values())
    balance = credits(installation, "balance", org)
    settled = {wallet["unit"]: wallet["settled"] for wallet in balance["wallets"]}
    assert settled == {"USD": "35", "EUR": "-2.000000001", "tool_runs": "11"}
    send_to(away, InputKind.USAGE, usage("u-late", org, cost_nanos=NANOS, wallet="USD"))
    installation.wait_until_booked()
    assert installation.codes() == {DeadLetterCode.WRONG_PARTITION: 1}
    assert installation.report().ok
    seen(
        "a second account of 6 entries, 47 USD in it counted twice; after the merge 35 USD as in one account; verify ok"
    )
