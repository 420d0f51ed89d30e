"""Whether a chDB folder can be opened, tried in a process of its own: the engine may end the process that opens it.

Run as a program it opens the folder, and ends with 0 or with `STATUS_DAMAGED`; any other end is a crash of the engine.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from projections.clickhouse import ClickHouseDamagedError, ClickHouseUnavailableError, connect

OPEN_TIMEOUT_S = 120.0
STATUS_DAMAGED = 3
STATUS_TAKEN = 4


@dataclass(frozen=True)
class _Folder:
    clickhouse_url: str | None
    data_dir: Path = Path()
    namespace: str = ""


def is_damaged(folder: Path) -> bool:
    """Whether an existing folder cannot be opened, and no other process has it."""
    if not folder.exists():
        return False
    if not folder.is_dir():
        return True
    try:
        done = subprocess.run(
            [sys.executable, "-m", "projections.opening", str(folder.absolute())],
            capture_output=True,
            cwd=Path(__file__).parent.parent,
            timeout=OPEN_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return True
    return done.returncode == STATUS_DAMAGED or done.returncode < 0


def main(folder: str) -> int:
    """Open the folder and close it again; the status to end with."""
    try:
        connect(_Folder(f"chdb://{folder}")).close()
    except ClickHouseDamagedError:
        return STATUS_DAMAGED
    except ClickHouseUnavailableError:
        return STATUS_TAKEN
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
