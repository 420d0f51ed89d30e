"""The sink's law: any batch boundaries, any replay, any crash between two inserts: the same tables."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import (
    ClickHouseError,
    DatabaseError,
    OperationalError,
    ProgrammingError,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections.buckets import DIMENSIONS, LEVELS
from projections.clickhouse import ClickHouseUnavailableError, is_passing
from projections.rows import DEAD_LETTER_VALUE_BYTES_MAX
from projections.sink import LedgerGapError, Limits, Sink, UnreadableRecordError
from projections.verify import TABLES, clickhouse_audit
from schemas.codec import frame
from schemas.kept_prices import position_headers
from schemas.partitioner import partition_of
from schemas.records import BundledSchemas, bundled_id
from streams.kafka.inbound import Inbound
from tests.laws import examples
from tests.unit.projections.entries import LEDGER, NOON, TOPICS, Row, entry, entry_lists, folded, inbound
from tests.unit.projections.faults import Faulty

PLACE = (LEDGER, 0)
# A few examples of each: an example costs some dozens of inserts into a real engine.
LAW = settings(
    max_examples=examples(8), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
FATES = st.lists(st.sampled_from(["done", "done", "done", "done", "lost", "full", "unanswered"]), max_size=25)
SMALL = Limits(buckets_max=8)
GOLDEN_V1 = Path(__file__).parents[3] / "schemas" / "golden" / "balance.v1.jsonl"


def new_sink(client: Any, limits: Limits | None = None) -> Sink:
    return Sink(cast(Client, client), TOPICS, BundledSchemas(), limits)


def emptied(client: Client) -> None:
    for table in (*TABLES, "positions"):
        client.command(f"TRUNCATE TABLE {table}")


def project(client: Client, rows: list[Row], data: st.DataObject) -> None:
    """Everything of one partition, in batches, with replays, failures and new owners as hypothesis likes."""
    faulty = Faulty(client, data.draw(FATES, label="fates"))
    sink = new_sink(faulty, SMALL)
    position, end = 0, 2 * len(rows)
    while position < end:
        if data.draw(st.integers(0, 2), label="0: a new owner") == 0:
            sink = new_sink(faulty, SMALL)
        first = data.draw(st.integers(0, position // 2), label="from")
        cuts = sorted(data.draw(st.lists(st.integers(first, len(rows)), min_size=1, max_size=3), label="cuts"))
        batches = []
        for cut in cuts:
            batches.append(inbound(rows[first:cut], 2 * first))
            first = cut
        try:
            sink.apply(batches)
            position = sink.positions()[PLACE]
        except ClickHouseUnavailableError:
            position = new_sink(client).restore([PLACE])[PLACE]


@given(rows=entry_lists(rows_max=25), data=st.data())
@LAW
def test_any_batches_replays_and_crashes_give_the_same_tables(
    client: Client, rows: list[Row], data: st.DataObject
) -> None:
    emptied(client)
    project(client, rows, data)
    shown = client.query("SELECT org_id, seq, amount, occurred_at FROM v_ledger ORDER BY ledger_offset").result_rows
    assert [(org_id, seq, int(amount.scaleb(9))) for org_id, seq, amount, _ in shown] == [
        (row["org_id"], row["seq"], row["amount_nanos"]) for row in rows
    ]
    assert client.command("SELECT count() FROM ledger") == len(rows), "the table itself has each entry once"
    for level in LEVELS:
        names = ("requests", "input_tokens", "output_tokens", "quantity", "cost", "refunded")
        view = client.query(
            f"SELECT {level.column}, {', '.join(DIMENSIONS)},"
            f" requests, toString(input_tokens), toString(output_tokens),"
            f" {', '.join(f'toString(toInt256(toDecimal256({name}, 9) * 1000000000))' for name in names[3:])}"
            f" FROM v_usage_{level.name}"
        ).result_rows
        width = 1 + len(DIMENSIONS)
        assert {tuple(row[:width]): tuple(map(int, row[width:])) for row in view} == folded(rows, level.column)
        assert len(view) == len({tuple(row[:width]) for row in view})


def test_batches_applied_together_share_their_buckets_however_many_there_are(client: Client) -> None:
    """None is let go of before it is written: it would be read back as it was before the first batch."""
    users = ["again", *(f"user-{number}" for number in range(20)), "again"]
    rows = [entry("acme", seq, -1, operation="x", user_id=user) for seq, user in enumerate(users, 1)]
    sink = new_sink(client, SMALL)
    sink.restore([PLACE])
    sink.apply([inbound([row], 2 * index) for index, row in enumerate(rows)])
    for level in LEVELS:
        assert client.command(f"SELECT sum(requests) FROM v_usage_{level.name} WHERE user_id = 'again'") == 2


def test_what_is_projected_already_is_left_out(client: Client) -> None:
    rows = [entry("acme", seq, -1, operation="x") for seq in range(1, 11)]
    sink = new_sink(client)
    sink.restore([PLACE])
    assert sink.apply([inbound(rows[:6], 0)]).rows["ledger"] == 6
    assert sink.apply([inbound(rows, 0)]).rows["ledger"] == 4
    assert sink.apply([inbound(rows, 0)]).rows == {}
    assert sink.positions() == {PLACE: 20}


def test_a_second_owner_of_the_same_partition_does_no_harm(client: Client) -> None:
    """Both take over at the same position and both write everything."""
    rows = [entry("acme", seq, -seq, operation="x") for seq in range(1, 21)]
    first, second = new_sink(client), new_sink(client)
    first.restore([PLACE])
    second.restore([PLACE])
    first.apply([inbound(rows[:10], 0)])
    second.apply([inbound(rows[:15], 0)])
    first.apply([inbound(rows[10:], 20)])
    second.apply([inbound(rows[15:], 30)])
    audit = clickhouse_audit(client)
    assert audit["kinds"] == {"USD": {"usage": {"entries": 20, "amount_nanos": -210}}}
    assert {level: audit["usage"][level]["USD"]["cost_nanos"] for level in audit["usage"]} == {
        "hourly": 210,
        "daily": 210,
        "monthly": 210,
    }


def test_of_several_versions_the_newest_is_read_back(client: Client) -> None:
    client.command("SYSTEM STOP MERGES usage_hourly")
    for seq in range(1, 6):
        new_sink(client).apply([inbound([entry("acme", seq, -1, operation="x")], 2 * (seq - 1))])
    assert client.command("SELECT count() FROM usage_hourly") == 5
    assert clickhouse_audit(client)["usage"]["hourly"]["USD"]["requests"] == 5


def test_lost_positions_put_no_entry_twice_into_the_table(client: Client) -> None:
    rows = [entry("acme", seq, -1, operation="x") for seq in range(1, 11)]
    new_sink(client).apply([inbound(rows, 0)])
    client.command("TRUNCATE TABLE positions")
    again = new_sink(client)
    assert again.restore([PLACE]) == {PLACE: 0}
    applied = again.apply([inbound(rows, 0)])
    assert (applied.entries_skipped, applied.rows) == (10, {"positions": 1})
    assert client.command("SELECT count() FROM ledger") == 10


def test_too_many_entries_beyond_the_position_are_left_to_the_views(client: Client) -> None:
    """Memory stays bounded: they are inserted again, and shown once."""
    rows = [entry("acme", seq, -1, operation="x") for seq in range(1, 11)]
    new_sink(client).apply([inbound(rows, 0)])
    client.command("TRUNCATE TABLE positions")
    new_sink(client, Limits(present_offsets_max=5)).apply([inbound(rows, 0)])
    assert client.command("SELECT count() FROM v_ledger") == 10
    assert clickhouse_audit(client)["usage"]["hourly"]["USD"]["requests"] == 10


def test_the_position_is_written_last(client: Client) -> None:
    rows = [entry("acme", 1, -1, operation="x"), entry("acme", 2, 5, kind="purchase", operation=None)]
    for inserts in range(6):
        emptied(client)
        faulty = Faulty(client, ["done"] * inserts + ["lost"])
        sink = new_sink(faulty)
        with pytest.raises(ClickHouseUnavailableError):
            sink.apply([inbound(rows, 0)])
        assert client.query("SELECT * FROM positions").result_rows == []
        assert sink.apply([inbound(rows, 0)]).rows["positions"] == 1
        assert clickhouse_audit(client)["entries"] == 2
        assert clickhouse_audit(client)["usage"]["daily"]["USD"]["cost_nanos"] == 1


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (OperationalError("connection refused"), True),
        (DatabaseError("Not enough space", code=243), True),
        (DatabaseError("Memory limit exceeded", code=241), True),
        (DatabaseError("HTTP 502 Bad Gateway"), True),
        (DatabaseError("Unknown identifier", code=47), False),
        (DatabaseError("Type mismatch", code=53), False),
        (ProgrammingError("a setting that nobody knows"), False),
    ],
)
def test_what_passes_is_tried_again_and_what_is_wrong_is_not(error: ClickHouseError, passing: bool) -> None:
    assert is_passing(error) is passing


def test_a_refusal_of_the_server_is_not_taken_for_an_absence(client: Client) -> None:
    client.command("ALTER TABLE activity DROP COLUMN actor")
    with pytest.raises(DatabaseError):
        new_sink(client).apply([inbound([entry("acme", 1, 5, kind="purchase")], 0)])


def test_an_entry_that_cannot_be_read_stops(client: Client) -> None:
    batch = inbound([entry("acme", 1, -1), entry("acme", 2, -1)], 0)
    batch.values[1] = b"\x00broken"
    with pytest.raises(UnreadableRecordError, match=r"credits\.ledger\.v1, partition 0, offset 2"):
        new_sink(client).apply([batch])
    assert client.command("SELECT count() FROM ledger") == 0


def test_a_gap_in_the_ledger_stops(client: Client) -> None:
    sink = new_sink(client)
    sink.apply([inbound([entry("acme", 1, -1)], 0)])
    with pytest.raises(LedgerGapError, match="up to offset 2, the next that the topic has is 10"):
        sink.apply([inbound([entry("acme", 9, -1)], 10)])


def test_markers_alone_move_the_position(client: Client) -> None:
    sink = new_sink(client)
    sink.apply([Inbound(LEDGER, 0, 0, 3, [], [], [], [])])
    assert sink.positions() == {PLACE: 3}
    assert new_sink(client).restore([PLACE, (LEDGER, 1)]) == {PLACE: 3, (LEDGER, 1): 0}


def wallet(unit: str, settled: int) -> dict[str, Any]:
    names = ("held", "available", "allocation", "month_spent", "lifetime_added", "lifetime_spent")
    zero = {f"{name}_nanos": 0 for name in names}
    return {"unit": unit, "settled_nanos": settled, **zero, "status": "ok", "health": "green"}


def test_a_balance_says_what_is_on_the_way(client: Client) -> None:
    """In the view, on the card, and for `credits verify`; a record of version 1 did not say: nothing."""
    topic = TOPICS.name("balances")
    wallets = [wallet("EUR", 4), wallet("USD", 0) | {"on_the_way_nanos": 9 * 10**18}]
    new = inbound([{"org_id": "acme", "seq": 2, "as_of": NOON, "wallets": wallets}], 0, topic=topic, record="balance")
    line = next(each for each in GOLDEN_V1.read_text(encoding="utf-8").splitlines() if '"name": "full"' in each)
    old = frame(bundled_id("balance", 1)) + bytes.fromhex(json.loads(line)["body"])
    new_sink(client).apply([new, Inbound(topic, 0, 2, 3, [2], [NOON // 1_000], [b"org_id-1"], [old])])
    wanted = [("acme", "EUR", Decimal(0)), ("acme", "USD", Decimal(9 * 10**9)), ("org_id-1", "unit-1", Decimal(0))]
    for view in ("v_balances", "v_balance_cards"):
        found = client.query(f"SELECT org_id, wallet, on_the_way FROM {view} ORDER BY org_id, wallet").result_rows
        assert [tuple(row) for row in found] == wanted, view
    client.command("INSERT INTO ledger (org_id, seq, wallet) VALUES ('acme', 1, 'USD')")
    (figures,) = clickhouse_audit(client, orgs_max=1)["orgs"]
    assert {unit: each["published"]["on_the_way_nanos"] for unit, each in figures["wallets"].items()} == {
        "EUR": 0,
        "USD": 9 * 10**18,
    }


def test_balances_show_the_newest_whatever_the_order_of_writing(client: Client) -> None:
    rows = [{"org_id": "acme", "seq": seq, "as_of": NOON, "wallets": [wallet("USD", seq)]} for seq in (1, 2, 3)]
    rows.append({"org_id": "bolt", "seq": 9, "as_of": NOON, "wallets": [wallet("EUR", 5), wallet("USD", 6)]})
    rows.append({"org_id": "void", "seq": 1, "as_of": NOON, "wallets": []})
    topic = TOPICS.name("balances")
    batch = inbound(rows, 0, topic=topic, record="balance")
    sink = new_sink(client)
    sink.apply([batch])
    old = new_sink(client)
    client.command("TRUNCATE TABLE positions")
    old.apply([inbound(rows[:1], 0, topic=topic, record="balance")])
    shown = client.query(
        "SELECT org_id, wallet, toFloat64(settled) * 1e9, seq FROM v_balances ORDER BY ALL"
    ).result_rows
    assert shown == [("acme", "USD", 3.0, 3), ("bolt", "EUR", 5.0, 9), ("bolt", "USD", 6.0, 9)]


def price(price_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "price_id": price_id,
        "operation": "chat",
        "unit_price_nanos": 150,
        "billing_unit": "token",
        "wallet": "USD",
        "valid_from": NOON,
        **fields,
    }


def test_prices_are_replaced_and_deleted_and_bad_ones_are_no_prices(client: Client) -> None:
    topic = TOPICS.name("prices")
    rows = [price("a"), price("b"), price("c"), price("a", unit_price_nanos=7, valid_to=NOON)]
    batch = inbound(rows, 0, topic=topic, record="price")
    batch.values += [None, b"garbage"]
    batch.offsets += [8, 10]
    batch.timestamps_ms += [0, 0]
    batch.keys += [b"b", b"x"]
    batch.next_offset = 12
    new_sink(client).apply([batch])
    shown = client.query("SELECT price_id, unit_price, valid_to IS NULL FROM v_prices ORDER BY price_id").result_rows
    assert [(name, int(unit_price.scaleb(9)), open_) for name, unit_price, open_ in shown] == [
        ("a", 7, 0),
        ("c", 150, 1),
    ]


def test_what_the_ledger_has_judged_of_a_price_is_what_is_shown(client: Client) -> None:
    """Of `a` the second record was refused; of `b` the first, and only, one."""
    topic, kept_topic = TOPICS.name("prices"), TOPICS.name("kept_prices")
    published = inbound([price("a"), price("b"), price("a", unit_price_nanos=7)], 0, topic=topic, record="price")
    kept = inbound([price("a")], 0, topic=kept_topic, record="price")
    kept.values.append(b"")
    kept.offsets.append(2)
    kept.timestamps_ms.append(0)
    kept.keys = [b"a", b"b"]
    kept.next_offset = 3
    assert published.offsets == [0, 2, 4]
    kept.headers = [position_headers((0, 0, 0), (0, 0, 4)), position_headers((0, 0, 2), (0, 0, 2))]
    for batches in ([published, kept], [kept, published]):
        emptied(client)
        new_sink(client).apply(batches)
        shown = client.query("SELECT price_id, unit_price FROM v_prices ORDER BY price_id").result_rows
        assert [(name, int(unit_price.scaleb(9))) for name, unit_price in shown] == [("a", 150)]


def test_dead_letters_keep_their_bytes_and_their_place(client: Client) -> None:
    value = bytes(range(256)) * 1_000
    headers = [
        ("__streams.errors.topic", b"credits.usage.v1"),
        ("__streams.errors.partition", b"3"),
        ("__streams.errors.offset", b"41"),
        ("__streams.errors.exception", b"ValueError"),
        ("__streams.errors.message", "nö".encode()),
        ("credits.error.code", b"undecodable"),
    ]
    topic = TOPICS.name("dead_letters")
    batch = Inbound(
        topic, 1, 0, 6, [0, 2, 4], [5, 6, 7], [b"acme", None, b"\xff"], [value, None, b""], [headers, [], []]
    )
    for _ in range(2):
        new_sink(client).apply([batch])
        client.command("TRUNCATE TABLE positions")
    columns = "code, source_topic, source_partition, source_offset, org_id, message, value_bytes"
    shown = client.query(f"SELECT {columns} FROM v_dead_letters ORDER BY code").result_rows
    assert shown[-1] == ("undecodable", "credits.usage.v1", 3, 41, "acme", "nö", 256_000)
    kept = client.query("SELECT hex(value) FROM dead_letters WHERE code = 'undecodable' LIMIT 1").result_rows[0][0]
    assert bytes.fromhex(kept) == value[:DEAD_LETTER_VALUE_BYTES_MAX]


def test_entries_of_a_second_account_are_left_out(client: Client) -> None:
    """An older version wrote them in a partition that is not the org's, under the numbers of the org's own entries."""
    home = partition_of(b"acme", 8)
    away = (home + 1) % 8
    sink = Sink(client, TOPICS, BundledSchemas(), partitions=8)
    for partition, amount in ((away, 3), (home, 10), (away, 3)):
        batch = inbound([entry("acme", 1, amount, kind="purchase")], 0)
        batch.partition = partition
        sink.apply([batch])
    assert client.query("SELECT ledger_partition, seq FROM ledger").result_rows == [(home, 1)]
    assert sink.positions()[LEDGER, away] == batch.next_offset


def test_a_dead_letter_says_whether_it_was_replayed_and_failed_again(client: Client) -> None:
    def headers(offset: int) -> list[tuple[str, bytes]]:
        source = {"topic": b"usage", "partition": b"3", "offset": b"%d" % offset}
        return [(f"__streams.errors.{name}", value) for name, value in source.items()]

    def note(offset: int) -> bytes:
        return b'{"at_ms": 9000, "topic": "usage", "partition": 3, "offset": %d}' % offset

    letters = Inbound(
        TOPICS.name("dead_letters"), 1, 0, 8, [0, 2, 4, 6], [5] * 4, [b"acme"] * 4, [b"v"] * 4,
        [headers(40), headers(41), headers(42), headers(60)],
    )  # fmt: skip
    notes = Inbound(TOPICS.name("replays"), 0, 0, 2, [0, 1], [9, 9], [b"1:0", b"1:2"], [note(60), note(61)])
    for _ in range(2):
        new_sink(client).apply([letters, notes])
        client.command("TRUNCATE TABLE positions")
    columns = "letter_id, state, toUnixTimestamp64Milli(ifNull(replayed_at, toDateTime64(0, 6, 'UTC')))"
    shown = client.query(
        f"SELECT {columns} FROM v_dead_letters WHERE source_topic = 'usage' ORDER BY letter_id"
    ).result_rows
    assert shown == [("1:0", "failed_again", 9000), ("1:2", "replayed", 9000), ("1:4", "open", 0), ("1:6", "open", 0)]


def test_calls_without_a_right_are_in_the_activity_log(client: Client) -> None:
    """Beside what the ledger refused; what is no such record is left out, and read twice it is there once."""

    def call(**changes: Any) -> bytes:
        fields = {"occurred_at": NOON, "org_id": "acme", "actor": "key:a", "action": "PUT /x/{kind}", "path": "/x/y"}
        fields |= {"reason": "not_authorized", "detail": "needs admin", "repeated": 3}
        return json.dumps(fields | changes).encode()

    values: list[bytes | None] = [
        call(),
        b"{",
        call(occurred_at=-1),
        call(occurred_at=1e400),
        b"[1]",
        call(path="\ud800", org_id="globex"),
    ]
    places = list(range(len(values)))
    calls = Inbound(
        TOPICS.name("refused_calls"), 1, 0, len(values), places, [9] * len(values), [b"acme"] * len(values), values
    )
    refused = entry("acme", 2, 0, kind="rejected", reason="not_authorized", actor="bob", details='{"kind": "wallet"}')
    refused |= {"source_topic": TOPICS.name("settings")}
    for _ in range(2):
        new_sink(client).apply([calls, inbound([refused], 0)])
        client.command("TRUNCATE TABLE positions")
    shown = client.query(
        "SELECT org_id, seq, actor, action, subject, refused, reason, JSONExtractString(details, 'repeated')"
        " FROM v_activity ORDER BY org_id, seq"
    ).result_rows
    assert shown == [
        ("acme", 0, "key:a", "PUT /x/{kind}", "/x/y", 1, "not_authorized", "3"),
        ("acme", 2, "bob", "wallet", "", 1, "not_authorized", ""),
        ("globex", 0, "key:a", "PUT /x/{kind}", "?", 1, "not_authorized", "3"),
    ]


def test_alerts_are_shown_once(client: Client) -> None:
    alert = {
        "alert_id": "a1",
        "org_id": "acme",
        "wallet": "USD",
        "kind": "credit_threshold_crossed",
        "rule_version": 2,
        "balance_nanos": 5,
        "available_nanos": 4,
        "used_percent": 80.25,
        "occurred_at": NOON,
        "entry_seq": 5,
        "channels": ["banner", "email"],
        "dismissable": True,
        "thresholds_left": ["r2"],
    }
    topic = TOPICS.name("alerts_threshold")
    new_sink(client).apply([inbound([alert, alert], 0, topic=topic, record="alert")])
    client.command("TRUNCATE TABLE positions")
    new_sink(client).apply([inbound([alert], 0, topic=topic, record="alert")])
    columns = "alert_id, used_percent, previous_percent, channels, dismissable, thresholds_left, rule_id"
    shown = client.query(f"SELECT {columns} FROM v_alerts").result_rows
    assert shown == [("a1", 80.25, None, ["banner", "email"], True, ["r2"], "")]
