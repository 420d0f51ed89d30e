"""Account bytes and their due times, against a dict."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.accounts import DUE_AT_MAX, Accounts, accounts_checksum, frame_account, frame_commit


def test_due_times_are_known_without_decoding_after_a_restart() -> None:
    accounts = Accounts({"b": frame_account(20, b"x"), "a": frame_account(10, b"y"), "never": frame_account(0, b"z")})
    assert accounts.next_due() == 10
    assert accounts.take_due(20, 10) == ["a", "b"]
    assert accounts.next_due() is None
    assert accounts.get("a") == b"y"
    assert accounts.get("unknown") is None
    assert len(accounts) == 3


def test_a_due_time_that_was_taken_comes_back_only_when_it_changes() -> None:
    accounts = Accounts({"a": frame_account(10, b"")})
    assert accounts.take_due(15, 10) == ["a"]
    accounts.apply({"a": frame_account(10, b"same")})
    assert accounts.next_due() is None
    accounts.apply({"a": frame_account(11, b"other")})
    assert accounts.take_due(15, 10) == ["a"]


def test_no_more_orgs_than_asked_for() -> None:
    accounts = Accounts({f"o{i}": frame_account(i + 1, b"") for i in range(5)})
    assert accounts.take_due(100, 2) == ["o0", "o1"]
    assert accounts.take_due(100, 9) == ["o2", "o3", "o4"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 9)), max_size=200), st.integers(0, 10))
def test_exactly_what_is_due_is_taken(changes: list[tuple[str, int]], at: int) -> None:
    accounts = Accounts()
    model: dict[str, int] = {}
    for org, due in changes:
        accounts.apply({org: frame_account(due, b"")})
        model[org] = due
    expected = {org for org, due in model.items() if 0 < due <= at}
    taken = accounts.take_due(at, 1_000)
    assert set(taken) == expected
    assert [model[org] for org in taken] == sorted(model[org] for org in taken)
    assert accounts.next_due() == min((due for due in model.values() if due > at), default=None)


def test_the_queue_of_due_times_does_not_grow_with_every_change() -> None:
    accounts = Accounts()
    for due in range(1, 50_000):
        accounts.apply({"a": frame_account(due, b"")})
    assert len(accounts._due) < 1_100
    assert accounts.take_due(50_000, 10) == ["a"]


def test_frames_of_an_older_program_are_read() -> None:
    accounts = Accounts({"old": struct.pack(">Q", 30) + b"state", "new": frame_account(40, b"other", 7)})
    assert (accounts.due_at("old"), accounts.get("old")) == (30, b"state")
    assert (accounts.due_at("new"), accounts.get("new")) == (40, b"other")
    assert [frame_commit(accounts._framed[name]) for name in ("old", "new")] == [0, 7]


@pytest.mark.parametrize("due_at", [-1, DUE_AT_MAX + 1])
def test_a_due_time_that_does_not_fit_is_refused(due_at: int) -> None:
    with pytest.raises(ValueError, match="due at"):
        frame_account(due_at, b"")


def test_the_checksum_follows_the_accounts_whatever_their_order() -> None:
    first = {"a": frame_account(1, b"x", 1), "b": frame_account(2, b"y", 1)}
    change = {"b": frame_account(2, b"y", 2), "c": frame_account(0, b"", 2)}
    accounts = Accounts(dict(first))
    checksum = accounts.checksum_with(change, 2, accounts_checksum(first, 5), 5)
    accounts.apply(change)
    after = {"c": change["c"], "b": change["b"], "a": first["a"]}
    assert checksum == accounts_checksum(after, 5)
    assert checksum != accounts_checksum({**after, "b": first["b"]}, 5)
    assert checksum != accounts_checksum(after, 6)
