"""Lists that people look through: alerts, activity, settings, members, prices, organisations (product rules 25, 30-32).

Rules of this file: every list is paged behind the last line's own key, never by a number of lines, so that what comes
meanwhile neither repeats nor hides a line; the newest come first where a list is of things that happened. A list of
organisations or prices shows only what `org_ids` allows (None: all).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from projections.queries import Query
from projections.reads import PAGE, Document, Reads, document_of, page_of, read_cursor, write_cursor
from schemas.dismissals import Dismissal
from schemas.times import format_time

SETTINGS_MAX: Final = 10_000
"""Settings in force that one answer holds."""


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Which alerts are listed; None and empty: all. Times: microseconds UTC, the end not included."""

    kinds: Sequence[str] = ()
    wallet: str | None = None
    channel: str | None = None
    dismissable: bool | None = None
    dismissed: bool | None = None
    starts_at: int | None = None
    ends_at: int | None = None


@dataclass(frozen=True, slots=True)
class ActivityFilter:
    """Which lines of the activity log are listed."""

    actions: Sequence[str] = ()
    actor: str | None = None
    refused: bool | None = None
    starts_at: int | None = None
    ends_at: int | None = None


@dataclass(frozen=True, slots=True)
class PriceFilter:
    """Which prices are listed. `search`: a part of the name, the model, the operation or the id, in any case.

    `valid_at`: those that apply at an instant (microseconds). `org_id`: the list price and this org's own.
    """

    search: str = ""
    valid_at: int | None = None
    org_id: str | None = None
    wallet: str | None = None


@dataclass(frozen=True, slots=True)
class DismissalState:
    """Whether an alert may be dismissed, and its dismissal if it was."""

    dismissable: bool
    dismissal: Dismissal | None


class _Conditions:
    """Conditions joined by AND, and their parameters. Columns and types are ours, values are parameters."""

    def __init__(self) -> None:
        self._conditions: list[str] = []
        self.parameters: dict[str, Any] = {}

    def add(self, condition: str, **parameters: Any) -> None:
        """One more, unless one of its parameters is None."""
        if all(value is not None for value in parameters.values()):
            self._conditions.append(condition)
            self.parameters |= parameters

    def add_range(self, column: str, starts_at: int | None, ends_at: int | None) -> None:
        """From one instant to before another."""
        self.add(f"{column} >= fromUnixTimestamp64Micro({{starts:Int64}}, 'UTC')", starts=starts_at)
        self.add(f"{column} < fromUnixTimestamp64Micro({{ends:Int64}}, 'UTC')", ends=ends_at)

    def __str__(self) -> str:
        return " AND ".join(self._conditions) or "true"


_ALERT_COLUMNS: Final = (
    "toUnixTimestamp64Micro(occurred_at) AS occurred_at_us, alert_id, wallet, kind, rule_id, rule_version, epoch,"
    " level, balance, available, used_percent, previous_percent, entry_seq,"
    " channels, dismissable, message, thresholds_left"
)


def alerts(org_id: str, wanted: AlertFilter, after: tuple[int, str] | None, rows_max: int) -> Query:
    """A page of alerts by (entry_seq, alert_id), newest first, behind `after`; dismissed_at_us 0: it is not."""
    where = _Conditions()
    where.add("org_id = {org:String}", org=org_id)
    where.add("kind IN {kinds:Array(String)}", kinds=list(wanted.kinds) or None)
    where.add("wallet = {wallet:String}", wallet=wanted.wallet)
    where.add("has(channels, {channel:String})", channel=wanted.channel)
    where.add("dismissable = {dismissable:Bool}", dismissable=wanted.dismissable)
    where.add_range("occurred_at", wanted.starts_at, wanted.ends_at)
    if wanted.dismissed is not None:
        where.add("dismissed_at_us > 0" if wanted.dismissed else "dismissed_at_us = 0")
    if after is not None:
        where.add("(entry_seq, alert_id) < ({seq:UInt64}, {id:String})", seq=after[0], id=after[1])
    return Query(
        f"SELECT {_ALERT_COLUMNS}, dismissed_at_us, dismissed_by"
        " FROM (SELECT * FROM v_alerts WHERE org_id = {org:String}) AS alert LEFT JOIN ("
        "SELECT alert_id, toUnixTimestamp64Micro(argMax(dismissed_at, version)) AS dismissed_at_us,"
        " argMax(actor, version) AS dismissed_by FROM dismissals WHERE org_id = {org:String} GROUP BY alert_id"
        f") AS dismissed USING (alert_id) WHERE {where}"
        " ORDER BY entry_seq DESC, alert_id DESC LIMIT {rows:UInt64}",
        where.parameters | {"rows": rows_max},
    )


