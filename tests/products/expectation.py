"""What a product's rules say must come out, and where the ledger differs from it.

Rules of this file: an expectation names only what the rules fix; a field that is not there is not compared. Each line
of `expected.jsonl` is one entry of an organisation, in the order of `seq`, with the alerts, the decision and the top-up
request that leave with it; everything the ledger says beyond the lines is a difference, except a note: an entry that no
input record caused, that moves and refuses nothing (time came for something), and with which no alert or request left.

`group` is several entries in any order (the contract fixes their effect together: `after`); `booked` is the one or more
entries of one cause, of which one is of the kind named. The alerts of such entries are taken together: of several
`credit_resolved`, what was left is what all of them list.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from schemas.amounts import format_amount, parse_amount
from schemas.enums import AlertKind, EntryKind, GrantKind
from schemas.times import format_time, parse_time, to_datetime
from tests.products.scenario import HERE, MonthRun, Results, Row, json_lines

INTERNAL = "credits.internal."
AMOUNTS = {"amount": "amount_nanos", "balance": "balance_nanos", "available": "available_nanos", "held": "held_nanos"}
WORDS = {
    "kind": "kind",
    "wallet": "wallet",
    "reason": "reason",
    "cause": "event_id",
    "hold_id": "hold_id",
    "actor": "actor",
    "revision": "revision",
}
ALERT_WORDS = {
    "kind": "kind",
    "rule": "rule_id",
    "wallet": "wallet",
    "dismissable": "dismissable",
    "message": "message",
    "grant_of": "grant_of",
}
"""`grant_of`: what first gave the grant that the alert is about, by its cause; grants have ids of the ledger's own."""
UNNAMED = {"low", "negative_limit", "alert_threshold", "allowed_limit"}
"""Lines that are no rule or budget with an id: what a `credit_resolved` calls them the contract does not say."""
CORRECTED = "usage and correction"
"""One movement of a statement where usage was amended: how the two kinds share it the contract does not say."""
PROMOTIONAL = GrantKind.PROMOTIONAL.value
"""A gift is another movement than a purchase, and a refund is of usage or of a purchase: its reason says which."""


@dataclass(frozen=True)
class Expected:
    """A product's expectations: entries per organisation, and the rest."""

    lines: Mapping[str, Sequence[Row]]
    rest: Row


@dataclass
class Step:
    """One entry as the ledger wrote it, with what left with it."""

    entry: Row
    alerts: list[Row] = field(default_factory=list)
    topups: list[Row] = field(default_factory=list)

    @property
    def note(self) -> bool:
        """Does the entry only say that a time has come, or that a transfer has arrived?"""
        entry = self.entry
        caused = entry["source_topic"] and not entry["source_topic"].startswith(INTERNAL)
        run = entry["kind"] in (EntryKind.HOLD, EntryKind.HOLD_RELEASE, EntryKind.REJECTED)
        moved = entry["amount_nanos"] != 0 or entry["slices"] or entry["grants"]
        return not caused and not moved and not run

    @property
    def quiet(self) -> bool:
        """A note that an expectation need not name."""
        return self.note and not self.topups and not self.alerts


def load(name: str) -> Expected:
    """The expectations in a product's folder."""
    lines: dict[str, list[Row]] = {}
    for line in json_lines(HERE / name / "expected.jsonl"):
        lines.setdefault(line["org"], []).append(line)
    return Expected(lines, json.loads((HERE / name / "expected.json").read_text(encoding="utf-8")))


def differences(expected: Expected, run: MonthRun) -> list[str]:
    """Every difference, in words; none when all is as the rules say."""
    results = run.results
    sometime = list(expected.rest.get("sometime", ()))
    found: list[str] = []
    orgs = {row["org_id"] for row in results.ledger} | set(expected.lines)
    for org in sorted(orgs):
        steps = _steps(org, results, sometime)
        found += [f"{org}: {text}" for text in _entries(expected.lines.get(org, ()), steps)]
        found += [f"{org}: {text}" for text in _decisions(expected.lines.get(org, ()), org, results)]
    found += [f"never came: {wanted}" for wanted in sometime]
    found += _dead_letters(expected.rest.get("dead_letters", []), results)
    for name, looks in expected.rest["looks"].items():
        balances = run.looks.get(name, {}) if name != "end" else results.balances
        found += [f"look {name}: {text}" for text in _balances(looks, balances)]
    for org, wallets in expected.rest.get("statements", {}).items():
        zone = ZoneInfo(expected.rest.get("time_zones", {}).get(org, "UTC"))
        entries = [row for row in results.ledger if row["org_id"] == org]
        found += [f"statement of {org}: {text}" for text in _statements(wallets, entries, zone)]
    found += _identities(results)
    return found


