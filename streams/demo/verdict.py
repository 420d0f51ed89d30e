"""The verdict of the demonstration: what came out, against what had to. Pure.

The rules of this file:
1. Every count comes from the audit of committed records, never from the ledger's own counters.
2. What the generator knew beforehand is compared. What only the rules decide (alerts, slices of grants) is shown, and
   is the same for the same seed.
3. The summary is made of the full lines: a line of it is right only when all the full lines behind it are.

Counts are of records, sums in decimal strings, times in milliseconds.
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
SUMMARY_WORK = (HOLDS, TOPUPS, LIMITS, CORRECTIONS, EXPIRIES)


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
    """One line of the full verdict: `right` None where there was nothing to compare with.

    `counts` are what the number is made of, by reason or kind; each is shown below it.
    """

    name: str
    value: str
    right: bool | None = None
    note: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Headline:
    """One line of the summary: a number, its unit or meaning, and whether it is right (None: nothing to compare)."""

    name: str
    number: str
    meaning: str = ""
    right: bool | None = None


@dataclass(slots=True)
class Verdict:
    """All of it: `summary` fits on one screen of 80 columns, `lines` are everything that was compared."""

    lines: list[Line] = field(default_factory=list)
    summary: list[Headline] = field(default_factory=list)
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return all(line.right is not False for line in self.lines)


def judge(expected: Expected, report: Report, at_work: Mapping[str, Counter[str]], measured: Measured) -> Verdict:
    """Compare what had to come with what the audit found; `at_work`: what the rules did, as `tally` counts it."""
    verdict = Verdict()
    found = _counts(report)
    counts = _count_lines(found, _expected_counts(expected), report)
    work = _work_lines(expected.at_work, at_work)
    sums = _sum_lines(expected, report)
    audit = _audit_lines(report)
    verdict.lines = [*counts, *work, *sums, *audit, *_measured_lines(measured)]
    verdict.summary = [
        *_count_headlines(found, counts, report),
        Headline("rules at work", _work_count(at_work), ", ".join(SUMMARY_WORK), all(line.right for line in work)),
        Headline(
            "sums", f"{len(sums):,}", "equal to the generator's, to the nano-credit", all(line.right for line in sums)
        ),
        *_audit_headlines(report, audit),
        *_measured_headlines(measured),
    ]
    verdict.document = _document(verdict, found, report, at_work, measured)
    return verdict


def _measured_lines(measured: Measured) -> list[Line]:
    rate = f"ms to commit, {measured.live_per_second:,} events/s"
    return [
        Line("throughput", f"{measured.burst_records / measured.burst_s:,.0f}", None, "events/s, exactly once"),
        Line("events of the burst", f"{measured.burst_records:,}", None, _burst_note(measured)),
        Line("p50 latency", f"{measured.latency_p50_ms:,.0f}", None, rate),
        Line("p99 latency", f"{measured.latency_p99_ms:,.0f}", None, rate),
        Line("time", f"{measured.elapsed_s:.1f}", None, f"s; first figures after {measured.first_number_s:.1f} s"),
    ]


def _count_headlines(found: Mapping[str, int], lines: list[Line], report: Report) -> list[Headline]:
    """Events in and their four ends, then alerts. `lines`: of `_count_lines`, in the order of `found`."""
    meanings = {
        "events_in": f"of {report.orgs:,} organisations",
        "applied": "booked, each exactly once",
        "duplicates": "the same event again: dropped",
        "rejected": f"refused by a rule, for {len(report.rejected)} reasons",
        "dead_letters": f"could not be booked, for {len(report.dead_letters)} reasons",
    }
    headlines = [
        Headline(line.name, f"{count:,}", meanings[name], line.right)
        for (name, count), line in zip(found.items(), lines[: len(found)], strict=True)
    ]
    alerts = sum(report.alerts.values())
    return [*headlines, Headline("alerts", f"{alerts:,}", f"of {len(report.alerts)} kinds")]


def _work_count(at_work: Mapping[str, Counter[str]]) -> str:
    return f"{sum(counts.total() for counts in at_work.values()):,}"


def _audit_headlines(report: Report, lines: list[Line]) -> list[Headline]:
    """Conservation, then the comparison of the three copies: what `_audit_lines` begins with."""
    conservation, equal = lines[:2]
    units = ", ".join(row.unit for row in report.units)
    return [
        Headline("conservation", _left_over(report), f"left over, in {units}", conservation.right),
        Headline("ledger entries", f"{report.entries:,}", equal.note, equal.right),
    ]


def _measured_headlines(measured: Measured) -> list[Headline]:
    return [
        Headline(
            "throughput",
            f"{measured.burst_records / measured.burst_s:,.0f}",
            f"events/s, exactly once, {_workers(measured)}",
        ),
        Headline("p99 latency", f"{measured.latency_p99_ms:,.0f}", "ms from produce to committed entry"),
        Headline("time", f"{measured.elapsed_s:.0f}", f"s; first figures after {measured.first_number_s:.1f} s"),
    ]


def _burst_note(measured: Measured) -> str:
    return f"in {measured.burst_s:.1f} s, {_workers(measured)}"


def _workers(measured: Measured) -> str:
    return "one worker" if measured.workers == 1 else f"{measured.workers} workers"


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
        note = "" if right else f"{wanted[name]:,} expected"
        lines.append(Line(name.replace("_", " "), f"{count:,}", right, note, details.get(name, {})))
    lines.append(Line("alerts", f"{sum(report.alerts.values()):,}", None, "", report.alerts))
    return lines


def _work_lines(wanted: Mapping[str, Counter[str]], found: Mapping[str, Counter[str]]) -> list[Line]:
    """What the rules did: how often in all, or how often the headline, and what else below it."""
    lines = []
    for line in LINES:
        had, must = found.get(line, Counter()), wanted.get(line, Counter())
        headline = next((word for word in HEADLINES if word in must), "")
        rest = {word: count for word, count in had.items() if word != headline}
        value = had[headline] if headline else had.total()
        note = headline if had == must else f"{headline}; expected: {_listed(must)}".removeprefix("; ")
        lines.append(Line(line, f"{value:,}", had == must, note, rest))
    return lines


def by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The largest first; equal ones by name."""
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in by_count(counts))


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
        note = "" if found == wanted else f"{format_amount(abs(wanted))} expected"
        if key == (USD, EntryKind.USAGE.value) and not note:
            note = f"{expected.own_prices:,} at an org's own price"
        lines.append(Line(name, format_amount(abs(found)), found == wanted, note))
    return lines


def _audit_lines(report: Report) -> list[Line]:
    codes = {each.code for each in report.differences}
    conserved = not codes & {"conservation", "transfer_amount", "transfer_from_nowhere", "transfer_twice", "grants"}
    transit = f", {report.transfers_on_the_way} in transit" if report.transfers_on_the_way else ""
    equal = "ledger = balances = ClickHouse" if report.clickhouse_compared else "ledger = balances"
    lines = [
        Line("conservation", _left_over(report), conserved, f"left over; {report.transfers} transfers{transit}"),
        Line("ledger entries", f"{report.entries:,}", report.ok, equal),
    ]
    return [*lines, *(Line("differs", str(each), False) for each in report.differences[:DIFFERENCES_SHOWN_MAX])]


def _left_over(report: Report) -> str:
    """What in − spent − expired − left over all units comes to, signs ignored, so that nothing cancels out."""
    return format_amount(sum(abs(row.left_over) for row in report.units))


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
