"""Connections of `serve` and `api`: uvicorn's HTTP/1.1 over httptools, with an end to what it waits for without one.

Uvicorn closes a connection that is idle between two requests (`timeout_keep_alive`). It waits without end for a head
that does not come or comes byte by byte, for the rest of a body that was refused, and for a client that does not read
its answer; it takes as many connections as there are, heads of any size, and as many requests ahead of their answers as
fit into what was read at once.

The rules of this file:
1. A head has `HEAD_TIMEOUT_S` from the connection, or from the end of the answer before it, and `HEAD_BYTES_MAX`. What
   is around the parts of a chunked body, and headers behind it, has a limit, too.
2. A refused body is dropped as it comes, within the same time.
3. An answer that the client does not read is given up after `ANSWER_TIMEOUT_S` without room in its buffer.
4. There are at most `CONNECTIONS_MAX`; one more is closed at once.
5. Of requests that come before the answer to an earlier one, no more are read than lie in `FEED_BYTES`; the rest waits
   as the bytes that came, and the socket is not read meanwhile.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_TIMEOUT_S = 10.0
HEAD_BYTES_MAX = 16 * 1024
ANSWER_TIMEOUT_S = 30.0
CONNECTIONS_MAX = 512
FEED_BYTES = 4 * 1024
"""A request has 18 bytes at least and takes about 2 kB until it is answered: 0.5 MB a connection at most."""

OVERHEAD_BYTES_MAX = 64 * 1024
OVERHEAD_RATIO_MAX = 8
"""A body in parts of one byte has five bytes around each."""


class _Flow(FlowControl):
    """Reading stays paused while there is something that was read and not fed."""

    held = False

    def resume_reading(self) -> None:
        """Read on, unless it is held."""
        if not self.held:
            super().resume_reading()


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    head_timeout_s = HEAD_TIMEOUT_S
    answer_timeout_s = ANSWER_TIMEOUT_S
    connections_max = CONNECTIONS_MAX

    _head_due: asyncio.TimerHandle | None = None
    _answer_due: asyncio.TimerHandle | None = None
    _unfed = b""
    _feeding = False
    _in_head = True
    _fed = 0
    """Bytes of the request that is being read; up to `FEED_BYTES` of its beginning are not counted."""
    _body_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it, or close it."""
        super().connection_made(transport)
        self.flow = self._flow = _Flow(transport)
        if len(self.connections) > self.connections_max:
            transport.abort()
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._unfed = b""
        self._stop_waiting()
        if self._answer_due is not None:
            self._answer_due.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """What has come is read as far as it may be."""
        self._unfed = self._unfed + data if self._unfed else data
        self._feed()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._fed = self._body_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head that was waited for has come."""
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole; what comes next is a head."""
        self._in_head = True
        self._fed = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The next head is waited for, unless it is there already."""
        next_is_there = bool(self.pipeline)
        self._wait_for_head()
        super().on_response_complete()
        if next_is_there:
            self._stop_waiting()
        if self._unfed:
            self.loop.call_soon(self._feed)

    def pause_writing(self) -> None:
        """The client does not read as fast as the answer comes."""
        super().pause_writing()
        self._answer_due = self.loop.call_later(self.answer_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._answer_due is not None:
            self._answer_due.cancel()

    def _feed(self) -> None:
        """Hand what has come to the parser, a part at a time, until a request waits for an earlier one's answer."""
        if self._feeding:
            return
        self._feeding = True
        try:
            start, unfed = 0, self._unfed
            while start < len(unfed) and not self.pipeline and not self.transport.is_closing():
                part = unfed[start : start + FEED_BYTES] if len(unfed) > FEED_BYTES else unfed
                start += len(part)
                self._fed += len(part)
                super().data_received(part)
                if self._is_swollen() and not self.transport.is_closing():
                    self.send_400_response("The head of a request is too large.")
            self._unfed = b"" if self.transport.is_closing() else unfed[start:]
        finally:
            self._feeding = False
        self._hold(bool(self._unfed))

    def _hold(self, wanted: bool) -> None:
        if wanted:
            self._flow.pause_reading()
        if wanted != self._flow.held:
            self._flow.held = wanted
            self._flow.resume_reading()

    def _is_swollen(self) -> bool:
        """Whether what is read of a request is more than a head may have, or a body needs to come in parts."""
        if self._in_head:
            return self._fed > HEAD_BYTES_MAX
        return self._fed > OVERHEAD_BYTES_MAX + (1 + OVERHEAD_RATIO_MAX) * self._body_bytes

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        if not self.transport.is_closing():
            self._head_due = self.loop.call_later(self.head_timeout_s, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None
