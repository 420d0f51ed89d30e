"""`credits up`: everything in the foreground; state outlives Ctrl-C and kill -9."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from streams.client import committed_ends
from streams.local.broker import LocalBroker
from streams.settings import Settings
from tests.brokers import HEAP_MIB, free_port, test_settings

START_S = 120.0
END_S = 60.0
BACK_S = 25.0
BALANCES = "credits.balances.v1"
LONG_SESSION_MS = 60_000


class Up:
    """One run of the command, its lines kept."""

    def __init__(self, settings: Settings, environment: dict[str, str]) -> None:
        self.settings = settings
        self.lines: list[str] = []
        self.ready = threading.Event()
        command = [sys.executable, "-m", "streams", "up"]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            if line.startswith("ready"):
                self.ready.set()

    def wait_until_ready(self) -> None:
        """Fails with what was said when it does not get ready."""
        deadline = time.monotonic() + START_S
        while not self.ready.wait(0.2):
            assert self.process.poll() is None, "\n".join(self.lines[-30:])
            assert time.monotonic() < deadline, "\n".join(self.lines[-30:])

    def family(self) -> list[psutil.Process]:
        """The processes that it has started, but for the broker."""
        return [each for each in psutil.Process(self.process.pid).children() if "kafka.Kafka" not in each.cmdline()]

    def interrupt(self) -> int:
        """Ctrl-C, and the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(END_S)


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[tuple[Settings, dict[str, str]]]:
    """An installation with a broker of its own, and the environment that names it."""
    settings = test_settings(
        tmp_path,
        broker_port=free_port(),
        http_port=free_port(),
        broker_heap_mib=HEAP_MIB,
        broker_jit="quick",
        partitions=2,
        session_timeout_ms=LONG_SESSION_MS,
    )
    named = (
        "data_dir",
        "broker_port",
        "http_port",
        "broker_heap_mib",
        "broker_jit",
        "partitions",
        "session_timeout_ms",
    )
    yield settings, {**os.environ, **{f"CREDITS_{name.upper()}": str(getattr(settings, name)) for name in named}}
    LocalBroker(settings).kill()


