"""What the projection must survive: kill -9 between any two writes, ClickHouse away, more than it can hold."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from clickhouse_connect.driver.client import Client

from projections.clickhouse import connect, migrate
from projections.projector import Pace, Projector, waiting_s
from projections.verify import clickhouse_audit
from streams.kafka.topics_admin import apply
from streams.settings import Settings
from tests.integration.projections.topics import Ledger, org_in, projecting, until
from tests.laws import examples
from tests.unit.projections.entries import NOON, Row, entry
from tests.unit.projections.faults import Faulty

KILLS = examples(2)
HOUR = 3_600 * 10**6


@pytest.fixture
def topics(settings: Settings) -> Settings:
    """The settings, and their topics on the broker."""
    apply(settings)
    return settings


@pytest.fixture
def client(topics: Settings) -> Iterator[Client]:
    """The settings' own ClickHouse, migrated."""
    client = connect(topics)
    try:
        migrate(client)
        yield client
    finally:
        client.close()


def usage(org_id: str, count: int) -> list[Row]:
    return [
        entry(org_id, seq, -seq, operation="chat", user_id=f"u{seq % 5}", occurred_at=NOON - seq % 50 * HOUR)
        for seq in range(1, count + 1)
    ]


@pytest.mark.fault(
    "killed-projection",
    title="kill -9 of the projection at random moments",
    provoked="killed between rows and position, between tables, in an insert; restarts read other batches",
    holds="each entry is there once",
    faults_row=8,
)
def test_kill_9_at_random_moments(topics: Settings, seen: Callable[[str], None]) -> None:
    """Killed between rows and position, between the tables, in the middle of an insert: each entry is there once."""
    ledger = Ledger(topics)
    count = 6_000
    for partition in range(topics.partitions):
        ledger.write("ledger", partition, usage(org_in(partition), count))
    # The topics are read from four partitions at once, in writes of 200 rows: some 120 writes to be killed in.
    place = (topics.bootstrap_servers, topics.namespace, str(topics.partitions), str(topics.data_dir))
    command = [sys.executable, "-m", "tests.integration.projections.killed", *place]
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    kills = 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        if kills == KILLS:
            assert process.stdout.read().endswith("done\n")
            assert process.wait() == 0
            break
        for _ in range(chance.randrange(1, 12)):
            process.stdout.readline()
        time.sleep(chance.random() / 20)
        process.kill()
        process.wait()
        process.stdout.close()
        kills += 1
    client = connect(topics)
    try:
        audit = clickhouse_audit(client)
    finally:
        client.close()
    expected = topics.partitions * count * (count + 1) // 2
    assert audit["tables"]["ledger"] == audit["entries"] == topics.partitions * count, f"seed {seed}"
    assert [org["last_seq"] for org in audit["orgs"]] == [count] * topics.partitions, f"seed {seed}"
    for level, units in audit["usage"].items():
        assert units["USD"]["cost_nanos"] == expected, f"{level}, seed {seed}"
    seen("24,000 entries in the table; the sums of every level are those of the ledger")


@pytest.mark.fault(
    "clickhouse-away",
    title="inserts into ClickHouse that fail",
    provoked="inserts that fail, and inserts that were done while their answer was lost",
    holds="nothing is lost, nothing is counted twice",
    faults_row=8,
)
def test_clickhouse_away(topics: Settings, client: Client, seen: Callable[[str], None]) -> None:
    """Inserts fail for a while, some of them after they were done: nothing is lost, nothing is there twice."""
    faulty = Faulty(client, ["done", "lost", "lost", "unanswered", "done", "unanswered", "lost"])
    ledger = Ledger(topics)

    async def run() -> None:
        watching = connect(topics)
        try:
            async with projecting(topics, cast(Client, faulty)) as app:
                for partition in range(2):
                    await asyncio.to_thread(ledger.write, "ledger", partition, usage(org_in(partition), 500))
                await until(lambda: waiting_s(app, time.monotonic()) > 0.2, app)
                await until(lambda: clickhouse_audit(watching)["entries"] == 1_000, app)
                await until(lambda: waiting_s(app, time.monotonic()) == 0, app)
        finally:
            watching.close()

    asyncio.run(run())
    audit = clickhouse_audit(client)
    assert audit["tables"]["ledger"] == 1_000
    assert {units["USD"]["cost_nanos"] for units in audit["usage"].values()} == {2 * 500 * 501 // 2}
    seen("1,000 entries in the table; the sums of every level are those of the ledger")


@pytest.mark.fault(
    "slow-clickhouse",
    title="a backlog while ClickHouse takes nothing",
    provoked="10,000 entries while inserts fail",
    holds="fetching pauses; what waits in memory is bounded",
    faults_row=23,
)
def test_a_backlog_waits_in_kafka(topics: Settings, client: Client, seen: Callable[[str], None]) -> None:
    """While nothing can be written, fetching pauses: what waits in memory stays bounded, whatever the topic holds."""
    pace = Pace(interval_s=0.05, rows_max=300, queue_rows_max=1_000, retry_first_s=0.3)
    ledger = Ledger(topics)
    for first in range(0, 10_000, 1_000):
        rows = [entry("acme", first + seq, -1, operation="chat") for seq in range(1, 1_001)]
        ledger.write("ledger", 0, rows)
    faulty = Faulty(client, ["lost"] * 4)

    async def run() -> int:
        most = 0
        watching = connect(topics)
        try:
            async with projecting(topics, cast(Client, faulty), pace) as app:
                projector = next(each for each in app._extra_services if isinstance(each, Projector))

                def finished() -> bool:
                    nonlocal most
                    most = max(most, projector.queued_rows)
                    return bool(watching.command("SELECT count() FROM ledger") == 10_000)

                await until(finished, app)
        finally:
            watching.close()
        return most

    most = asyncio.run(run())
    # A Kafka batch is handed over whole: what may come on top is what was fetched before the pause was seen.
    assert 0 < most <= 3_000
    assert clickhouse_audit(client)["usage"]["monthly"]["USD"]["requests"] == 10_000
    seen("the queue stayed within its bound; all entries arrived afterwards")
