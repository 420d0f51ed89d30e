"""What a restore compares, on logs of the test's own: output topics with the position record, accounts with both."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import pytest

from streams.engine.accounts import accounts_checksum, frame_account
from streams.engine.failures import StateLostError
from streams.engine.positions import OutputEnd, PositionRecord, record_digest
from streams.engine.restore import _check_accounts, _check_outputs

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


def check(log: Log, ours: int, *, counted: int | None = None, ledger_topic: str = TOPIC) -> None:
    """The state's last record is at the offset `ours`; it was counted to be at `counted` at least."""
    end = OutputEnd(ours if counted is None else counted, record_digest(b"k", b"%d" % ours), 7)
    position = PositionRecord(commit=8, outputs={TOPIC: end})
    _check_outputs(log, ledger_topic, "changelog", 3, position, {TOPIC: (log.low, log.high)})  # type: ignore[arg-type]


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


@pytest.mark.parametrize("ledger_topic", [TOPIC, "another topic"])
def test_a_topic_that_is_too_short_is_behind(ledger_topic: str) -> None:
    with pytest.raises(StateLostError, match="ends before transaction 7"):
        check(Log((4, 5), 0, 6), 6, ledger_topic=ledger_topic)


def test_compaction_may_have_taken_the_record_but_not_from_the_ledger() -> None:
    check(Log((4,), 0, 9), 6, ledger_topic="another topic")
    with pytest.raises(StateLostError, match="ends before transaction 7"):
        check(Log((4,), 0, 9), 6)


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
    _check_outputs(Log((), 0, 0), TOPIC, "changelog", 3, old, {TOPIC: (0, 0)})  # type: ignore[arg-type]
    gone = PositionRecord(commit=8, outputs={"former": OutputEnd(3, b"", 2)})
    _check_outputs(Log((), 0, 0), TOPIC, "changelog", 3, gone, {TOPIC: (0, 0)})  # type: ignore[arg-type]


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
