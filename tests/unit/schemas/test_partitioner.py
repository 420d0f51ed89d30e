"""murmur2 as Java has it: Kafka's own vectors, one way against the other, and against librdkafka's and aiokafka's."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from schemas.partitioner import murmur2, partition_of, partitions_of

JAVA = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]
"""Of Kafka's `UtilsTest.testMurmur2`: most of them negative."""


@pytest.mark.parametrize(("key", "hashed"), JAVA)
def test_the_hash_is_javas(key: bytes, hashed: int) -> None:
    assert murmur2(key) == hashed


@pytest.mark.parametrize(("key", "hashed"), JAVA)
@pytest.mark.parametrize("partitions", [1, 7, 8, 64, 1000])
def test_a_negative_hash_is_masked_not_negated(key: bytes, hashed: int, partitions: int) -> None:
    """Java's `toPositive` clears the sign bit; `abs` would give another partition."""
    assert partition_of(key, partitions) == (hashed + 2**31 * (hashed < 0)) % partitions


@given(st.lists(st.binary(max_size=40), max_size=60), st.integers(1, 10_000))
def test_columns_and_single_keys_agree(keys: list[bytes], partitions: int) -> None:
    assert partitions_of(keys, partitions) == [partition_of(key, partitions) for key in keys]


@given(st.binary(max_size=64))
def test_every_length_is_hashed_as_other_clients_do(key: bytes) -> None:
    assert murmur2(key) & 0xFFFFFFFF == aiokafka_murmur2(key) & 0xFFFFFFFF
