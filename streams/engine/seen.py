"""The exact memory of ids that had an effect: so that the same id sent again has none.

The rules of this file:
1. An id is remembered by 16 bytes of a keyed hash, with 8 bytes of a hash of its content and the ledger offset at
   which its entries begin. The answer never depends on the filter in front: that only saves searches.
2. An id added at clock `at` is remembered at least until the clock passes `at` + window: ids are forgotten by buckets
   of an eighth of the window. When exactly depends on commits; who must not depend on that asks with the time.
3. What a step adds is handed out once by `take_pending`, as blobs for the seen-ids topic, which go into the same
   transaction as the effects. `load` of all blobs gives the same memory again.
4. At most 32 bytes an id: 28 in sorted runs of numpy columns, 1 to 2 in the filter. No Python object per id.

The hash is XXH3-128 with a secret seed per partition: a sender who chooses ids cannot know which ones collide. With
5·10⁶ ids the chance that any two collide by accident is 10⁻²⁶.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from streams.engine.ports import Digests, Found, Int64s, UInt64s

UInt32s = npt.NDArray[np.uint32]

BUCKETS_PER_WINDOW = 8
# Runs of similar size are merged by eights: an id is moved log8(ids / batch), about 3 times, and a search that the
# filter lets through looks into about 8 runs per level.
MERGE_FAN = 8
# With 2 bits set per id, 8 to 16 bits of filter per id let through 5 to 1.4 % of the ids that are not remembered.
FILTER_BITS_PER_ID_MIN = 8
FILTER_BITS_MIN = 1 << 16
# 32,768 ids of 24 bytes stay below Kafka's default limit of 1 MiB for a record.
BLOB_IDS_MAX = 32_768

# Hints of a run are kept in 32 bits, counted from its smallest; runs further apart are not merged.
HINT_SPAN = 1 << 32

_BLOB = struct.Struct(">BQQQI")
_BLOB_VERSION = 1


class BlobError(ValueError):
    """Bytes on the seen-ids topic that are not a blob of this code."""


def digests(ids: Sequence[bytes], seed: int) -> Digests:
    """The digests of ids, in order. What makes an id unique (kind, org, revision) must be part of its bytes."""
    joined = b"".join([xxh3_128_digest(each, seed) for each in ids])
    return np.frombuffer(joined, dtype=np.uint64).reshape(-1, 2)


def contents(values: Sequence[bytes], seed: int) -> UInt64s:
    """64-bit hashes of contents, to tell a repeat from the same id with something else in it."""
    return np.array([xxh3_64_intdigest(each, seed) for each in values], dtype=np.uint64)


def repeats(ids: Digests) -> npt.NDArray[np.bool_]:
    """True where the same digest stands earlier in the same array."""
    repeated = np.zeros(len(ids), dtype=np.bool_)
    order = np.argsort(ids[:, 0], kind="stable")
    firsts = ids[order, 0]
    if not (firsts[1:] == firsts[:-1]).any():
        return repeated
    seen: set[bytes] = set()
    equal = np.zeros(len(ids), dtype=np.bool_)
    equal[1:] |= firsts[1:] == firsts[:-1]
    equal[:-1] |= firsts[1:] == firsts[:-1]
    for position in np.sort(order[equal]).tolist():
        digest = ids[position].tobytes()
        repeated[position] = digest in seen
        seen.add(digest)
    return repeated


@dataclass(slots=True)
class _Run:
    """Ids of one bucket, sorted by the first half of the digest. `hint` counts from `hint_from`."""

    first: UInt64s
    second: UInt64s
    content: UInt64s
    hint: UInt32s
    hint_from: int

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True, slots=True)
class Blob:
    """Ids that were added together, as they are kept on the seen-ids topic. `commit` numbers the transaction."""

    commit: int
    bucket: int
    hint: int
    digests: Digests
    contents: UInt64s

    def encode(self) -> bytes:
        """The record's value."""
        head = _BLOB.pack(_BLOB_VERSION, self.commit, self.bucket, self.hint, len(self.contents))
        return head + np.ascontiguousarray(self.digests).tobytes() + np.ascontiguousarray(self.contents).tobytes()

    @staticmethod
    def decode(value: bytes) -> Blob:
        """The blob of a record's value; raises `BlobError`."""
        if len(value) < _BLOB.size:
            raise BlobError(f"{len(value)} bytes are too few")
        version, commit, bucket, hint, count = _BLOB.unpack_from(value)
        if version != _BLOB_VERSION or len(value) != _BLOB.size + 24 * count:
            raise BlobError(f"version {version} with {len(value)} bytes for {count} ids")
        ids = np.frombuffer(value, dtype=np.uint64, count=2 * count, offset=_BLOB.size).reshape(-1, 2)
        hashes = np.frombuffer(value, dtype=np.uint64, count=count, offset=_BLOB.size + 16 * count)
        return Blob(commit, bucket, hint, ids, hashes)


