"""The account states of one partition, as bytes, with the time at which each wants to be looked at.

The rules of this file:
1. A state stays bytes until the processor decodes it: 100,000 accounts cost their bytes and a dict entry each.
2. A changelog value is 8 bytes, big-endian, of due time in microseconds (0: none), then the state. So the due times
   of all accounts are known after a restart without decoding one.
3. Only committed states are here: the engine calls `apply` when the transaction is in Kafka.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterable, Mapping

_DUE = struct.Struct(">Q")


def frame_account(due_at: int, state: bytes) -> bytes:
    """The changelog value of an account; `due_at` in microseconds, 0 for none."""
    return _DUE.pack(due_at) + state


class Accounts:
    """`AccountBytes` of the port, and the queue of due times."""

    def __init__(self, framed: dict[str, bytes] | None = None) -> None:
        """Takes over framed states by org id (the dict is kept, not copied)."""
        self._framed: dict[str, bytes] = {} if framed is None else framed
        # (due, org); an item is valid while the org's state still says that due time, others are passed over.
        self._due: list[tuple[int, str]] = []
        for org, value in self._framed.items():
            due = _DUE.unpack_from(value)[0]
            if due:
                self._due.append((due, org))
        heapq.heapify(self._due)

    def __len__(self) -> int:
        return len(self._framed)

    def count_with(self, org_ids: Iterable[str]) -> int:
        """How many accounts there are once these have a state, too."""
        return len(self._framed) + sum(org_id not in self._framed for org_id in org_ids)

    def get(self, org_id: str) -> bytes | None:
        """The committed state of an org; None when it has none."""
        framed = self._framed.get(org_id)
        return None if framed is None else framed[_DUE.size :]

    def due_at(self, org_id: str) -> int:
        """When the org wants to be looked at, in microseconds; 0: never."""
        framed = self._framed.get(org_id)
        return 0 if framed is None else int(_DUE.unpack_from(framed)[0])

    def apply(self, framed: Mapping[str, bytes]) -> None:
        """Take over committed framed states."""
        for org, value in framed.items():
            due = _DUE.unpack_from(value)[0]
            if due and due != self.due_at(org):
                heapq.heappush(self._due, (due, org))
        self._framed.update(framed)
        if len(self._due) > 1_000 + 2 * len(self._framed):
            self._due = [(due, org) for due, org in set(self._due) if self.due_at(org) == due]
            heapq.heapify(self._due)

    def next_due(self) -> int | None:
        """The earliest due time in microseconds, or None."""
        while self._due and self.due_at(self._due[0][1]) != self._due[0][0]:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def take_due(self, at: int, orgs_max: int) -> list[str]:
        """Orgs due at or before `at`, earliest first, at most `orgs_max`. Each due time is handed out once."""
        taken: list[str] = []
        while len(taken) < orgs_max:
            due = self.next_due()
            if due is None or due > at:
                break
            org = heapq.heappop(self._due)[1]
            if not taken or taken[-1] != org:
                taken.append(org)
        return taken
