"""The data folder: for its owner alone. Folders 700, files 600, whatever the umask of the shell was.

The rules of this file:
1. `prepare` is called before anything is written there. It sets the umask of this process, which the programs that it
   starts (Java, ClickHouse's engine) inherit.
2. A folder of an earlier version that others can read is tightened, with all of ours in it, and one line says so.
3. What is not ours is left alone: a folder of another user, or one that holds other things than our own, is named in
   a warning and not changed. (`CREDITS_DATA_DIR=/tmp` must not close /tmp.)
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from streams.errors import OperatorError

log = logging.getLogger(__name__)

FOLDER_MODE, FILE_MODE = 0o700, 0o600
OTHERS = 0o077
OURS = (
    "kafka",
    "clickhouse",
    "clickhouse.",
    "faust",
    "faust-",
    "up.lock",
    "serve.key",
    "rebuild.",
    "demo",
    "bench",
    "log",
)
"""How the names of what we keep in a data folder begin."""


def prepare(folder: Path) -> Path:
    """The folder, made where it is missing, for this user alone. Raises `OperatorError` where it cannot be made."""
    os.umask(OTHERS)
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise OperatorError(
            f"cannot make the data folder {folder.absolute()} ({error.strerror})", "set CREDITS_DATA_DIR"
        ) from error
    if found.st_mode & OTHERS:
        _tighten(folder, found)
    return folder


def _tighten(folder: Path, found: os.stat_result) -> None:
    mode = stat.S_IMODE(found.st_mode)
    strange = next((each.name for each in folder.iterdir() if not each.name.startswith(OURS)), None)
    if found.st_uid != os.getuid() or strange is not None:
        why = "belongs to another user" if found.st_uid != os.getuid() else f"also holds {strange}"
        log.warning(
            "Others can read the data folder %s (mode %o), and it %s: set CREDITS_DATA_DIR to a folder of its own",
            folder.absolute(),
            mode,
            why,
        )
        return
    for path in [folder, *_within(folder)]:
        try:
            path.chmod(FOLDER_MODE if path.is_dir() else FILE_MODE)
        except FileNotFoundError:  # a log segment that was deleted meanwhile
            continue
        except OSError as error:
            raise OperatorError(
                f"others can read {path}, and it cannot be closed to them ({error.strerror})",
                "set CREDITS_DATA_DIR to a folder that belongs to this user",
            ) from error
    log.warning("Others could read the data folder %s (mode %o): it is closed to them now", folder.absolute(), mode)


def _within(folder: Path) -> Iterator[Path]:
    """Everything in the folder; links are not followed, nor changed."""
    for name, folders, files in os.walk(folder):
        for each in (*folders, *files):
            path = Path(name) / each
            if not path.is_symlink():
                yield path
