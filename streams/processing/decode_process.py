"""A process of its own that decodes what others may have made to hurt: records of foreign schemas, and very long ones.

`schemas.codec` bounds what a record can cost before it is decoded. This is the second wall: the worker's loop, memory
and interpreter lock are not touched, whatever the libraries do with unforeseen bytes. Rules of this file:
1. The process is started at the first need. It ends with the pipe to its parent, so also when that is killed.
2. Values go over in parts, bounded by what they may hold. The process may spend `CPU_S` on a part, and `MEMORY_BYTES`;
   the kernel ends it where it passes one. A part that ended it is halved; a single value that ended two processes is a
   dead letter.
3. Time on the clock condemns no record: a machine that stands still is no fault of its data. A process that does not
   answer within `ANSWER_S`, that does not start or is killed from outside means: not now (`UnavailableError`).
4. Only msgpack and Arrow come back, never code.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Final

import msgspec
import pyarrow as pa

from schemas.codec import DecodedBatch, Undecodable, WriterSchema, decode_columns, encode_one, merge_decoded
from schemas.enums import DeadLetterCode
from schemas.records import AvroSchema, BundledSchemas, bundled_id
from schemas.writer_safety import VALUES_MAX, BodyBounds
from streams.engine.ports import UnavailableError

PART_RECORDS_MAX: Final = 1_024
PART_BYTES_MAX: Final = 1024 * 1024
PART_AVRO_VALUES_MAX: Final = 60_000
"""A part is at most so much, or one value. Records can be short and hold much: 1 µs for each Avro value that they may
hold (`values_bound`) makes 0.06 s for a part. Another partition's part waits for no more than one."""

CPU_S: Final = 10
"""Seconds of the processor for a part, which takes 0.06 s at its limit: more is a fault of the data."""

MEMORY_BYTES: Final = 1024 * 1024 * 1024
"""What the process may have beyond what it has when it is ready; a part's worst is a tenth of this."""

