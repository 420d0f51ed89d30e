"""The door: whose request is let in, before its body is read.

The rules of this file:
1. `/livez`, `/readyz`, `/metrics` and the description of the interface are for everybody; `/internal/` asks for its own
   key. Everything else needs a key, in `Authorization: Bearer`, or as the password of `Authorization: Basic`, which is
   what clients of schema registries can send.
2. Without keys a request is let in only where HTTP listens on loopback. That ends by itself when the first key is made,
   and does not come back when the last one is revoked.
3. Commands of this machine present the key that `serve` writes into its data folder, and may do everything.
4. The pages (`/ui`) also take the cookie of a session (`streams.api.sessions`), and nothing else does. A page that is
   asked for without one leads to the form that begins it; that form and the pages' own files are for everybody.
5. A key with a limit (its own, else `requests_per_s`) has at most two seconds' worth of requests at once, in each
   process; beyond that, 429. A bucket is kept for each key that was ever made, and for nothing else.
6. What is refused is counted and in the log (`streams.api.refusals`).
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from streams.api.callers import ANYBODY, LOCAL, SCOPE_NAME, Caller
from streams.api.problems import problem
from streams.api.refusals import refusals
from streams.api.sessions import PAGES, Sessions, cookie_of, is_page
from streams.kafka.api_keys import ApiKey, KeyRefusal, Keyring
from streams.local.api_key import HEADER

if TYPE_CHECKING:
    from starlette.types import Scope

OPEN: Final = frozenset({"/livez", "/readyz", "/metrics", "/openapi.json", "/docs"})
OWN_KEY: Final = "/internal/"
SIGN_IN: Final = f"{PAGES}/sign-in"
PAGE_FILES: Final = f"{PAGES}/static/"
BURST_S: Final = 2.0
DETAILS: Final = {
    KeyRefusal.UNKNOWN: "present an API key that is known here: `Authorization: Bearer credits_…`",
    KeyRefusal.EXPIRED: "this API key has expired: `credits keys create` makes another one",
    KeyRefusal.REVOKED: "this API key was revoked",
}


class _Budget:
    """The requests that a key may still make: a bucket that fills by time, in seconds given by the caller."""

    def __init__(self, per_s: int, now_s: float) -> None:
        self.per_s = per_s
        self._left = per_s * BURST_S
        self._at_s = now_s

    def take(self, now_s: float) -> float | None:
        """None when there is one left; else in how many seconds there will be."""
        self._left = min(self.per_s * BURST_S, self._left + (now_s - self._at_s) * self.per_s)
        self._at_s = now_s
        if self._left < 1:
            return (1 - self._left) / self.per_s
        self._left -= 1
        return None


class Door:
    """Lets requests in, or says why not.

    `keyring` gives the keys as they are now; `local_key` is that of the data folder; `loopback`: whether HTTP listens
    on loopback only; `requests_per_s`: of a key without a limit of its own (None: any number). `wall_us` and `clock_s`
    are the time, for tests.
    """

    def __init__(
        self,
        keyring: Callable[[], Keyring],
        local_key: str,
        *,
        loopback: bool,
        requests_per_s: int | None = None,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keyring = keyring
        self._local_key = local_key.encode()
        self._loopback = loopback
        self._requests_per_s = requests_per_s
        self.sessions: Sessions | None = None
        """Of the pages; None: there are no pages."""
        self._wall_us = wall_us
        self._clock_s = clock_s
        self._budgets: dict[str, _Budget] = {}

    def admit(self, scope: Scope) -> Response | None:
        """None when the request is let in, and its caller stands in the scope; else the answer."""
        path: str = scope["path"]
        if path in OPEN or path.startswith((OWN_KEY, PAGE_FILES)) or path == SIGN_IN:
            return None
        headers = {name: value for name, value in scope["headers"] if name in (b"authorization", HEADER.encode())}
        local = headers.get(HEADER.encode())
        if local is not None and secrets.compare_digest(local, self._local_key):
            scope[SCOPE_NAME] = LOCAL
            return None
        keyring = self._keyring()
        if self._loopback and not len(keyring):
            scope[SCOPE_NAME] = ANYBODY
            return None
        token = presented(headers.get(b"authorization", b""))
        found = KeyRefusal.UNKNOWN if token is None else keyring.find(token, self._wall_us())
        if token is None and is_page(path):
            signed_in = self._signed_in(scope, keyring)
            if signed_in is None:
                return _to_sign_in(scope)
            found = signed_in
        if isinstance(found, KeyRefusal):
            return self._refused(401, found.value, DETAILS[found], path, "")
        limit = found.requests_per_s or self._requests_per_s
        wait_s = None if limit is None else self._budget(found.key_id, limit)
        if wait_s is not None:
            detail = f"this key may make {limit:,} requests a second"
            answer = self._refused(429, "rate_limited", detail, path, found.key_id)
            answer.headers["Retry-After"] = str(max(1, round(wait_s + 0.5)))
            return answer
        scope[SCOPE_NAME] = Caller(f"key:{found.key_id}", frozenset(found.roles), frozenset(found.organisations))
        return None

    def refusal(self, scope: Scope) -> str | None:
        """Why a request that was let in would be refused now, as a problem's code; None while its key is good."""
        answer = self.admit({**scope})
        return None if answer is None or answer.status_code == 429 else str(json.loads(bytes(answer.body))["code"])

    def _signed_in(self, scope: Scope, keyring: Keyring) -> ApiKey | None:
        """The key of the session that a page is asked in; None when there is none, or the key is good no more."""
        cookies = next((value for name, value in scope["headers"] if name == b"cookie"), b"")
        now_us = self._wall_us()
        key_id = None if self.sessions is None else self.sessions.key_id(cookie_of(cookies), now_us // 1_000_000)
        key = None if key_id is None else keyring.get(key_id)
        return key if key is not None and key.state(now_us) == "active" else None

    def _budget(self, key_id: str, per_s: int) -> float | None:
        now_s = self._clock_s()
        budget = self._budgets.get(key_id)
        if budget is None or budget.per_s != per_s:
            budget = self._budgets[key_id] = _Budget(per_s, now_s)
        return budget.take(now_s)

    def _refused(self, status: int, code: str, detail: str, path: str, key_id: str) -> Response:
        refusals.add(code, f"key:{key_id}" if key_id else "none", path)
        # The clients of schema registries read these two.
        members = {} if path.startswith("/v1/") else {"error_code": status * 100 + 1, "message": detail}
        answer = problem(status, code, detail, **members)
        if status == 401:
            answer.headers["WWW-Authenticate"] = 'Bearer realm="credits"'
        return answer


def _to_sign_in(scope: Scope) -> Response:
    """To the form, and from there back to the page that was asked for."""
    asked = scope["path"] + (f"?{scope['query_string'].decode('latin-1')}" if scope.get("query_string") else "")
    back = f"?next={quote(asked, safe='')}" if scope.get("method") == "GET" else ""
    return RedirectResponse(SIGN_IN + back, status_code=303)


def presented(authorization: bytes) -> str | None:
    """The key in an `Authorization` header; None when there is none."""
    scheme, _, rest = authorization.decode("latin-1").partition(" ")
    match scheme.lower():
        case "bearer":
            return rest.strip()
        case "basic":
            try:
                _, _, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
            except (binascii.Error, ValueError):
                return None
            return password
    return None
