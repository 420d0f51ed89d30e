"""No room on the disk (fault 9): what needs it stops without committing, and goes on when there is room.

A process may be forbidden to make a file longer than so many bytes, and be allowed again, while it runs. The write then
fails where it would fail on a full disk, and nothing else on the machine has to be filled up.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from schemas.amounts import NANOS
from schemas.enums import InputKind
from schemas.events import INPUTS
from streams.local.broker import LocalBroker
from streams.settings import Settings
from streams.verify.audit import audit
from streams.verify.clickhouse import ask_serve
from tests.brokers import free_port, test_settings
from tests.integration.engine.workers import until
from tests.integration.ledger.events import purchase
from tests.integration.ledger.installation import LedgerInstallation
from tests.integration.platform.serving import Serve, projected

SOON_S = 60.0


@contextmanager
def no_room(pid: int, file_bytes_max: int) -> Iterator[None]:
    """Meanwhile no file of the process grows beyond so many bytes."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (file_bytes_max, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


@pytest.mark.slow
@pytest.mark.fault(
    "disk-full-clickhouse",
    title="no room for ClickHouse in the data folder",
    provoked="no file of `serve` may grow, while 40 purchases are booked",
    holds="nothing of them is projected, the ledger goes on; when there is room, all is projected once",
    faults_row=9,
)
def test_the_projection_waits_for_room(settings: Settings, tmp_path: Path, seen: Callable[[str], None]) -> None:
    settings = settings.model_copy(update={"http_port": free_port()})
    installation = LedgerInstallation(settings, tmp_path)
    serve = Serve(settings, tmp_path)
    try:
        installation.send(InputKind.PURCHASE, [purchase("first", "acme", NANOS)])
        installation.ready_worker()
        until(lambda: projected(serve) == 1, SOON_S, "the first entry")
        with no_room(serve.process.pid, len(serve.output) + 4_096):
            installation.send(InputKind.PURCHASE, [purchase(f"p{n}", f"org-{n % 5}", NANOS) for n in range(40)])
            installation.wait_until_booked()
            until(lambda: "Not written, trying again" in serve.output, SOON_S, "a write that fails")
            waiting = projected(serve)
            assert waiting in (0, 1)  # 0: it cannot be asked either
        until(lambda: projected(serve) == 41, SOON_S, "the rest")
        report = audit(settings, clickhouse=ask_serve(serve.address, tmp_path))
        assert report.ok, report.differences
        assert serve.process.poll() is None, serve.output
        assert "Traceback" not in serve.output
    finally:
        serve.process.kill()
        installation.stop()
    seen("the ledger booked all; `serve` tried again until there was room; the audit found no difference")


@pytest.mark.slow
@pytest.mark.fault(
    "disk-full-kafka",
    title="no room for the broker's log",
    provoked="no file of the broker may grow, while purchases are sent; then it is started again with room",
    holds="nothing is committed that is not whole; when there is room, everything sent is booked once",
    faults_row=9,
)
def test_the_ledger_waits_for_a_broker_without_room(
    own_broker: Callable[..., LocalBroker], namespace: str, tmp_path: Path, seen: Callable[[str], None]
) -> None:
    broker = own_broker()
    broker.start()
    settings = test_settings(
        tmp_path,
        kafka_bootstrap_servers=broker.bootstrap_servers,
        namespace=namespace,
        partitions=2,
        session_timeout_ms=6_000,
    )
    with LedgerInstallation(settings, tmp_path) as installation:
        worker = installation.ready_worker()
        installation.send(InputKind.PURCHASE, [purchase(f"a{n}", f"org-{n % 5}", NANOS) for n in range(20)])
        installation.wait_until_booked()
        assert broker.pid is not None
        with no_room(broker.pid, 1):
            for number in range(20):
                record = INPUTS[InputKind.PURCHASE].from_record(purchase(f"b{number}", "acme", NANOS))
                installation.producer.produce(InputKind.PURCHASE, record)
            until(lambda: broker.pid is None, SOON_S, "a broker that stops")
        broker.start()
        installation.producer.flush()
        installation.sent += 20
        installation.wait_until_booked()
        report = installation.report()
        assert report.ok, report.differences
        assert worker.process.poll() is None, worker.output
    seen("the broker stopped at the first write; started again, it had every purchase booked once")
