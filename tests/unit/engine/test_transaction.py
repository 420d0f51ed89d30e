"""The transactional producer with a client of the test's own: when it is not opened, and when it is not used again."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams.engine import transaction
from streams.engine.failures import FencedError, PartitionLostError
from streams.engine.transaction import COMMIT_SLOW_S, PartitionProducer, Writes
from streams.errors import KafkaUnavailableError
from streams.settings import Settings

IN_USE = "127.0.0.1:9092/1: Disconnected: connection closed by peer (after 772ms in state UP)"
NOT_MADE = "127.0.0.1:9092/1: Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)"


class Client:
    """Stands in for `confluent_kafka.Producer`."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.opened = 0
        self.commits = 0
        self.open_failures: list[KafkaError] = []
        self.commit_failures: list[KafkaError] = []
        self.logged: list[str] = []
        self.during_commit: Callable[[], None] = lambda: None

    def init_transactions(self, _timeout: float) -> None:
        """Counted."""
        self.opened += 1
        if self.open_failures:
            raise KafkaException(self.open_failures.pop(0))

    def begin_transaction(self) -> None:
        """Nothing."""

    def commit_transaction(self, _timeout: float) -> None:
        """Counted."""
        self.commits += 1
        self.during_commit()
        if self.commit_failures:
            raise KafkaException(self.commit_failures.pop(0))

    def poll(self, _timeout: float) -> int:
        """Hands over the log."""
        for message in self.logged:
            self.config["logger"].log(20, "%s [%s] %s", "FAIL", "rdkafka#producer-1", message)
        self.logged.clear()
        return 0


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[Client]:
    """Every client that was made; what the first one is to do stands in it before it is used."""
    made: list[Client] = []

    def make(config: dict[str, Any]) -> Client:
        made.append(Client(config))
        return made[-1]

    monkeypatch.setattr(transaction, "Producer", make)
    return made


def opened(wanted: Callable[[], bool] = lambda: True) -> PartitionProducer:
    """The producer of partition 3."""
    return PartitionProducer.open(Settings(_env_file=None), 3, wanted)


def test_a_partition_that_is_no_longer_wanted_is_not_fenced(clients: list[Client]) -> None:
    with pytest.raises(KafkaUnavailableError, match="partition 3 is no longer to be taken over"):
        opened(lambda: False)
    assert clients[0].opened == 0


def test_a_partition_that_was_given_up_during_the_first_try_is_not_fenced_by_a_second(clients: list[Client]) -> None:
    asked = iter([True, False])

    def wanted() -> bool:
        clients[0].open_failures = [KafkaError(KafkaError._TIMED_OUT, "slow", False, True)]
        return next(asked)

    with pytest.raises(KafkaUnavailableError, match="no longer to be taken over"):
        opened(wanted)
    assert clients[0].opened == 1


def test_a_commit_that_lost_a_connection_gives_the_producer_up(clients: list[Client]) -> None:
    producer = opened()
    producer.write(Writes([], []))
    producer.commit()
    producer.write(Writes([], []))
    clients[0].logged.append(IN_USE)
    with pytest.raises(PartitionLostError, match="a connection was lost during a transaction"):
        producer.commit()
    assert clients[0].commits == 2


def test_a_connection_that_was_never_made_carried_no_request(clients: list[Client]) -> None:
    producer = opened()
    producer.write(Writes([], []))
    clients[0].logged.append(NOT_MADE)
    producer.commit()


def test_a_slow_commit_gives_the_producer_up(clients: list[Client], monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr(transaction, "time", SimpleNamespace(monotonic=lambda: now_s[0]))

    def passes(seconds: float) -> Callable[[], None]:
        return lambda: now_s.__setitem__(0, now_s[0] + seconds)

    producer = opened()
    clients[0].during_commit = passes(COMMIT_SLOW_S)
    producer.commit()
    clients[0].during_commit = passes(COMMIT_SLOW_S + 0.1)
    with pytest.raises(PartitionLostError, match=r"a commit took 5\.1 s"):
        producer.commit()


@pytest.mark.parametrize("retriable", [False, True])
def test_a_commit_that_failed_is_not_tried_again(clients: list[Client], retriable: bool) -> None:
    producer = opened()
    clients[0].commit_failures = [KafkaError(KafkaError._TIMED_OUT, "slow", False, retriable)]
    with pytest.raises(PartitionLostError, match="slow"):
        producer.commit()
    assert clients[0].commits == 1


def test_a_fenced_commit_says_so(clients: list[Client]) -> None:
    producer = opened()
    clients[0].commit_failures = [KafkaError(KafkaError._FENCED, "fenced", True)]
    with pytest.raises(FencedError):
        producer.commit()
