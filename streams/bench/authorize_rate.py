"""What answers before work take in process: `streams.bench.view_alone`, as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from streams.errors import OperatorError

TIMEOUT_S: Final = 300.0


def view_alone(orgs: int) -> Mapping[str, float]:
    """The figures of `streams.bench.view_alone`. Raises `OperatorError` when it fails."""
    command = [sys.executable, "-m", "streams.bench.view_alone", str(orgs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise OperatorError(f"the view could not be measured: {done.stderr.strip().splitlines()[-1:]}", "see the log")
    found: dict[str, float] = json.loads(done.stdout)
    return found
