"""Workers and yardsticks as processes of their own, and what the operating system says of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from streams.bench.idiomatic import EVENTS_VARIABLE, SECONDS_VARIABLE
from streams.errors import OperatorError
from streams.local.system import LocalSystem

if TYPE_CHECKING:
    from streams.settings import Settings

YARDSTICK_TIMEOUT_S = 180.0
KIB_PER_MIB = 1024


class Workers(LocalSystem):
    """Ledger workers alone, without HTTP and projection."""

    def __enter__(self) -> Workers:
        return self

    def names(self) -> list[str]:
        """The workers."""
        return [name for name in super().names() if name != "serve"]

    def pids(self) -> list[int]:
        """Their process ids."""
        return [part.pid for part in self.parts.values()]


def start_timed(workers: Workers) -> float:
    """Start them; seconds until all have said that they are ready."""
    begun = time.monotonic()
    workers.start()
    return time.monotonic() - begun


def resident_mib(pid: int) -> float:
    """Memory of a process that is in RAM, in MiB; 0 where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        done = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return int(done.stdout or 0) / KIB_PER_MIB
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / KIB_PER_MIB if found else 0.0


def yardstick(settings: Settings, module: str, events: int, seconds: float, say: Callable[[str], None]) -> float:
    """Run a yardstick's module as a process; its events per second. Raises `OperatorError` when it fails."""
    environment = Workers(settings, say=say)._environment()
    environment[EVENTS_VARIABLE], environment[SECONDS_VARIABLE] = str(events), str(seconds)
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            env=environment,
            capture_output=True,
            text=True,
            timeout=YARDSTICK_TIMEOUT_S,
            check=False,
            cwd=os.getcwd(),
        )
    except subprocess.TimeoutExpired as error:
        raise OperatorError(
            f"{module} did not end within {YARDSTICK_TIMEOUT_S:.0f} s", "is the machine busy?"
        ) from error
    for line in done.stderr.splitlines():
        say(f"{module} | {line}")
    found = re.search(r"^(\d+) ([\d.]+)$", done.stdout, re.MULTILINE)
    if found is None:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise OperatorError(f"{module} failed: {last}", "see the log")
    return int(found[1]) / max(float(found[2]), 1e-9)
