"""The calls that come by the thousand, answered before the web framework: `POST …/authorize` and `GET …/balance`.

The rules of this file:
1. What is answered here is answered by the same functions as in the routes, with the same bytes (a test compares them).
2. Whatever is out of the ordinary goes on to the routes unchanged: a query, a condition, an id that is encoded, a
   caller without the right, a body that is wrong, an answer that must be waited for.
3. It stands behind the guard: host, key and body have been looked at, and the body comes in one piece.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from streams.api.authorize_routes import JSON_TYPE, as_http
from streams.api.balance_routes import balance_bytes
from streams.api.callers import AUTHORIZES, READS_BALANCES, SCOPE_NAME, Caller

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from streams.api.authorize import Authorizer
    from streams.kafka.api_keys import KeyRole
    from streams.kafka.balances import BalanceReader

PREFIX: Final = b"/v1/orgs/"
AUTHORIZE: Final = b"/authorize"
BALANCE: Final = b"/balance"

Fast = tuple[int, dict[str, str], bytes]


class FastRoutes:
    """An ASGI layer before the application."""

    def __init__(self, app: ASGIApp, authorizer: Authorizer, balances: BalanceReader) -> None:
        self._app = app
        self._authorizer = authorizer
        self._balances = balances

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        path: bytes = scope.get("raw_path") or b""
        if path.startswith(PREFIX) and not scope["query_string"]:
            if scope["method"] == "POST" and path.endswith(AUTHORIZE):
                org = _org(scope, path[len(PREFIX) : -len(AUTHORIZE)], AUTHORIZES)
                if org is not None:
                    message = await receive()
                    found = self._authorized(org, message)
                    if found is not None:
                        await _answer(send, found)
                        return
                    receive = _again(message, receive)
            elif scope["method"] == "GET" and path.endswith(BALANCE):
                org = _org(scope, path[len(PREFIX) : -len(BALANCE)], READS_BALANCES)
                found = None if org is None or _is_conditional(scope) else self._balance(org)
                if found is not None:
                    await _answer(send, found)
                    return
        await self._app(scope, receive, send)

    def _authorized(self, org: str, message: Message) -> Fast | None:
        if message["type"] != "http.request" or message.get("more_body"):
            return None
        found = self._authorizer.quickly(org, message.get("body", b""))
        return None if found is None else as_http(*found)

    def _balance(self, org: str) -> Fast | None:
        record = self._balances.in_memory(org)
        if record is None:
            return None
        return 200, {"Content-Type": JSON_TYPE, "ETag": f'"{record["seq"]}"'}, balance_bytes(record)


def _org(scope: Scope, segment: bytes, roles: frozenset[KeyRole]) -> str | None:
    """The organisation in the address, where it stands there as it is and the caller may ask for it."""
    caller = scope.get(SCOPE_NAME)
    if b"/" in segment or b"%" in segment or not 0 < len(segment) <= 128 or not segment.isascii():
        return None
    org = segment.decode()
    if not isinstance(caller, Caller) or not caller.may(roles) or not caller.is_for(org):
        return None
    return org


def _is_conditional(scope: Scope) -> bool:
    return any(name == b"if-none-match" for name, _ in scope["headers"])


def _again(message: Message, receive: Receive) -> Receive:
    """A `receive` that gives the message once more, and then what comes after it."""
    waiting = [message]

    async def give() -> Message:
        return waiting.pop() if waiting else await receive()

    return give


async def _answer(send: Send, found: Fast) -> None:
    status, headers, body = found
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    raw.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
