"""Sessions of the pages under `/ui`: who has signed in there with an API key, as a signed cookie.

The rules of this file:
1. A session is a cookie: the key's id, when it ends, random bits, and an HMAC over them. Nothing is kept in the
   process, so sessions need no room, and with `CREDITS_INTERNAL_KEY` every `api` process takes what another one has
   signed. Without it the secret is the process's own, and sessions end when it does.
2. The key itself is looked at for every request: a revoked or expired key ends its sessions at once.
3. The cookie counts below `/ui` only (`Path`), is out of reach of scripts (`HttpOnly`), and does not come with requests
   from other sites (`SameSite=Strict`). Forms carry a token of their session all the same, and a request that a
   browser marks as coming from another site is refused.
4. Where no key is asked for, forms carry the token of a session without a key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from pydantic import SecretStr

PAGES: Final = "/ui"
COOKIE: Final = "credits_session"
SESSION_S: Final = 8 * 3600
NONCE_BYTES: Final = 16
COOKIE_CHARACTERS_MAX: Final = 256


def session_secret(internal_key: SecretStr | None) -> bytes:
    """The secret that cookies are signed with: from the installation's, where it has one that writes."""
    writes = "" if internal_key is None else internal_key.get_secret_value().split(",")[0].strip()
    if writes in ("", "none"):
        return secrets.token_bytes(32)
    return hmac.digest(writes.encode(), b"credits pages: sessions", hashlib.sha256)


def is_page(path: str) -> bool:
    """Whether a path is one of the pages'."""
    return path == PAGES or path.startswith(f"{PAGES}/")


class Sessions:
    """Signs sessions and reads them. Times are seconds since 1970, given by the caller."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def begin(self, key_id: str, now_s: int) -> str:
        """The cookie's value of a new session."""
        signed = f"{key_id}.{now_s + SESSION_S}.{secrets.token_hex(NONCE_BYTES)}"
        return f"{signed}.{self._mac('session', signed)}"

    def key_id(self, cookie: str | None, now_s: int) -> str | None:
        """The id of the key that signed in; None when the session is none of ours, or has ended."""
        if cookie is None or len(cookie) > COOKIE_CHARACTERS_MAX or not cookie.isascii():
            return None
        signed, _, mac = cookie.rpartition(".")
        if not hmac.compare_digest(mac, self._mac("session", signed)):
            return None
        key_id, ends_s, _ = signed.split(".")
        return key_id if now_s < int(ends_s) else None

    def form_token(self, cookie: str | None) -> str:
        """What forms of a session carry. `cookie` None: there is no session, as nobody is asked for a key."""
        return self._mac("form", cookie or "")

    def is_form_token(self, token: str, cookie: str | None) -> bool:
        """Whether a form came from a page of the same session."""
        return hmac.compare_digest(token.encode("utf-8", "replace"), self.form_token(cookie).encode())

    def _mac(self, purpose: str, text: str) -> str:
        return hmac.new(self._secret, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()


def cookie_of(header: bytes) -> str | None:
    """The session's cookie in a `Cookie` header."""
    try:
        found = SimpleCookie(header.decode("latin-1")).get(COOKIE)
    except CookieError:
        return None
    return None if found is None else found.value


def is_from_another_site(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that the request was made by a page of another site, or of another port."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host", "")
