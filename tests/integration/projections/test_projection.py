"""The projection on a real broker: everything committed is projected once, whatever happens between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from projections.clickhouse import connect, migrate
from projections.rebuild import ProjectionAtWorkError, rebuild, refold
from projections.verify import clickhouse_audit
from schemas.amounts import NANOS
from schemas.enums import InputKind
from schemas.topics import Topics
from streams.kafka.topics_admin import apply
from streams.settings import Settings
from tests.integration.ledger.events import PRICE_LIST, now_us
from tests.integration.ledger.events import usage as usage_event
from tests.integration.ledger.installation import LedgerInstallation
from tests.integration.projections.topics import Ledger, org_in, projecting, until
from tests.unit.projections.entries import NOON, Row, entry
from tests.unit.projections.test_invoices import purchase
from tests.unit.projections.test_twice import shown


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    """The settings' own ClickHouse, in process, migrated; the topics are there."""
    apply(settings)
    client = connect(settings)
    try:
        migrate(client)
        yield client
    finally:
        client.close()


@pytest.fixture
def watching(settings: Settings, client: Client) -> Iterator[Client]:
    """A second client of the same database, to look while the projection writes."""
    watching = connect(settings)
    yield watching
    watching.close()


def usage(org_id: str, first_seq: int, count: int) -> list[Row]:
    return [entry(org_id, seq, -seq, operation="chat", model="m") for seq in range(first_seq, first_seq + count)]


def entries(client: Client) -> int:
    return int(client.command("SELECT count() FROM ledger"))  # type: ignore[arg-type]


