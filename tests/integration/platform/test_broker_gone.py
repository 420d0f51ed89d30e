"""A broker that goes away in the middle of a command: the command ends in time, with one line and a status."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import projections.rebuild
import streams.client.dead_letters
import streams.verify.audit
from schemas.topics import Topics
from streams.cli import main
from streams.client import CreditsProducer
from streams.kafka import topics_admin
from streams.local.broker import LocalBroker
from streams.settings import Settings
from tests.brokers import local_broker

READ_TIMEOUT_S = 1.5
# What a command may take beyond it: starting, closing its clients, a machine with other work.
ENDS_WITHIN_S = 25.0
COMMANDS: dict[str, tuple[list[str], Any, str]] = {
    "verify": (["verify", "--no-clickhouse"], streams.verify.audit, "committed_ends"),
    "dead-letters": (["dead-letters", "list"], streams.client.dead_letters, "committed_ends"),
    "rebuild": (["rebuild", "--yes"], projections.rebuild, "_ends"),
    "balance": (["balance", "acme"], topics_admin, "connect"),
    "tail": (["tail", "ledger"], topics_admin, "connect"),
}


@pytest.fixture(scope="module")
def stopped_at_will(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A broker of this module's own, with topics and something in each that the commands read."""
    local = local_broker(tmp_path_factory.mktemp("gone"))
    local.start()
    try:
        topics_admin.apply(Settings(kafka_bootstrap_servers=local.bootstrap_servers, partitions=2))
        yield local
    finally:
        local.kill()


def fill(local: LocalBroker) -> None:
    """Records in every topic that is read: what they hold is not looked at before the broker is gone."""
    settings = Settings(kafka_bootstrap_servers=local.bootstrap_servers, partitions=2)
    with CreditsProducer(settings) as producer:
        for key in ("ledger", "dead_letters", "accounts", "balances"):
            producer.produce_raw(Topics().name(key), b"acme", b"x")


def run(
    name: str,
    how: Callable[[], None],
    local: LocalBroker,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[int, str, float]:
    """Status, last line and seconds of a command whose broker goes away between its question and its reading."""
    arguments, module, function = COMMANDS[name]
    asked = getattr(module, function)
    gone_s = 0.0

    def asks_and_loses_it(*given: Any, **named: Any) -> Any:
        nonlocal gone_s
        answer = asked(*given, **named)
        if not gone_s:
            how()
            gone_s = time.monotonic()
        return answer

    monkeypatch.setattr(module, function, asks_and_loses_it)
    for variable, value in (
        ("KAFKA_BOOTSTRAP_SERVERS", local.bootstrap_servers),
        ("PARTITIONS", "2"),
        ("DATA_DIR", str(folder)),
        ("READ_TIMEOUT_S", str(READ_TIMEOUT_S)),
    ):
        monkeypatch.setenv(f"CREDITS_{variable}", value)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    took_s = time.monotonic() - gone_s
    lines = capsys.readouterr().err.splitlines()
    assert gone_s, lines
    assert isinstance(ended.value.code, int)
    return ended.value.code, lines[-1], took_s


@pytest.mark.fault(
    "wait-without-end",
    title="A broker that stops in the middle of a command",
    provoked="SIGSTOP and SIGKILL of the broker between a command's first question and its reading: verify, "
    "dead-letters list, rebuild, balance, tail",
    holds="each ends within its time, with status 1 and one line that says what it waited for",
)
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("signal_name", ["SIGSTOP", pytest.param("SIGKILL", marks=pytest.mark.slow)])
def test_a_command_ends_when_its_broker_goes_away(
    stopped_at_will: LocalBroker,
    name: str,
    signal_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seen: Callable[[str], None],
) -> None:
    local = stopped_at_will
    if local.pid is None:
        local.start()
    fill(local)
    pid = local.pid
    assert pid is not None

    def go() -> None:
        os.kill(pid, getattr(signal, signal_name))

    try:
        status, line, took_s = run(name, go, local, tmp_path, monkeypatch, capsys)
    finally:
        if signal_name == "SIGSTOP":
            os.kill(pid, signal.SIGCONT)
    assert status == 1
    assert line.startswith("error: ")
    assert "Kafka" in line or "balances" in line
    assert took_s < ENDS_WITHIN_S
    seen(f"{name} ended {took_s:.0f} s after {signal_name}: {line[:80]}")
