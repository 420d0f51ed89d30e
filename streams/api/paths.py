"""Organisation ids in addresses. Every route that names an organisation is written with `ORG`, and takes `OrgId`.

The rules of this file:
1. An id is one segment of the address, percent-encoded as UTF-8: `a/b` is `a%2Fb`, `..` is `%2E%2E`, and `a%2Fb` is
   `a%252Fb`. Every id that the ledger takes can be asked for, and two ids never share an address.
2. The server decodes `%2F` before routes are matched, and an id with a slash would become two segments. So below
   `/v1/` and `/ui/` the path is made again from the bytes that came, segment by segment, with the slashes and percent
   signs inside a segment still encoded; `ORG` takes the rest of the encoding off.
3. What is not UTF-8 names nothing: 400, in place of an id with a replacement character that somebody else may have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote, unquote_to_bytes

from fastapi import Path
from starlette.convertors import Convertor, register_url_convertor

from streams.api.problems import problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

ORG = "{org:segment}"
"""The organisation in a route: `f"/v1/orgs/{ORG}/balance"`."""

OrgId = Annotated[str, Path(min_length=1, max_length=128, description="the organisation, percent-encoded")]
"""The type of a handler's `org`."""

PREFIXES = (b"/v1/", b"/ui/")


class SegmentConvertor(Convertor[str]):
    """One segment, with what `Segments` left encoded."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        """The segment as it was meant."""
        return value.replace("%2F", "/").replace("%25", "%")

    def to_string(self, value: str) -> str:
        """The segment for an address."""
        return quote(value, safe="")


register_url_convertor("segment", SegmentConvertor())


class Segments:
    """An ASGI layer: routes below `PREFIXES` are matched on segments, not on slashes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Go on with the path made again."""
        raw: bytes = scope.get("raw_path") or b""
        if scope["type"] == "http" and raw.startswith(PREFIXES):
            try:
                path = "/".join(_segment(each) for each in raw.split(b"/"))
            except UnicodeDecodeError:
                answer = problem(400, "bad_request", "the address is not UTF-8 in percent-encoding")
                await answer(scope, receive, send)
                return
            scope = {**scope, "path": path}
        await self._app(scope, receive, send)


def _segment(raw: bytes) -> str:
    return unquote_to_bytes(raw).decode().replace("%", "%25").replace("/", "%2F")