def test_every_topic_is_projected(settings: Settings, client: Client, watching: Client) -> None:
    ledger = Ledger(settings)
    ledger.write("ledger", 0, usage("acme", 1, 500))
    ledger.write("ledger", 0, usage("ghost", 1, 3), abort=True)
    ledger.write("ledger", 1, usage(org_in(1), 1, 20))
    alert = {
        "alert_id": "a1",
        "org_id": "acme",
        "wallet": "USD",
        "kind": "credit_balance_depleted",
        "rule_version": 0,
        "balance_nanos": 0,
        "available_nanos": 0,
        "occurred_at": NOON,
        "entry_seq": 5,
    }
    ledger.write("alerts_depletion", 0, [alert])
    names = ("settled", "held", "available", "allocation", "month_spent", "lifetime_added", "lifetime_spent")
    wallet = {"unit": "USD", "status": "ok", "health": "green", **{f"{name}_nanos": 7 for name in names}}
    ledger.write("balances", 0, [{"org_id": "acme", "seq": 500, "as_of": NOON, "wallets": [wallet]}])
    price = {
        "price_id": "p1",
        "operation": "chat",
        "unit_price_nanos": 150,
        "billing_unit": "token",
        "wallet": "USD",
        "valid_from": NOON,
    }
    ledger.write("prices", 0, [price])
    headers = {
        "__streams.errors.topic": b"credits.usage.v1",
        "__streams.errors.partition": b"3",
        "__streams.errors.offset": b"41",
        "__streams.errors.exception": b"ValueError",
        "__streams.errors.message": b"not a record",
        "credits.error.code": b"undecodable",
    }
    ledger.write_raw("dead_letters", 2, b"acme", b"\x00\xff", headers)

    def done() -> bool:
        counts = clickhouse_audit(watching)["tables"]
        return (
            all(counts[name] for name in ("alerts", "balances", "prices", "dead_letters")) and counts["ledger"] == 520
        )

    async def run() -> None:
        async with projecting(settings, client) as app:
            await until(done, app)

    asyncio.run(run())
    audit = clickhouse_audit(watching)
    assert audit["kinds"] == {"USD": {"usage": {"entries": 520, "amount_nanos": -(500 * 501 + 20 * 21) // 2}}}
    assert audit["alerts"] == {"credit_balance_depleted": 1}
    assert audit["dead_letters"] == {"undecodable": 1}
    acme = audit["orgs"][0]
    assert (acme["org_id"], acme["entries"], acme["first_seq"], acme["last_seq"]) == ("acme", 500, 1, 500)
    assert acme["wallets"]["USD"]["published"]["settled_nanos"] == 7
    assert "ghost" not in {org["org_id"] for org in audit["orgs"]}
    place = "SELECT source_partition, source_offset, org_id, message FROM v_dead_letters"
    assert watching.query(place).result_rows == [(3, 41, "acme", "not a record")]
    topics = Topics(settings.namespace)
    # 500 entries and a commit marker, three aborted ones and an abort marker.
    assert audit["positions"][topics.name("ledger")]["0"]["position"] == 505


@pytest.fixture
def installation(settings: Settings, tmp_path: Path) -> Iterator[LedgerInstallation]:
    """The ledger itself, with no worker yet, where records of its output made by hand are not enough."""
    with LedgerInstallation(settings, tmp_path) as made:
        yield made


@pytest.mark.fault(
    "late-usage",
    title="usage that comes a day late",
    provoked="usage of 30 hours ago, after that of this hour",
    holds="it is booked, and counted in the bucket of its own hour",
    faults_row=5,
)
def test_a_late_usage_corrects_the_bucket_of_its_hour(
    settings: Settings, installation: LedgerInstallation, client: Client, watching: Client, seen: Callable[[str], None]
) -> None:
    """From the usage topic to the row, by a ledger and a projection at work: fault 5."""
    hour_us = 3_600 * 10**6
    now = now_us()
    past, present = (now // hour_us - 30) * hour_us, now // hour_us * hour_us
    sums = "toUnixTimestamp(hour) * 1000000, requests, input_tokens, toInt64(cost * 1000000000)"

    def buckets() -> list[tuple[int, ...]]:
        rows = watching.query(f"SELECT {sums} FROM usage_hourly FINAL WHERE org_id = 'acme' ORDER BY hour").result_rows
        return [tuple(int(each) for each in row) for row in rows]

    def send(event_id: str, at: int, tokens: int) -> None:
        fields = usage_event(event_id, "acme", model="m1", input_tokens=tokens)
        installation.send(InputKind.USAGE, [{**fields, "occurred_at": at}])

    async def run() -> None:
        async with projecting(settings, client) as app:
            send("in time", past, 1_000_000)
            send("later", now, 10)
            expected = [(past, 1, 1_000_000, 2 * NANOS), (present, 1, 10, 20_000)]
            await until(lambda: buckets() == expected, app)
            send("late", past + hour_us - 1, 500_000)
            expected[0] = (past, 2, 1_500_000, 3 * NANOS)
            await until(lambda: buckets() == expected, app)

    installation.send(InputKind.PRICE, PRICE_LIST)
    installation.ready_worker()
    asyncio.run(run())
    assert installation.report().ok
    seen("the bucket of the hour that it happened in was corrected")


def test_a_restart_goes_on_from_what_clickhouse_holds(settings: Settings, client: Client, watching: Client) -> None:
    ledger = Ledger(settings)
    ledger.write("ledger", 0, usage("acme", 1, 100))

    async def run(count: int) -> None:
        async with projecting(settings, client) as app:
            await until(lambda: entries(watching) >= count, app)

    asyncio.run(run(100))
    ledger.write("ledger", 0, usage("acme", 101, 50))
    asyncio.run(run(150))
    # The database is lost: Kafka's group offsets stand at the end, and must not matter.
    for table in ("ledger", "positions", "usage_hourly", "usage_daily", "usage_monthly"):
        client.command(f"TRUNCATE TABLE {table}")
    asyncio.run(run(150))
    audit = clickhouse_audit(watching)
    assert (audit["entries"], audit["tables"]["ledger"]) == (150, 150)
    assert audit["usage"]["monthly"]["USD"]["cost_nanos"] == 150 * 151 // 2


def test_two_projections_share_and_hand_over(settings: Settings, client: Client, watching: Client) -> None:
    """Two members of the group, one of them leaving in the middle of the work."""
    ledger = Ledger(settings)

    async def run() -> None:
        second = connect(settings)
        try:
            async with projecting(settings, client) as app:
                async with projecting(settings, second) as other:
                    for start in range(1, 401, 100):
                        for partition in range(settings.partitions):
                            rows = usage(org_in(partition), start, 100)
                            await asyncio.to_thread(ledger.write, "ledger", partition, rows)
                    await until(lambda: entries(watching) > 0, other)
                await until(lambda: clickhouse_audit(watching)["entries"] == 400 * settings.partitions, app)
        finally:
            second.close()

    asyncio.run(run())
    audit = clickhouse_audit(watching)
    assert audit["usage"]["hourly"]["USD"]["cost_nanos"] == settings.partitions * 400 * 401 // 2
    assert [org["last_seq"] for org in audit["orgs"]] == [400] * settings.partitions


def test_a_topic_that_was_made_anew_stops_the_projection(settings: Settings, client: Client) -> None:
    ledger = Topics(settings.namespace).name("ledger")
    client.command(f"INSERT INTO positions VALUES ('{ledger}', 0, 1000, now64(6))")

    async def run() -> BaseException | None:
        async with projecting(settings, client) as app:
            await asyncio.wait_for(app.wait_until_stopped(), 30)
            reason: BaseException | None = app.crash_reason
            return reason

    reason = asyncio.run(run())
    assert "up to offset 1000, but the topic ends at 0" in str(reason)


@pytest.mark.fault(
    "rebuild-read-side",
    title="everything replayed into an empty ClickHouse",
    provoked="the tables are dropped and filled again from the ledger",
    holds="the same rows, rollups, views and invoice numbers",
    faults_row=28,
)
def test_a_rebuild_gives_the_same_again(settings: Settings, client: Client, seen: Callable[[str], None]) -> None:
    """Drop and rebuild: the same rows, the same views, the same numbers on invoices."""
    ledger = Ledger(settings)
    for partition in range(2):
        ledger.write("ledger", partition, usage(org_in(partition), 1, 300))
        ledger.write("ledger", partition, usage("ghost", 1, 2), abort=True)
        ledger.write("ledger", partition, [purchase(org_in(partition), 301, "p1", 10**9, balance_nanos=0)])
    assert refold(settings, client) == 602
    before, views = clickhouse_audit(client), shown(client)
    client.command("INSERT INTO ledger (org_id, seq) VALUES ('invented', 1)")
    assert rebuild(settings, client) == 602
    after = clickhouse_audit(client)
    names = ("entries", "kinds", "usage", "orgs", "tables")
    assert {name: after[name] for name in names} == {name: before[name] for name in names}
    assert shown(client) == views, "every view is the same again"

    async def run() -> None:
        async with projecting(settings, client) as app:
            # What a rebuild leaves out (nothing, here) the next projection adds; what it has is not added again.
            await until(lambda: app.consumer is not None and bool(app.consumer.assignment()), app)
            with pytest.raises(ProjectionAtWorkError):
                await asyncio.to_thread(rebuild, settings, client)

    asyncio.run(run())
    assert clickhouse_audit(client)["tables"] == before["tables"]
    seen("602 records were read; every table and view was the same again")
