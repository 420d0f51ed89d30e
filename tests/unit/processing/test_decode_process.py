"""The process that decodes what may hurt: whatever ends it, its neighbours are decoded, and the parent goes on."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import psutil
import pytest

from schemas.codec import FRAME_BYTES, DecodedBatch, WriterSchemas, decode_columns, encode_one, frame, rows_of
from schemas.enums import DeadLetterCode
from schemas.records import AvroSchema, avro_schema, bundled_id
from schemas.writer_safety import VALUES_MAX, bounds_of
from streams.engine.ports import UnavailableError
from streams.kafka.registry import CachedRegistry
from streams.processing import decode_process, decoding
from streams.processing.decode_process import (
    PART_AVRO_VALUES_MAX,
    PART_BYTES_MAX,
    PART_RECORDS_MAX,
    DecodeProcess,
    parts_of,
    values_bound,
)
from streams.processing.decoding import Decoder
from tests.contract.samples import minimal

FOREIGN_ID = 20_001

HURT = """
import ctypes, os, signal, time
from streams.processing import decode_process, decoding
decode_columns = decode_process.decode_columns
decode_process.CPU_S = 1

def hurt(record, values, schemas):
    if any(b"spins" in value for value in values):
        while True:
            pass
    if any(b"eats" in value for value in values):
        eaten = b"x" * (2 * 1024**3)
    if any(b"faults" in value for value in values):
        ctypes.string_at(0)
    if any(b"raises" in value for value in values):
        raise BaseException("a panic")
    return decode_columns(record, values, schemas)

decode_process.decode_columns = hurt
decode_process.main()
"""


def foreign_schema() -> AvroSchema:
    schema = avro_schema("usage")
    schema["fields"].append({"name": "region", "type": ["null", "string"], "default": None})
    return schema


def usage(event_id: str) -> bytes:
    own = encode_one("usage", {**minimal("usage"), "event_id": event_id}, FOREIGN_ID)
    return own + b"\x02\x04eu"


@pytest.fixture
def hurt() -> Iterator[DecodeProcess]:
    process = DecodeProcess((sys.executable, "-c", HURT))
    yield process
    process.close()


@pytest.mark.parametrize(("how", "expected"), [("eats", "memory"), ("faults", "SIGSEGV"), ("raises", "failed")])
def test_a_record_that_ends_the_process_is_a_dead_letter(hurt: DecodeProcess, how: str, expected: str) -> None:
    decoded = hurt.decode("usage", [usage(how)], {FOREIGN_ID: foreign_schema()})
    assert [(each.position, each.code) for each in decoded.failures] == [(0, DeadLetterCode.UNDECODABLE)]
    assert expected in decoded.failures[0].message
    assert decoded.positions == []


def test_its_neighbours_are_decoded(hurt: DecodeProcess) -> None:
    decoded = hurt.decode("usage", [usage("e0"), usage("spins"), usage("e2")], {FOREIGN_ID: foreign_schema()})
    assert [(each.position, each.code) for each in decoded.failures] == [(1, DeadLetterCode.UNDECODABLE)]
    assert "SIGXCPU" in decoded.failures[0].message
    assert [row["event_id"] for row in rows_of(decoded.batch)] == ["e0", "e2"]
    assert decoded.positions == [0, 2]


def test_one_that_is_killed_from_outside_condemns_nobody() -> None:
    process = DecodeProcess()
    schemas = {FOREIGN_ID: foreign_schema()}
    assert process.decode("usage", [usage("e1")], schemas).positions is None
    assert process._process is not None
    first = process._process.pid
    os.kill(first, signal.SIGKILL)
    with pytest.raises(UnavailableError):
        process.decode("usage", [usage("e1")], schemas)
    assert process.decode("usage", [usage("e1")], schemas).positions is None
    assert process._process is not None
    assert process._process.pid != first
    process.close()
    with pytest.raises(UnavailableError):
        process.decode("usage", [usage("e1")], schemas)


def test_one_that_does_not_start_condemns_nobody() -> None:
    with pytest.raises(UnavailableError, match="does not start"):
        DecodeProcess((sys.executable, "-c", "raise SystemExit(1)")).decode("usage", [usage("e")], {})


def test_it_ends_with_its_parent() -> None:
    parent = """
import os
from streams.processing.decode_process import DecodeProcess
process = DecodeProcess()
process.decode("usage", [], {})
print(process._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, timeout=60, check=False)
    child = int(done.stdout)
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{child}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{child}")


