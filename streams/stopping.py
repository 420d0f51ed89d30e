"""How a worker or `serve` ends when it is told to, in a time that whoever told it waits for.

The rules of this file:
1. SIGTERM and Ctrl-C mean the same. A second one ends the process at once.
2. Before the process has begun to serve it has nothing to finish: it ends at once, whatever it waits for. Its signals
   are its own from the start, since a container's first process is not ended by a signal that it does not handle.
3. From then on it stops in order, within `grace_s`. What hangs after that (a client whose broker is away, a thread) is
   left behind, with one line and `STATUS_CUT_SHORT`: what was not committed has no effect, and is read again.
4. None of this waits for the event loop, nor for a call into a library: a thread of its own reads the signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Everything of ours is done by then; all that is left is to tell the group, which a broker that is away cannot hear.
LEAVE_TIMEOUT_S = 5.0
STATUS_OF_SIGNAL = 128
STATUS_CUT_SHORT = 1


class Stopping:
    """Takes over SIGINT and SIGTERM of this process, for good; make one, in the main thread."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._told_by: int | None = None
        self._in_order: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        for each in SIGNALS:
            signal.signal(each, _is_told)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    def in_order(self) -> asyncio.Event:
        """An event of the running loop: from now on a signal sets it, and the time limit begins to run."""
        told = asyncio.Event()
        loop = asyncio.get_running_loop()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                loop.call_soon_threadsafe(told.set)

        with self._lock:
            self._in_order = tell
        return told

    def limit(self) -> None:
        """Begin the time limit without a signal: the process ends for a reason of its own."""
        timer = threading.Timer(self._grace_s, self._cut_short)
        timer.daemon = True
        timer.start()

    def _listen(self) -> None:
        while True:
            for number in self._reader.recv(64):
                if number in SIGNALS:
                    self._told(number)

    def _told(self, number: int) -> None:
        with self._lock:
            if self._in_order is None or self._told_by is not None:
                leave(STATUS_OF_SIGNAL + number)
            self._told_by = number
            self._in_order()
        self.limit()

    def _cut_short(self) -> None:
        log.error(
            "Stopping took more than %g s (CREDITS_STOP_GRACE_S); leaving: what was not committed is read again",
            self._grace_s,
        )
        leave(STATUS_CUT_SHORT)


def _is_told(_number: int, _frame: object) -> None:
    """The signal's byte has reached `_listen` already; Python only asks for a handler."""


def leave(status: int) -> NoReturn:
    """End this process now, whatever its threads wait for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