ENVIRONMENT: Final = {"RUST_BACKTRACE": "0", "TOKIO_WORKER_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""One value at a time needs no threads; and Rust, out of memory, hangs where it would print its stack."""

START_S: Final = 60.0
ANSWER_S: Final = 60.0
"""Of the clock: a machine so busy that 10 s of the processor take longer is as good as broken."""

SCHEMAS_MAX: Final = 500
"""Different schemas that one process meets: pyruhvro keeps every one that it has compiled."""

TRIES: Final = 2

COMMAND: Final = (sys.executable, "-m", "streams.processing.decode_process")

_LENGTH: Final = struct.Struct(">Q")
_READY: Final = b"ready"
_ENDED_BY_DATA: Final = {signal.SIGXCPU, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}


class Request(msgspec.Struct, array_like=True):
    """Values to decode as one record, and the schemas, as JSON, that they name."""

    record: str
    schemas: dict[int, bytes]
    values: list[bytes]


class Answer(msgspec.Struct, array_like=True):
    """What `decode_columns` says; the batch as an Arrow stream."""

    batch: bytes
    positions: list[int] | None
    failures: list[tuple[int, str, str]]


class _EndedError(Exception):
    """The process ended at its work; the message says how."""


def values_bound(value: bytes, bounds: BodyBounds | None) -> int:
    """How many Avro values are read of a record at most; None: of a schema that is not read."""
    return 1 if bounds is None else min(VALUES_MAX, bounds.spread + len(value) * bounds.values_per_byte)


def parts_of(values: Sequence[bytes], values_bounds: Sequence[int]) -> Iterator[range]:
    """The values in parts that one request may hold, in order. `values_bounds`: of each, as `values_bound` has it."""
    start = size = held = 0
    for index, (value, bound) in enumerate(zip(values, values_bounds, strict=True)):
        full = index - start >= PART_RECORDS_MAX or size + len(value) > PART_BYTES_MAX
        if index > start and (full or held + bound > PART_AVRO_VALUES_MAX):
            yield range(start, index)
            start, size, held = index, 0, 0
        size, held = size + len(value), held + bound
    if start < len(values):
        yield range(start, len(values))


class DecodeProcess:
    """Decodes in the process, one part at a time. Blocks: call it in a thread of its own."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._met: set[bytes] = set()
        self._closed = False
        self._guard = threading.Lock()

    def decode(self, record: str, values: Sequence[bytes], schemas: Mapping[int, AvroSchema]) -> DecodedBatch:
        """A part of the values of a batch. Raises `UnavailableError`."""
        texts = {schema_id: json.dumps(schema).encode() for schema_id, schema in schemas.items()}
        return self._decode(Request(record, texts, list(values)))

    def _decode(self, request: Request) -> DecodedBatch:
        tries = TRIES if len(request.values) == 1 else 1
        for attempt in range(tries):
            try:
                return self._ask(request)
            except _EndedError as error:
                if attempt + 1 == tries == TRIES:
                    message = f"the {request.record} cannot be decoded within its limits: {error}"
                    failure = Undecodable(0, DeadLetterCode.UNDECODABLE, message)
                    return _nothing(request.record, [failure])
        middle = len(request.values) // 2
        halves = []
        for span in (range(middle), range(middle, len(request.values))):
            part = Request(request.record, request.schemas, request.values[span.start : span.stop])
            halves.append((span, self._decode(part)))
        return merge_decoded(request.record, halves)

    def _ask(self, request: Request) -> DecodedBatch:
        process = self._started(request.schemas.values())
        try:
            _write(process.stdin, msgspec.msgpack.encode(request))
            answer = msgspec.msgpack.decode(_read(process.stdout, ANSWER_S), type=Answer)
        except (TimeoutError, OSError, EOFError) as error:
            raise self._ended(process, error) from error
        with pa.ipc.open_stream(answer.batch) as stream:
            batch = stream.read_next_batch()
        failures = [Undecodable(position, DeadLetterCode(code), message) for position, code, message in answer.failures]
        return DecodedBatch(request.record, batch, answer.positions, failures, None)

    def _started(self, texts: Any) -> subprocess.Popen[bytes]:
        """The process, a new one where there is none or the old one has met enough schemas."""
        self._met.update(texts)
        if self._process is not None and len(self._met) > SCHEMAS_MAX:
            self._stop(self._process)
        if self._process is None:
            with self._guard:
                if self._closed:
                    raise UnavailableError("the decoder is closed")
                # New session: Ctrl-C is for the parent, which then closes the pipe.
                self._process = process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,
                    env={**os.environ, **ENVIRONMENT},
                )
            try:
                started = _read(process.stdout, START_S)
            except (TimeoutError, OSError, EOFError) as error:
                self._stop(process)
                raise UnavailableError(f"the process that decodes foreign records does not start: {error}") from error
            assert started == _READY, started
            self._met = set(texts)
        return self._process

    def _ended(self, process: subprocess.Popen[bytes], error: Exception) -> Exception:
        """What to raise for a process that gave no answer."""
        in_time = not isinstance(error, TimeoutError)
        if in_time:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(START_S)
        code = process.returncode
        self._stop(process)
        if in_time and code is not None and (code > 0 or -code in _ENDED_BY_DATA):
            return _EndedError(signal.Signals(-code).name if code < 0 else "it ran out of memory or failed")
        return UnavailableError(f"the process that decodes foreign records gave no answer: {error or code}")

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        self._process = None
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def close(self) -> None:
        """End the process, also in the middle of its work; a call that waits for it raises `UnavailableError`."""
        with self._guard:
            self._closed = True
            if self._process is not None:
                self._process.kill()


def _nothing(record: str, failures: list[Undecodable]) -> DecodedBatch:
    decoded = decode_columns(record, [], _NoSchemas())
    return DecodedBatch(record, decoded.batch, [], failures, None)


class _NoSchemas:
    def writer(self, schema_id: int) -> None:
        """There is none."""


def _write(pipe: IO[bytes] | None, message: bytes) -> None:
    assert pipe is not None
    pipe.write(_LENGTH.pack(len(message)))
    pipe.write(message)
    pipe.flush()


def _read(pipe: IO[bytes] | None, timeout_s: float) -> bytes:
    """One message; raises EOFError at the end of the pipe, TimeoutError."""
    assert pipe is not None
    deadline = time.monotonic() + timeout_s
    (length,) = _LENGTH.unpack(_read_bytes(pipe, _LENGTH.size, deadline))
    return _read_bytes(pipe, length, deadline)


def _read_bytes(pipe: IO[bytes], length: int, deadline: float) -> bytes:
    read = bytearray()
    readable = select.poll()  # `select.select` refuses descriptors beyond 1,023, and a worker may have more files open
    readable.register(pipe, select.POLLIN)
    while len(read) < length:
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not readable.poll(left_s * 1_000):
            raise TimeoutError("no answer in time")
        some = os.read(pipe.fileno(), min(length - len(read), 1024 * 1024))
        if not some:
            raise EOFError("it has ended")
        read += some
    return bytes(read)


# --- the process ----------------------------------------------------------------------------------------------------


class _Schemas:
    """The schemas of a request."""

    def __init__(self) -> None:
        self._documents: dict[bytes, AvroSchema] = {}
        self._by_id: dict[int, AvroSchema] = {}

    def take(self, texts: Mapping[int, bytes]) -> None:
        """Those of the next request."""
        if len(self._documents) > SCHEMAS_MAX:
            self._documents.clear()
        for text in texts.values():
            if text not in self._documents:
                self._documents[text] = json.loads(text)
        self._by_id = {schema_id: self._documents[text] for schema_id, text in texts.items()}

    def writer(self, schema_id: int) -> WriterSchema | None:
        """See `WriterSchemas`."""
        return self._by_id.get(schema_id)


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until the pipe ends."""
    schemas = _Schemas()
    _limit_memory()
    _write(answers, _READY)
    while head := requests.read(_LENGTH.size):
        request = msgspec.msgpack.decode(requests.read(_LENGTH.unpack(head)[0]), type=Request)
        _allow(CPU_S)
        schemas.take(request.schemas)
        decoded = decode_columns(request.record, request.values, schemas)
        stream = io.BytesIO()
        with pa.ipc.new_stream(stream, decoded.batch.schema) as writer:
            writer.write_batch(decoded.batch)
        failures = [(failure.position, failure.code.value, failure.message) for failure in decoded.failures]
        _write(answers, msgspec.msgpack.encode(Answer(stream.getvalue(), decoded.positions, failures)))


def _allow(cpu_s: int) -> None:
    """Allow this many seconds of CPU from now on; then the kernel ends the process."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + cpu_s, hard))


def _limit_memory() -> None:
    """Linux counts the stacks of threads as well, so that what there is when the libraries have started comes first."""
    setting = {
        "setting_id": "s",
        "org_id": "o",
        "occurred_at": 1,
        "actor": "a",
        "actor_role": "r",
        "kind": "k",
        "body": "",
    }
    value = encode_one("setting", setting, bundled_id("setting"))
    assert decode_columns("setting", [value], BundledSchemas()).positions is None
    with contextlib.suppress(OSError, ValueError):  # macOS has neither
        with open("/proc/self/statm", encoding="ascii") as statm:
            data_bytes = int(statm.read().split()[5]) * resource.getpagesize()
        limit = data_bytes + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def main() -> None:
    """Serve the parent, over the standard streams."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        serve(sys.stdin.buffer, answers)
    except BrokenPipeError:
        pass  # the parent has gone
    except MemoryError:
        os._exit(1)  # the parent says what that means


if __name__ == "__main__":
    main()
