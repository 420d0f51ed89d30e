"""The verdict of the demonstration: what came out, beside what had to. Pure.

Rules of this file: everything counted comes from the audit of committed records, nothing from the ledger's word alone.
What the generator knew beforehand is compared; what only the rules decide (alerts, slices of grants) is shown, and is
the same for the same seed. Counts are of records, sums in decimal strings, times in milliseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.amounts import format_amount
from schemas.enums import EntryKind
from streams.loadgen.price_list import USD
from streams.loadgen.tally import CORRECTIONS, EXPIRIES, HOLDS, LIMITS, REFUSED_HOLDS, TOPUPS
from streams.loadgen.waves import Expected
from streams.verify.audit import Report

DIFFERENCES_SHOWN_MAX = 5
LINES = (HOLDS, REFUSED_HOLDS, TOPUPS, LIMITS, CORRECTIONS, EXPIRIES)
HEADLINES = ("placed", "asked for")


@dataclass(frozen=True, slots=True)
class Measured:
    """What was timed. Latency: from when a record was meant to be sent to its committed entry in a reader's hands."""

    seed: int
    burst_records: int
    burst_s: float
    live_per_second: int
    latency_p50_ms: float
    latency_p99_ms: float
    elapsed_s: float
    first_number_s: float
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the verdict: `right` None where there was nothing to compare with."""

    name: str
    value: str
    right: bool | None = None
    note: str = ""


@dataclass(slots=True)
class Verdict:
    """All of it."""

    lines: list[Line] = field(default_factory=list)
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return all(line.right is not False for line in self.lines)


def judge(expected: Expected, report: Report, at_work: Mapping[str, Counter[str]], measured: Measured) -> Verdict:
    """Compare what had to come with what the audit found; `at_work`: what the rules did, as `tally` counts it."""
    verdict = Verdict()
    found = _counts(report)
    wanted = _expected_counts(expected)
    verdict.lines += _count_lines(found, wanted, report)
    verdict.lines += _work_lines(expected.at_work, at_work)
    verdict.lines += _sum_lines(expected, report)
    verdict.lines += _audit_lines(report)
    verdict.lines += [
        Line("throughput", f"{measured.burst_records / measured.burst_s:,.0f} events/s", None, _burst_note(measured)),
        Line(
            "produce to committed entry",
            f"p50 {measured.latency_p50_ms:.0f} ms, p99 {measured.latency_p99_ms:.0f} ms",
            None,
            f"at {measured.live_per_second:,} events/s, from the intended send time",
        ),
        Line("time", f"{measured.elapsed_s:.1f} s", None, f"first figures after {measured.first_number_s:.1f} s"),
    ]
    verdict.document = _document(verdict, found, report, at_work, measured)
    return verdict


def _burst_note(measured: Measured) -> str:
    workers = "one worker" if measured.workers == 1 else f"{measured.workers} workers"
    return f"{measured.burst_records:,} in {measured.burst_s:.1f} s, {workers}, exactly once"


def _counts(report: Report) -> dict[str, int]:
    """Ends of the input records, transfer legs (the ledger's own) left out."""
    inputs = [count for topic, count in report.inputs.items() if "internal" not in topic]
    records = sum(count.records for count in inputs)
    dead = sum(report.dead_letters.values())
    rejected = sum(report.rejected.values())
    duplicates = sum(count.duplicates for count in inputs)
    return {
        "events_in": records,
        "applied": records - dead - rejected - duplicates,
        "duplicates": duplicates,
        "rejected": rejected,
        "dead_letters": dead,
    }


def _expected_counts(expected: Expected) -> dict[str, int]:
    return {
        "events_in": expected.records,
        "applied": expected.applied,
        "duplicates": expected.duplicates,
        "rejected": expected.rejected.total(),
        "dead_letters": expected.dead_letters.total(),
    }


def _count_lines(found: Mapping[str, int], wanted: Mapping[str, int], report: Report) -> list[Line]:
    lines = []
    details = {"rejected": report.rejected, "dead_letters": report.dead_letters}
    for name, count in found.items():
        right = count == wanted[name]
        note = _listed(details[name]) if name in details else ""
        if not right:
            note = f"{wanted[name]:,} had to come; {note}".rstrip("; ")
        lines.append(Line(name.replace("_", " "), f"{count:,}", right, note))
    alerts = sum(report.alerts.values())
    lines.append(Line("alerts", f"{alerts:,}", None, _listed(report.alerts)))
    return lines


def _work_lines(wanted: Mapping[str, Counter[str]], found: Mapping[str, Counter[str]]) -> list[Line]:
    """What the rules did: the first of a line's words and how often, the others beside it."""
    lines = []
    for line in LINES:
        had, must = found.get(line, Counter()), wanted.get(line, Counter())
        words = [word for word in HEADLINES if word in must] or [""]
        rest = Counter({word: count for word, count in had.items() if word != words[0]})
        value = f"{had[words[0]]:,} {words[0]}" if words[0] else f"{had.total():,}"
        note = _listed(rest)
        if had != must:
            note = f"{_listed(must)} had to come; {_listed(had)} came"
        lines.append(Line(line, value, had == must, note))
    return lines


def _listed(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{count:,} {name}" for name, count in ordered)


def _sum_lines(expected: Expected, report: Report) -> list[Line]:
    """Sums that the generator knows by multiplication alone, against the ledger's."""
    sums = (
        ("spent", -1, EntryKind.USAGE.value, expected.usage_cost_nanos),
        ("bought and given", 1, EntryKind.PURCHASE.value, expected.added_nanos),
        ("of usage refunded", 1, EntryKind.REFUND.value, expected.refunded_nanos),
        ("of purchases taken back", -1, "refund_purchase", expected.taken_back_nanos),
        ("of usage corrected", 1, EntryKind.CORRECTION.value, expected.corrected_nanos),
    )
    pairs = [
        (f"{unit} {what}", sign * nanos, (unit, kind))
        for what, sign, kind, by_unit in sums
        for unit, nanos in by_unit.items()
    ]
    lines = []
    for name, wanted, key in sorted(pairs):
        found = report.totals.get(key, 0)
        note = "" if found == wanted else f"{format_amount(abs(wanted))} had to come"
        if key == (USD, EntryKind.USAGE.value) and not note:
            note = f"{expected.own_prices:,} events at an organisation's own price"
        lines.append(Line(name, format_amount(abs(found)), found == wanted, note))
    return lines


def _audit_lines(report: Report) -> list[Line]:
    codes = {each.code for each in report.differences}
    conserved = not codes & {"conservation", "transfer_amount", "transfer_from_nowhere", "transfer_twice", "grants"}
    units = ", ".join(f"{row.unit} {format_amount(row.left_over)}" for row in report.units)
    transfers = f"{report.transfers} transfers, {report.transfers_on_the_way} on the way"
    equal = "ledger = balances = ClickHouse" if report.clickhouse_compared else "ledger = balances"
    lines = [
        Line("conservation", units, conserved, f"in − spent − expired − left; {transfers}"),
        Line(equal, f"{report.entries:,} entries of {report.orgs:,} organisations", report.ok),
    ]
    return [*lines, *(Line("differs", str(each), False) for each in report.differences[:DIFFERENCES_SHOWN_MAX])]


def _document(
    verdict: Verdict,
    found: Mapping[str, int],
    report: Report,
    at_work: Mapping[str, Counter[str]],
    measured: Measured,
) -> dict[str, Any]:
    return {
        "ok": verdict.ok,
        "seed": measured.seed,
        **found,
        "rejected_by_reason": dict(sorted(report.rejected.items())),
        "dead_letters_by_code": dict(sorted(report.dead_letters.items())),
        "alerts": dict(sorted(report.alerts.items())),
        "at_work": {line: dict(sorted(counts.items())) for line, counts in sorted(at_work.items())},
        "entries": report.entries,
        "entries_by_kind": dict(sorted(report.kinds.items())),
        "orgs": report.orgs,
        "sums": {f"{unit} {kind}": format_amount(nanos) for (unit, kind), nanos in sorted(report.totals.items())},
        "conservation": {row.unit: format_amount(row.left_over) for row in report.units},
        "transfers": report.transfers,
        "transfers_on_the_way": report.transfers_on_the_way,
        "clickhouse_compared": report.clickhouse_compared,
        "differences": [str(each) for each in report.differences],
        "throughput_per_second": round(measured.burst_records / measured.burst_s),
        "latency_p50_ms": round(measured.latency_p50_ms, 1),
        "latency_p99_ms": round(measured.latency_p99_ms, 1),
        "first_number_s": round(measured.first_number_s, 1),
        "elapsed_s": round(measured.elapsed_s, 1),
    }
