"""Holds over HTTP: how long a decision takes, and what a lease costs a client.

Rules of this file:
1. Holds: open loop at a fixed rate, half placings and half captures of what was placed before; from when each call was
   meant to leave to when its answer, with the decision in it, was read. The first seconds are sent and not counted.
2. What answers is `credits api`, with one ledger worker, on the same machine as the load and the broker.
3. Leases: each `spend` by itself, with the thread that renews and reports at work.
"""

from __future__ import annotations

import asyncio
import json
import time
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from schemas.amounts import NANOS
from streams.bench.load import org_name
from streams.bench.workers import Workers
from streams.client.lease import Booked, Granted, Lease
from streams.client.lease_state import LeaseReport, LeaseRequest, LeaseTerms
from streams.errors import OperatorError

if TYPE_CHECKING:
    from streams.settings import Settings

CONNECTIONS: Final = 64
ANSWER_TIMEOUT_S: Final = 20.0
SPENDINGS: Final = 50_000
TURN_S: Final = 0.001
SPENT_AT_ONCE: Final = 10
"""About 8,000 a second with the pauses between: what a busy gateway does."""
PLACED_AGO: Final = 200
"""A hold is captured when so many others have been placed since."""


class WorkersAndApi(Workers):
    """Ledger workers, and `credits api`."""

    def names(self) -> list[str]:
        """The parts, in the order of starting."""
        return ["api", *super().names()]


@dataclass(frozen=True, slots=True)
class Call:
    """One request, and when it was meant to leave, in seconds from the beginning."""

    at_s: float
    path: str
    body: bytes


def calls(rate: int, seconds: int, orgs: int) -> list[Call]:
    """Placings and captures in turns."""
    found = []
    for number in range(rate * seconds):
        org = org_name(number // 2 % orgs)
        placed = number // 2
        if number % 2 == 0:
            body = {"hold_id": f"hold-{placed}", "wallet": "USD", "amount": "0.5", "operation": "chat.completion"}
            path = f"/v1/orgs/{org}/holds"
        elif placed >= PLACED_AGO:
            body = {"amount": "0.25"}
            path = f"/v1/orgs/{org_name((placed - PLACED_AGO) % orgs)}/holds/hold-{placed - PLACED_AGO}/capture"
        else:
            continue
        found.append(Call(number / rate, path, json.dumps(body).encode()))
    return found


async def latencies(settings: Settings, made: list[Call], warm_s: float) -> array[float]:
    """Send the calls when they are due; milliseconds of each from when it was meant to leave.

    Raises `OperatorError` when one is answered with anything but 200.
    """
    free: asyncio.Queue[_Connection] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await _Connection.open("127.0.0.1", settings.http_port))
    found = array("d")
    begun_s = time.monotonic() + 0.5

    async def send(call: Call, connection: _Connection) -> None:
        status, document = await connection.post(call.path, call.body)
        if status != 200:
            raise OperatorError(f"{call.path} was answered {status}: {document[:200]!r}", "see the log")
        if call.at_s >= warm_s:
            found.append((time.monotonic() - begun_s - call.at_s) * 1_000)
        free.put_nowait(connection)

    async with asyncio.timeout(made[-1].at_s + ANSWER_TIMEOUT_S), asyncio.TaskGroup() as group:
        for call in made:
            wait_s = begun_s + call.at_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            group.create_task(send(call, await free.get()))
    while not free.empty():
        free.get_nowait().close()
    return found


class _Connection:
    """A connection of HTTP/1.1 that stays open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host

    @classmethod
    async def open(cls, host: str, port: int) -> _Connection:
        """Connect."""
        reader, writer = await asyncio.open_connection(host, port)
        return cls(reader, writer, f"{host}:{port}")

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answered = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answered.partition(b"content-length:")[2].partition(b"\r\n")[0])
        return int(answered.split(b" ", 2)[1]), await self._reader.readexactly(length)

    def close(self) -> None:
        """Close it."""
        self._writer.close()


class _Grants:
    """A server that grants every lease and takes every report at once."""

    def place(self, request: LeaseRequest, terms: LeaseTerms) -> Granted:
        """See `LeaseServer`."""
        return Granted(terms.amount_nanos, float(terms.duration_s))

    def report(self, report: LeaseReport) -> Booked:
        """See `LeaseServer`."""
        return Booked()


def spending_us(spendings: int = SPENDINGS) -> array[float]:
    """Microseconds of each `spend`, while another thread renews and reports."""
    found = array("d")
    fields: dict[str, Any] = {"model": "gpt-4o", "user_id": "bob", "input_tokens": 1_200, "output_tokens": 300}
    with Lease(_Grants(), LeaseTerms("USD", 10_000 * NANOS, duration_s=3_600, operation="chat.completion")) as lease:
        spend, clock = lease.spend, time.perf_counter
        for number in range(spendings):
            begun_s = clock()
            spend(NANOS, **fields)
            found.append((clock() - begun_s) * 1e6)
            if number % SPENT_AT_ONCE == 0:
                time.sleep(TURN_S)  # the other thread gets its turn, as beside real work
    return found
