"""Keyed checksums on the records that a ledger writes for itself: accounts, positions, remembered ids, transfer
legs, kept prices.

The rules of this file:
1. Without `CREDITS_INTERNAL_KEY` nothing is sealed and nothing is checked.
2. With it a record without a valid checksum is never believed. Who may write to the topics but does not know the key
   cannot make a state or credits. It is not a signature: every worker knows the key.
3. The checksum covers what the record is for, whose it is, and the installation, so that a valid record is valid in one
   place only. That an older valid record stands in for a newer one is found by the checks of a restore.
4. Several keys: the first one seals, all of them verify. `none` in the list stands for no seal: as the first, records
   are written without; anywhere, records without are believed. That is how sealing is begun, and ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Literal

from streams.errors import SettingRefusedError
from streams.settings import Settings

Purpose = Literal["account", "position", "seen", "leg", "price"]

TAG_HEADER = "credits.internal.checksum"
"""Header of a transfer leg, and of a kept price."""
TAG_BYTES = 16
MARK = b"\xc1"
"""First byte of a sealed value; no account frame, no MessagePack and no blob of seen ids begins with it."""
NONE = "none"
KEY_CHARACTERS_MIN = 16

Key = bytes | None


class SealError(ValueError):
    """A record has no valid checksum."""


class Seals:
    """Seals records with the first key, and checks them with all. `None` among the keys: no seal."""

    def __init__(self, app_id: str = "", keys: Sequence[Key] = ()) -> None:
        self._app_id = app_id.encode()
        self._keys = tuple(keys)
        self.checks = any(key is not None for key in keys)
        """Whether records are checked at all."""
        self.writes = bool(keys) and keys[0] is not None
        """Whether records are written with a seal."""

    @staticmethod
    def of(settings: Settings) -> Seals:
        """As `CREDITS_INTERNAL_KEY` says; raises `SettingRefusedError`, without the key in it."""
        if settings.internal_key is None:
            return Seals()
        words = [word.strip() for word in settings.internal_key.get_secret_value().split(",")]
        if any(word != NONE and len(word) < KEY_CHARACTERS_MIN for word in words):
            raise SettingRefusedError(
                f"CREDITS_INTERNAL_KEY has a key of less than {KEY_CHARACTERS_MIN} characters",
                f"set it to random characters (`openssl rand -hex 32`), several with commas between, or `{NONE}`",
            )
        keys = [None if word == NONE else blake2b(word.encode(), digest_size=32).digest() for word in words]
        return Seals(settings.app_id, keys)

    def tag(self, purpose: Purpose, owner: bytes, value: bytes) -> bytes:
        """The checksum of a record of `owner` by the first key."""
        key = self._keys[0]
        assert key is not None, "ask `writes` before"
        return self._tag(key, purpose, owner, value)

    def check(self, purpose: Purpose, owner: bytes, value: bytes, tag: bytes | None) -> bool:
        """Whether the record has the checksum that `tag` would give it; raises `SealError` when it has no valid one."""
        if tag is None:
            if self._keys and None not in self._keys:
                raise SealError("it has no checksum")
            return not self.writes
        if not self.checks:
            raise SealError("it has a checksum, and CREDITS_INTERNAL_KEY is not set")
        for key in self._keys:
            if key is not None and self._tag(key, purpose, owner, value) == tag:
                return key == self._keys[0]
        raise SealError("its checksum is not valid")

    def seal(self, purpose: Purpose, owner: bytes, value: bytes) -> bytes:
        """The value with its checksum in front; as it is, when records are written without."""
        return MARK + self.tag(purpose, owner, value) + value if self.writes else value

    def open(self, purpose: Purpose, owner: bytes, value: bytes) -> tuple[bytes, bool]:
        """The value without its checksum, and whether `seal` would write it as it is; raises `SealError`."""
        if value[:1] != MARK:
            if not self._keys:
                return value, True
            return value, self.check(purpose, owner, value, None)
        bare = value[1 + TAG_BYTES :]
        return bare, self.check(purpose, owner, bare, value[1 : 1 + TAG_BYTES])

    def _tag(self, key: bytes, purpose: Purpose, owner: bytes, value: bytes) -> bytes:
        # The lengths come first: no other owner and value then give the same bytes to hash.
        hashed = blake2b(
            b"%d %d " % (len(owner), len(self._app_id)), digest_size=TAG_BYTES, key=key, person=purpose.encode()
        )
        hashed.update(owner)
        hashed.update(self._app_id)
        hashed.update(value)
        return hashed.digest()


NO_SEALS = Seals()


def unsealed(value: bytes) -> bytes:
    """The value without a checksum, whether valid or not: for those who read and believe nothing by it."""
    return value[1 + TAG_BYTES :] if value[:1] == MARK else value


def position_owner(number: int) -> bytes:
    """Whose the position record and the seen ids of a partition are."""
    return b"%d" % number