def _steps(org: str, results: Results, sometime: list[Row]) -> list[Step]:
    """The entries of one organisation with what left with them; alerts that may come at any time are taken out."""
    rows = sorted((row for row in results.ledger if row["org_id"] == org), key=lambda row: int(row["seq"]))
    by_seq = {row["seq"]: Step(row) for row in rows}
    given_by = {grant["grant_id"]: row["event_id"] for row in reversed(rows) for grant in row["grants"]}
    for alert in results.alerts:
        if alert["org_id"] == org and not _taken(alert, sometime):
            by_seq[alert["entry_seq"]].alerts.append({**alert, "grant_of": given_by.get(alert["rule_id"])})
    for request in results.topup_requests:
        if request["org_id"] == org:
            by_seq[request["entry_seq"]].topups.append(request)
    return list(by_seq.values())


def _taken(alert: Row, sometime: list[Row]) -> bool:
    """Is it one of those whose moment the contract leaves open? Each is taken once."""
    for wanted in sometime:
        same = (alert["org_id"], alert["kind"], alert["rule_id"]) == (wanted["org"], wanted["kind"], wanted["rule"])
        if same and parse_time(wanted["from"]) <= alert["occurred_at"] <= parse_time(wanted["to"]):
            sometime.remove(wanted)
            return True
    return False


def _entries(lines: Sequence[Row], steps: list[Step]) -> Iterator[str]:
    rest = list(steps)
    for number, line in enumerate(lines, start=1):
        where = f"line {number} ({line.get('cause') or line.get('kind') or 'group'})"
        while rest and rest[0].quiet and "group" not in line:
            rest.pop(0)
        taken = _take(line, rest)
        del rest[: len(taken)]
        if not taken:
            yield f"{where}: expected {_shown(line)}, and the ledger ends"
            return
        faults = list(_line_faults(line, taken))
        yield from (f"{where}: {fault}" for fault in faults)
        if any("kind: expected" in fault or "cause: expected" in fault for fault in faults):
            yield f"  got {[_told(step.entry) for step in taken]}, then {[_told(step.entry) for step in rest[:3]]}"
            return
    beyond = (step for step in rest if not step.quiet)
    yield from (f"beyond the lines: {_told(step.entry)} {_kinds(step.alerts)}" for step in beyond)


def _take(line: Row, rest: Sequence[Step]) -> list[Step]:
    if "group" in line:
        loud = [place for place, step in enumerate(rest) if not step.quiet][: len(line["group"])]
        end = loud[-1] + 1 if loud else 0
        while (
            end < len(rest) and rest[end].quiet and rest[end].entry["occurred_at"] == rest[end - 1].entry["occurred_at"]
        ):
            end += 1
        return list(rest[:end])
    if "booked" in line:
        count = next((at for at, step in enumerate(rest) if step.entry["event_id"] != line["cause"]), len(rest))
        return list(rest[: max(count, 1)])
    return list(rest[:1])


def _line_faults(line: Row, taken: Sequence[Step]) -> Iterator[str]:
    if "group" in line:
        yield from _group_faults(line["group"], taken)
        yield from _after_faults(line.get("after", {}), taken)
    elif "booked" in line:
        kinds = [step.entry["kind"] for step in taken]
        if line["booked"] not in kinds or taken[0].entry["event_id"] != line["cause"]:
            yield f"kind: expected {line['booked']} of {line['cause']}, got {kinds}"
        total = sum(step.entry["amount_nanos"] for step in taken)
        if total != parse_amount(line["amount"]):
            yield f"amount: expected {line['amount']} in all, got {format_amount(total)}"
        yield from _after_faults(line.get("after", {}), taken)
    else:
        yield from _entry_faults(line, taken[0].entry)
    alerts = _merged([alert for step in taken for alert in step.alerts])
    yield from _alert_faults(line.get("alerts", []), alerts)
    topups = [format_amount(request["amount_nanos"]) for step in taken for request in step.topups]
    wanted = [line["topup"]] if "topup" in line else []
    if topups != wanted:
        yield f"top-up requests: expected {wanted}, got {topups}"


def _group_faults(members: Sequence[Row], taken: Sequence[Step]) -> Iterator[str]:
    left = [step.entry for step in taken if not step.quiet]
    for member in members:
        fitting = next((entry for entry in left if not list(_entry_faults(member, entry))), None)
        if fitting is None:
            yield f"kind: expected {_shown(member)} among {[_told(entry) for entry in left]}"
        else:
            left.remove(fitting)


def _after_faults(after: Row, taken: Sequence[Step]) -> Iterator[str]:
    """`after` gives, per wallet, the amounts of its last entry here."""
    for wallet, amounts in after.items():
        last = [step.entry for step in taken if step.entry["wallet"] == wallet and not step.quiet][-1:]
        if not last:
            yield f"nothing of wallet {wallet}"
        for entry in last:
            yield from _entry_faults(amounts, entry)


