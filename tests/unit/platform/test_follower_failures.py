"""A follower that meets a failure loses none of the records that came before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from streams.client import follower
from streams.client.follower import Follower
from tests.brokers import test_settings


class Message:
    """A record, or an error of a partition."""

    def __init__(self, offset: int, error: KafkaError | None = None, partition: int = 0) -> None:
        self._offset, self._error, self._partition = offset, error, partition

    def error(self) -> KafkaError | None:
        """None of a record."""
        return self._error

    def topic(self) -> str:
        """One topic."""
        return "alerts"

    def partition(self) -> int:
        """Its partition."""
        return self._partition

    def offset(self) -> int:
        """Its offset."""
        return self._offset


class Consumer:
    """Gives two records and an error of another partition at once, then one record more."""

    def __init__(self, _: Any) -> None:
        refused = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "no")
        self.batches = [[Message(5), Message(6), Message(-1, refused, 1)], [Message(7)]]
        self.committed: list[tuple[int, int]] = []

    def subscribe(self, topics: Sequence[str], **_: Any) -> None:
        """Nothing is assigned here."""

    def consume(self, _records: int, _wait_s: float) -> list[Message]:
        """The next batch."""
        return self.batches.pop(0) if self.batches else []

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition]:
        """Remember."""
        self.committed += [(each.partition, each.offset) for each in offsets]
        return offsets

    def close(self) -> None:
        """Nothing is open."""


def test_records_before_a_failure_are_handed_out_before_it_is_raised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(follower, "Consumer", Consumer)
    with Follower(test_settings(tmp_path), ["alerts"], name="mail") as following:
        first = following.next(1)
        assert [message.offset() for message in first] == [5, 6]
        with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
            following.next(1)
        assert [message.offset() for message in following.next(1)] == [7]
        following.commit()
        consumer: Any = following._consumer
        assert consumer.committed == [(0, 8)]
