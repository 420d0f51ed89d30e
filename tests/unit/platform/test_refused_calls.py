"""Calls without a right, on their way into the activity log: each once in a while, and no key can flood it."""

from __future__ import annotations

import json
from typing import Any

from streams.api import refused_calls
from streams.api.refused_calls import HOUR_S, PER_HOUR, REPEAT_S, RefusedCalls

ORG = "acme"


class Recorded:
    """What was handed over, and a clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.takes = True
        self.records: list[tuple[bytes, dict[str, Any]]] = []
        self.calls = RefusedCalls(self._take, lambda: self.now_s, lambda: 7)

    def _take(self, key: bytes, value: bytes) -> bool:
        if self.takes:
            self.records.append((key, json.loads(value)))
        return self.takes

    def add(self, actor: str = "key:a", org_id: str = ORG, action: str = "POST /x") -> None:
        self.calls.add(actor, org_id, action, "/x", "this needs a key with the role admin")


def test_a_call_is_recorded_with_who_what_when_and_why() -> None:
    recorded = Recorded()
    recorded.add()
    assert recorded.records == [
        (
            b"acme",
            {
                "occurred_at": 7, "org_id": "acme", "actor": "key:a", "action": "POST /x", "path": "/x",
                "reason": "not_authorized", "detail": "this needs a key with the role admin", "repeated": 0,
            },
        )
    ]  # fmt: skip


def test_the_same_call_is_recorded_again_after_a_while_with_how_often_it_came() -> None:
    recorded = Recorded()
    for _ in range(5):
        recorded.add()
    recorded.add(actor="key:b")
    recorded.add(org_id="globex")
    recorded.add(action="GET /x")
    recorded.now_s = REPEAT_S
    recorded.add()
    assert [fields["repeated"] for _, fields in recorded.records] == [0, 0, 0, 0, 4]


def test_a_key_has_so_many_records_an_hour_whatever_it_calls() -> None:
    recorded = Recorded()
    for number in range(10 * PER_HOUR):
        recorded.add(org_id=f"o{number}")
    assert len(recorded.records) == PER_HOUR
    recorded.add(actor="key:b")
    assert len(recorded.records) == PER_HOUR + 1
    recorded.now_s = HOUR_S
    recorded.add(org_id="another")
    assert len(recorded.records) == PER_HOUR + 2


def test_what_is_remembered_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(refused_calls, "CALLS_MAX", 10)
    monkeypatch.setattr(refused_calls, "KEYS_MAX", 10)
    recorded = Recorded()
    for number in range(50):
        recorded.add(actor=f"key:{number}")
    assert (len(recorded.calls._calls), len(recorded.calls._hours)) == (10, 10)


def test_what_kafka_does_not_take_is_lost_and_nothing_else() -> None:
    recorded = Recorded()
    recorded.takes = False
    recorded.add()
    recorded.takes = True
    recorded.add(action="GET /x")
    assert [fields["action"] for _, fields in recorded.records] == ["GET /x"]