def credits(environment: dict[str, str], *arguments: str) -> str:
    """Run another command of the installation; its standard output."""
    command = [sys.executable, "-m", "streams", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def settled(settings: Settings) -> str | None:
    """The settled balance of acme by HTTP, None when there is none."""
    answer = httpx.get(f"http://127.0.0.1:{settings.http_port}/v1/orgs/acme/balance", timeout=20, trust_env=False)
    if answer.status_code == 404:
        return None
    amount: str = answer.json()["wallets"][0]["settled"]
    return amount


def wait_until_settled(settings: Settings, amount: str, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while settled(settings) != amount:
        assert time.monotonic() < deadline, settled(settings)
        time.sleep(0.1)


def write_lines(path: Path, *records: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def wait_until_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=END_S)
    assert alive == []


def test_everything_runs_and_state_outlives_every_end(
    installation: tuple[Settings, dict[str, str]], tmp_path: Path
) -> None:
    settings, environment = installation
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    purchase = {"purchase_id": "p1", "org_id": "acme", "occurred_at": now, "wallet": "USD", "amount": "100"}
    usage = {"org_id": "acme", "occurred_at": now, "operation": "x", "wallet": "USD"}

    first = Up(settings, environment)
    first.wait_until_ready()
    credits(environment, "produce", "purchase", "--file", write_lines(tmp_path / "p.jsonl", purchase))
    wait_until_settled(settings, "100")
    worker = next(each for each in first.family() if "worker" in each.cmdline())
    worker.kill()
    usages = [{**usage, "event_id": "u1", "cost": "1.5"}, {**usage, "event_id": "u2", "cost": "0.25"}]
    credits(environment, "produce", "usage", "--file", write_lines(tmp_path / "u.jsonl", *usages))
    # It comes back under its name: nothing waits for the end of the dead one's session.
    wait_until_settled(settings, "98.25", within_s=BACK_S)
    family = first.family()
    assert first.interrupt() == 0, first.lines[-5:]
    wait_until_gone(family)
    assert LocalBroker(settings).pid is None
    assert any(line.startswith("worker-1 ended") for line in first.lines)
    assert not [line for line in first.lines if "Traceback" in line]

    second = Up(settings, environment)
    second.wait_until_ready()
    assert settled(settings) == "98.25"
    beside = Up(settings, environment)
    assert beside.process.wait(END_S) == 1
    assert beside.lines == [beside.lines[-1]]
    assert "everything runs already" in beside.lines[-1]
    assert str(second.process.pid) in beside.lines[-1]
    checks = json.loads(credits(environment, "doctor", "--json"))["checks"]
    assert {each["name"]: each["verdict"] for each in checks if each["verdict"] != "ok"} == {}
    family = second.family()
    second.process.kill()
    wait_until_gone(family)
    broker_pid = LocalBroker(settings).pid
    assert broker_pid is not None, "a killed `up` leaves its broker to the next"

    third = Up(settings, environment)
    third.wait_until_ready()
    assert LocalBroker(settings).pid == broker_pid
    wait_until_settled(settings, "98.25")
    assert third.interrupt() == 0
    assert LocalBroker(settings).pid is None


def test_without_a_worker_nothing_is_left_running(installation: tuple[Settings, dict[str, str]]) -> None:
    settings, environment = installation
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        up = Up(settings, {**environment, "CREDITS_WORKER_METRICS_PORT": str(taken.getsockname()[1])})
        assert up.process.wait(START_S) == 1
    assert up.lines[-1].startswith("error: worker-1 could not start"), up.lines[-5:]
    assert "in use" in up.lines[-1]
    assert LocalBroker(settings).pid is None


def wait_for_line(up: Up, text: str, after: int = 0, within_s: float = 60.0) -> int:
    """The place behind the first line with this text from place `after` on."""
    deadline = time.monotonic() + within_s
    while True:
        for place, line in enumerate(up.lines[after:], start=after):
            if text in line:
                return place + 1
        assert up.process.poll() is None, up.lines[-10:]
        assert time.monotonic() < deadline, up.lines[-20:]
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.fault(
    "parts-fall-alone",
    title="A corrupt ClickHouse folder, and a `serve` that keeps dying",
    provoked="`credits up` on a chDB folder whose metadata was overwritten; then kill -9 of `serve` with its port "
    "taken by another program, then kill -9 of `serve` as soon as it runs again",
    holds="the ledger goes on; `serve` is said to be down once, with the remedy, and comes back by itself when that is "
    "done",
    faults_row=35,
)
def test_parts_fall_alone(
    installation: tuple[Settings, dict[str, str]], tmp_path: Path, seen: Callable[[str], None]
) -> None:
    settings, environment = installation
    # A killed projection keeps its place in the group for a session: the next one waits for that.
    environment = {**environment, "CREDITS_SESSION_TIMEOUT_MS": "6000"}
    metadata = settings.data_dir / "clickhouse" / "metadata"
    metadata.mkdir(parents=True)
    (metadata / "credits.sql").write_bytes(b"\x00rubbish\xff" * 10)
    up = Up(settings, environment)
    up.wait_until_ready()
    output = [line for line in up.lines if line.startswith("serve is down")]
    assert len(output) == 1, up.lines
    assert "is damaged" in output[0]
    assert "`credits rebuild`" in output[0]

    def buy(number: int) -> None:
        """The ledger books: told by Kafka, not by `serve`."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        purchase = {"purchase_id": f"p{number}", "org_id": "acme", "occurred_at": now, "wallet": "USD", "amount": "1"}
        credits(environment, "produce", "purchase", "--file", write_lines(tmp_path / "p.jsonl", purchase))
        deadline = time.monotonic() + BACK_S
        while True:
            done = json.loads(credits(environment, "balance", "acme", "--json")) if number > 1 or booked() else None
            if done is not None and done["wallets"][0]["settled"] == str(number):
                return
            assert time.monotonic() < deadline, done

    def booked() -> bool:
        ends = committed_ends(Settings(kafka_bootstrap_servers=f"127.0.0.1:{settings.broker_port}"), [BALANCES])
        return any(ends.values())

    buy(1)
    rebuilt = subprocess.run(
        [sys.executable, "-m", "streams", "rebuild", "--yes"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "set aside" in rebuilt.stderr
    place = wait_for_line(up, "serve is back")
    assert settled(settings) == "1"
    assert len([line for line in up.lines if line.startswith("serve is down")]) == 1

    def serve() -> psutil.Process:
        return next(each for each in up.family() if "serve" in each.cmdline())

    serve().kill()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            try:
                taken.bind(("127.0.0.1", settings.http_port))
                taken.listen()
                break
            except OSError:  # until the dead one is gone
                time.sleep(0.01)
        place = wait_for_line(up, "serve is down: cannot listen on", place)
        buy(2)
    place = wait_for_line(up, "serve is back", place)

    kills = 0
    deadline = time.monotonic() + 60
    while not any(line.startswith("serve is down: ") for line in up.lines[place:]):
        assert time.monotonic() < deadline, "\n".join(up.lines)
        with contextlib.suppress(StopIteration, psutil.NoSuchProcess):  # the next one is not there yet
            serve().kill()
            kills += 1
        time.sleep(0.2)
    place = wait_for_line(up, "serve is down: ", place)
    assert "killed by signal 9" in up.lines[place - 1]
    buy(3)
    wait_for_line(up, "serve is back", place)
    assert settled(settings) == "3"
    loose = [each for each in settings.data_dir.rglob("*") if not each.is_symlink() and each.stat().st_mode & 0o077]
    assert loose == [] or {each.name for each in loose} <= {"credits.sql", "metadata", "clickhouse.damaged"}
    assert up.interrupt() == 0, up.lines[-5:]
    seen(
        f"serve was down and came back three times ({kills} kills in the last); the ledger booked each time; "
        f"said: {output[0][:100]}…"
    )
