"""How much usage one `credits api` process takes over HTTP, on one core.

The rules of this file:
1. The process has one core: its threads are pinned to it, and the load generator to the others. The broker is not
   pinned; on a machine of two cores it shares them with both, so the events for each second of processor time are
   measured too.
2. Batches are made before the clock starts, but for their ids: each event is new. What was answered 202 must be in
   Kafka afterwards, else the run fails.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from schemas.times import format_time
from schemas.topics import Topics
from streams.bench.load import PAID_MODELS, org_name
from streams.errors import OperatorError
from streams.kafka.reader import committed_ends
from streams.loadgen.watcher import quantile
from streams.local.system import ADDRESS, LocalSystem

if TYPE_CHECKING:
    from streams.settings import Settings

BATCH = 500
CONNECTIONS = 4
WARM_S = 5.0
MARK = b"@@@@@@@@"
ANSWER_TIMEOUT_S = 60.0


class ApiAlone(LocalSystem):
    """One `credits api`, without a worker."""

    def __enter__(self) -> ApiAlone:
        return self

    def names(self) -> list[str]:
        """The process."""
        return ["api"]

    @property
    def address(self) -> str:
        """Where it answers."""
        found = ADDRESS.search(self.parts["api"].ready_line)
        if found is None:
            raise OperatorError("credits api has named no address", "see the log")
        return found.group()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.parts["api"].pid


@dataclass(frozen=True, slots=True)
class HttpRate:
    """Events answered 202 a second, and for each second of the process's time; milliseconds of a batch."""

    per_second: float
    per_cpu_second: float
    batch_p50_ms: float
    batch_p99_ms: float


@dataclass(slots=True)
class _Load:
    """What the connections share."""

    address: str
    body: bytes
    stop: threading.Event = field(init=False, default_factory=threading.Event)
    lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    batches: int = 0
    answered: list[tuple[float, float]] = field(default_factory=list)
    """When each answer came, and how long it took; monotonic seconds."""
    failure: str | None = None

    @property
    def events(self) -> int:
        """Events answered 202."""
        return len(self.answered) * BATCH


def measure(settings: Settings, seconds: float, say: Any) -> HttpRate:
    """Send for so long. Raises `OperatorError` where an answer is not 202, or Kafka has not what was answered."""
    cores = sorted(os.sched_getaffinity(0))
    with ApiAlone(settings, workers=0, say=say) as system:
        system.start()
        load = _Load(system.address, batch_body())
        if len(cores) > 1:
            _pin(system.pid, {cores[-1]})
            _pin(os.getpid(), set(cores[:-1]))
        try:
            found = _run(load, system.pid, seconds)
        finally:
            if len(cores) > 1:
                _pin(os.getpid(), set(cores))
    there = sum(committed_ends(settings, [Topics(settings.namespace).name("usage")]).values())
    if there != len(load.answered) * BATCH:
        raise OperatorError(
            f"{len(load.answered) * BATCH:,} events were answered 202, Kafka has {there:,}", "see the log"
        )
    return found


def batch_body() -> bytes:
    """A batch as JSON; `MARK` stands for its number in each id."""
    at = format_time(time.time_ns() // 1_000)
    events = [
        {
            "event_id": f"{MARK.decode()}-{number:04d}",
            "org_id": org_name(number % 100),
            "occurred_at": at,
            "operation": "chat.completion",
            "category": "chat",
            "project_id": f"project-{number % 7}",
            "user_id": f"user-{number % 50}",
            "team": "search",
            "model": PAID_MODELS[number % len(PAID_MODELS)].name,
            "provider": "openai",
            "source": "gateway-eu",
            "input_tokens": 1_000 + number,
            "output_tokens": 200 + number,
        }
        for number in range(BATCH)
    ]
    return json.dumps(events).encode()


def _run(load: _Load, pid: int, seconds: float) -> HttpRate:
    threads = [threading.Thread(target=_send, args=(load,), daemon=True) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    load.stop.wait(WARM_S)
    begun, cpu = time.monotonic(), _cpu_s(pid)
    load.stop.wait(seconds)
    ended, used = time.monotonic(), _cpu_s(pid) - cpu
    load.stop.set()
    for thread in threads:
        thread.join(ANSWER_TIMEOUT_S)
    if load.failure is not None:
        raise OperatorError(f"a batch was not taken: {load.failure}", "see the log")
    took = [took for at, took in load.answered if begun <= at < ended]
    events = len(took) * BATCH
    of_batch = [quantile([each * 1_000 for each in took], part) for part in (0.5, 0.99)]
    return HttpRate(events / (ended - begun), events / max(used, 1e-9), *of_batch)


def _send(load: _Load) -> None:
    """One connection: a batch after the other."""
    place = urlsplit(load.address)
    connection = http.client.HTTPConnection(place.hostname or "127.0.0.1", place.port, timeout=ANSWER_TIMEOUT_S)
    try:
        while not load.stop.is_set():
            with load.lock:
                load.batches += 1
                number = load.batches
            body = load.body.replace(MARK, b"%08d" % number)
            begun = time.monotonic()
            connection.request("POST", "/v1/events", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 202:
                raise OSError(f"{answer.status} {content[:200]!r}")
            now = time.monotonic()
            with load.lock:
                load.answered.append((now, now - begun))
    except (OSError, http.client.HTTPException) as error:
        load.failure = str(error)
        load.stop.set()
    finally:
        connection.close()


def _pin(pid: int, cores: set[int]) -> None:
    """Keep every thread of a process on these cores."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def _cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
