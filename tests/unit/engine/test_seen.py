"""The memory of seen ids against a dict: exact, whatever was merged, persisted, loaded or forgotten in between."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streams.engine.seen import BLOB_IDS_MAX, Blob, BlobError, SeenMemory, contents, digests, repeats

HOUR_US = 3600 * 1_000_000
WINDOW_US = 72 * HOUR_US
SEED = 7


def made(names: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    return digests([name.encode() for name in names], SEED)


class SeenAgainstDict(RuleBasedStateMachine):
    """Random adds, lookups, clock moves and restarts; the dict says what must be known."""

    @initialize()
    def begin(self) -> None:
        self.memory = SeenMemory(WINDOW_US)
        self.model: dict[str, tuple[int, int, int]] = {}
        self.persisted: list[Blob] = []
        self.clock_at = 1_000 * HOUR_US
        self.commit = 0

    @rule(names=st.lists(st.integers(0, 400).map(str), unique=True, max_size=60), hint=st.integers(0, 2**40))
    def add_new(self, names: list[str], hint: int) -> None:
        new = [name for name in names if name not in self.model]
        hashes = np.array([int(name) * 3 for name in new], dtype=np.uint64)
        self.memory.add(made(new), hashes, hint, np.full(len(new), self.clock_at))
        for name in new:
            self.model[name] = (int(name) * 3, hint, self.clock_at)

    @rule(names=st.lists(st.integers(0, 400).map(str), max_size=60))
    def lookup(self, names: list[str]) -> None:
        found = self.memory.lookup(made(names))
        for i, name in enumerate(names):
            expected = self.model.get(name)
            assert bool(found.known[i]) == (expected is not None), name
            if expected is not None:
                assert (int(found.contents[i]), int(found.hints[i])) == expected[:2]

    @rule()
    def persist(self) -> None:
        self.commit += 1
        blobs = self.memory.take_pending(self.commit)
        self.persisted += [Blob.decode(blob.encode()) for blob in blobs]
        assert all(blob.commit == self.commit for blob in blobs)

    @rule(hours=st.integers(0, 60))
    def time_passes(self, hours: int) -> None:
        self.clock_at += hours * HOUR_US
        oldest = self.memory.oldest_bucket(self.clock_at)
        kept = {name: each for name, each in self.model.items() if each[2] // self.memory.bucket_us >= oldest}
        assert all(at < self.clock_at - WINDOW_US for _, _, at in (self.model[n] for n in self.model.keys() - kept))
        assert self.memory.expire(self.clock_at) == len(self.model) - len(kept)
        self.model = kept

    @rule()
    def restart(self) -> None:
        self.persist()
        counts = self.memory.counts
        self.memory = SeenMemory(WINDOW_US)
        self.memory.load(self.persisted, self.clock_at)
        oldest = self.memory.oldest_bucket(self.clock_at)
        assert self.memory.counts == {bucket: n for bucket, n in counts.items() if bucket >= oldest}

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.memory) == len(self.model)


TestSeenAgainstDict = SeenAgainstDict.TestCase
TestSeenAgainstDict.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_digests_that_share_the_first_half_are_told_apart() -> None:
    memory = SeenMemory(WINDOW_US)
    ids = np.array([[5, i] for i in range(20)], dtype=np.uint64)
    memory.add(ids[:10], np.arange(10, dtype=np.uint64), 3, np.zeros(10, np.int64))
    found = memory.lookup(ids)
    assert found.known.tolist() == [True] * 10 + [False] * 10
    assert found.contents[:10].tolist() == list(range(10))


def test_what_is_past_its_window_is_not_known_whether_it_was_forgotten_or_not() -> None:
    kept, forgetful = SeenMemory(WINDOW_US), SeenMemory(WINDOW_US)
    ids = made([str(number) for number in range(48)])
    at = np.arange(48, dtype=np.int64) * (WINDOW_US // 16)
    for memory in (kept, forgetful):
        memory.add(ids, ids[:, 0], 0, at)
    asked_at = np.full(48, int(at[-1]))
    forgetful.expire(int(at[-1]))
    assert len(forgetful) < len(kept)
    known = kept.lookup(ids, asked_at).known
    assert known.tolist() == forgetful.lookup(ids, asked_at).known.tolist()
    assert known[at >= at[-1] - WINDOW_US].all()
    assert kept.lookup(ids, at).known.all()


def test_an_id_used_again_after_its_window_is_known_by_its_latest_use() -> None:
    memory, one = SeenMemory(WINDOW_US), made(["one"])
    for use in range(3):
        at = np.asarray([use * 2 * WINDOW_US])
        assert not memory.lookup(one, at).known[0]
        memory.add(one, np.asarray([use], np.uint64), use, at)
    found = memory.lookup(one, at)
    assert (bool(found.known[0]), int(found.contents[0]), int(found.hints[0])) == (True, 2, 2)


def test_many_small_adds_stay_exact_and_small() -> None:
    memory = SeenMemory(WINDOW_US)
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 2**63, (100_000, 2)).astype(np.uint64)
    for start in range(0, len(ids), 500):
        memory.lookup(ids[start : start + 500])
        memory.add(ids[start : start + 500], ids[start : start + 500, 0], start, np.zeros(500, np.int64))
    found = memory.lookup(ids)
    assert found.known.all()
    assert (found.contents == ids[:, 0]).all()
    assert (found.hints == (np.arange(len(ids)) // 500) * 500).all()
    assert memory.memory_bytes <= 32 * len(memory)


@given(st.lists(st.integers(0, 30), max_size=80))
def test_repeats_are_all_but_the_first(numbers: list[int]) -> None:
    expected = [number in numbers[:i] for i, number in enumerate(numbers)]
    assert repeats(made([str(number) for number in numbers])).tolist() == expected


def test_the_seed_decides_the_hashes() -> None:
    ids = [b"a", b"b"]
    assert (digests(ids, 1) == digests(ids, 1)).all()
    assert (digests(ids, 1) != digests(ids, 2)).all()
    assert (contents(ids, 1) != contents(ids, 2)).all()


def test_large_adds_are_persisted_in_blobs_that_kafka_takes() -> None:
    memory = SeenMemory(WINDOW_US)
    ids = np.arange(2 * (BLOB_IDS_MAX + 10), dtype=np.uint64).reshape(-1, 2)
    memory.add(ids, ids[:, 0], 0, np.zeros(len(ids), np.int64))
    blobs = memory.take_pending(1)
    assert [len(blob.contents) for blob in blobs] == [BLOB_IDS_MAX, 10]
    assert max(len(blob.encode()) for blob in blobs) < 1_000_000
    assert memory.take_pending(2) == []


@pytest.mark.parametrize(
    "value", [b"", b"\0" * 36, Blob(1, 2, 3, np.zeros((2, 2), np.uint64), np.zeros(2, np.uint64)).encode()[:-1]]
)
def test_what_is_no_blob_is_refused(value: bytes) -> None:
    with pytest.raises(BlobError):
        Blob.decode(value)


def test_ids_without_contents_are_a_bug() -> None:
    with pytest.raises(ValueError, match="1 ids with 0 contents"):
        SeenMemory(WINDOW_US).add(made(["a"]), np.zeros(0, dtype=np.uint64), 0, np.zeros(1, np.int64))
