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
from streams.local.broker import LocalBroker
from streams.settings import Settings
from tests.brokers import HEAP_MIB, free_port, test_settings
from tests.integration.engine.workers import until
from tests.integration.kafka_proxy import END_TXN, PRODUCE, KafkaProxy, Request
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
class LateRequest:
    """Keeps a request of a transaction, and delivers it when the first records of the next one are in the log."""

    proxy: KafkaProxy
    api_key: int
    transactional_id: str
    kept: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    delivered: threading.Event = field(default_factory=threading.Event)
    answer: bytes = b""
    produced: int = 0

    def rule(self, request: Request) -> bool:
        """See `Rule`. The client repeats what was kept; the transaction ends; the second records are of the next."""
        if not request.names(self.transactional_id) or self.delivered.is_set():
            return True
        if not self.kept.is_set():
            if request.api_key == self.api_key:
                self.kept.set()
            return request.api_key != self.api_key
        if request.api_key == END_TXN:
            self.ended.set()
        elif self.ended.is_set():
            self.produced += 1
            if self.produced == 2:
                self.answer = self.proxy.deliver()
                self.delivered.set()
        return True


@pytest.mark.fault(
    "late-request",
    title="A delayed end-of-transaction, or produce, request arrives during a later transaction",
    provoked="a proxy kept EndTxn (then Produce) of one transaction back, cut the client, and delivered it between the "
    "records of the next transaction",
    holds="the producer was replaced and its epoch raised, so the request has no effect; nothing is torn",
    faults_row=29,
)
@pytest.mark.parametrize("api_key", [END_TXN, pytest.param(PRODUCE, marks=pytest.mark.slow)])
def test_a_request_that_comes_late_has_no_effect(
    installation: tuple[KafkaProxy, LedgerInstallation], seen: Callable[[str], None], api_key: int
) -> None:
    proxy, ledger = installation
    late = LateRequest(proxy, api_key, f"{ledger.settings.app_id}-0")
    worker = ledger.ready_worker()
    ledger.send(InputKind.PURCHASE, purchases("before", 3))
    ledger.wait_until_booked()
    proxy.rule = late.rule
    ledger.send(InputKind.PURCHASE, purchases("kept", 2))
    assert late.ended.wait(WAIT_S), worker.output
    ledger.send(InputKind.PURCHASE, purchases("next", 5))
    until(lambda: late.delivered.is_set() or worker.process.poll() is not None, WAIT_S, "the late request")
    ledger.wait_until_booked()
    report = ledger.report()
    assert report.ok, report.differences
    assert worker.process.poll() is None, worker.output
    assert "is restored: a connection was lost during a transaction" in worker.output
    if api_key == END_TXN:
        assert EndTxnAnswer.unpack_from(late.answer)[2] in FENCED
    seen(f"the late request had no effect; {report.entries} entries and no difference")


def purchases(name: str, count: int) -> Iterator[Fields]:
    """Each of an org of its own."""
    for number in range(count):
        yield purchase(f"{name}-{number}", f"org-{name}-{number}", NANOS)
