"""A price that was wrong, 4,100 usages booked by it, and one command that puts all of them right."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.amounts import NANOS
from schemas.enums import EntryKind, InputKind
from tests.integration.engine.workers import REPOSITORY
from tests.integration.ledger.events import PRICE_LIST, now_us, purchase, usage
from tests.integration.ledger.installation import LedgerInstallation
from tests.laws import TIMEOUT_S

USAGES = 4_100
"""More than the 4,096 amendments that an organisation may have."""

ORGS = ("acme", "beta")
TOKENS = 1_000
WRONG, RIGHT = 2_000_000, 1_500_000
"""Of one usage, in nano-units."""


def rerate(installation: LedgerInstallation, *options: str) -> dict[str, Any]:
    """The document that `credits rerate` prints for the last day."""
    since, until = ((datetime.now(UTC) + timedelta(days=days)).isoformat() for days in (-1, 1))
    done = subprocess.run(
        [sys.executable, "-m", "streams", "rerate", f"--from={since}", f"--to={until}", *options],
        cwd=REPOSITORY,
        env=installation.environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S)
def test_4100_usages_are_put_right_by_one_command(installation: LedgerInstallation) -> None:
    installation.ready_worker()
    (price, *_) = PRICE_LIST
    installation.send(InputKind.PRICE, [price])
    installation.send(InputKind.PURCHASE, [purchase(f"p-{org}", org, 10 * NANOS) for org in ORGS])
    events = [usage(f"u{n}", ORGS[n % 2], model="m1", input_tokens=TOKENS) for n in range(USAGES)]
    installation.send(InputKind.USAGE, events)
    installation.wait_until_booked()
    installation.send(InputKind.PRICE, [{**price, "unit_price_nanos": price["unit_price_nanos"] * RIGHT // WRONG}])

    shown = rerate(installation, "--json", "--dry-run")
    assert (shown["usages"], shown["corrections"], shown["booked"]) == (USAGES, USAGES, 0)
    assert [(row["org_id"], row["changed"], row["difference"]) for row in shown["orgs"]] == [
        (org, USAGES // 2, "-1.025") for org in ORGS
    ]
    assert not any(row["kind"] == EntryKind.CORRECTION for row in installation.rows("ledger")), "it was a dry run"

    booked = rerate(installation, "--json", "--yes", "--actor", "ops")
    assert (booked["booked"], booked["refused"]) == (USAGES, 0)
    entries = installation.rows("ledger")
    corrections = [row for row in entries if row["kind"] == EntryKind.CORRECTION]
    assert Counter((row["org_id"], row["amount_nanos"], row["reason"], row["actor"]) for row in corrections) == {
        (org, WRONG - RIGHT, "usage_rerated", "ops"): USAGES // 2 for org in ORGS
    }
    of_usage = {(row["org_id"], row["event_id"]): row["occurred_at"] for row in entries if row["kind"] == "usage"}
    assert all(of_usage[row["org_id"], row["correlation_id"]] == row["occurred_at"] for row in corrections)
    assert all(sum(part["amount_nanos"] for part in row["components"]) == RIGHT - WRONG for row in corrections)
    settled = {row["org_id"]: row["wallets"][0]["settled_nanos"] for row in installation.rows("balances")}
    assert settled == dict.fromkeys(ORGS, 10 * NANOS - RIGHT * USAGES // 2)

    again = rerate(installation, "--json", "--yes")
    assert (again["usages"], again["corrections"], again["booked"]) == (USAGES, 0, 0)
    report = installation.report()
    assert report.ok, report.differences
    assert now_us() > max(row["occurred_at"] for row in corrections)
