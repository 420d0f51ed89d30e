"""The first example of streams/client/README.md, as it stands there, against a real installation."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from schemas.enums import InputKind
from tests.integration.engine.workers import REPOSITORY
from tests.integration.ledger.events import purchase
from tests.integration.ledger.installation import LedgerInstallation

README = REPOSITORY / "streams" / "client" / "README.md"


@pytest.mark.parametrize(("bought", "said"), [("100", ""), ("2", "credits_not_available 402 None\n")])
def test_a_service_holds_and_captures(installation: LedgerInstallation, bought: str, said: str) -> None:
    example = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[0]
    installation.ready_worker()
    installation.send(InputKind.PURCHASE, [purchase("p1", "acme", int(bought) * 10**9)])
    installation.wait_until_booked()
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=REPOSITORY,
        env=installation.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == said, done.stderr
    installation.sent += 1 if said else 2
    installation.wait_until_booked()
    booked = [(row["kind"], row["amount_nanos"]) for row in installation.rows("ledger")][1:]
    taken = [("hold", 0), ("usage", -1_750_000_000), ("hold_release", 0)]
    assert booked == ([("rejected", 0)] if said else taken)