class SeenMemory:
    """`SeenIds` of the port: one partition's memory for one window."""

    def __init__(self, window_us: int) -> None:
        """Remembers for `window_us` microseconds of the partition's clock."""
        self.window_us = window_us
        self.bucket_us = max(1, window_us // BUCKETS_PER_WINDOW)
        self._buckets: dict[int, list[_Run]] = {}
        self._counts: dict[int, int] = {}
        self._fresh: list[tuple[int, int, Digests, UInt64s]] = []
        self._unsorted: list[tuple[int, int, Digests, UInt64s]] = []
        self._filter = _Filter(FILTER_BITS_MIN)

    def __len__(self) -> int:
        return sum(self._counts.values())

    @property
    def counts(self) -> dict[int, int]:
        """How many ids each bucket holds."""
        return dict(self._counts)

    @property
    def memory_bytes(self) -> int:
        """Bytes held in columns and filter."""
        runs = (run for bucket in self._buckets.values() for run in bucket)
        return sum(28 * len(run) for run in runs) + len(self._filter.bits)

    def lookup(self, ids: Digests, at: Int64s | None = None) -> Found:
        """Which of the ids are remembered, with content and hint; see `SeenIds.lookup`."""
        self._sort_added()
        count = len(ids)
        found = Found(
            np.zeros(count, dtype=np.bool_), np.zeros(count, dtype=np.uint64), np.zeros(count, dtype=np.int64)
        )
        maybe = self._filter.maybe(ids)
        if len(maybe) == 0:
            return found
        oldest = np.zeros(len(maybe), np.int64) if at is None else self._oldest_buckets(at[maybe])
        for bucket in sorted(self._buckets):
            inside = oldest <= bucket
            if inside.any():
                numbers = maybe[inside]
                for run in self._buckets[bucket]:
                    _search(run, ids[numbers], numbers, found)
        return found

    def add(self, ids: Digests, hashes: UInt64s, hint: int, at: Int64s) -> None:
        """Remember ids that are not remembered yet; see `SeenIds.add`."""
        if len(ids) != len(hashes):
            raise ValueError(f"{len(ids)} ids with {len(hashes)} contents")
        if len(ids) == 0:
            return
        buckets = np.maximum(at, 0) // self.bucket_us
        for bucket in np.unique(buckets).tolist():
            here = buckets == bucket
            added = (bucket, hint, np.array(ids[here], dtype=np.uint64), np.array(hashes[here], dtype=np.uint64))
            self._fresh.append(added)
            self._unsorted.append(added)
            self._counts[bucket] = self._counts.get(bucket, 0) + len(added[2])

    def take_pending(self, commit: int) -> list[Blob]:
        """What was added since the last call, for the transaction number `commit`."""
        groups: dict[tuple[int, int], list[tuple[Digests, UInt64s]]] = {}
        for bucket, hint, ids, hashes in self._fresh:
            groups.setdefault((bucket, hint), []).append((ids, hashes))
        self._fresh.clear()
        blobs = []
        for (bucket, hint), parts in groups.items():
            ids = np.concatenate([each for each, _ in parts])
            hashes = np.concatenate([each for _, each in parts])
            for start in range(0, len(ids), BLOB_IDS_MAX):
                end = start + BLOB_IDS_MAX
                blobs.append(Blob(commit, bucket, hint, ids[start:end], hashes[start:end]))
        return blobs

    def expire(self, clock_at: int) -> int:
        """Forget the buckets whose ids have all passed the window at `clock_at`; how many ids went."""
        oldest_kept = self.oldest_bucket(clock_at)
        old = [bucket for bucket in self._counts if bucket < oldest_kept]
        if not old:
            return 0
        self._sort_added()
        forgotten = sum(self._counts.pop(bucket) for bucket in old)
        for bucket in old:
            self._buckets.pop(bucket, None)
        self._rebuild_filter()
        return forgotten

    def oldest_bucket(self, clock_at: int) -> int:
        """The oldest bucket that has an id inside the window at `clock_at`."""
        return int(self._oldest_buckets(np.asarray(clock_at, np.int64)))

    def _oldest_buckets(self, at: Int64s) -> Int64s:
        return np.maximum(at - self.window_us, 0) // self.bucket_us

    def load(self, blobs: Iterable[Blob], clock_at: int) -> None:
        """Take over what was persisted, leaving out what is past the window at `clock_at`. Only on an empty memory."""
        oldest_kept = self.oldest_bucket(clock_at)
        by_bucket: dict[int, list[Blob]] = {}
        for blob in blobs:
            if blob.bucket >= oldest_kept:
                by_bucket.setdefault(blob.bucket, []).append(blob)
        for bucket, parts in by_bucket.items():
            runs = [_run_of_blobs(near) for near in _by_hint(parts)]
            self._buckets[bucket] = runs
            self._counts[bucket] = sum(len(run) for run in runs)
        self._rebuild_filter()

    def _sort_added(self) -> None:
        if not self._unsorted:
            return
        for bucket, hint, ids, hashes in self._unsorted:
            run = _sorted_run(ids, hashes, np.zeros(len(ids), dtype=np.uint32), hint)
            runs = self._buckets.setdefault(bucket, [])
            runs.append(run)
            _merge_last(runs)
        added = [ids for _, _, ids, _ in self._unsorted]
        self._unsorted.clear()
        if len(self) * FILTER_BITS_PER_ID_MIN > self._filter.size_bits:
            self._rebuild_filter()
        else:
            for ids in added:
                self._filter.add(ids[:, 0], ids[:, 1])

    def _rebuild_filter(self) -> None:
        size = FILTER_BITS_MIN
        while size < len(self) * FILTER_BITS_PER_ID_MIN:
            size *= 2
        self._filter = _Filter(size)
        for runs in self._buckets.values():
            for run in runs:
                self._filter.add(run.first, run.second)


class _Filter:
    """Two bits per id; says "surely not remembered" or "look it up". Never wrong in the first."""

    def __init__(self, size_bits: int) -> None:
        self.size_bits = size_bits
        self.bits = np.zeros(size_bits // 8, dtype=np.uint8)
        self._mask = np.uint64(size_bits - 1)

    def add(self, first: UInt64s, second: UInt64s) -> None:
        for half in (first, second):
            at = half & self._mask
            np.bitwise_or.at(self.bits, at >> np.uint64(3), _BIT[at & np.uint64(7)])

    def maybe(self, ids: Digests) -> npt.NDArray[np.intp]:
        """The positions of the ids that may be remembered."""
        return np.flatnonzero(self._set(ids[:, 0]) & self._set(ids[:, 1]))

    def _set(self, half: UInt64s) -> npt.NDArray[np.bool_]:
        at = half & self._mask
        tested: npt.NDArray[np.bool_] = (self.bits[at >> np.uint64(3)] & _BIT[at & np.uint64(7)]) != 0
        return tested


_BIT = np.array([1 << bit for bit in range(8)], dtype=np.uint8)


def _sorted_run(ids: Digests, hashes: UInt64s, hints: UInt32s, hint_from: int) -> _Run:
    order = np.argsort(ids[:, 0], kind="stable")
    return _Run(ids[order, 0], ids[order, 1], hashes[order], hints[order], hint_from)


def _merge_last(runs: list[_Run]) -> None:
    """Merges the last runs while `MERGE_FAN` of them are of about one size (sizes fall along the list)."""
    while len(runs) >= MERGE_FAN and len(runs[-MERGE_FAN]) <= MERGE_FAN * len(runs[-1]):
        parts = runs[-MERGE_FAN:]
        hint_from = min(part.hint_from for part in parts)
        if max(part.hint_from + int(part.hint.max()) for part in parts) - hint_from >= HINT_SPAN:
            return
        del runs[-MERGE_FAN:]
        hints = np.concatenate([part.hint + np.uint32(part.hint_from - hint_from) for part in parts])
        first = np.concatenate([part.first for part in parts])
        order = np.argsort(first, kind="stable")
        second = np.concatenate([part.second for part in parts])[order]
        content = np.concatenate([part.content for part in parts])[order]
        runs.append(_Run(first[order], second, content, hints[order], hint_from))


def _by_hint(parts: list[Blob]) -> Iterator[list[Blob]]:
    """Groups whose hints can be counted from the smallest in 32 bits: one group, but for a very full bucket."""
    near: list[Blob] = []
    for part in sorted(parts, key=lambda blob: blob.hint):
        if near and part.hint - near[0].hint >= HINT_SPAN:
            yield near
            near = []
        near.append(part)
    if near:
        yield near


def _run_of_blobs(parts: list[Blob]) -> _Run:
    hint_from = parts[0].hint
    hints = [np.full(len(part.contents), part.hint - hint_from, dtype=np.uint32) for part in parts]
    ids = np.concatenate([part.digests for part in parts])
    return _sorted_run(ids, np.concatenate([part.contents for part in parts]), np.concatenate(hints), hint_from)


def _search(run: _Run, wanted: Digests, numbers: npt.NDArray[np.intp], found: Found) -> None:
    """Marks in `found` (at `numbers`) which of `wanted` the run holds."""
    at = np.searchsorted(run.first, wanted[:, 0])
    open_ = np.flatnonzero(at < len(run.first))
    while len(open_):
        here = at[open_]
        same_half = run.first[here] == wanted[open_, 0]
        hit = same_half & (run.second[here] == wanted[open_, 1])
        if hit.any():
            rows = here[hit]
            where = numbers[open_[hit]]
            found.known[where] = True
            found.contents[where] = run.content[rows]
            found.hints[where] = run.hint[rows].astype(np.int64) + run.hint_from
        # Two digests may share the first half: then look at the next one too.
        open_ = open_[same_half & ~hit]
        at[open_] += 1
        open_ = open_[at[open_] < len(run.first)]
