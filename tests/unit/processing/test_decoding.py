"""What a batch with schema ids that nobody has met yet costs: the registry is asked in a thread, and not too often."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from itertools import pairwise

import pytest

from schemas.codec import RegistryUnavailableError, decode_columns, encode_one, frame, schema_ids
from schemas.enums import DeadLetterCode
from schemas.records import AvroSchema, avro_schema
from streams.engine.ports import UnavailableError
from streams.kafka.registry import ASK_INTERVAL_S, UNKNOWN_IDS_MAX, CachedRegistry, SchemaNotCachedError
from streams.processing.decoding import Decoder
from tests.contract.samples import minimal

KNOWN = 20_001


class SlowRegistry:
    """Knows one id; answers when it is told to, and remembers what it was asked, when, and by which thread."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.away = False
        self.upstream: list[tuple[int, float, int]] = []

    def writer(self, schema_id: int) -> AvroSchema | None:
        self.upstream.append((schema_id, time.monotonic(), threading.get_ident()))
        assert self.may_answer.wait(10)
        if self.away:
            raise RegistryUnavailableError("away")
        return avro_schema("usage") if schema_id == KNOWN else None

    def schema_id(self, key: str) -> int:
        raise AssertionError(key)


@pytest.fixture
def slow() -> SlowRegistry:
    return SlowRegistry()


def usage(schema_id: int = KNOWN) -> bytes:
    return encode_one("usage", minimal("usage"), schema_id)


def test_the_loop_goes_on_while_the_registry_does_not_answer(slow: SlowRegistry) -> None:
    slow.may_answer.clear()

    async def turns_meanwhile() -> int:
        decoding = asyncio.create_task(Decoder(CachedRegistry(slow)).decoded([("usage", [usage(), usage(9_999)])]))
        turns = 0
        while not slow.upstream or turns < 100:  # had the loop to wait, it would not come here
            await asyncio.sleep(0)
            turns += 1
        assert not decoding.done()
        slow.may_answer.set()
        (decoded,) = await decoding
        assert decoded.positions == [0]
        assert [(each.position, each.code) for each in decoded.failures] == [(1, DeadLetterCode.UNKNOWN_SCHEMA)]
        return turns

    assert asyncio.run(turns_meanwhile()) >= 100
    assert threading.get_ident() not in {thread for _, _, thread in slow.upstream}


def test_what_is_known_asks_nobody(slow: SlowRegistry) -> None:
    async def twice() -> None:
        decoder = Decoder(CachedRegistry(slow))
        await decoder.decoded([("usage", [usage()])])
        await decoder.decoded([("usage", [usage(), usage()]), ("usage", [usage(), None, b"x"])])

    asyncio.run(twice())
    assert [schema_id for schema_id, _, _ in slow.upstream] == [KNOWN]


def test_a_flood_of_unknown_ids_is_told_apart_slowly(slow: SlowRegistry) -> None:
    """More ids than are asked in one go, each once, and no two questions closer together than the interval."""
    flood = [usage(30_000 + number) for number in range(250)] * 2
    (decoded,) = asyncio.run(Decoder(CachedRegistry(slow)).decoded([("usage", [usage(), *flood])]))
    assert decoded.positions == [0]
    assert Counter(each.code for each in decoded.failures) == {DeadLetterCode.UNKNOWN_SCHEMA: 500}
    asked = Counter(schema_id for schema_id, _, _ in slow.upstream)
    assert len(asked) == 251
    assert set(asked.values()) == {1}
    times = [at for _, at, _ in slow.upstream]
    assert min(after - before for before, after in pairwise(times)) >= ASK_INTERVAL_S * 0.9


def test_while_the_registry_is_away_nothing_is_known_about_the_records(slow: SlowRegistry) -> None:
    slow.away = True
    decoder = Decoder(CachedRegistry(slow))

    async def decode() -> int:
        return len((await decoder.decoded([("usage", [usage(9_999)])]))[0].failures)

    with pytest.raises(UnavailableError, match="registry"):
        asyncio.run(decode())
    slow.away = False
    assert asyncio.run(decode()) == 1


def test_what_is_in_memory_is_all_that_is_said_without_asking(slow: SlowRegistry) -> None:
    kept = CachedRegistry(slow, fetch_interval_s=0.0)
    with pytest.raises(SchemaNotCachedError):
        kept.cached_schemas.writer(KNOWN)
    assert not slow.upstream
    assert kept.writers([KNOWN, 5]) == {KNOWN: avro_schema("usage"), 5: None}
    assert kept.cached_schemas.writer(KNOWN) == avro_schema("usage")
    assert kept.cached_schemas.writer(5) is None


def test_unknown_ids_are_remembered_up_to_a_number(slow: SlowRegistry) -> None:
    kept = CachedRegistry(slow, fetch_interval_s=0.0)
    kept.writers(range(UNKNOWN_IDS_MAX + 10))
    assert len(kept._unknown) <= UNKNOWN_IDS_MAX


def test_the_ids_of_a_batch_are_those_that_decoding_asks_for(slow: SlowRegistry) -> None:
    values = [usage(), usage(7), None, b"", frame(8), b"\x01" + usage(9)[1:], usage(2**32 - 1)]
    decode_columns("usage", values, CachedRegistry(slow, fetch_interval_s=0.0))
    assert schema_ids(values) == {schema_id for schema_id, _, _ in slow.upstream} == {KNOWN, 7, 2**32 - 1}
