"""Idempotency keys at several processes: one log, one that does it, and the same answer for all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.api.idempotency import KEPT_S, TAKEOVER_S, OwnLog, UsedKeys, Uses
from streams.api.problems import ProblemError
from streams.errors import KafkaUnavailableError

Result = TypeVar("Result")
CALL = ("key:a", "POST /x", "k")
ANSWER = {"id": "1"}


class Log(OwnLog):
    """A log whose clock the test moves, and that is away when the test says so."""

    def __init__(self) -> None:
        super().__init__(lambda: self.now_ms)
        self.now_ms = 0
        self.away = False

    async def write(self, name: str, value: bytes) -> None:
        if self.away:
            raise KafkaUnavailableError("away", "try again")
        await super().write(name, value)

    def offer(self, name: str, value: bytes) -> None:
        if not self.away:
            super().offer(name, value)


@pytest.fixture
def log() -> Log:
    return Log()


def process(log: Log) -> UsedKeys:
    """One more process on the log."""
    return UsedKeys(log, lambda: log.now_ms)


def run(call: Awaitable[Result]) -> Result:
    async def scenario() -> Result:
        return await call

    return asyncio.run(scenario())


def code(call: Awaitable[Any]) -> str:
    """The code of the refusal."""
    with pytest.raises(ProblemError) as raised:
        run(call)
    return raised.value.code


def test_what_one_process_has_answered_every_process_answers(log: Log) -> None:
    one, other = process(log), process(log)
    assert run(one.begin(CALL, b"1")) is None
    for each in (one, other):
        assert code(each.begin(CALL, b"1")) == "idempotency_key_in_use"
        assert code(each.begin(CALL, b"2")) == "idempotency_key_reused"
    run(one.accepted(CALL, ANSWER))
    for each in (one, other):
        assert run(each.begin(CALL, b"1")) == ANSWER
        assert code(each.begin(CALL, b"2")) == "idempotency_key_reused"
    for call in (("key:b", *CALL[1:]), ("key:a", "POST /y", "k"), ("key:a", "POST /x", "l")):
        assert run(other.begin(call, b"2")) is None
    log.now_ms = KEPT_S * 1_000
    assert run(other.begin(CALL, b"2")) is None


def test_of_two_at_the_same_time_one_does_it(log: Log) -> None:
    """Both find the key free before either claim is in the log: the first in the log holds it."""

    class Slow(Log):
        def __init__(self) -> None:
            super().__init__()
            self.waiting: list[tuple[str, bytes]] = []

        async def write(self, name: str, value: bytes) -> None:
            self.waiting.append((name, value))
            while len(self.waiting) < 2:
                await asyncio.sleep(0)
            for each in self.waiting:
                await super().write(*each)

    async def scenario() -> list[Any]:
        slow = Slow()
        processes = [process(slow) for _ in range(2)]
        return await asyncio.gather(
            *(each.begin(CALL, body) for each, body in zip(processes, (b"1", b"2"), strict=True)),
            return_exceptions=True,
        )

    first, second = asyncio.run(scenario())
    assert first is None
    assert isinstance(second, ProblemError)
    assert second.code == "idempotency_key_reused"


def test_after_a_failure_the_key_may_be_used_again_with_any_body(log: Log) -> None:
    one, other = process(log), process(log)
    assert run(one.begin(CALL, b"1")) is None
    one.failed(CALL)
    assert run(other.begin(CALL, b"2")) is None


def test_a_failure_that_could_not_be_written_holds_up_others_for_a_while_and_its_process_not_at_all(log: Log) -> None:
    one, other = process(log), process(log)
    assert run(one.begin(CALL, b"1")) is None
    log.away = True
    one.failed(CALL)
    with pytest.raises(KafkaUnavailableError):
        run(one.begin(CALL, b"1"))
    log.away = False
    assert code(other.begin(CALL, b"1")) == "idempotency_key_in_use"
    assert run(one.begin(CALL, b"1")) is None


def test_a_claim_whose_process_died_is_taken_over_for_the_same_body(log: Log) -> None:
    dead, other = process(log), process(log)
    assert run(dead.begin(CALL, b"1")) is None
    log.now_ms = TAKEOVER_S * 1_000
    assert code(other.begin(CALL, b"2")) == "idempotency_key_reused"
    assert run(other.begin(CALL, b"1")) is None
    run(dead.accepted(CALL, {"id": "late"}))  # it was slow, not dead: what it says is passed over
    run(other.accepted(CALL, ANSWER))
    assert run(dead.begin(CALL, b"1")) == ANSWER


RECORDS = st.fixed_dictionaries(
    {"what": st.sampled_from(["claim", "answered", "failed", "x"]), "claim": st.sampled_from("abc")},
    optional={"digest": st.sampled_from("12"), "instead": st.sampled_from(["", "a"]), "answer": st.just({"n": 1})},
).map(lambda record: json.dumps(record).encode())


@given(records=st.lists(st.one_of(RECORDS, st.sampled_from([b"", b"{", b"[]", b"\xff", b"7"])), max_size=30))
def test_whatever_is_in_the_log_all_processes_read_the_same_and_an_answer_stays(records: list[bytes]) -> None:
    one, other, answered = Uses(keys_max=5), Uses(keys_max=5), None
    for number, record in enumerate(records):
        for uses in (one, other):
            uses.fold("k", record, number * 7_000)
        use = one.get("k", number * 7_000)
        assert use == other.get("k", number * 7_000)
        if answered is not None:
            assert use is not None
            assert (use.claim, use.answer) == answered
        elif use is not None and use.answer is not None:
            answered = (use.claim, use.answer)


def test_what_is_remembered_is_bounded() -> None:
    uses = Uses(keys_max=3)
    for number in range(10):
        uses.fold(str(number), json.dumps({"what": "claim", "claim": "c"}).encode(), 0)
    assert len(uses) == 3