def test_it_is_replaced_after_many_schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_process, "SCHEMAS_MAX", 2)
    process = DecodeProcess()
    pids = []
    for number in range(3):
        schema = foreign_schema()
        schema["doc"] = str(number)
        process.decode("usage", [usage("e1")], {FOREIGN_ID: schema})
        assert process._process is not None
        pids.append(process._process.pid)
    assert pids[0] == pids[1] != pids[2]
    process.close()


def test_parts_hold_every_value_once() -> None:
    sizes = [1] * (PART_RECORDS_MAX + 5) + [PART_BYTES_MAX * 2] + [PART_BYTES_MAX // 2] * 3
    values = [bytes(size) for size in sizes]
    parts = list(parts_of(values, [1] * len(values)))
    assert [index for part in parts for index in part] == list(range(len(values)))
    assert [len(part) for part in parts] == [PART_RECORDS_MAX, 5, 1, 2, 1]
    assert list(parts_of([], [])) == []


def test_a_part_of_short_records_is_bounded_by_what_they_may_hold() -> None:
    bounds = bounds_of(Writers().schema)
    values = [heavy(38)] * 1_024
    assert sum(map(len, values)) < PART_BYTES_MAX
    parts = list(parts_of(values, [values_bound(value, bounds) for value in values]))
    assert [index for part in parts for index in part] == list(range(1_024))
    assert {len(part) for part in parts[:-1]} == {PART_AVRO_VALUES_MAX // VALUES_MAX}
    one = list(parts_of(values[:1], [PART_AVRO_VALUES_MAX + 1]))
    assert one == [range(1)], "a value alone is a part, whatever it holds"
    assert values_bound(values[0], None) == 1


# --- the event loop -------------------------------------------------------------------------------------------------


class Writers:
    """A registry with one foreign schema, which says as much as it may with as few bytes as it can."""

    def __init__(self) -> None:
        # An item takes two bytes and is 500 values: a body of a hundred bytes holds close to `VALUES_MAX` of them.
        types = ["boolean", "boolean", *["null"] * 497]
        fields = [{"name": f"f{number}", "type": each} for number, each in enumerate(types)]
        heavy = {"type": "record", "name": "heavy", "fields": fields}
        self.schema = avro_schema("usage")
        self.schema["fields"].append({"name": "more", "type": {"type": "array", "items": heavy}, "default": []})

    def writer(self, schema_id: int) -> AvroSchema | None:
        return self.schema if schema_id == FOREIGN_ID else avro_schema("usage")

    def schema_id(self, key: str) -> int:
        raise AssertionError(key)


def heavy(items: int) -> bytes:
    count = bytearray()
    coded = items * 2
    while coded >= 0x80:
        count.append(coded & 0x7F | 0x80)
        coded >>= 7
    count.append(coded)
    return encode_one("usage", minimal("usage"), FOREIGN_ID) + bytes(count) + b"\x01\x00" * items + b"\x00"


@pytest.mark.fault(
    "heavy-foreign-batch",
    title="A foreign batch that is as heavy as it may be, and heavier",
    provoked="80 records of less than 200 bytes, of a foreign schema in which each stands for 19,000 to 30,000 values",
    holds="those above the limit are dead letters; meanwhile the event loop serves the other partitions",
    faults_row=31,
)
def test_the_loop_serves_others_while_a_heavy_batch_is_decoded(
    seen: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [encode_one("usage", {**minimal("usage"), "event_id": "own"}, bundled_id("usage"))]

    def here(record: str, values: Sequence[bytes | None], schemas: WriterSchemas) -> DecodedBatch:
        assert values == own, "a foreign record is decoded in the worker"
        return decode_columns(record, values, schemas)

    monkeypatch.setattr(decoding, "decode_columns", here)
    values = [heavy(38)] * 60 + [heavy(60)] * 20
    assert 38 * 500 < VALUES_MAX < 60 * 500
    assert max(map(len, values)) < 300

    turns_s: list[float] = []

    async def watch() -> None:
        last_s = time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            now_s = time.thread_time()
            turns_s.append(now_s - last_s)
            last_s = now_s

    async def both() -> tuple[DecodedBatch, float, float]:
        decoder = Decoder(CachedRegistry(Writers()))
        await decoder.decoded([("usage", values[:1])])  # the process has started
        process = decoder._process._process
        assert process is not None
        before_s = spent_s(process.pid)
        watching = asyncio.create_task(watch())
        os.kill(process.pid, signal.SIGSTOP)
        heavy_batch = asyncio.create_task(decoder.decoded([("usage", values)]))
        try:
            (others,) = await decoder.decoded([("usage", own)])
            assert [row["event_id"] for row in rows_of(others.batch)] == ["own"]
            assert not heavy_batch.done()
        finally:
            os.kill(process.pid, signal.SIGCONT)
        (decoded,) = await heavy_batch
        process_s = spent_s(process.pid) - before_s
        decoder.close()
        await asyncio.sleep(0.01)  # the last turn counts, too
        watching.cancel()
        return decoded, max(turns_s), process_s

    decoded, longest_s, process_s = asyncio.run(both())
    assert len(decoded.failures) == 20
    assert {failure.code for failure in decoded.failures} == {DeadLetterCode.UNDECODABLE}
    assert longest_s < process_s / 5, f"one turn of the loop took {longest_s:.3f} s, all the decoding {process_s:.3f} s"
    seen("60 records decoded, 20 dead letters; the loop served others meanwhile, and had none of the work")


def test_another_partitions_record_waits_for_one_part_only() -> None:
    async def both() -> None:
        decoder = Decoder(CachedRegistry(Writers()))
        await decoder.decoded([("usage", [heavy(1)])])  # the process has started
        decode = decoder._process.decode
        begun, go_on = threading.Event(), threading.Event()
        order: list[int] = []

        def watched(record: str, values: Sequence[bytes], schemas: Mapping[int, AvroSchema]) -> DecodedBatch:
            order.append(len(values))
            begun.set()
            assert go_on.wait(30)
            return decode(record, values, schemas)

        decoder._process.decode = watched  # type: ignore[method-assign]
        part = PART_AVRO_VALUES_MAX // VALUES_MAX
        batch = asyncio.create_task(decoder.decoded([("usage", [heavy(38)] * 3 * part)]))
        await asyncio.to_thread(begun.wait)
        other = asyncio.create_task(decoder.decoded([("usage", [heavy(2)])]))
        while not decoder._foreign._work_queue.qsize():
            await asyncio.sleep(0.001)
        go_on.set()
        assert (await other)[0].batch.num_rows == 1
        assert (await batch)[0].batch.num_rows == 3 * part
        assert order == [part, 1, part, part]
        decoder.close()

    asyncio.run(both())


def test_finished_parts_are_kept_when_the_process_fails() -> None:
    async def twice() -> None:
        decoder = Decoder(CachedRegistry(Writers()))
        decode = decoder._process.decode
        asked: list[int] = []
        failing = True

        def flaky(record: str, values: Sequence[bytes], schemas: Mapping[int, AvroSchema]) -> DecodedBatch:
            asked.append(len(values))
            if failing and len(asked) == 2:
                raise UnavailableError("killed from outside")
            return decode(record, values, schemas)

        decoder._process.decode = flaky  # type: ignore[method-assign]
        part = PART_AVRO_VALUES_MAX // VALUES_MAX
        values = [heavy(38)] * (2 * part + 3)
        with pytest.raises(UnavailableError):
            await decoder.decoded([("usage", values)])
        failing = False
        (decoded,) = await decoder.decoded([("usage", values)])
        assert decoded.batch.num_rows == len(values)
        assert asked == [part, part, part, 3], "the first part was decoded once"
        assert not decoder._finished
        decoder.close()

    asyncio.run(twice())


def spent_s(pid: int) -> float:
    """The seconds of the processor that a process has had."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def test_it_answers_a_worker_that_has_many_files_open() -> None:
    """`select.select` ends with a ValueError at descriptor 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    process = DecodeProcess()
    files: list[int] = []
    try:
        while not files or files[-1] < 1_024:
            files.append(os.open(os.devnull, os.O_RDONLY))
        assert process.decode("usage", [usage("e1")], {FOREIGN_ID: foreign_schema()}).positions is None
    finally:
        process.close()
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_body_of_our_own_that_is_long_is_decoded_apart_as_well() -> None:
    """Two million attributes in 4 MB of our own schema: nobody needs to write a schema for that."""
    from schemas.codec import foreign_positions

    class Own:
        def writer(self, schema_id: int) -> AvroSchema | None:
            return avro_schema("usage")

    plain = encode_one("usage", minimal("usage"), 1)
    names = [field["name"] for field in avro_schema("usage")["fields"]]
    rest = b"\x00" * (len(names) - names.index("attributes"))
    assert plain.endswith(rest)  # the attributes, and what later versions added: nothing
    bomb = plain[: -len(rest)] + b"\x80\x92\xf4\x01" + b"\x00\x00" * 2_000_000 + rest
    assert foreign_positions([plain, bomb, None, frame(1)], Own()) == [1]
    process = DecodeProcess()
    decoded = process.decode("usage", [plain, bomb], {1: avro_schema("usage")})
    process.close()
    assert [failure.position for failure in decoded.failures] == [1]
    assert f"{VALUES_MAX:,} values" in decoded.failures[0].message
    assert len(plain) > FRAME_BYTES
