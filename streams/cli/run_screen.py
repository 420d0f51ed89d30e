"""How `credits demo` and `credits bench` show how far they are: lines and bars here, what the parts say in a file."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from pathlib import Path

from streams.cli.console import Steps, note, progress
from streams.text_safety import printable, redacted


class RunScreen:
    """The terminal, and a log file. Safe to use from several threads."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """One line."""
        note(text)

    def log(self, line: str) -> None:
        """A line of a part of the system."""
        with self._lock, self._log.open("a", encoding="utf-8") as file:
            file.write(printable(redacted(line)) + "\n")

    def progress(self, label: str, total: int | None) -> AbstractContextManager[Steps]:
        """A bar, or plain lines."""
        return progress(label, total)