def dismissal(org_id: str, alert_id: str) -> Query:
    """dismissable, dismissed_at_us (0: it is not) and dismissed_by of one alert; no row: it is not known."""
    return Query(
        "SELECT dismissable, dismissed_at_us, dismissed_by"
        " FROM (SELECT * FROM v_alerts WHERE org_id = {org:String} AND alert_id = {id:String}) AS alert"
        " LEFT JOIN (SELECT alert_id, toUnixTimestamp64Micro(argMax(dismissed_at, version)) AS dismissed_at_us,"
        " argMax(actor, version) AS dismissed_by FROM dismissals"
        " WHERE org_id = {org:String} AND alert_id = {id:String} GROUP BY alert_id) AS dismissed USING (alert_id)",
        {"org": org_id, "id": alert_id},
    )


def activity(org_id: str, wanted: ActivityFilter, after: tuple[int, str] | None, rows_max: int) -> Query:
    """A page of the activity log by (time of booking, id), the newest first, behind `after`."""
    where = _Conditions()
    where.add("action IN {actions:Array(String)}", actions=list(wanted.actions) or None)
    where.add("actor = {actor:String}", actor=wanted.actor)
    where.add("refused = {refused:Bool}", refused=wanted.refused)
    where.add_range("recorded_at", wanted.starts_at, wanted.ends_at)
    if after is not None:
        where.add("(recorded_at_us, line) < ({at:Int64}, {line:String})", at=after[0], line=after[1])
    return Query(
        "SELECT * FROM (SELECT recorded_at, toUnixTimestamp64Micro(recorded_at) AS recorded_at_us,"
        " toUnixTimestamp64Micro(occurred_at) AS occurred_at_us, seq, actor, action, subject, wallet, amount, before,"
        " after, refused, reason, counterparty_org_id, event_id, details,"
        # What is no entry of the ledger has no number: its content tells it from others of the same microsecond.
        " concat(leftPad(toString(seq), 20, '0'), hex(cityHash64(actor, action, subject, details))) AS line"
        " FROM v_activity WHERE org_id = {org:String})"
        f" WHERE {where} ORDER BY recorded_at_us DESC, line DESC LIMIT {{rows:UInt64}}",
        where.parameters | {"org": org_id, "rows": rows_max},
    )


def settings(org_id: str, kind: str | None) -> Query:
    """The settings in force of an org."""
    where = _Conditions()
    where.add("org_id = {org:String}", org=org_id)
    where.add("kind = {kind:String}", kind=kind)
    return Query(
        "SELECT kind, subject, body, actor, toUnixTimestamp64Micro(occurred_at) AS occurred_at_us, seq FROM v_settings"
        f" WHERE {where} ORDER BY kind, subject LIMIT {SETTINGS_MAX}",
        where.parameters,
    )


