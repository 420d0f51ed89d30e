"""Which partition a key belongs to: murmur2, as Kafka's Java client computes it.

Rules of this file: the same answer as `Utils.toPositive(Utils.murmur2(key)) % partitions` of Kafka's Java client, of
librdkafka's `murmur2` and `murmur2_random`. The hash is a signed 32-bit number; its sign bit is masked, not negated. A
null key has no partition of its own: producers choose one at random.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import numpy as np
import numpy.typing as npt

REMEDY: Final = (
    "its producer does not partition by murmur2: set partitioner=murmur2_random in librdkafka clients (Python, Go, "
    "Node, .NET, C++), Balancer: kafka.Murmur2Balancer{} in segmentio/kafka-go, Partitioners.DefaultPartitioner in "
    "kafkajs, and a murmur2 hash with WithAbsFirst() in sarama"
)
"""The likely cause of a record in a partition that is not its key's, and what to do: for people."""

_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF
_POSITIVE: Final = 0x7FFFFFFF
_SCALAR_KEYS_MAX: Final = 8
"""Up to this number of keys a loop of Python is faster than numpy's calls, a dozen for each length of key."""

KEYS_MAX: Final = 16_384
"""Keys remembered per partition, some 100 bytes each: 1.6 MB. Beyond it they are hashed again, at 0.2 µs a key."""

KEY_BYTES_MAX: Final = 512
"""An id has at most 128 characters. A longer key is no org's, so that columns of keys need not hash it."""

_NONE_FOREIGN: Final[frozenset[bytes]] = frozenset()

UInt32s = npt.NDArray[np.uint32]


def murmur2(key: bytes) -> int:
    """The 32-bit hash of a key, as a signed number like Java's."""
    length = len(key)
    hashed = _SEED ^ length
    whole = length & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(key[start : start + 4], "little") * _M & _MASK
        word = (word ^ word >> 24) * _M & _MASK
        hashed = (hashed * _M & _MASK) ^ word
    if length > whole:
        hashed = (hashed ^ int.from_bytes(key[whole:], "little")) * _M & _MASK
    hashed = (hashed ^ hashed >> 13) * _M & _MASK
    hashed ^= hashed >> 15
    return hashed - (1 << 32) if hashed > _POSITIVE else hashed


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that a key belongs to, of `partitions`."""
    return (murmur2(key) & _POSITIVE) % partitions


def partitions_of(keys: Sequence[bytes], partitions: int) -> list[int]:
    """`partition_of` of every key, in order: over columns, for the keys of one length at a time."""
    if len(keys) <= _SCALAR_KEYS_MAX:
        return [partition_of(key, partitions) for key in keys]
    by_length: dict[int, list[int]] = {}
    for index, key in enumerate(keys):
        by_length.setdefault(len(key), []).append(index)
    found = np.zeros(len(keys), np.int64)
    for length, indexes in by_length.items():
        octets = np.frombuffer(b"".join([keys[index] for index in indexes]), np.uint8).reshape(len(indexes), length)
        found[indexes] = (_hashes(octets) & np.uint32(_POSITIVE)) % np.uint32(partitions)
    return found.tolist()


class PartitionKeys:
    """Which keys belong to one partition of `partitions`.

    A key is hashed once; that it belongs here is remembered, so that a batch of known keys costs one look into a set
    for each. A key that belongs elsewhere is not remembered. A null key belongs nowhere, and is not judged here.
    """

    def __init__(self, number: int, partitions: int) -> None:
        self.number = number
        self.partitions = partitions
        self._own: set[bytes | None] = {None}

    def __contains__(self, key: bytes | None) -> bool:
        """Whether the key is known to belong here; None is."""
        return key in self._own

    def foreign(self, keys: Iterable[bytes | None]) -> AbstractSet[bytes]:
        """Those of the keys that belong to another partition; none as a rule, and none that is too long for an id."""
        if self._own.issuperset(keys):
            return _NONE_FOREIGN
        new = [key for key in set(keys) - self._own if key is not None and len(key) <= KEY_BYTES_MAX]
        homes = partitions_of(new, self.partitions)
        own = [key for key, home in zip(new, homes, strict=True) if home == self.number]
        self.remember(own)
        return frozenset(new).difference(own) if len(own) < len(new) else _NONE_FOREIGN

    def remember(self, keys: Sequence[bytes]) -> None:
        """These belong here."""
        if len(self._own) + len(keys) > KEYS_MAX:
            self._own = {None}
        self._own.update(keys[:KEYS_MAX])


def _hashes(octets: npt.NDArray[np.uint8]) -> UInt32s:
    """The hashes of keys of one length, unsigned; a row is a key."""
    count, length = octets.shape
    m = np.uint32(_M)
    hashed = np.full(count, _SEED ^ length, np.uint32)
    whole = length & ~3
    words = np.ascontiguousarray(octets[:, :whole]).view("<u4")
    for column in range(words.shape[1] if whole else 0):
        word = words[:, column] * m
        hashed = hashed * m ^ (word ^ word >> np.uint32(24)) * m
    if length > whole:
        for index in range(whole, length):
            hashed ^= octets[:, index].astype(np.uint32) << np.uint32(8 * (index - whole))
        hashed *= m
    hashed = (hashed ^ hashed >> np.uint32(13)) * m
    return hashed ^ hashed >> np.uint32(15)