def _entry_faults(line: Row, entry: Row) -> Iterator[str]:
    for name, column in WORDS.items():
        if name in line and entry[column] != line[name]:
            yield f"{name}: expected {line[name]}, got {entry[column]}"
    for name, column in AMOUNTS.items():
        if name in line and entry[column] != parse_amount(line[name]):
            yield f"{name}: expected {line[name]}, got {format_amount(entry[column])}"
    if "occurred" in line and entry["occurred_at"] != parse_time(line["occurred"]):
        yield f"occurred: expected {line['occurred']}, got {format_time(entry['occurred_at'])}"
    if "slices" in line:
        wanted = [(kind, parse_amount(amount)) for kind, amount in line["slices"]]
        got = [(piece["kind"], piece["amount_nanos"]) for piece in entry["slices"]]
        if got != wanted:
            yield f"slices: expected {line['slices']}, got {[(kind, format_amount(nanos)) for kind, nanos in got]}"
    if "grants" in line:
        yield from _grant_faults(line["grants"], entry)


def _grant_faults(wanted: Sequence[Sequence[str | None]], entry: Row) -> Iterator[str]:
    """Grants that came in, in draw-down order: kind, amount, expiry, what was paid for it."""
    got = [
        [
            grant["kind"],
            format_amount(grant["amount_nanos"]),
            None if grant["expires_at"] is None else format_time(grant["expires_at"]),
            None if grant["price_paid_nanos"] is None else format_amount(grant["price_paid_nanos"]),
        ]
        for grant in entry["grants"]
    ]
    if got != [list(grant) for grant in wanted]:
        yield f"grants: expected {wanted}, got {got}"


def _merged(alerts: Sequence[Row]) -> list[Row]:
    """`credit_resolved` of several entries of one line as one: what was left is what they list together."""
    resolved = [alert for alert in alerts if alert["kind"] == AlertKind.RESOLVED]
    others = [alert for alert in alerts if alert["kind"] != AlertKind.RESOLVED]
    left = [rule for alert in resolved for rule in alert["thresholds_left"]]
    return [*others, *({**alert, "thresholds_left": left} for alert in resolved[:1])]


def _alert_faults(wanted: Sequence[Row], got: Sequence[Row]) -> Iterator[str]:
    """Alerts of one kind come in the order given; among kinds the order is free."""
    for kind in dict.fromkeys([alert["kind"] for alert in wanted] + [alert["kind"] for alert in got]):
        left = [alert for alert in got if alert["kind"] == kind]
        for alert in (alert for alert in wanted if alert["kind"] == kind):
            faults = list(_alert_differs(alert, left[0])) if left else ["did not come"]
            if faults:
                yield f"alert {kind} {alert.get('rule', '')}: {'; '.join(faults)}"
            del left[:1]
        yield from (f"alert not expected: {kind} {alert['rule_id']} at {alert['level']}" for alert in left)


def _alert_differs(wanted: Row, got: Row) -> Iterator[str]:
    for name, column in ALERT_WORDS.items():
        if name in wanted and got[column] != wanted[name]:
            yield f"{name}: expected {wanted[name]}, got {got[column]}"
    if "level" in wanted and (got["level"] is None or Decimal(got["level"]) != Decimal(wanted["level"])):
        yield f"level: expected {wanted['level']}, got {got['level']}"
    if "channels" in wanted and sorted(got["channels"]) != sorted(wanted["channels"]):
        yield f"channels: expected {wanted['channels']}, got {got['channels']}"
    if "used_percent" in wanted and got["used_percent"] != wanted["used_percent"]:
        yield f"used_percent: expected {wanted['used_percent']}, got {got['used_percent']}"
    left = sorted(set(got["thresholds_left"]) - UNNAMED)
    if "left" in wanted and sorted(wanted["left"]) != left:
        yield f"thresholds left: expected {sorted(wanted['left'])}, got {left}"


def _decisions(lines: Sequence[Row], org: str, results: Results) -> Iterator[str]:
    wanted = [line["decision"] for line in lines if "decision" in line]
    got = [row for row in results.decisions if row["org_id"] == org]
    for number, (want, row) in enumerate(zip(wanted, got, strict=False), start=1):
        for name, value in want.items():
            shown: Any = row[{"granted": "granted_nanos", "available": "available_nanos"}.get(name, name)]
            if name in ("granted", "available"):
                shown = format_amount(shown)
            if name in ("expires_at", "limit_ends_at"):
                shown = None if shown is None else format_time(shown)
            if shown != value:
                yield f"decision {number} on {row['hold_id']}: {name}: expected {value}, got {shown}"
    if len(wanted) != len(got):
        beyond = [f"{row['hold_id']} {row['code']}" for row in got[len(wanted) :]]
        yield f"decisions: expected {len(wanted)}, got {len(got)}; beyond: {beyond}"


