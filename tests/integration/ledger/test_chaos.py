"""Workers killed, stopped and joining while every kind of event flows: the audit finds nothing, and all is booked."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from schemas.enums import InputKind
from schemas.topics import INPUT_TOPICS
from streams.kafka.reader import committed_ends
from tests.integration.engine.workers import until
from tests.integration.ledger.events import PRICE_LIST, Traffic, administrators
from tests.integration.ledger.installation import LedgerInstallation
from tests.laws import examples

ROUNDS = examples(2)
SEED = 20_260_101
SENT_TO = sorted(set(INPUT_TOPICS.values()) - {"prices"})
"""The topics whose records `LedgerInstallation.ended` counts."""


def begin(installation: LedgerInstallation, traffic: Traffic) -> None:
    installation.send(InputKind.PRICE, PRICE_LIST)
    installation.send(InputKind.SETTING, [administrators(f"s-{org}", org, "ann") for org in traffic.orgs])
    installation.send(InputKind.PURCHASE, traffic.purchases(40))


def one_wave(installation: LedgerInstallation, traffic: Traffic, events: int) -> None:
    used = traffic.usages(events)
    installation.send(InputKind.USAGE, used)
    installation.send(InputKind.TRANSFER, traffic.transfers(20))
    installation.send(InputKind.PURCHASE, traffic.purchases(5))
    installation.send(InputKind.REFUND, traffic.refunds(used[:5]))


def assert_all_is_right(installation: LedgerInstallation) -> None:
    installation.wait_until_booked()
    report = installation.report()
    assert report.ok, report.differences
    assert all(unit.left_over == 0 for unit in report.units)
    assert report.transfers_on_the_way == 0
    assert not report.dead_letters
    assert report.kinds["transfer_in"] > 0
    assert report.kinds["transfer_return"] > 0
    assert report.duplicates > 0


@contextmanager
def waves_without_end(installation: LedgerInstallation, traffic: Traffic) -> Iterator[None]:
    """Wave upon wave is sent until the block ends. Nobody else may send meanwhile."""
    enough = threading.Event()

    def send() -> None:
        while not enough.is_set():
            one_wave(installation, traffic, 1_000)

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        try:
            yield
        finally:
            enough.set()
        sending.result()


def records(installation: LedgerInstallation, *keys: str) -> int:
    """How many records the partitions of these topics end with."""
    return sum(committed_ends(installation.settings, [installation.topics.name(key) for key in keys]).values())


def wait_for_entries(installation: LedgerInstallation, count: int) -> None:
    """Wait until the ledger has come that far."""
    until(lambda: records(installation, "ledger") >= count, 60, f"{count} entries")


@pytest.mark.fault(
    "killed-workers",
    title="kill -9 of a worker at random moments",
    provoked="killed at work in rounds, while every kind of event flows",
    holds="everything is booked once; the audit finds nothing",
    faults_row=10,
)
def test_a_worker_killed_at_random_moments_books_everything_once(
    installation: LedgerInstallation, seen: Callable[[str], None]
) -> None:
    """Each dies at work: it has booked some of the waves, and more of them have arrived than it has booked."""
    traffic, chance = Traffic(SEED), random.Random(SEED)
    begin(installation, traffic)
    for _ in range(ROUNDS):
        worker = installation.ready_worker()
        moment = records(installation, "ledger") + chance.randint(1, 4_000)
        with waves_without_end(installation, traffic):
            wait_for_entries(installation, moment)
            arrived = records(installation, *SENT_TO)
            worker.kill()
        assert installation.ended() < arrived, "the worker was idle"
    installation.ready_worker()
    assert_all_is_right(installation)
    seen("the audit found no difference; every record had its end")


@pytest.mark.slow
@pytest.mark.fault(
    "workers-come-and-go",
    title="workers that join, leave and freeze",
    provoked="a second worker joins, the first is stopped and continued, the second leaves, during transfers",
    holds="nothing is skipped or doubled; credits are conserved",
    faults_row=11,
)
def test_workers_that_join_leave_and_freeze_share_the_work(
    installation: LedgerInstallation, seen: Callable[[str], None]
) -> None:
    traffic = Traffic(SEED + 1)
    begin(installation, traffic)
    first = installation.ready_worker()
    one_wave(installation, traffic, 2_000)
    second = installation.ready_worker()
    one_wave(installation, traffic, 2_000)
    first.signal(signal.SIGSTOP)
    one_wave(installation, traffic, 2_000)
    until(lambda: installation.ended() >= installation.sent, 60, "the second worker to take over")
    first.signal(signal.SIGCONT)
    one_wave(installation, traffic, 2_000)
    second.signal(signal.SIGTERM)
    assert second.ends_with(30) == 0
    if first.process.poll() is not None:  # fenced when it woke; a supervisor starts it again
        installation.ready_worker()
    assert_all_is_right(installation)
    seen("the audit found no difference; every record had its end")
