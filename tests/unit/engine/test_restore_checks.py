"""What a restore compares, on logs of the test's own: output topics with the position record, accounts with both."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import pytest
from pydantic import SecretStr

from streams.engine.accounts import accounts_checksum, frame_account
from streams.engine.failures import StateLostError
from streams.engine.ports import SeenWindow
from streams.engine.positions import POSITION_KEY, OutputEnd, PositionRecord, decode_position, record_digest
from streams.engine.rebuild import _keys
from streams.engine.restore import _check_accounts, _check_outputs, _read_changelog, _read_seen
from streams.engine.seen import BlobError
from streams.engine.trim import _first_kept
from streams.seals import NO_SEALS, Seals, position_owner
from streams.settings import Settings

TOPIC = "ledger"
SEED = 9


@dataclass(frozen=True)
class Record:
    """One committed record."""

    at: int

    def offset(self) -> int:
        """In the log."""
        return self.at

    def key(self) -> bytes:
        """The same for all."""
        return b"k"

    def value(self) -> bytes:
        """Its offset."""
        return b"%d" % self.at


@dataclass(frozen=True)
class Log:
    """A partition's log from `low` to `high`; the offsets that are not in `records` are markers and aborted records."""

    records: tuple[int, ...]
    low: int
    high: int

    def read(self, topic: str, partition: int, start: int, end: int) -> Generator[list[Record], None, None]:
        """As `CommittedReader.read`."""
        found = [Record(at) for at in self.records if start <= at < end]
        if found:
            yield found


