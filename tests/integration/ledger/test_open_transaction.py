"""A producer leaves its transaction open: what waits behind it is seen, and no timer runs past it (fault 32)."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from schemas.amounts import NANOS
from schemas.enums import InputKind
from streams.kafka.clients import producer_config
from streams.settings import Settings
from tests.brokers import free_port
from tests.integration.engine.workers import until
from tests.integration.ledger.events import purchase, usage
from tests.integration.ledger.installation import LedgerInstallation
from tests.model.memory import sent

SECOND_US = 1_000_000
BEGAN_AT = time.time_ns() // 1_000 - 3_600 * SECOND_US
HOLD_SECONDS = 60


@pytest.fixture
def installation(settings: Settings, tmp_path: Path) -> Iterator[LedgerInstallation]:
    """One partition, whose time is its records': nothing has to be waited for."""
    with LedgerInstallation(settings.model_copy(update={"partitions": 1, "clock": "log"}), tmp_path) as made:
        yield made


def send(installation: LedgerInstallation, producer: Producer, kind: InputKind, record: dict[str, Any], s: int) -> None:
    """Send a record that arrives `s` seconds after the beginning."""
    at = BEGAN_AT + s * SECOND_US
    made = sent(kind, {**record, "occurred_at": at}, at)
    topic = installation.settings.namespace + made.topic
    producer.produce(topic, key=made.key, value=made.value, timestamp=at // 1_000)
    assert producer.flush(30) == 0
    installation.sent += 1


def booked(installation: LedgerInstallation) -> None:
    until(lambda: installation.ended() >= installation.sent, 60, f"{installation.sent} records booked")


def hold(action: str) -> dict[str, Any]:
    fields = {"hold_id": "h1", "org_id": "acme", "action": action, "wallet": "USD", "amount_nanos": 5 * NANOS}
    return fields | ({"expires_at": BEGAN_AT + HOLD_SECONDS * SECOND_US} if action == "place" else {})


def stalled_seconds(port: int, topic: str) -> float:
    """What the worker's metrics say of an input."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
    name = f'credits_input_stalled_seconds{{partition="0",topic="{topic}"}} '
    return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))


@pytest.mark.fault(
    "open-transaction",
    title="A producer leaves its transaction open in the topic of holds",
    provoked="a capture, 6 s before its hold's end, behind an open transaction; the clock passes the end",
    holds="no timer runs past the records that wait; the stall is in the metrics; the capture is booked afterwards",
    faults_row=32,
)
def test_a_capture_behind_an_open_transaction_comes_before_the_end_of_its_hold(
    installation: LedgerInstallation, seen: Callable[[str], None]
) -> None:
    settings, port = installation.settings, free_port()
    holds = installation.topics.name("holds")
    installation.ready_worker(CREDITS_WORKER_METRICS_PORT=str(port))
    producer = Producer(producer_config(settings, linger_ms=0))
    foreign = Producer(producer_config(settings, transactional_id=f"{settings.namespace}foreign"))
    foreign.init_transactions(30)

    send(installation, producer, InputKind.PURCHASE, purchase("p1", "acme", 100 * NANOS), 0)
    booked(installation)
    send(installation, producer, InputKind.HOLD, hold("place"), 1)
    booked(installation)
    foreign.begin_transaction()
    foreign.produce(holds, key=b"other", value=b"never committed")
    assert foreign.flush(30) == 0
    installation.sent -= 1  # the capture, which cannot be read yet
    send(installation, producer, InputKind.HOLD, hold("capture"), HOLD_SECONDS - 6)
    for number in range(2):  # the clock passes the end of the hold; timers come in turns with batches
        event = usage(f"u{number}", "other", cost_nanos=1, wallet="USD")
        send(installation, producer, InputKind.USAGE, event, HOLD_SECONDS + 1 + number)
        booked(installation)
    until(lambda: stalled_seconds(port, holds) > 0, 30, "a stalled input in the metrics")
    assert [row["kind"] for row in installation.rows("ledger") if row["org_id"] == "acme"] == ["purchase", "hold"]
    assert urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5).status == 200

    foreign.abort_transaction(30)
    installation.sent += 1
    booked(installation)
    acme = [row for row in installation.rows("ledger") if row["org_id"] == "acme"]
    assert [row["kind"] for row in acme] == ["purchase", "hold", "usage"]
    assert acme[-1]["balance_nanos"] == 95 * NANOS
    decisions = {row["action"]: row["code"] for row in installation.rows("decisions")}
    assert decisions == {"place": "ok", "capture": "ok"}
    until(lambda: stalled_seconds(port, holds) == 0, 30, "no stalled input in the metrics")
    assert not installation.report().differences
    seen("no time-out while the transaction was open; then the capture was booked; the metric rose and fell to 0")
