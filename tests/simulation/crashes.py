"""What goes wrong, and when: drawn from the seed at every effect.

The effects of a commit, in their order: the transaction is begun, its records are handed over, Kafka decides the
commit, memory is told. A worker may die before and after each; a commit may fail, or go through without its answer;
Kafka may be away when somebody reads. `Faults.happened` counts what did happen, so that it can be shown that each did.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Literal

Point = Literal["open", "begin", "produce", "before commit", "after commit", "delete"]
Fault = Literal["crash", "lost", "none"]


class CrashError(Exception):
    """The worker's process ends here: no handler runs but Python's own."""


class Faults:
    """Draws faults. `per_mille` is how often one happens at a point."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.active = False
        self.per_mille = random.choice((0, 20, 60, 120))
        self.happened: Counter[str] = Counter()

    def at(self, point: Point) -> Fault:
        """What happens at this point. Raises `CrashError` itself; "lost": the call fails, the process lives."""
        if not self._strikes(rarer=5 if point == "produce" else 1):
            return "none"
        fault: Fault = (
            "crash" if point in ("open", "begin", "produce", "delete") else self.random.choice(("crash", "lost"))
        )
        self.happened[f"{fault} {point}"] += 1
        if fault == "crash":
            raise CrashError(point)
        return fault

    def away(self) -> bool:
        """Kafka does not answer a reader."""
        struck = self._strikes()
        self.happened["away"] += struck
        return struck

    def note(self, name: str) -> None:
        """Count something that the world did on purpose."""
        self.happened[name] += 1

    def _strikes(self, rarer: int = 1) -> bool:
        return self.active and self.random.randrange(1_000 * rarer) < self.per_mille