def _dead_letters(wanted: Sequence[Sequence[str]], results: Results) -> Iterator[str]:
    got = [list(letter) for letter in results.dead_letters]
    if got != [list(letter) for letter in wanted]:
        yield f"dead letters: expected {list(wanted)}, got {got}"


def _balances(looks: Mapping[str, Mapping[str, Row]], balances: Mapping[str, Row]) -> Iterator[str]:
    """`looks` is organisation → unit → what its balance record says."""
    for org, units in looks.items():
        wallets = {wallet["unit"]: wallet for wallet in balances.get(org, {"wallets": []})["wallets"]}
        for unit, want in units.items():
            if unit not in wallets:
                yield f"{org} has no balance in {unit}"
                continue
            for name, value in want.items():
                amount = f"{name}_nanos"
                got = format_amount(wallets[unit][amount]) if amount in wallets[unit] else wallets[unit][name]
                if got != value:
                    yield f"{org} {unit} {name}: expected {value}, got {got}"


def _statements(wallets: Mapping[str, Mapping[str, Row]], entries: Sequence[Row], zone: ZoneInfo) -> Iterator[str]:
    """Product rule 24: each month of a wallet from opening by movements to closing, in the organisation's time zone.

    A movement is of the month in which it was booked (decision 22, statements are of the time of booking): an
    amendment in June of May's usage is June's.
    """
    for wallet, months in wallets.items():
        moves = [
            (f"{to_datetime(entry['recorded_at']).astimezone(zone):%Y-%m}", _movement(entry), entry["amount_nanos"])
            for entry in entries
            if entry["wallet"] == wallet and entry["amount_nanos"]
        ]
        for month, want in months.items():
            opening = sum(nanos for moved, _, nanos in moves if moved < month)
            movements: dict[str, int] = {}
            for kind, nanos in ((kind, nanos) for moved, kind, nanos in moves if moved == month):
                name = movement_name(kind, want["movements"])
                movements[name] = movements.get(name, 0) + nanos
            got = {
                "opening": format_amount(opening),
                "closing": format_amount(opening + sum(movements.values())),
                "movements": {kind: format_amount(nanos) for kind, nanos in movements.items()},
            }
            if got != want:
                yield f"{wallet} {month}: expected {want}, got {got}"


def movement_name(kind: str, expected: Container[str]) -> str:
    """What the expected movements call this kind of movement."""
    corrected = CORRECTED in expected and kind in (EntryKind.USAGE, EntryKind.CORRECTION)
    return CORRECTED if corrected else kind


def _movement(entry: Row) -> str:
    """The kind of movement that an entry is in a statement."""
    if entry["kind"] == EntryKind.REFUND:
        return str(entry["reason"])
    given = any(grant["kind"] == PROMOTIONAL for grant in entry["grants"])
    return PROMOTIONAL if entry["kind"] == EntryKind.PURCHASE and given else str(entry["kind"])


def _identities(results: Results) -> Iterator[str]:
    """No crossing alerts twice, no entry is missing or there twice, each running balance is the sum before it."""
    ids = [alert["alert_id"] for alert in results.alerts]
    yield from (f"two alerts have the id {alert_id}" for alert_id in sorted({id for id in ids if ids.count(id) > 1}))
    requests = [request["topup_request_id"] for request in results.topup_requests]
    if len(set(requests)) < len(requests):
        yield f"two top-up requests have one id: {requests}"
    sums: dict[tuple[str, str], int] = {}
    seqs: dict[str, int] = {}
    for row in results.ledger:
        org = row["org_id"]
        seqs[org] = seqs.get(org, 0) + 1
        if row["seq"] != seqs[org]:
            yield f"{org}: seq {row['seq']} where {seqs[org]} should be"
        wallet = (org, row["wallet"])
        sums[wallet] = sums.get(wallet, 0) + row["amount_nanos"]
        if row["wallet"] and row["balance_nanos"] != sums[wallet]:
            yield f"{row['entry_id']}: balance {row['balance_nanos']} is not the sum {sums[wallet]}"
        if row["available_nanos"] != row["balance_nanos"] - row["held_nanos"]:
            yield f"{row['entry_id']}: available is not settled less held"


def _shown(line: Row) -> str:
    kept = {name: value for name, value in line.items() if name not in ("org", "alerts", "decision", "why")}
    return json.dumps(kept, ensure_ascii=False)


def _told(entry: Row) -> str:
    amount, balance = format_amount(entry["amount_nanos"]), format_amount(entry["balance_nanos"])
    return f"{entry['kind']} {entry['event_id']} {amount} → {balance} {entry['wallet']} {entry['reason'] or ''}".strip()


def _kinds(alerts: Sequence[Row]) -> list[str]:
    return [f"{alert['kind']} {alert['rule_id'] or ''}".strip() for alert in alerts]