def check(log: Log, ours: int, *, counted: int | None = None, deleted: bool = False, shared: bool = False) -> None:
    """The state's last record is at the offset `ours`; it was counted to be at `counted` at least."""
    end = OutputEnd(ours if counted is None else counted, record_digest(b"k", b"%d" % ours), 7, deleted, shared)
    position = PositionRecord(commit=8, outputs={TOPIC: end})
    _check_outputs(log, "changelog", 3, position, {TOPIC: (log.low, log.high)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("log", "counted"),
    [
        (Log((4, 5, 6), 0, 8), 6),
        (Log((4, 5, 6), 0, 20), 6),  # aborted transactions behind it
        (Log((4, 6), 0, 8), 5),  # one more marker than was counted
        (Log((6,), 6, 8), 6),  # retention has taken what was before
        (Log((), 8, 8), 6),  # and the record itself
        (Log((), 7, 8), 6),
    ],
)
def test_a_topic_that_ends_with_the_states_record_is_right(log: Log, counted: int) -> None:
    check(log, 6, counted=counted)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("log", [Log((4,), 0, 9), Log((), 0, 9), Log((), 6, 9), Log((4, 5), 0, 6)])
def test_a_record_that_is_not_there_was_lost_in_every_topic(log: Log, shared: bool) -> None:
    """Compaction keeps the newest record of a key, and where retention took it the log begins behind it."""
    with pytest.raises(StateLostError, match="ends before transaction 7"):
        check(log, 6, shared=shared)


def test_compaction_may_have_taken_a_record_without_a_value() -> None:
    check(Log((4,), 0, 9), 6, deleted=True, shared=True)
    check(Log((4,), 0, 9), 6, deleted=True)
    check(Log((4,), 0, 9), 6, counted=4, deleted=True)
    with pytest.raises(StateLostError, match="ends before transaction 7"):
        check(Log((4,), 0, 6), 6, deleted=True, shared=True)


def test_where_records_of_others_are_passed_over_they_may_follow() -> None:
    check(Log((6, 7, 8), 0, 10), 6, shared=True)
    check(Log((5, 6, 7), 0, 10), 6, counted=4, shared=True)
    check(Log((9,), 8, 10), 6, shared=True)
    with pytest.raises(StateLostError, match="ends before transaction 7"):
        check(Log((7, 8), 0, 10), 6, shared=True)


def test_the_position_record_of_an_older_program_has_shorter_ends() -> None:
    end = OutputEnd(3, b"d" * 16, 2)
    old = msgspec.msgpack.encode({"version": 2, "outputs": {TOPIC: [3, b"d" * 16, 2]}})
    assert decode_position(old).outputs == {TOPIC: end}


@pytest.mark.parametrize("log", [Log((4, 5), 0, 6), Log((), 0, 0), Log((4, 5), 0, 9)])
def test_a_topic_that_ends_before_the_states_record_is_behind(log: Log) -> None:
    with pytest.raises(StateLostError, match=r"ledger/3 ends before transaction 7, which changelog/3 includes"):
        check(log, 6)


@pytest.mark.parametrize("log", [Log((6, 9), 0, 11), Log((9,), 8, 11)])
def test_a_topic_that_goes_on_beyond_the_states_record_shows_that_the_state_is_behind(log: Log) -> None:
    message = r"changelog/3 ends at transaction 8, but ledger/3 has later records, up to offset 9: the changelog is"
    with pytest.raises(StateLostError, match=message):
        check(log, 6)


def test_another_record_in_its_place_is_another_history() -> None:
    with pytest.raises(StateLostError, match="copies of different histories"):
        check(Log((5, 7), 0, 9), 6)


def test_topics_that_no_longer_exist_and_records_of_an_older_program_are_not_checked() -> None:
    old = PositionRecord(commit=8)
    _check_outputs(Log((), 0, 0), "changelog", 3, old, {TOPIC: (0, 0)})  # type: ignore[arg-type]
    gone = PositionRecord(commit=8, outputs={"former": OutputEnd(3, b"", 2)})
    _check_outputs(Log((), 0, 0), "changelog", 3, gone, {TOPIC: (0, 0)})  # type: ignore[arg-type]


ACCOUNTS = {"a": frame_account(0, b"1", 5), "b": frame_account(0, b"2", 8), "c": frame_account(0, b"3", 8)}


def check_accounts(framed: Mapping[str, bytes]) -> int:
    """Against a position record that was written with `ACCOUNTS`."""
    checksum = accounts_checksum(ACCOUNTS, SEED)
    position = PositionRecord(commit=8, seed=SEED, accounts=len(ACCOUNTS), accounts_checksum=checksum)
    return _check_accounts("changelog", 3, framed, position)


def test_the_accounts_of_the_position_record_are_right() -> None:
    assert check_accounts(ACCOUNTS) == accounts_checksum(ACCOUNTS, SEED)


def test_an_account_newer_than_the_position_record_is_of_a_torn_transaction() -> None:
    torn = {**ACCOUNTS, "b": frame_account(0, b"4", 9)}
    with pytest.raises(
        StateLostError, match=r"newer than its position record of transaction 8, the first 'b' of tra.* 9"
    ):
        check_accounts(torn)


def test_an_account_that_is_older_is_found() -> None:
    with pytest.raises(StateLostError, match="one is older, or another's"):
        check_accounts({**ACCOUNTS, "c": frame_account(0, b"0", 4)})


def test_another_account_in_the_place_of_one_is_found() -> None:
    others = {("d" if org_id == "c" else org_id): frame for org_id, frame in ACCOUNTS.items()}
    with pytest.raises(StateLostError, match="one is older, or another's"):
        check_accounts(others)


@dataclass(frozen=True)
class Change:
    """One record of the account changelog, or of remembered ids."""

    its_key: bytes | None
    its_value: bytes | None
    at: int = 0

    def offset(self) -> int:
        """In the log."""
        return self.at

    def key(self) -> bytes | None:
        """An organisation's id, as a rule."""
        return self.its_key

    def value(self) -> bytes | None:
        """A frame, as a rule."""
        return self.its_value


@dataclass(frozen=True)
class Changes:
    """A partition with these records, at offsets from 0."""

    records: Sequence[Change]

    def ends(self, topic: str, partition: int) -> tuple[int, int]:
        """As `CommittedReader.ends`."""
        return 0, len(self.records)

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[list[Change]]:
        """As `CommittedReader.read`."""
        yield [replace(record, at=at) for at, record in enumerate(self.records)]


FRAME = frame_account(0, b"state", 1)
GOOD = [Change(b"acme", FRAME), Change(POSITION_KEY, PositionRecord(accounts=1).encode())]
GARBAGE = {
    "a key that is no text": Change(b"\xff", FRAME),
    "an empty key": Change(b"", FRAME),
    "an empty value": Change(b"acme", b""),
    "a short value": Change(b"acme", b"\x80"),
    "a short value of an older program": Change(b"acme", b"1234567"),
    "a position without a value": Change(POSITION_KEY, None),
    "a position that is none": Change(POSITION_KEY, b"zz"),
    "an empty position": Change(POSITION_KEY, b""),
}


def read(records: Sequence[Change], seals: Seals = NO_SEALS) -> tuple[dict[str, bytes], bool]:
    """The accounts, and whether the position is to be sealed again."""
    framed, position, _, _, stale_position = _read_changelog(Changes(records), "changelog", 3, seals)  # type: ignore[arg-type]
    assert position is not None
    return framed, stale_position


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_in_the_changelog_is_named_with_its_place_and_what_to_do(kind: str) -> None:
    with pytest.raises(StateLostError, match="changelog/3 at offset 2: ") as lost:
        read([*GOOD, GARBAGE[kind]])
    assert "credits rebuild --accounts" in str(lost.value)


@pytest.mark.parametrize("kind", GARBAGE)
def test_after_a_rebuild_garbage_is_read_over(kind: str) -> None:
    """It writes every account and the position again, and takes away every other key."""
    garbage = GARBAGE[kind]
    keys = _keys(Changes([*GOOD, garbage]), "changelog", 3)  # type: ignore[arg-type]
    gone = [Change(key, None) for key in sorted(keys - {b"acme", POSITION_KEY})]
    assert read([*GOOD, garbage, *gone, *GOOD]) == ({"acme": FRAME}, False)


def test_a_record_under_no_key_is_no_account() -> None:
    assert read([*GOOD, Change(None, b"x"), Change(None, None)]) == ({"acme": FRAME}, False)
    assert _keys(Changes([*GOOD, Change(None, b"x")]), "changelog", 3) == {b"acme", POSITION_KEY}  # type: ignore[arg-type]


def test_a_position_of_another_version_asks_for_that_version() -> None:
    with pytest.raises(StateLostError, match="start the version of this program"):
        read([Change(POSITION_KEY, PositionRecord(version=99).encode())])


@pytest.mark.parametrize("value", [None, b"", b"ids"])
def test_garbage_among_remembered_ids_is_named_with_its_place_and_what_to_do(value: bytes | None) -> None:
    position = PositionRecord(seen={"usage": {1: 1}})
    with pytest.raises(StateLostError, match=r"seen/3 at (offset )?0: ") as lost:
        _read_seen(Changes([Change(None, value)]), "seen", 3, SeenWindow("usage", 1_000), position, NO_SEALS)  # type: ignore[arg-type]
    assert "credits rebuild --accounts" in str(lost.value)
    with pytest.raises(BlobError):
        _first_kept(Changes([Change(None, value)]), "seen", 3, 0, 1, 0)  # type: ignore[arg-type]


def test_a_position_sealed_with_an_older_key_is_to_be_sealed_again_without_any_account() -> None:
    old, new = "the old key of the test", "the new key of the test"

    def seals(keys: str) -> Seals:
        return Seals.of(Settings(_env_file=None, internal_key=SecretStr(keys)))

    position = Change(POSITION_KEY, seals(old).seal("position", position_owner(3), PositionRecord().encode()))
    assert read([position], seals(f"{new},{old}")) == ({}, True)
    assert read([position], seals(f"{old},{new}")) == ({}, False)
    unsealed = Change(POSITION_KEY, PositionRecord().encode())
    assert read([unsealed], seals(f"{new},none")) == ({}, True)
