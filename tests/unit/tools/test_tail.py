"""What a tail reads: how far back it looks for the last lines of one org, and how it decodes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from schemas.codec import encode_one
from schemas.records import BundledSchemas, bundled_id
from schemas.topics import Topics
from streams.cli.tail import _decoder, _last, _topics
from streams.cli.tail_lines import LINES, What
from streams.settings import Settings

FIRST = {("ledger", 0): 1_000, ("ledger", 1): 0}
ENDS = {("ledger", 0): 90_000, ("ledger", 1): 50}


@pytest.mark.parametrize(
    ("places", "lines", "found"),
    [
        ([89_999, 89_990], 2, 2),  # near the end
        ([2_000], 1, 1),
        ([1_000], 5, 1),  # fewer than asked for: all there are
        ([], 3, 0),
        ([89_999], 0, 0),
    ],
)
def test_it_looks_as_far_back_as_it_must(places: list[int], lines: int, found: int) -> None:
    asked: list[int] = []

    def read(starts: dict[tuple[str, int], int]) -> list[dict[str, Any]]:
        asked.append(starts["ledger", 0])
        return [{"offset": place} for place in places if place >= starts["ledger", 0]]

    assert len(_last(read, FIRST, ENDS, lines)) == found
    assert asked == sorted(asked, reverse=True)
    assert all(place >= FIRST["ledger", 0] for place in asked)


@dataclass
class Message:
    """A record as Kafka hands it over."""

    body: bytes

    def value(self) -> bytes:
        return self.body

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_769_860_800_000

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return 5


RECORDS: dict[What, dict[str, Any]] = {
    What.DECISIONS: {
        "hold_id": "h-1",
        "org_id": "acme",
        "action": "place",
        "allowed": True,
        "code": "ok",
        "http_status": 200,
        "granted_nanos": 1,
        "available_nanos": 2,
        "entry_seq": 7,
    },
    What.TOPUP_REQUESTS: {
        "topup_request_id": "t-1",
        "org_id": "acme",
        "wallet": "USD",
        "amount_nanos": 50,
        "occurred_at": 1_769_864_400_000_000,
        "entry_seq": 7,
        "reason": "retry",
    },
}


@pytest.mark.parametrize(
    ("what", "record", "topic", "at"),
    [
        (What.DECISIONS, "decision", "credits.decisions.v1", "2026-01-31 12:00:00"),  # Kafka's time: it has none
        (What.TOPUP_REQUESTS, "topup_request", "credits.topup-requests.v1", "2026-01-31 13:00:00"),
    ],
)
def test_decisions_and_requests_are_read(what: What, record: str, topic: str, at: str) -> None:
    settings = Settings(namespace="x-")
    assert _topics(settings, what) == [f"x-{topic}"]
    value = encode_one(record, RECORDS[what], bundled_id(record))
    (row,) = _decoder(what, BundledSchemas())([Message(value)])  # type: ignore[arg-type]
    assert (row["partition"], row["offset"], row["org_id"]) == (3, 5, "acme")
    assert LINES[what](row).startswith(f"{at}  acme ")


def test_every_topic_that_can_be_followed_is_in_the_catalogue() -> None:
    known = set(Topics().names)
    assert all(set(_topics(Settings(), what)) <= known for what in What)
