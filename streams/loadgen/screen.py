"""Where a long run shows how far it is: a terminal, a log file, or nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Steps(Protocol):
    """Counts what is done."""

    def advance(self, count: int = 1) -> None:
        """Add `count` to what is shown."""
        ...


class Screen(Protocol):
    """Where the run shows how far it is."""

    def say(self, text: str) -> None:
        """One line."""
        ...

    def log(self, line: str) -> None:
        """A line of a part of the system."""
        ...

    def progress(self, label: str, total: int | None) -> AbstractContextManager[Steps]:
        """A bar, or plain lines."""
        ...
