"""Keyed checksums: what they cover, several keys, and how they begin and end."""

from __future__ import annotations

import struct

import msgspec
import pytest

from streams.engine.accounts import DUE_AT_MAX, frame_account
from streams.engine.failures import StateLostError
from streams.engine.positions import PositionRecord
from streams.engine.restore import _open_accounts
from streams.errors import SettingRefusedError
from streams.seals import MARK, NO_SEALS, Purpose, SealError, Seals, unsealed
from streams.settings import Settings

ONE, TWO = "first-key-of-the-test", "second-key-of-the-test"


def seals(keys: str | None) -> Seals:
    """As `CREDITS_INTERNAL_KEY` says."""
    return Seals.of(Settings(_env_file=None, internal_key=keys))


@pytest.mark.parametrize("value", [b"", b"state", MARK, MARK * 40])
def test_a_sealed_value_comes_back(value: bytes) -> None:
    sealed = seals(ONE).seal("account", b"acme", value)
    assert sealed != value
    assert seals(ONE).open("account", b"acme", sealed) == (value, True)
    assert unsealed(sealed) == value


@pytest.mark.parametrize(
    ("purpose", "owner", "app"), [("position", b"acme", ""), ("account", b"acm", ""), ("account", b"acme", "other.")]
)
def test_a_seal_is_valid_in_one_place_only(purpose: Purpose, owner: bytes, app: str) -> None:
    sealed = seals(ONE).seal("account", b"acme", b"state")
    reader = Seals.of(Settings(_env_file=None, internal_key=ONE, namespace=app))
    with pytest.raises(SealError, match="not valid"):
        reader.open(purpose, owner, sealed)


def test_any_change_is_found() -> None:
    sealed = seals(ONE).seal("account", b"acme", b"100")
    for at in range(1, len(sealed)):
        forged = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(SealError, match="not valid"):
            seals(ONE).open("account", b"acme", forged)
    for cut in range(1, len(sealed)):
        with pytest.raises(SealError, match="not valid"):
            seals(ONE).open("account", b"acme", sealed[:cut])
    with pytest.raises(SealError, match="no checksum"):
        seals(ONE).open("account", b"acme", b"100")


def test_the_first_key_writes_and_all_verify() -> None:
    by_one, by_two = (seals(key).seal("leg", b"acme", b"leg") for key in (ONE, TWO))
    both = seals(f"{TWO}, {ONE}")
    assert both.seal("leg", b"acme", b"leg") == by_two
    assert both.open("leg", b"acme", by_two) == (b"leg", True)
    assert both.open("leg", b"acme", by_one) == (b"leg", False)
    with pytest.raises(SealError):
        seals(TWO).open("leg", b"acme", by_one)


def test_none_begins_and_ends_it() -> None:
    sealed = seals(ONE).seal("leg", b"acme", b"leg")
    begins, ends = seals(f"{ONE},none"), seals(f"none,{ONE}")
    assert begins.open("leg", b"acme", b"leg") == (b"leg", False)
    assert begins.seal("leg", b"acme", b"leg") == sealed
    assert ends.open("leg", b"acme", sealed) == (b"leg", False)
    assert ends.open("leg", b"acme", b"leg") == (b"leg", True)
    assert ends.seal("leg", b"acme", b"leg") == b"leg"


def test_without_a_key_nothing_is_sealed_and_what_is_sealed_is_not_taken_for_something_else() -> None:
    off = seals(None)
    assert (off.checks, off.writes) == (False, False)
    assert off.seal("account", b"acme", b"state") == b"state"
    assert off.open("account", b"acme", b"state") == (b"state", True)
    with pytest.raises(SealError, match="CREDITS_INTERNAL_KEY is not set"):
        off.open("account", b"acme", seals(ONE).seal("account", b"acme", b"state"))


@pytest.mark.parametrize("keys", ["", "short", f"{ONE},", f"{ONE},short"])
def test_a_key_that_is_too_short_is_refused_and_not_shown(keys: str) -> None:
    with pytest.raises(SettingRefusedError) as refused:
        seals(keys)
    assert ONE not in str(refused.value)
    assert "short" not in str(refused.value)
    assert ONE not in repr(Settings(_env_file=None, internal_key=f"{ONE},{TWO}"))


def test_no_other_owner_and_value_have_the_same_checksum() -> None:
    """An org id may have spaces and digits, so what is hashed must say where each part ends."""
    owner, value = b"foo1 3 a", b"leg"
    sealing = Seals("app", [b"k" * 32])
    tag = sealing.tag("leg", owner, value)
    assert sealing.tag("leg", b"a", value + b"%d %d " % (len(owner), len("app")) + b"foo") != tag
    assert sealing.tag("leg", owner + value, b"") != tag
    assert sealing.tag("leg", b"", owner + value) != tag


def test_nothing_unsealed_begins_with_the_mark() -> None:
    assert frame_account(DUE_AT_MAX, b"")[:1] != MARK
    assert struct.pack(">Q", DUE_AT_MAX)[:1] != MARK
    assert PositionRecord().encode()[:1] != MARK
    with pytest.raises(msgspec.DecodeError):
        msgspec.msgpack.decode(MARK)


def test_a_restore_names_the_place_of_a_record_without_a_valid_checksum() -> None:
    framed = {org: seals(ONE).seal("account", org.encode(), b"state of " + org.encode()) for org in ("a", "b")}
    assert _open_accounts(dict(framed), "changelog", 3, {}, seals(f"{TWO},{ONE}")) == ["a", "b"]
    opened = dict(framed)
    assert _open_accounts(opened, "changelog", 3, {}, seals(ONE)) == []
    assert opened == {"a": b"state of a", "b": b"state of b"}
    assert _open_accounts(dict(opened), "changelog", 3, {}, NO_SEALS) == []
    with pytest.raises(StateLostError, match=r"changelog/3 at offset 17: the record of account 'b' is refused"):
        _open_accounts({**framed, "b": framed["a"]}, "changelog", 3, {"a": 4, "b": 17}, seals(ONE))