def prices(wanted: PriceFilter, org_ids: Sequence[str] | None, after: str, rows_max: int) -> Query:
    """A page of prices by id, behind `after`. An org's own prices are shown where `org_ids` allows it."""
    where = _Conditions()
    where.add("price_id > {after:String}", after=after)
    names = ("display_name", "model", "operation", "price_id", "provider", "tool")
    found = " OR ".join(f"positionCaseInsensitiveUTF8({name}, {{search:String}}) > 0" for name in names)
    where.add(f"({found})", search=wanted.search or None)
    at = "fromUnixTimestamp64Micro({at:Int64}, 'UTC')"
    where.add(f"valid_from <= {at} AND (valid_to IS NULL OR valid_to > {at})", at=wanted.valid_at)
    where.add("wallet = {wallet:String}", wallet=wanted.wallet)
    where.add("org_id IN ('', {org:String})", org=wanted.org_id)
    where.add("(org_id = '' OR org_id IN {orgs:Array(String)})", orgs=None if org_ids is None else list(org_ids))
    return Query(
        f"SELECT * FROM v_prices WHERE {where} ORDER BY price_id LIMIT {{rows:UInt64}}",
        where.parameters | {"rows": rows_max},
    )


def organisations(search: str, status: str | None, org_ids: Sequence[str] | None, after: str, rows_max: int) -> Query:
    """A page of orgs by id, behind `after`: org_id, seq, as_of_us, and the wallets of each."""
    where = _Conditions()
    where.add("org_id > {after:String}", after=after)
    where.add("positionCaseInsensitiveUTF8(org_id, {search:String}) > 0", search=search or None)
    where.add("org_id IN {orgs:Array(String)}", orgs=None if org_ids is None else list(org_ids))
    having = _Conditions()
    having.add("has(wallets.status, {status:String})", status=status)
    return Query(
        "SELECT org_id, max(seq) AS seq, toUnixTimestamp64Micro(max(as_of)) AS as_of_us, arraySort(groupArray("
        "CAST(tuple(wallet, settled, available, status, health), 'Tuple(unit String, settled Decimal(38, 9),"
        " available Decimal(38, 9), status String, health String)'))) AS wallets"
        f" FROM v_balances WHERE {where} GROUP BY org_id HAVING {having} ORDER BY org_id LIMIT {{rows:UInt64}}",
        where.parameters | having.parameters | {"rows": rows_max},
    )


