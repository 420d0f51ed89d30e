"""Graceful shutdown of a worker or `serve` on a signal, within a deadline.

The rules of this file:
1. SIGTERM and Ctrl-C mean the same. A second one ends the process at once.
2. Before the process serves, it has nothing to finish: a signal ends it at once. It handles its signals from the start,
   because the first process of a container is not ended by a signal that it does not handle.
3. Once it serves, it shuts down gracefully within `grace_s`. Whatever still hangs then (a client whose broker is away,
   a thread) is abandoned, with one log line and `STATUS_CUT_SHORT`. Uncommitted work has no effect and is read again.
4. A separate thread reads the signals, so none of this waits for the event loop or for a call into a library.
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
# Our own work is finished by then. Only the leave request to the group remains; a broker that is away cannot take it.
GROUP_LEAVE_TIMEOUT_S = 5.0
STATUS_OF_SIGNAL = 128
STATUS_CUT_SHORT = 1


class Stopping:
    """Takes over SIGINT and SIGTERM of this process permanently. Create one, in the main thread."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._signal_received: int | None = None
        self._stop_gracefully: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        for each in SIGNALS:
            signal.signal(each, _ignore_signal)
        self.take_signals()
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    def take_signals(self) -> None:
        """Let signals reach this again. An event loop of libuv takes them for itself when it begins to run."""
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def graceful_stop_event(self) -> asyncio.Event:
        """An event of the running loop. From now on a signal sets it and starts the deadline."""
        self.take_signals()
        event = asyncio.Event()
        loop = asyncio.get_running_loop()

        def set_event() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                loop.call_soon_threadsafe(event.set)

        with self._lock:
            self._stop_gracefully = set_event
        return event

    def start_deadline(self) -> None:
        """Start the deadline without a signal: the process ends for a reason of its own."""
        timer = threading.Timer(self._grace_s, self._exit_at_deadline)
        timer.daemon = True
        timer.start()

    def _listen(self) -> None:
        while True:
            for number in self._reader.recv(64):
                if number in SIGNALS:
                    self._on_signal(number)

    def _on_signal(self, number: int) -> None:
        with self._lock:
            if self._stop_gracefully is None or self._signal_received is not None:
                exit_now(STATUS_OF_SIGNAL + number)
            self._signal_received = number
            self._stop_gracefully()
        self.start_deadline()

    def _exit_at_deadline(self) -> None:
        log.error(
            "Stopping took more than %g s (CREDITS_STOP_GRACE_S); exiting now: what was not committed is read again",
            self._grace_s,
        )
        exit_now(STATUS_CUT_SHORT)


def _ignore_signal(_number: int, _frame: object) -> None:
    """The signal's byte has already reached `_listen`; Python requires a handler."""


def exit_now(status: int) -> NoReturn:
    """End this process now, without waiting for its threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
