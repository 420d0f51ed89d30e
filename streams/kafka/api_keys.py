"""API keys: what one is, how it is written down, and whether what a caller presents is one.

The rules of this file:
1. A key is `credits_<id>_<secret>`: 12 hexadecimal digits that name it, and 256 random bits. Only its SHA-256 is
   written down. A slow hash (argon2) protects secrets that people choose, because those can be guessed; 256 random bits
   cannot, and every request would pay for it.
2. What is presented is found by its id and compared in constant time. An id that is not there is compared too, so that
   time does not tell which ids exist.
3. A key is for organisations (`*`: all) and roles, ends when it expires, and for good when it is revoked. Any number of
   keys are valid at once: to rotate, create the new one, move the clients over, revoke the old one.
4. A revoked or expired key stays written down. So "no key was ever made" is not the same as "all are revoked", and the
   last revocation closes the door instead of opening it.
5. What cannot be read is no key, and takes none away. Pure: time and random bits are arguments.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

from schemas.fields import ID_CHARACTERS_MAX

SECRET_BYTES: Final = 32
ID_BYTES: Final = 6
NAME_CHARACTERS_MAX: Final = 128
ORGANISATIONS_MAX: Final = 10_000
"""Of one key: about 1 MiB at most, which the topic takes as one record."""
EVERY_ORGANISATION: Final = "*"
RATE_MAX: Final = 1_000_000

_TOKEN = re.compile(r"credits_([0-9a-f]{12})_[A-Za-z0-9_-]{43}", re.ASCII)
_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NOBODY = "0" * 64


class KeyRole(StrEnum):
    """What the holder of a key is to the ledger: the roles of `schemas.rights`, and who only reads reports."""

    PRODUCER = "producer"
    """A service that reports usage."""
    GATEWAY = "gateway"
    """Asks before work, places holds."""
    PAYMENTS = "payments"
    """The payment service: purchases and refunds."""
    ADMIN = "admin"
    """Tools of people: everything that any role may."""
    ANALYST = "analyst"
    """Reads balances, statements and invoices."""
    SUBSCRIBER = "subscriber"
    """Sends alerts on; reads balances."""


class KeyRefusal(StrEnum):
    """Why a key is refused; the value is the problem's code."""

    UNKNOWN = "unauthorized"
    EXPIRED = "key_expired"
    REVOKED = "key_revoked"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is written down. Times are microseconds since 1970; None: never."""

    key_id: str
    sha256: str
    """Hexadecimal digits of the SHA-256 of the whole key."""
    name: str
    roles: tuple[KeyRole, ...]
    organisations: tuple[str, ...]
    """`*` alone: all."""
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    requests_per_s: int | None = None
    """How many requests an `api` process takes from it; None: any number."""

    def encode(self) -> bytes:
        """The record's value, and a line of CREDITS_API_KEYS_FILE."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    def revoked(self, at: int) -> ApiKey:
        """The same, revoked; what was revoked before stays as it is."""
        return self if self.revoked_at is not None else replace(self, revoked_at=at)

    def state(self, now: int) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "active"


def new_token(random: bytes) -> str:
    """A key to hand out, made of `ID_BYTES + SECRET_BYTES` random bytes."""
    if len(random) != ID_BYTES + SECRET_BYTES:
        raise ValueError(f"a key is made of {ID_BYTES + SECRET_BYTES} bytes")
    secret = urlsafe_b64encode(random[ID_BYTES:]).decode().rstrip("=")
    return f"credits_{random[:ID_BYTES].hex()}_{secret}"


def key_id_of(token: str) -> str | None:
    """The id in what was presented; None when it has not the form of a key."""
    found = _TOKEN.fullmatch(token)
    return found.group(1) if found is not None else None


def digest_of(token: str) -> str:
    """What of a key is written down."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def decode_key(value: bytes) -> ApiKey | None:
    """The key that a record or a line of the file holds; None for what is no key."""
    try:
        fields = json.loads(value)
        key = ApiKey(
            key_id=fields["key_id"],
            sha256=fields["sha256"],
            name=fields["name"],
            roles=tuple(KeyRole(role) for role in fields["roles"]),
            organisations=tuple(fields["organisations"]),
            created_at=fields["created_at"],
            expires_at=fields.get("expires_at"),
            revoked_at=fields.get("revoked_at"),
            requests_per_s=fields.get("requests_per_s"),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return key if _is_well(key) else None


def _is_well(key: ApiKey) -> bool:
    times: tuple[Any, ...] = (key.created_at, key.expires_at or 0, key.revoked_at or 0, key.requests_per_s or 0)
    return (
        all(isinstance(text, str) for text in (key.key_id, key.sha256, key.name, *key.organisations))
        and all(type(number) is int and number >= 0 for number in times)
        and _ID.fullmatch(key.key_id) is not None
        and _DIGEST.fullmatch(key.sha256) is not None
        and bool(key.roles)
        and bool(key.organisations)
        and all(0 < len(org) <= ID_CHARACTERS_MAX for org in key.organisations)
        and (EVERY_ORGANISATION not in key.organisations or len(key.organisations) == 1)
    )


class Keyring:
    """The keys that are known."""

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        """Of two keys with the same id the later one stands."""
        self._keys = {key.key_id: key for key in keys}

    def __len__(self) -> int:
        return len(self._keys)

    def keys(self) -> list[ApiKey]:
        """All of them, the oldest first."""
        return sorted(self._keys.values(), key=lambda key: (key.created_at, key.key_id))

    def get(self, key_id: str) -> ApiKey | None:
        """The key of that id."""
        return self._keys.get(key_id)

    def fold(self, value: bytes) -> bool:
        """Take the record or line of a key; False, and nothing changes, for what is no key.

        A key that was revoked stays so, whatever is written about it later.
        """
        key = decode_key(value)
        if key is None:
            return False
        before = self._keys.get(key.key_id)
        if before is not None and before.revoked_at is not None:
            key = before if key.revoked_at is None else key
        self._keys[key.key_id] = key
        return True

    def find(self, token: str, now: int) -> ApiKey | KeyRefusal:
        """The key that was presented, or why it is refused. `now`: microseconds since 1970."""
        key = self._keys.get(key_id_of(token) or "")
        same = hmac.compare_digest(digest_of(token), key.sha256 if key is not None else _NOBODY)
        if key is None or not same:
            return KeyRefusal.UNKNOWN
        match key.state(now):
            case "revoked":
                return KeyRefusal.REVOKED
            case "expired":
                return KeyRefusal.EXPIRED
        return key
