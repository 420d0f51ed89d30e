"""The examples of streams/client/README.md, as they stand there, against a real installation."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from schemas.codec import encode_one
from schemas.enums import AlertKind, InputKind
from schemas.records import bundled_id
from tests.integration.engine.workers import REPOSITORY
from tests.integration.ledger.events import purchase
from tests.integration.ledger.installation import LedgerInstallation

README = REPOSITORY / "streams" / "client" / "README.md"


def example(containing: str) -> str:
    """The one block of Python in which a text stands."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = (block for block in blocks if containing in block)
    return str(found)


@pytest.mark.parametrize(("bought", "output"), [("100", ""), ("2", "credits_not_available 402 None\n")])
def test_a_service_holds_and_captures(installation: LedgerInstallation, bought: str, output: str) -> None:
    installation.ready_worker()
    installation.send(InputKind.PURCHASE, [purchase("p1", "acme", int(bought) * 10**9)])
    installation.wait_until_booked()
    done = subprocess.run(
        [sys.executable, "-c", example("HoldAction.PLACE")],
        cwd=REPOSITORY,
        env=installation.environment(),
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    assert done.stdout == output, done.stderr
    installation.sent += 1 if output else 2
    installation.wait_until_booked()
    booked = [(row["kind"], row["amount_nanos"]) for row in installation.rows("ledger")][1:]
    taken = [("hold", 0), ("usage", -1_750_000_000), ("hold_release", 0)]
    assert booked == ([("rejected", 0)] if output else taken)


def test_a_subscriber_prints_alerts(installation: LedgerInstallation) -> None:
    alert = {
        "alert_id": "a1",
        "org_id": "acme",
        "wallet": "USD",
        "kind": AlertKind.BALANCE_LOW.value,
        "message": "4 USD are left",
        "balance_nanos": 4,
        "available_nanos": 4,
        "occurred_at": 1_700_000_000_000_000,
        "entry_seq": 1,
    }
    installation.send_bytes("alerts_threshold", b"acme", encode_one("alert", alert, bundled_id("alert")))
    with subprocess.Popen(
        [sys.executable, "-u", "-c", example('name="mail"')],
        cwd=REPOSITORY,
        env=installation.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as subscriber:
        try:
            assert subscriber.stdout is not None
            assert subscriber.stdout.readline() == "a1 acme 4 USD are left\n"
        finally:
            subscriber.kill()
