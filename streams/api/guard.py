"""What stands before every route of `serve`: whose `Host` and key is answered, how large a body is, how long it takes.

The rules of this file:
0. Who has no right to come in (`streams.api.door`) is answered before a byte of the body is read.
1. A body is read here, whole, before a route sees it, and never beyond its limit. The bytes that come are counted,
   whatever `Content-Length` says; a chunked body has none.
2. All bodies together have a limit too: `BODIES_AT_ONCE` of the largest, from a body's first byte until its answer is
   sent, because parsed JSON is up to 25 times as large. A request beyond it is told to try again (503).
3. A body that has not come within `BODY_TIMEOUT_S` is answered 408. `streams.api.connections` does the same for heads.
4. A refusal is a problem document, as everywhere. The rest of a refused body is dropped as it comes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from streams.api.problems import problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from streams.api.door import Door
    from streams.api.hosts import HostRule

BODY_TIMEOUT_S = 20.0
BODIES_AT_ONCE = 16
RETRY_S = 1
LENGTH_DIGITS_MAX = 18


class _GoneError(Exception):
    """The client went away in the middle of its body."""


class _RefusedError(Exception):
    """The request ends here, with a problem document."""

    def __init__(self, answer: Response) -> None:
        super().__init__()
        self.answer = answer


def _refused(status: int, code: str, detail: str, **headers: str) -> _RefusedError:
    answer = problem(status, code, detail)
    answer.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return _RefusedError(answer)


class _Room:
    """The bytes that bodies may still take."""

    def __init__(self, bytes_max: int) -> None:
        self.left = bytes_max


class _Body:
    """The body of one request, as far as it has come."""

    def __init__(self, bytes_max: int, room: _Room) -> None:
        self._bytes_max = bytes_max
        self._room = room
        self._chunks: list[bytes] = []
        self._size = 0

    def announced(self, length: bytes) -> None:
        """Refuse a body by its `Content-Length`, before it is sent."""
        if length.isdigit() and (len(length) > LENGTH_DIGITS_MAX or int(length) > self._bytes_max):
            raise self._too_large()

    async def read(self, receive: Receive) -> None:
        """Read all of it."""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _GoneError
            more = message.get("more_body", False)
            chunk: bytes = message.get("body", b"")
            if self._size + len(chunk) > self._bytes_max:
                raise self._too_large()
            if len(chunk) > self._room.left:
                raise _refused(503, "busy", "too many large requests at once: try again", retry_after=str(RETRY_S))
            self._room.left -= len(chunk)
            self._size += len(chunk)
            self._chunks.append(chunk)

    def again(self, receive: Receive) -> Receive:
        """A `receive` that gives the body once, and then what comes after it."""
        waiting = [b"".join(self._chunks)]
        self._chunks.clear()

        async def give() -> Message:
            if waiting:
                return {"type": "http.request", "body": waiting.pop(), "more_body": False}
            return await receive()

        return give

    def close(self) -> None:
        """Make room for others."""
        self._room.left += self._size

    def _too_large(self) -> _RefusedError:
        return _refused(413, "body_too_large", f"a body has at most {self._bytes_max} bytes")


class Guard:
    """The outermost ASGI layer. `body_bytes_max`: of one request; `body_timeout_s`: for all of it to come."""

    def __init__(
        self,
        app: ASGIApp,
        hosts: HostRule,
        door: Door,
        *,
        body_bytes_max: int,
        body_timeout_s: float = BODY_TIMEOUT_S,
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._door = door
        self._body_bytes_max = body_bytes_max
        self._body_timeout_s = body_timeout_s
        self._room = _Room(BODIES_AT_ONCE * body_bytes_max)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        body = _Body(self._body_bytes_max, self._room)
        try:
            self._check_host(headers)
            refused = self._door.admit(scope)
            if refused is not None:
                raise _RefusedError(refused)
            body.announced(headers.get(b"content-length", b""))
            await self._read_in_time(body, receive)
            await self._app(scope, body.again(receive), send)
        except _RefusedError as error:
            await error.answer(scope, receive, send)
        except _GoneError:
            return
        finally:
            body.close()

    def _check_host(self, headers: Mapping[bytes, bytes]) -> None:
        host = headers.get(b"host")
        if not self._hosts.allows(None if host is None else host.decode("latin-1")):
            detail = "this name is not answered here: the operator can list it in CREDITS_HTTP_ALLOWED_HOSTS"
            raise _refused(421, "host_not_allowed", detail)

    async def _read_in_time(self, body: _Body, receive: Receive) -> None:
        try:
            async with asyncio.timeout(self._body_timeout_s):
                await body.read(receive)
        except TimeoutError:
            detail = f"the body did not come within {self._body_timeout_s:g} s"
            raise _refused(408, "request_timeout", detail) from None
