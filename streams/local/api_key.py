"""The key of `/internal`: a file in the data folder, which only programs of this machine and this user can read.

An address cannot tell: behind a proxy on this machine every request comes from loopback. A user who can read the file
can also read the chDB folder next to it. `serve` makes a new key at each start.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from streams.errors import OperatorError

if TYPE_CHECKING:
    from pathlib import Path

FILE = "serve.key"
HEADER = "x-credits-local-key"


def new_local_key(data_dir: Path) -> str:
    """Make a key and write it, readable for this user only, whole or not at all. Raises `OperatorError`."""
    key = secrets.token_urlsafe(32)
    partial = data_dir / f"{FILE}.{os.getpid()}.partial"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(key)
        partial.replace(data_dir / FILE)
    except OSError as error:
        problem = f"cannot write {data_dir / FILE} ({error.strerror})"
        raise OperatorError(problem, "set CREDITS_DATA_DIR to a folder that can be written") from error
    return key


def local_key(data_dir: Path) -> str | None:
    """The key of the `serve` that uses this data folder; None when none has."""
    try:
        return (data_dir / FILE).read_text(encoding="ascii").strip()
    except (FileNotFoundError, PermissionError, UnicodeDecodeError):
        return None
