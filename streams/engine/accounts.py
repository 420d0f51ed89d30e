"""The account states of one partition, as bytes, with the time at which each wants to be looked at.

The rules of this file:
1. A state stays bytes until the processor decodes it: 100,000 accounts cost their bytes and a dict entry each.
2. A changelog value is a frame: 8 bytes, big-endian, of due time in microseconds (0: none) with the highest bit set,
   8 bytes of the number of the transaction that wrote it, then the state. So the due times of all accounts are known
   after a restart without decoding one. Frames without that bit are of an older program, and have no number.
3. Only committed states are here: the engine calls `apply` when the transaction is in Kafka.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterable, Mapping

from xxhash import xxh3_64_intdigest

_DUE = struct.Struct(">Q")
_HEAD = struct.Struct(">QQ")
_NUMBERED = 1 << 63
DUE_AT_MAX = (1 << 62) - 1
"""Microseconds; the year 148,000. The bit above is kept free, so that no frame begins with `seals.MARK`."""
CHECKSUM_MASK = (1 << 64) - 1


def frame_account(due_at: int, state: bytes, commit: int = 0) -> bytes:
    """The changelog value of an account; `due_at` in microseconds, 0 for none; `commit`: the transaction's number."""
    if not 0 <= due_at <= DUE_AT_MAX:
        raise ValueError(f"no time that an account can be due at: {due_at}")
    return _HEAD.pack(due_at | _NUMBERED, commit) + state


def is_frame(value: bytes) -> bool:
    """Whether a value is long enough for an account's frame."""
    return len(value) >= (_HEAD.size if value[:1] >= b"\x80" else _DUE.size)


def frame_commit(framed: bytes) -> int:
    """The number of the transaction that wrote a frame; 0: it was an older program."""
    return int(_HEAD.unpack_from(framed)[1]) if framed[0] & 0x80 else 0


def accounts_checksum(framed: Mapping[str, bytes], seed: int) -> int:
    """64 bits over which transaction wrote each account of a partition, whatever their order.

    A sum of hash of the org times number of the transaction, so that a change costs one short hash. It finds copies of
    different age and torn transactions. It is no protection against forgery: `seals` is.
    """
    sums = (xxh3_64_intdigest(org_id.encode(), seed) * frame_commit(frame) for org_id, frame in framed.items())
    return sum(sums) & CHECKSUM_MASK


def _due(framed: bytes) -> int:
    return int(_DUE.unpack_from(framed)[0]) & DUE_AT_MAX


def state_of(framed: bytes) -> bytes:
    """The encoded account in a frame."""
    return framed[_HEAD.size if framed[0] & 0x80 else _DUE.size :]


class Accounts:
    """`AccountBytes` of the port, and the queue of due times."""

    def __init__(self, framed: dict[str, bytes] | None = None) -> None:
        """Takes over framed states by org id (the dict is kept, not copied)."""
        self._framed: dict[str, bytes] = {} if framed is None else framed
        # (due, org); an item is valid while the org's state still says that due time, others are passed over.
        self._due: list[tuple[int, str]] = []
        for org, value in self._framed.items():
            due = _due(value)
            if due:
                self._due.append((due, org))
        heapq.heapify(self._due)

    def __len__(self) -> int:
        return len(self._framed)

    def count_with(self, org_ids: Iterable[str]) -> int:
        """How many accounts there are once these have a state, too."""
        return len(self._framed) + sum(org_id not in self._framed for org_id in org_ids)

    def checksum_with(self, org_ids: Iterable[str], commit: int, checksum: int, seed: int) -> int:
        """What `accounts_checksum` of all of them is when `commit` has written these; `checksum` is what it is now."""
        known = self._framed.get
        for org_id in org_ids:
            before = known(org_id)
            written = commit if before is None else commit - frame_commit(before)
            checksum += xxh3_64_intdigest(org_id.encode(), seed) * written
        return checksum & CHECKSUM_MASK

    def get(self, org_id: str) -> bytes | None:
        """The committed state of an org; None when it has none."""
        framed = self._framed.get(org_id)
        return None if framed is None else state_of(framed)

    def due_at(self, org_id: str) -> int:
        """When the org wants to be looked at, in microseconds; 0: never."""
        framed = self._framed.get(org_id)
        return 0 if framed is None else _due(framed)

    def apply(self, framed: Mapping[str, bytes]) -> None:
        """Take over committed framed states."""
        for org, value in framed.items():
            due = _due(value)
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
