"""Usage by the hours, days and months of a zone: the same sums as a plain fold of the entries, from whatever table."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from decimal import Decimal
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from projections import usage_reports
from projections.reads import Reads, TooWideError
from projections.sink import Sink
from projections.spans import HOUR_US, Granularity, Source, cut, local_text, source_of
from projections.usage_reports import UsageQuestion, UsageReports
from schemas.records import BundledSchemas
from schemas.times import parse_time
from tests.unit.projections.entries import LEDGER, TOPICS, Row, entry, inbound

CHANGE = parse_time("2026-03-29T01:00:00Z")
"""Madrid's clocks change; Kolkata's never do."""
MODELS = ("", "gpt-4o", "o'neil\\")


def random_entries(seed: int, count: int) -> list[Row]:
    """Usage, corrections and refunds of two orgs, some at the very instants where hours and days begin."""
    random_ = random.Random(seed)
    rows = []
    for seq in range(1, count + 1):
        kind = random_.choice(["usage", "usage", "usage", "correction", "refund", "purchase"])
        amount = random_.randint(0, 10**11)
        at = CHANGE + random_.randint(-130, 130) * HOUR_US // 4 + random_.choice([-1, 0, 0, 1])
        rows.append(
            entry(
                random_.choice(["acme", "bolt"]),
                seq,
                -amount if kind == "usage" else amount,
                kind=kind,
                wallet=random_.choice(["USD", "EUR"]),
                occurred_at=at,
                recorded_at=at + random_.choice([0, 50 * HOUR_US]),
                reason="usage_refunded" if kind == "refund" else None,
                operation="chat",
                model=random_.choice(MODELS) or None,
                user_id=random_.choice(["u1", "u2"]),
                input_tokens=random_.randint(0, 1_000),
                output_tokens=random_.randint(0, 1_000),
                billing_unit=random_.choice([None, "token", "request"]),
                quantity_nanos=random_.choice([None, 5 * 10**8]),
            )
        )
    return rows


ROWS = random_entries(7, 400)


@pytest.fixture
def reports(client: Client) -> UsageReports:
    """The entries, projected in two batches, of which one comes twice."""
    for cuts in ((0, 150), (0, 400)):
        Sink(client, TOPICS, BundledSchemas()).apply([inbound(ROWS[cuts[0] : cuts[1]], 0)])
        client.command("TRUNCATE TABLE positions")
    client.command("INSERT INTO ledger SELECT * FROM ledger LIMIT 100")
    Sink(client, TOPICS, BundledSchemas()).apply([inbound(ROWS, 0)])
    return UsageReports(Reads(client, LEDGER))


def folded(question: UsageQuestion, org_id: str) -> list[dict[str, Any]]:
    """The report in plain Python: one entry at a time."""
    cuts = cut(question.granularity, question.starts_at, question.ends_at, question.time_zone, 10_000)
    sums: dict[tuple[Any, ...], dict[str, Any]] = defaultdict(
        lambda: dict.fromkeys(("requests", "input_tokens", "output_tokens"), 0) | {"cost": 0, "refunded": 0}
    )
    groups = ["wallet", *(name for name in question.group_by if name != "wallet")]
    for row in ROWS:
        at = row["occurred_at"]
        is_usage = row["kind"] in ("usage", "correction", "refund")
        wanted = all((row.get(name) or "") in values for name, values in question.filters.items())
        if row["org_id"] != org_id or not is_usage or not wanted or not question.starts_at <= at < question.ends_at:
            continue
        span = max(each for each in cuts[:-1] if each <= at)
        total = sums[(span, *((row.get(name) or "") for name in groups))]
        sign = {"usage": 1, "correction": -1, "refund": 0}[row["kind"]]
        total["requests"] += sign
        total["input_tokens"] += sign * row["input_tokens"]
        total["output_tokens"] += sign * row["output_tokens"]
        total["refunded" if row["kind"] == "refund" else "cost"] += (
            row["amount_nanos"] if row["kind"] == "refund" else -row["amount_nanos"]
        )
    return [
        {"start": local_text(key[0], question.time_zone), **dict(zip(groups, key[1:], strict=True)), **total}
        for key, total in sorted(sums.items())
    ]


def nanos(text: str) -> int:
    return int(Decimal(text).scaleb(9))


def shown(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The report's rows with amounts in nano-credits, as `folded` has them."""
    rows = []
    for row in report["usage"]:
        assert nanos(row["net_cost"]) == nanos(row["cost"]) - nanos(row["refunded"])
        amounts = {name: nanos(row[name]) for name in ("cost", "refunded")}
        rows.append({name: value for name, value in row.items() if name not in ("net_cost", "quantity")} | amounts)
    return rows


ZONES = ("UTC", "Europe/Madrid", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe")
RANGES = (
    (parse_time("2026-03-01T00:00:00Z"), parse_time("2026-05-01T00:00:00Z")),
    (CHANGE - 30 * HOUR_US, CHANGE + 26 * HOUR_US),
    (CHANGE - HOUR_US // 4 - 1, CHANGE + 5 * HOUR_US // 4),
)
GROUPS: tuple[tuple[tuple[str, ...], dict[str, tuple[str, ...]]], ...] = (
    ((), {}),
    (("model", "user_id"), {"model": ("gpt-4o", "")}),
    (("billing_unit", "wallet"), {"model": (MODELS[2],)}),
)


def test_a_report_is_the_fold_of_the_entries(reports: UsageReports) -> None:
    """Zones of whole, half and quarter hours, over a change of the clocks, from every table."""
    sources = set()
    for granularity, zone, (starts_at, ends_at) in itertools.product(Granularity, ZONES, RANGES):
        for group_by, filters in GROUPS:
            question = UsageQuestion(granularity, starts_at, ends_at, zone, group_by, filters)
            sources.add(source_of(cut(granularity, starts_at, ends_at, zone, 10_000)))
            report = reports.of_org("acme", question)
            assert report is not None
            assert shown(report) == folded(question, "acme"), question
    assert sources == set(Source)


def test_all_organisations_together(reports: UsageReports) -> None:
    starts_at, ends_at = parse_time("2026-03-01T00:00:00Z"), parse_time("2026-05-01T00:00:00Z")
    question = UsageQuestion(Granularity.MONTH, starts_at, ends_at, "UTC", ("org_id",))
    everything = reports.of_orgs(question, None)["usage"]
    each = {org: reports.of_orgs(question, [org])["usage"] for org in ("acme", "bolt")}
    assert sorted(everything, key=lambda row: row["org_id"]) == sorted(
        each["acme"] + each["bolt"], key=lambda row: row["org_id"]
    )
    assert reports.of_orgs(question, [])["usage"] == []
    assert reports.of_org("nobody", question) is None


def test_a_report_that_is_too_wide_says_what_to_narrow(reports: UsageReports, monkeypatch: pytest.MonkeyPatch) -> None:
    starts_at = parse_time("2026-01-01T00:00:00Z")
    with pytest.raises(TooWideError, match="more than 2,000 spans of one hour: take a shorter range"):
        reports.of_org("acme", UsageQuestion(Granularity.HOUR, starts_at, starts_at + 3_000 * HOUR_US))
    monkeypatch.setattr(usage_reports, "ROWS_MAX", 5)
    question = UsageQuestion(Granularity.HOUR, CHANGE - 20 * HOUR_US, CHANGE + 20 * HOUR_US)
    with pytest.raises(TooWideError, match="more than 5 rows"):
        reports.of_org("acme", question)
