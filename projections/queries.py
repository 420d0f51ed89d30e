"""The SQL that the projection asks and audits with. Pure: text and parameters, no connection.

Rules of this file: every query over a table that may hold a row twice keeps one per identity itself; amounts come out
as integers of nano-credits in text (they may pass 64 bits); what can be long is paged by key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from projections.buckets import COUNTS, Level
from schemas.facts import BALANCE_AMOUNTS

READ_BACK_KEYS_MAX = 5_000
"""Buckets asked for in one statement: 5,000 ids of 35 characters and their starts are about 250 kB of SQL."""

READ_BACK_SETTINGS = {"max_query_size": 4 * 1024 * 1024}
"""ClickHouse refuses statements of more than 256 kB unless this is set."""

INSERT_SETTINGS = {"max_partitions_per_insert_block": 0, "optimize_on_insert": 0}
"""A refold of years may touch more than the default of 100 table partitions in one insert. No identity is twice in one
insert, so collapsing the block first is work for nothing: without it the ledger's insert takes half the time."""


class Query(NamedTuple):
    """A statement and its parameters."""

    sql: str
    parameters: dict[str, Any]


def positions() -> Query:
    """topic, partition, position, as_of (microseconds) of everything projected."""
    return Query(
        "SELECT topic, partition, position, toUnixTimestamp64Micro(as_of) AS as_of FROM v_freshness"
        " ORDER BY topic, partition",
        {},
    )


def present_count(partition: int, position: int) -> Query:
    """How many entries of a ledger partition are in the table at or beyond a position."""
    return Query(
        "SELECT count() FROM ledger WHERE ledger_partition = {partition:UInt32} AND ledger_offset >= {position:Int64}",
        {"partition": partition, "position": position},
    )


def present_offsets(partition: int, position: int) -> Query:
    """Their offsets."""
    return Query(
        "SELECT DISTINCT ledger_offset FROM ledger"
        " WHERE ledger_partition = {partition:UInt32} AND ledger_offset >= {position:Int64}",
        {"partition": partition, "position": position},
    )


def newest_start(level: Level) -> Query:
    """Rows of a usage table, and the newest bucket's start as `Level.starts` counts."""
    return Query(f"SELECT count(), max({_start(level)}) FROM {level.table}", {})


def read_back(level: Level, wanted: Sequence[tuple[bytes, int]]) -> Query:
    """dims_id, start, version and the values (`COUNTS`, sums, as text) of the buckets that exist.

    `wanted`: (dims_id, start), at most `READ_BACK_KEYS_MAX`; others with one of these ids may come, too. The ids alone
    would do; the range of starts spares the reading of other months.
    """
    starts = [start for _, start in wanted]
    values = (*COUNTS, *level.sums)
    ids = ", ".join(f"x'{dims_id}'" for dims_id in sorted({dims_id.hex() for dims_id, _ in wanted}))
    return Query(
        f"SELECT dims_id, start, version, {', '.join(_value(name) for name in values)} FROM ("
        f"SELECT dims_id, {_start(level)} AS start, version, {', '.join(values)} FROM {level.table}"
        f" WHERE {level.column} >= {_time(level, min(starts))} AND {level.column} <= {_time(level, max(starts))}"
        f" AND dims_id IN ({ids})"
        " ORDER BY version DESC LIMIT 1 BY dims_id, start)",
        {},
    )


def audit_totals() -> Query:
    """wallet, kind, entries and the sum of amounts over the whole ledger."""
    return Query(
        "SELECT wallet, kind, count() AS entries, toString(toInt256(sum(toDecimal256(amount, 9)) * 1000000000))"
        " FROM (SELECT wallet, kind, amount FROM ledger LIMIT 1 BY org_id, seq)"
        " GROUP BY wallet, kind ORDER BY wallet, kind",
        {},
    )


def audit_tables(tables: Sequence[str]) -> Query:
    """Rows of each table as stored, versions and duplicates that are not merged yet included."""
    return Query(" UNION ALL ".join(f"SELECT '{table}', count() FROM {table}" for table in tables), {})


def audit_orgs(after_org: str, orgs_max: int) -> Query:
    """org_id, entries, first and last seq of the orgs after `after_org`, by org id."""
    return Query(
        "SELECT org_id, uniqExact(seq), min(seq), max(seq) FROM ledger WHERE org_id > {after:String}"
        " GROUP BY org_id ORDER BY org_id LIMIT {orgs_max:UInt64}",
        {"after": after_org, "orgs_max": orgs_max},
    )


