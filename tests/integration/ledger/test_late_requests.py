"""Requests of a transaction that arrive after it, during the next one (fault 29): real ledger, real broker, a proxy.

librdkafka does not speak the protocol of KIP-890 (its issue 5423), so the broker cannot tell an end-of-transaction
request of transaction N that was slow on the network from the one of N + 1. Only the producer's epoch tells them apart.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from schemas.amounts import NANOS
from schemas.enums import InputKind
from streams.broker import LocalBroker
from streams.settings import Settings
from tests.brokers import HEAP_MIB, free_port, test_settings
from tests.integration.engine.workers import until
from tests.integration.kafka_proxy import END_TXN, KafkaProxy, Request
from tests.integration.ledger.events import Fields, purchase
from tests.integration.ledger.installation import LedgerInstallation

WAIT_S = 60.0
FENCED = {47, 49, 90}
"""INVALID_PRODUCER_EPOCH, INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED."""
EndTxnAnswer = struct.Struct(">iih")
"""Correlation id, throttle time, error."""


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KafkaProxy, Settings]]:
    """A broker with a listener that is reached through a proxy."""
    folder = tmp_path_factory.mktemp("proxied")
    port, controller_port, inner_port = free_port(), free_port(), free_port()
    with KafkaProxy() as proxy:
        proxy.broker_port = inner_port
        listeners = {"PLAINTEXT": port, "PROXIED": inner_port, "CONTROLLER": controller_port}
        advertised = {"PLAINTEXT": port, "PROXIED": proxy.port}
        broker = LocalBroker(
            test_settings(folder, broker_port=port, broker_heap_mib=HEAP_MIB, broker_jit="quick"),
            properties={
                "listeners": addresses(listeners),
                "advertised.listeners": addresses(advertised),
                "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listeners),
                "inter.broker.listener.name": "PLAINTEXT",
                "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
                # As brokers have it that are not ours: a torn transaction is then noticed at once.
                "transaction.partition.verification.enable": "true",
            },
            dies_with_parent=True,
        )
        broker.start()
        try:
            yield proxy, test_settings(folder, kafka_bootstrap_servers=f"127.0.0.1:{proxy.port}")
        finally:
            broker.kill()


def addresses(ports: dict[str, int]) -> str:
    """As Kafka's properties have them."""
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())


@pytest.fixture
def installation(
    proxied: tuple[KafkaProxy, Settings], namespace: str, tmp_path: Path
) -> Iterator[tuple[KafkaProxy, LedgerInstallation]]:
    """A ledger of one partition whose every request passes the proxy."""
    proxy, settings = proxied
    values = {"namespace": namespace, "partitions": 1, "data_dir": tmp_path, "session_timeout_ms": 6_000}
    made = LedgerInstallation(settings.model_copy(update=values), tmp_path)
    try:
        yield proxy, made
    finally:
        proxy.rule = lambda request: True
        made.stop()


@dataclass
class LateEndOfTransaction:
    """Keeps an end-of-transaction request, and delivers it when the first records of the next are in the log."""

    proxy: KafkaProxy
    transactional_id: str
    kept: threading.Event = field(default_factory=threading.Event)
    retried: threading.Event = field(default_factory=threading.Event)
    delivered: threading.Event = field(default_factory=threading.Event)
    error: int = 0
    produced: int = 0

    def rule(self, request: Request) -> bool:
        """See `Rule`. Requests before the answer to the kept one's repetition are the same transaction's."""
        if not request.names(self.transactional_id) or self.delivered.is_set():
            return True
        if request.api_key == END_TXN:
            if not self.kept.is_set():
                self.kept.set()
                return False
            self.retried.set()
        elif self.retried.is_set():
            self.produced += 1
            if self.produced == 2:
                self.error = EndTxnAnswer.unpack_from(self.proxy.deliver())[2]
                self.delivered.set()
        return True


@pytest.mark.fault(
    "late-end-of-transaction",
    title="A delayed end-of-transaction request arrives during a later transaction",
    provoked="a proxy kept EndTxn of one transaction back, cut the client, and delivered it between the records of the "
    "next transaction",
    holds="the request is refused, since the producer was replaced and its epoch raised; nothing is torn",
    faults_row=29,
)
def test_an_end_of_transaction_that_comes_late_ends_nothing(
    installation: tuple[KafkaProxy, LedgerInstallation], seen: Callable[[str], None]
) -> None:
    proxy, ledger = installation
    late = LateEndOfTransaction(proxy, f"{ledger.settings.app_id}-0")
    worker = ledger.ready_worker()
    ledger.send(InputKind.PURCHASE, purchases("before", 3))
    ledger.wait_until_booked()
    proxy.rule = late.rule
    ledger.send(InputKind.PURCHASE, purchases("kept", 2))
    assert late.retried.wait(WAIT_S), worker.said
    ledger.send(InputKind.PURCHASE, purchases("next", 5))
    until(lambda: late.delivered.is_set() or worker.process.poll() is not None, WAIT_S, f"the late request: {late}")
    ledger.wait_until_booked()
    report = ledger.report()
    assert report.ok, report.differences
    assert worker.process.poll() is None, worker.said
    assert late.error in FENCED
    assert "is restored" in worker.said
    seen(f"Kafka refused the late request (error {late.error}); {report.entries} entries, no difference")


def purchases(name: str, count: int) -> Iterator[Fields]:
    """Each of an org of its own."""
    for number in range(count):
        yield purchase(f"{name}-{number}", f"org-{name}-{number}", NANOS)
