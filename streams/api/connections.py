"""Connections of `serve`: uvicorn's HTTP/1.1, with an end to what it waits for without one.

Uvicorn closes a connection that is idle between two requests (`timeout_keep_alive`) and limits the size of a head (16
KiB, by h11). It waits without end for a head that does not come or comes byte by byte, for the rest of a body that was
refused, and for a client that does not read its answer; and it takes as many connections as there are.

The rules of this file:
1. A head has `HEAD_TIMEOUT_S` from the connection, or from the end of the answer before it.
2. A refused body is dropped as it comes, within the same time.
3. An answer that the client does not read is given up after `ANSWER_TIMEOUT_S` without room in its buffer.
4. There are at most `CONNECTIONS_MAX`; one more is closed at once.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 30.0
CONNECTIONS_MAX = 512


class BoundedProtocol(H11Protocol):
    """One connection."""

    head_timeout_s = HEAD_TIMEOUT_S
    answer_timeout_s = ANSWER_TIMEOUT_S
    connections_max = CONNECTIONS_MAX

    _head_due: asyncio.TimerHandle | None = None
    _answer_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it, or close it."""
        super().connection_made(transport)
        if len(self.connections) > self.connections_max:
            transport.abort()
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_waiting()
        if self._answer_due is not None:
            self._answer_due.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """What has come; a request among it was waited for."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """The next head is waited for."""
        self._wait_for_head()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not read as fast as the answer comes."""
        super().pause_writing()
        self._answer_due = self.loop.call_later(self.answer_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._answer_due is not None:
            self._answer_due.cancel()

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        if not self.transport.is_closing():
            self._head_due = self.loop.call_later(self.head_timeout_s, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None