def audit_ledger_wallets(after_org: str, last_org: str | None) -> Query:
    """org_id, wallet, balance, held and available after the wallet's last entry, the sum of its amounts, entries.

    Of the orgs after `after_org` up to `last_org` (None: to the end).
    """
    condition, parameters = _range(after_org, last_org)
    return Query(
        "SELECT org_id, wallet,"
        f" {_nanos('argMax(balance, seq)')}, {_nanos('argMax(held, seq)')}, {_nanos('argMax(available, seq)')},"
        " toString(toInt256(sum(toDecimal256(amount, 9)) * 1000000000)), count()"
        " FROM (SELECT org_id, wallet, seq, balance, held, available, amount FROM ledger"
        f" WHERE {condition} AND wallet != '' LIMIT 1 BY org_id, seq)"
        " GROUP BY org_id, wallet ORDER BY org_id, wallet",
        parameters,
    )


def audit_balances(after_org: str, last_org: str | None) -> Query:
    """org_id, wallet, seq, amounts, status and health of the newest published balances in a range of orgs."""
    condition, parameters = _range(after_org, last_org)
    return Query(
        f"SELECT org_id, wallet, seq, {', '.join(map(_nanos, BALANCE_AMOUNTS))}, status, health FROM v_balances"
        f" WHERE {condition} ORDER BY org_id, wallet",
        parameters,
    )


def audit_alerts() -> Query:
    """kind and number of the alerts."""
    return Query("SELECT kind, uniqExact(org_id, alert_id) FROM alerts GROUP BY kind ORDER BY kind", {})


def audit_dead_letters() -> Query:
    """code and number of the dead letters."""
    return Query(
        "SELECT code, uniqExact(source_topic, source_partition, source_offset) FROM dead_letters"
        " GROUP BY code ORDER BY code",
        {},
    )


def audit_usage(level: Level) -> Query:
    """wallet, entries, requests, cost and refunded summed over a level's buckets."""
    total = "toString(toInt256(sum(toDecimal256({name}, 9)) * 1000000000))"
    return Query(
        f"SELECT wallet, sum(entries), sum(requests), {total.format(name='cost')}, {total.format(name='refunded')}"
        f" FROM (SELECT wallet, entries, requests, cost, refunded FROM {level.table}"
        f" ORDER BY version DESC LIMIT 1 BY org_id, {level.column}, dims_id) GROUP BY wallet ORDER BY wallet",
        {},
    )


def org_position(org_id: str, ledger_topic: str) -> Query:
    """How far the org's partition of the ledger is projected: position, as_of (microseconds); no row: unknown org."""
    return Query(
        "SELECT position, toUnixTimestamp64Micro(as_of) FROM v_freshness WHERE topic = {topic:String} AND partition ="
        " (SELECT ledger_partition FROM ledger WHERE org_id = {org:String} LIMIT 1)",
        {"org": org_id, "topic": ledger_topic},
    )


def time_zones(org_id: str) -> Query:
    """From when (microseconds), time zone: each change of an org's time zone, in order; before the first it is UTC."""
    return Query(
        "SELECT toUnixTimestamp64Micro(recorded_at) AS since, zone FROM ("
        "SELECT seq, recorded_at, zone, lagInFrame(zone, 1, 'UTC') OVER (ORDER BY seq) AS before FROM ("
        "SELECT seq, recorded_at, JSONExtractString(details, 'body', 'time_zone') AS named,"
        " if(named = '', 'UTC', named) AS zone FROM activity"
        " WHERE org_id = {org:String} AND kind = 'setting' AND action = 'org' LIMIT 1 BY org_id, seq)"
        ") WHERE zone != before ORDER BY seq",
        {"org": org_id},
    )


def wallets(org_id: str) -> Query:
    """The wallets that entries of an org name."""
    return Query(
        "SELECT DISTINCT wallet FROM ledger WHERE org_id = {org:String} AND wallet != '' ORDER BY wallet",
        {"org": org_id},
    )


def movements(org_id: str, starts_at: int, ends_at: int, position: int) -> Query:
    """wallet, movement, entries and sum of amounts, booked from `starts_at` to before `ends_at` (microseconds)."""
    return Query(
        "SELECT wallet, movement, count(), sum(amount) FROM v_movements"
        " WHERE org_id = {org:String} AND ledger_offset < {position:Int64}"
        " AND recorded_at >= fromUnixTimestamp64Micro({starts_at:Int64}, 'UTC')"
        " AND recorded_at < fromUnixTimestamp64Micro({ends_at:Int64}, 'UTC')"
        " GROUP BY wallet, movement ORDER BY wallet, movement",
        {"org": org_id, "starts_at": starts_at, "ends_at": ends_at, "position": position},
    )


