"""A process that is told to stop ends in time, whatever hangs in it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

GRACE_S = 1.5
SOON_S = 1.0

BEGIN = """
import asyncio, logging, sys, threading, time
from streams.stopping import Stopping
logging.basicConfig(format="%(message)s")
stopping = Stopping(float(sys.argv[1]))
"""
HANGS_BEFORE = "print('there', flush=True); threading.Event().wait()"
IN_ORDER = """
async def main():
    stop = stopping.graceful_stop_event()
    print('there', flush=True)
    await stop.wait()
    print('told', flush=True)
    {then}
asyncio.run(main())
"""

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program, and returns when it says that it is there."""
    started: list[subprocess.Popen[str]] = []

    def run(program: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", BEGIN + program, str(GRACE_S)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        return process

    yield run
    for each in started:
        each.kill()
        each.communicate()


def ended(process: subprocess.Popen[str], within_s: float) -> tuple[int, str]:
    """Its status and what it said to standard error."""
    _, output = process.communicate(timeout=within_s)
    return process.returncode, output.strip()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_what_has_not_begun_to_serve_ends_at_once(start: Start, number: int, status: int) -> None:
    process = start(HANGS_BEFORE)
    process.send_signal(number)
    assert ended(process, SOON_S) == (status, "")


def test_what_serves_is_told_and_ends_in_order(start: Start) -> None:
    process = start(IN_ORDER.format(then="pass"))
    process.send_signal(signal.SIGTERM)
    assert ended(process, SOON_S) == (0, "")


@pytest.mark.parametrize("hangs", ["await asyncio.Event().wait()", "time.sleep(60)"], ids=["a task", "the loop"])
def test_what_hangs_is_left_behind_with_a_line_that_names_the_setting(start: Start, hangs: str) -> None:
    process = start(IN_ORDER.format(then=hangs))
    told_at = time.monotonic()
    process.send_signal(signal.SIGTERM)
    status, output = ended(process, GRACE_S + SOON_S)
    assert time.monotonic() - told_at > GRACE_S - 0.1
    assert status == 1
    assert (
        output
        == "Stopping took more than 1.5 s (CREDITS_STOP_GRACE_S); exiting now: what was not committed is read again"
    )


def test_told_twice_it_ends_at_once(start: Start) -> None:
    process = start(IN_ORDER.format(then="await asyncio.Event().wait()"))
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "told\n"
    process.send_signal(signal.SIGINT)
    assert ended(process, SOON_S) == (130, "")


def test_a_failure_has_the_same_limit(start: Start) -> None:
    process = start("print('there', flush=True); stopping.start_deadline(); threading.Event().wait()")
    status, output = ended(process, GRACE_S + SOON_S)
    assert status == 1
    assert output.startswith("Stopping took more than")


def test_a_loop_of_libuv_does_not_keep_the_signals(start: Start) -> None:
    """It takes them for itself when it begins to run, after this process has set up its own way."""
    loop = "\nimport uvloop\nasyncio.run = asyncio.Runner(loop_factory=uvloop.new_event_loop).run\n"
    process = start(loop + IN_ORDER.format(then=""))
    process.send_signal(signal.SIGTERM)
    status, _ = ended(process, SOON_S)
    assert status == 0