class Listings:
    """Lists over a `Reads`. Those of one org are None where no entry of it is projected."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def alerts(
        self, org_id: str, wanted: AlertFilter, cursor: str | None = None, rows_max: int = PAGE
    ) -> Document | None:
        """A page of alerts, with who has dismissed each. Raises `CursorError`."""
        after = None if cursor is None else _after("alerts", cursor, int, str)
        freshness = self._reads.freshness(org_id)
        if freshness is None:
            return None
        rows, more = page_of(self._reads.rows(alerts(org_id, wanted, after, rows_max + 1)), rows_max)
        last = rows[-1] if more else None
        return {
            "org_id": org_id,
            "as_of": format_time(freshness.as_of),
            "alerts": [_alert(row) for row in rows],
            "next_cursor": None if last is None else write_cursor("alerts", last["entry_seq"], last["alert_id"]),
        }

    def dismissal(self, org_id: str, alert_id: str) -> DismissalState | None:
        """Whether an alert may be dismissed, and whether it was; None: it is not known."""
        found = self._reads.rows(dismissal(org_id, alert_id))
        if not found:
            return None
        at, actor = found[0]["dismissed_at_us"], found[0]["dismissed_by"]
        return DismissalState(bool(found[0]["dismissable"]), Dismissal(org_id, alert_id, at, actor) if at else None)

    def activity(
        self, org_id: str, wanted: ActivityFilter, cursor: str | None = None, rows_max: int = PAGE
    ) -> Document | None:
        """A page of the activity log: who, what, when, before, after; refused tries too. Raises `CursorError`."""
        after = None if cursor is None else _after("activity", cursor, int, str)
        freshness = self._reads.freshness(org_id)
        if freshness is None:
            return None
        rows, more = page_of(self._reads.rows(activity(org_id, wanted, after, rows_max + 1)), rows_max)
        last = rows[-1] if more else None
        return {
            "org_id": org_id,
            "as_of": format_time(freshness.as_of),
            "activity": [_activity(row) for row in rows],
            "next_cursor": None if last is None else write_cursor("activity", last["recorded_at_us"], last["line"]),
        }

    def settings(self, org_id: str, kind: str | None = None) -> Document | None:
        """The settings in force."""
        freshness = self._reads.freshness(org_id)
        if freshness is None:
            return None
        found = [_setting(row) for row in self._reads.rows(settings(org_id, kind))]
        return {"org_id": org_id, "as_of": format_time(freshness.as_of), "settings": found}

    def members(self, org_id: str) -> Document | None:
        """The members and their roles; who was taken off is not among them."""
        found = self.settings(org_id, "member")
        if found is None:
            return None
        members = [
            {
                "user_id": each["subject"],
                "role": each["body"]["role"],
                "since": each["occurred_at"],
                "by": each["actor"],
            }
            for each in found.pop("settings")
            if each["body"].get("role") not in (None, "none")
        ]
        return {**found, "members": members}

    def prices(
        self, wanted: PriceFilter, org_ids: Sequence[str] | None, cursor: str | None = None, rows_max: int = PAGE
    ) -> Document:
        """A page of the price list. Raises `CursorError`."""
        after = "" if cursor is None else read_cursor("prices", cursor, str)[0]
        rows, more = page_of(self._reads.rows(prices(wanted, org_ids, after, rows_max + 1)), rows_max)
        return {
            "as_of": self._as_of(),
            "prices": [_price(row) for row in rows],
            "next_cursor": write_cursor("prices", rows[-1]["price_id"]) if more else None,
        }

    def organisations(
        self, search: str, status: str | None, org_ids: Sequence[str] | None, cursor: str | None, rows_max: int
    ) -> Document:
        """A page of the organisations that have a wallet. Raises `CursorError`."""
        after = "" if cursor is None else read_cursor("orgs", cursor, str)[0]
        query = organisations(search, status, org_ids, after, rows_max + 1)
        rows, more = page_of(self._reads.rows(query), rows_max)
        return {
            "as_of": self._as_of(),
            "orgs": [_organisation(row) for row in rows],
            "next_cursor": write_cursor("orgs", rows[-1]["org_id"]) if more else None,
        }

    def _as_of(self) -> str | None:
        freshness = self._reads.freshness_of_all()
        return None if freshness is None else format_time(freshness.as_of)


def _after(kind: str, cursor: str, first: type[int], second: type[str]) -> tuple[int, str]:
    number, text = read_cursor(kind, cursor, first, second)
    return max(0, number), text


def _alert(row: Mapping[str, Any]) -> Document:
    shown = {name: value for name, value in row.items() if not name.startswith("dismissed_")}
    at = row["dismissed_at_us"]
    return {
        **document_of(shown),
        "dismissed_at": format_time(at) if at else None,
        "dismissed_by": row["dismissed_by"] if at else None,
    }


def _activity(row: Mapping[str, Any]) -> Document:
    hidden = ("recorded_at", "line", "before", "after", "details")
    shown = document_of({name: value for name, value in row.items() if name not in hidden})
    shown["refused"] = bool(row["refused"])
    return shown | {"before": _json(row["before"]), "after": _json(row["after"]), "details": _json(row["details"])}


def _setting(row: Mapping[str, Any]) -> Document:
    return {**document_of(row, texts=["subject"]), "body": _json(row["body"]) or {}}


def _price(row: Mapping[str, Any]) -> Document:
    times = {name: row[name] for name in ("valid_from", "valid_to")}
    shown = document_of({name: value for name, value in row.items() if name not in times})
    return (
        shown
        | {name: None if at is None else format_time(round(at.timestamp() * 1_000_000)) for name, at in times.items()}
        | {"free": bool(row["free"])}
    )


def _organisation(row: Mapping[str, Any]) -> Document:
    wallets = [document_of(each) for each in row["wallets"]]
    return {**document_of({name: value for name, value in row.items() if name != "wallets"}), "wallets": wallets}


def _json(text: str) -> Any:
    """What a text of JSON says, an amount included; the text itself where it is none; None for none."""
    if not text:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(found, int | float) else found