def balance_before(org_id: str, wallet: str, at: int, position: int) -> Query:
    """The settled balance after the wallet's last movement before a time (microseconds); no row: there was none.

    Read from the end of the org's entries, so its age does not matter.
    """
    return Query(
        "SELECT balance FROM ledger WHERE org_id = {org:String} AND wallet = {wallet:String} AND amount != 0"
        " AND ledger_offset < {position:Int64} AND recorded_at < fromUnixTimestamp64Micro({at:Int64}, 'UTC')"
        " ORDER BY org_id DESC, seq DESC LIMIT 1",
        {"org": org_id, "wallet": wallet, "at": at, "position": position},
    )


def invoices(org_id: str, after: int, invoices_max: int) -> Query:
    """Rows of `v_invoices` with numbers above `after`, ascending, as `INVOICE_COLUMNS`."""
    return Query(
        f"SELECT {_shown(INVOICE_COLUMNS)} FROM v_invoices WHERE org_id = {{org:String}} AND number > {{after:UInt64}}"
        " ORDER BY number LIMIT {rows:UInt64}",
        {"org": org_id, "after": after, "rows": invoices_max},
    )


def credit_notes(org_id: str, after: int, notes_max: int) -> Query:
    """Rows of `v_credit_notes` with numbers above `after`, ascending, as `CREDIT_NOTE_COLUMNS`."""
    return Query(
        f"SELECT {_shown(CREDIT_NOTE_COLUMNS)} FROM v_credit_notes"
        " WHERE org_id = {org:String} AND number > {after:UInt64} ORDER BY number LIMIT {rows:UInt64}",
        {"org": org_id, "after": after, "rows": notes_max},
    )


def credit_notes_of(org_id: str, first_invoice: int, last_invoice: int) -> Query:
    """The same, of these invoices, both included."""
    return Query(
        f"SELECT {_shown(CREDIT_NOTE_COLUMNS)} FROM v_credit_notes WHERE org_id = {{org:String}}"
        " AND invoice_number BETWEEN {first:UInt64} AND {last:UInt64} ORDER BY number",
        {"org": org_id, "first": first_invoice, "last": last_invoice},
    )


INVOICE_COLUMNS = (
    "org_id",
    "number",
    "invoice_id",
    "issued_at",
    "purchased_at",
    "purchase_id",
    "wallet",
    "credits",
    "total",
    "currency",
    "expires_at",
    "actor",
    "topup_request_id",
    "seq",
)

CREDIT_NOTE_COLUMNS = (
    "org_id",
    "number",
    "credit_note_id",
    "issued_at",
    "refunded_at",
    "refund_id",
    "invoice_number",
    "invoice_id",
    "purchase_id",
    "wallet",
    "credits",
    "total",
    "currency",
    "actor",
    "seq",
)


def _shown(columns: Sequence[str]) -> str:
    """The columns, times in microseconds."""
    return ", ".join(
        f"toUnixTimestamp64Micro({name}) AS {name}_us" if name.endswith("_at") else name for name in columns
    )


def _range(after_org: str, last_org: str | None) -> tuple[str, dict[str, Any]]:
    if last_org is None:
        return "org_id > {after:String}", {"after": after_org}
    return "org_id > {after:String} AND org_id <= {last:String}", {"after": after_org, "last": last_org}


def _nanos(expression: str) -> str:
    return f"toString(toInt256(toDecimal256({expression}, 9) * 1000000000))"


def _value(name: str) -> str:
    """A value as text that `int` reads: nano-units where the column has decimals."""
    return _nanos(name) if name in {"quantity", "cost", "refunded", "cost_as_total"} else f"toString({name})"


def _start(level: Level) -> str:
    """The bucket's start as `Level.starts` counts it."""
    if level.column == "hour":
        return "intDiv(toUnixTimestamp(hour), 3600)"
    if level.column == "day":
        return "toInt64(toUInt16(day))"
    return "toInt64((toYear(month) - 1970) * 12 + toMonth(month) - 1)"


def _time(level: Level, start: int) -> str:
    """The inverse: an expression of the column's own type."""
    if level.column == "hour":
        return f"toDateTime({start * 3_600}, 'UTC')"
    if level.column == "day":
        return f"toDate({start})"
    return f"makeDate({1970 + start // 12}, {start % 12 + 1}, 1)"
