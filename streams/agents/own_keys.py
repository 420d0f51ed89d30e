"""Which keys belong to a partition: an account is opened in the partition of its key by murmur2, and nowhere else.

Rules of this file:
1. A key is hashed once; that it belongs here is remembered. A batch of known keys costs one look into a set for each.
2. A key that belongs elsewhere is not remembered: its records are dead letters, which cost more than the hash.
3. A null key belongs nowhere, and is judged by those who compare it with its owner (`judgement.check_key`).
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Final

from schemas.enums import DeadLetterCode
from schemas.partitioner import partition_of, partitions_of
from streams.ledger.refusals import DeadLetter

KEYS_MAX: Final = 16_384
"""Keys remembered per partition, some 100 bytes each: 1.6 MB. Beyond it they are hashed again, at 0.2 µs a key."""

KEY_BYTES_MAX: Final = 512
"""An id has at most 128 characters. A longer key is no org's, so that columns of keys need not hash it."""

NONE_FOREIGN: Final[frozenset[bytes]] = frozenset()


class OwnKeys:
    """The keys of one partition of `partitions`."""

    def __init__(self, number: int, partitions: int) -> None:
        self._number = number
        self._partitions = partitions
        self._own: set[bytes | None] = {None}

    def foreign(self, keys: Iterable[bytes | None]) -> Set[bytes]:
        """Those of the keys that belong to another partition; None as a rule."""
        if self._own.issuperset(keys):
            return NONE_FOREIGN
        new = [key for key in set(keys) - self._own if key is not None and len(key) <= KEY_BYTES_MAX]
        homes = partitions_of(new, self._partitions)
        own = [key for key, home in zip(new, homes, strict=True) if home == self._number]
        self._remember(own)
        return frozenset(new).difference(own) if len(own) < len(new) else NONE_FOREIGN

    def check(self, key: bytes | None) -> None:
        """Raise `DeadLetter` `wrong_partition` for a key that belongs to another partition."""
        if key in self._own or key is None:
            return
        home = partition_of(key, self._partitions)
        if home != self._number:
            raise self.refusal(key, home)
        self._remember([key])

    def refusal(self, key: bytes, home: int | None = None) -> DeadLetter:
        """The dead letter of a record whose key belongs elsewhere."""
        home = partition_of(key, self._partitions) if home is None else home
        message = (
            f"by murmur2 the key {key[:KEY_BYTES_MAX]!r} belongs to partition {home} of {self._partitions}, "
            f"and the record lies in {self._number}; set its producer's partitioner to murmur2"
        )
        return DeadLetter(DeadLetterCode.WRONG_PARTITION, message)

    def _remember(self, keys: list[bytes]) -> None:
        if len(self._own) + len(keys) > KEYS_MAX:
            self._own = {None}
        self._own.update(keys[:KEYS_MAX])
