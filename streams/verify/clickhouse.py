"""ClickHouse against the fold of the ledger: the same entries, balances and sums, or a report of the differences.

Rules of this file: what ClickHouse holds comes as pages of plain data (`projections.verify.clickhouse_audit`), from a
running `serve` or from the projection's own client; nothing of the projection's code is used to judge them. The
projection lags by seconds: the comparison waits until it has as many entries as the fold. An org that ClickHouse knows
further than the fold has moved on since, and its balances are not compared.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from schemas.enums import EntryKind
from streams.errors import OperatorError
from streams.local.api_key import HEADER, local_key
from streams.verify.fold import Differences, LedgerFold, OrgFold

WAIT_S = 60.0
"""A projection that is not there yet is waited for so long without any progress."""
POLL_S = 0.5
ANSWER_TIMEOUT_S = 60.0

Page = Mapping[str, Any]
AskPage = Callable[[str, int], Page]
"""Gives the page of orgs after the org (empty: from the first, with totals), and at most that number of orgs."""

PAGE_ORGS = 10_000


class ClickHouseUnknownError(OperatorError):
    """What ClickHouse holds cannot be asked."""

    code = "clickhouse_unknown"


def ask_serve(address: str, data_dir: Path) -> AskPage:
    """Ask a running `serve` at this address ("http://127.0.0.1:8080"), with the key in its data folder."""

    def ask(after_org: str, orgs_max: int) -> Page:
        query = urllib.parse.urlencode({"after_org": after_org, "orgs_max": orgs_max})
        headers = {HEADER: local_key(data_dir) or ""}
        request = urllib.request.Request(f"{address}/internal/clickhouse/audit?{query}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:
                page: Page = json.load(answer)
                return page
        except (urllib.error.URLError, TimeoutError, ValueError) as error:
            raise ClickHouseUnknownError(
                f"`serve` at {address} does not say what ClickHouse holds ({error})",
                "start `credits serve` or `credits up` with the same CREDITS_DATA_DIR, or leave ClickHouse out with "
                "--no-clickhouse",
            ) from error

    return ask


def wait_for(ask: AskPage, entries: int, *, sleep: Callable[[float], None] = time.sleep) -> Page:
    """The first page once it has at least `entries`, or when it has stopped growing for `WAIT_S`."""
    grown_at, most = time.monotonic(), -1
    while True:
        page = ask("", 1)
        if page["entries"] > most:
            grown_at, most = time.monotonic(), page["entries"]
        if most >= entries or time.monotonic() - grown_at > WAIT_S:
            return page
        sleep(POLL_S)


def compare(fold: LedgerFold, ask: AskPage, differences: Differences) -> None:
    """Wait for the projection, then compare its totals and every org with the fold."""
    wait_for(ask, fold.entries)
    seen: set[str] = set()
    for number, page in enumerate(_pages(ask)):
        if number == 0:
            _totals(fold, page, differences)
        for row in page["orgs"]:
            seen.add(row["org_id"])
            _org(row, fold.orgs.get(row["org_id"]), differences)
    for org_id in fold.orgs.keys() - seen:
        differences.add("clickhouse_missing", org_id, f"{fold.orgs[org_id].seq} entries, none in ClickHouse")


def _pages(ask: AskPage) -> Iterator[Page]:
    after = ""
    while True:
        page = ask(after, PAGE_ORGS)
        yield page
        if not page.get("next_org"):
            return
        after = page["next_org"]


def _totals(fold: LedgerFold, page: Page, differences: Differences) -> None:
    """Sums by wallet and kind; usage at every level. Only where both hold the same entries."""
    if page["entries"] < fold.entries:
        message = f"{page['entries']} of {fold.entries} entries are in ClickHouse"
        differences.add("clickhouse_behind", "ledger", message)
        return
    if page["entries"] > fold.entries:
        return
    found = {
        (unit, kind): each["amount_nanos"] for unit, kinds in page["kinds"].items() for kind, each in kinds.items()
    }
    wanted = _by_unit_and_kind(fold)
    for unit, kind in found.keys() | wanted.keys():
        if found.get((unit, kind), 0) != wanted.get((unit, kind), 0):
            message = f"{found.get((unit, kind))} in ClickHouse, {wanted.get((unit, kind))} folded"
            differences.add("clickhouse_sum", f"{unit} {kind}", message)
    for level, units in page["usage"].items():
        for unit in {unit for unit, kind in wanted if kind == EntryKind.USAGE} | units.keys():
            spent = wanted.get((unit, EntryKind.USAGE), 0) + wanted.get((unit, EntryKind.CORRECTION), 0)
            cost = units.get(unit, {}).get("cost_nanos", 0)
            if cost != -spent:
                differences.add("clickhouse_usage", f"{level} {unit}", f"{cost} in ClickHouse, {-spent} folded")


def _by_unit_and_kind(fold: LedgerFold) -> dict[tuple[str, str], int]:
    """The fold's sums with both directions of refunds as one kind, as the entries say it."""
    sums: dict[tuple[str, str], int] = {}
    for (unit, kind), nanos in fold.totals.items():
        plain = EntryKind.REFUND.value if kind == "refund_purchase" else str(kind)
        sums[unit, plain] = sums.get((unit, plain), 0) + nanos
    return sums


def _org(row: Mapping[str, Any], org: OrgFold | None, differences: Differences) -> None:
    org_id = row["org_id"]
    if org is None:
        if row["entries"]:
            differences.add("clickhouse_only", org_id, f"{row['entries']} entries that the ledger does not have")
        return
    if row["last_seq"] > org.seq:
        return
    if row["last_seq"] < org.seq or row["entries"] != org.seq or row["first_seq"] != 1:
        message = f"entries {row['first_seq']} to {row['last_seq']} ({row['entries']}), the ledger has 1 to {org.seq}"
        differences.add("clickhouse_entries", org_id, message)
        return
    for unit, wallet in org.wallets.items():
        ledger = row["wallets"].get(unit, {}).get("ledger")
        wanted = (wallet.settled, wallet.held, wallet.available)
        found = ledger and tuple(ledger[f"{name}_nanos"] for name in ("balance", "held", "available"))
        if found != wanted:
            differences.add("clickhouse_balance", f"{org_id} {unit}", f"{found} in ClickHouse, {wanted} folded")
        if ledger and ledger["sum_nanos"] != wallet.settled:
            message = f"amounts add up to {ledger['sum_nanos']}, the balance is {wallet.settled}"
            differences.add("clickhouse_balance", f"{org_id} {unit}", message)
        published = row["wallets"].get(unit, {}).get("published")
        if published and published["seq"] == org.seq:
            for name, nanos in (("settled_nanos", wallet.settled), ("on_the_way_nanos", wallet.on_the_way)):
                if published[name] != nanos:
                    message = f"{name} published {published[name]} in ClickHouse, {nanos} folded"
                    differences.add("clickhouse_published", f"{org_id} {unit}", message)
