"""One real Apache Kafka on this machine, for development, the demo and the tests.

The rules of this file:
1. The jars come from Maven once, into a cache of the user's that every installation shares; data is per data folder.
2. Storage is formatted once. The data is durable: stopping, killing and starting again keeps every record.
3. One broker a data folder. One that already runs there is used, and stopped only by who owns it.
4. Started means: it answers, and its cluster id is that of this data folder. Another program on the port is an error.
5. The broker does not share the terminal's Ctrl-C: workers must be able to commit while they leave.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streams.data_folder import prepare
from streams.errors import OperatorError

if TYPE_CHECKING:
    from streams.settings import Settings

POM = Path(__file__).with_name("pom.xml")
JAVA_MAJOR_MIN = 17
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
MAVEN_TIMEOUT_S = 600.0
POLL_S = 0.05
RECORD_BYTES_MAX = 8 * 1024 * 1024
TRANSACTION_TIMEOUT_MS_MAX = 60_000
"""Kafka Streams asks for 10 s, librdkafka and Java's producer for 60 s."""

THREE_WAYS = (
    "install Java 17 and Maven (apt install openjdk-17-jre-headless maven), or set CREDITS_KAFKA_BOOTSTRAP_SERVERS "
    "to a Kafka that runs, or use `docker compose up`"
)

Progress = Callable[[str], None]


class BrokerError(OperatorError):
    """The local broker cannot be had; the message says what to do."""

    code = "broker_error"


@dataclass(frozen=True)
class Running:
    """What is known of a broker process: who started it, where it listens."""

    pid: int
    started: str
    port: int
    owner_pid: int
    owner_started: str


def find_java() -> str:
    """The path of a Java of version 17 or later; raises `BrokerError` when there is none."""
    home = os.environ.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin" / "java")] if home else []
    on_path = shutil.which("java")
    if on_path:
        candidates.append(on_path)
    found = "none"
    for java in candidates:
        major = java_major(java)
        if major is not None and major >= JAVA_MAJOR_MIN:
            return java
        found = f"version {major}" if major is not None else f"{java}, which does not run"
    raise BrokerError(f"a local Kafka needs Java {JAVA_MAJOR_MIN} or later (found: {found})", THREE_WAYS)


def java_major(java: str) -> int | None:
    """The major version of a Java program, or None when it does not run."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    for word in answer.split():
        if word.startswith('"'):
            parts = word.strip('"').replace("-", ".").split(".")
            major = parts[1] if parts[0] == "1" and len(parts) > 1 else parts[0]
            return int(major) if major.isdigit() else None
    return None


def kafka_version() -> str:
    """The version of Kafka that the pom names."""
    found = ElementTree.parse(POM).getroot().findtext("{*}properties/{*}kafka.version")
    assert found is not None, "the pom names kafka.version"
    return found


def jars_dir() -> Path:
    """Where the jars of this pom lie: in the user's cache, by version and by the pom's content."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    content = hashlib.sha256(POM.read_bytes()).hexdigest()[:8]
    return Path(cache) / "credits-ledger" / "kafka" / f"{kafka_version()}-{content}"


def fetch_jars(progress: Progress) -> Path:
    """Have Maven fetch the jars, unless they are there; returns their folder.

    They are copied into a temporary folder that is renamed when it is whole: an interrupted fetch leaves nothing
    that a later start could take for complete, and two fetches at once do not disturb each other.
    """
    target = jars_dir()
    if target.is_dir():
        return target
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError("Maven (mvn) is needed once, to fetch Apache Kafka", THREE_WAYS)
    progress(f"fetching Apache Kafka {kafka_version()} with Maven (once)")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
    try:
        command = [maven, "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        command.append(f"-DoutputDirectory={partial}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=MAVEN_TIMEOUT_S, check=False)
        if done.returncode != 0:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line] or ["no message"]
            raise BrokerError(
                f"Maven could not fetch Apache Kafka: {lines[0].removeprefix('[ERROR] ')[:300]}",
                "check the network or Maven's settings, or set CREDITS_KAFKA_BOOTSTRAP_SERVERS",
            )
        try:
            partial.rename(target)
        except OSError as error:  # another process was faster: its folder is as good
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    except subprocess.TimeoutExpired:
        raise BrokerError(f"Maven did not finish within {MAVEN_TIMEOUT_S:.0f} s", "check the network") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


class LocalBroker:
    """The broker of one data folder.

    `start` returns when it answers, `stop` when its process is gone. `properties` are added to `server.properties`.
    `progress` gets the steps that take time. With `dies_with_parent` the broker is killed when the thread that
    started it ends, even by kill -9 (where the system has `setpriv`): for tests, which must leave nothing behind.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        progress: Progress | None = None,
        properties: Mapping[str, str | int] | None = None,
        dies_with_parent: bool = False,
    ) -> None:
        self.port = settings.broker_port
        self.heap_mib = settings.broker_heap_mib
        self.jit = settings.broker_jit
        self.home = (settings.data_dir / "kafka").absolute()
        self.log_path = self.home / "broker.log"
        self._progress: Progress = progress or (lambda _: None)
        self.properties = dict(properties or {})
        self.format_arguments: list[str] = []
        """More of them for the one formatting, such as `--add-scram` and a user."""
        self._dies_with_parent = dies_with_parent
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id of the broker that runs on this data folder."""
        running = self.running()
        return None if running is None else running.pid

    def running(self) -> Running | None:
        """The broker that runs on this data folder, started by any process; None when there is none."""
        try:
            known = Running(**json.loads((self.home / "broker.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return known if _process_started(known.pid) == known.started else None

    def start(self, timeout_s: float = START_TIMEOUT_S) -> bool:
        """Start the broker and wait until it answers; False when a running one was found and is used as it is.

        Raises `BrokerError`: no Java or Maven, the port is taken, the broker ended or did not answer in time.
        """
        prepare(self.home.parent)
        self.home.mkdir(parents=True, exist_ok=True)
        with self._lock(timeout_s):
            running = self.running()
            if running is not None:
                self.port = running.port
                self._wait_until_it_answers(time.monotonic() + timeout_s)
                if _process_started(running.owner_pid) != running.owner_started:
                    self._remember(running.pid, running.port)
                return False
            self._launch(timeout_s)
        return True

    def owned(self) -> bool:
        """Whether this process is the one that has to stop the broker."""
        running = self.running()
        return running is not None and running.owner_pid == os.getpid()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Ask the broker to end, and wait; a broker that does not within `timeout_s` is killed (nothing is lost)."""
        self._end(signal.SIGTERM, timeout_s)

    def kill(self) -> None:
        """End the broker as a power cut of the process would (SIGKILL), and wait until it is gone."""
        self._end(signal.SIGKILL, STOP_TIMEOUT_S)

    def _launch(self, timeout_s: float) -> None:
        """1. check Java and the port; 2. fetch jars; 3. format once; 4. start; 5. wait for an answer."""
        java = find_java()
        if _port_answers(self.port):
            raise BrokerError(
                f"port {self.port} is taken by another program",
                f"set CREDITS_BROKER_PORT to a free one, or CREDITS_KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:{self.port} "
                "if that is the Kafka to use",
            )
        jars = fetch_jars(self._progress)
        self._write_properties()
        self._format_once(java, jars)
        self._progress(f"starting Apache Kafka {kafka_version()} on port {self.port}")
        with self.log_path.open("ab") as log:
            self._child = subprocess.Popen(
                [*self._tie(), *self._java(java, jars), "kafka.Kafka", str(self.home / "server.properties")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                start_new_session=True,
            )
        self._remember(self._child.pid, self.port)
        try:
            self._wait_until_it_answers(time.monotonic() + timeout_s)
        except BaseException:
            self.kill()
            raise

    def _tie(self) -> list[str]:
        setpriv = shutil.which("setpriv") if self._dies_with_parent else None
        return [] if setpriv is None else [setpriv, "--pdeathsig", "KILL", "--"]

    def _java(self, java: str, jars: Path) -> list[str]:
        quiet = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true"]
        quiet.append("-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS")
        # Half of the heap for what is new: under load a pause of 20 ms every six seconds, not every one.
        heap = [f"-Xmx{self.heap_mib}m", f"-Xmn{self.heap_mib // 2}m", "-XX:+UseSerialGC"]
        # The optimising compiler takes most of a core for two minutes: too much where the whole run takes one.
        compiler = ["-XX:TieredStopAtLevel=1"] if self.jit == "quick" else []
        return [java, *heap, "-XX:+ExitOnOutOfMemoryError", *compiler, *quiet, "-cp", f"{jars}/*"]

    def _write_properties(self) -> None:
        controller_port = _free_port()
        properties: dict[str, str | int] = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
            "log.dirs": str(self.home / "data"),
            "auto.create.topics.enable": "false",
            "message.max.bytes": RECORD_BYTES_MAX,
            "replica.fetch.max.bytes": RECORD_BYTES_MAX,
            "offsets.topic.replication.factor": 1,
            # As long as alerts are kept: a subscriber that is away for so long still goes on where it was.
            "offsets.retention.minutes": 90 * 24 * 60,
            "offsets.topic.num.partitions": 8,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 8,
            # A fifth of the broker's time: it asks once more, for each topic of a transaction, whether that is still
            # open. Ours end only when all their records are acknowledged, and a writer that was given up on is fenced
            # by its epoch, so that no record can come after the end.
            "transaction.partition.verification.enable": "false",
            # Who leaves a transaction open holds back every reader of its partitions: not for 15 minutes.
            "transaction.max.timeout.ms": TRANSACTION_TIMEOUT_MS_MAX,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            # One broker for one developer: members need not wait for others that may still start.
            "group.initial.rebalance.delay.ms": 0,
            # After kill -9 the broker must wait until its former registration expires; 9 s is meant for a cluster.
            "broker.session.timeout.ms": 4_000,
            "broker.heartbeat.interval.ms": 1_000,
            "log.cleaner.dedupe.buffer.size": 32 * 1024 * 1024,
            # Unbounded, compaction takes a core for three seconds of every fifteen under load, and everything waits.
            "log.cleaner.io.max.bytes.per.second": 8 * 1024 * 1024,
            "num.network.threads": 2,
            "num.io.threads": 4,
            **self.properties,
        }
        text = "".join(f"{key}={value}\n" for key, value in properties.items())
        (self.home / "server.properties").write_text(text)

    def _format_once(self, java: str, jars: Path) -> None:
        if self._cluster_id() is not None:
            return
        cluster_id = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=").replace("-", "A")
        command = [*self._java(java, jars), "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        command += ["-t", cluster_id, "-c", str(self.home / "server.properties")]
        command += self.format_arguments
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise BrokerError(
                f"cannot format {self.home / 'data'}: {_error_line((done.stdout + done.stderr).splitlines())}",
                "check that the folder is writable and the disk has room, or set CREDITS_DATA_DIR",
            )

    def _cluster_id(self) -> str | None:
        try:
            lines = (self.home / "data" / "meta.properties").read_text().splitlines()
        except FileNotFoundError:
            return None
        return next((line.partition("=")[2] for line in lines if line.startswith("cluster.id=")), None)

    def _wait_until_it_answers(self, deadline: float) -> None:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        def ended() -> BrokerError:
            return BrokerError(f"the broker ended while starting: {self._last_lines()}", f"see {self.log_path}")

        while not _port_answers(self.port):
            if self.running() is None or (self._child is not None and self._child.poll() is not None):
                raise ended()
            if time.monotonic() > deadline:
                raise BrokerError("the broker did not open its port in time", f"see {self.log_path}")
            time.sleep(POLL_S)
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        while True:
            try:
                metadata = admin.list_topics(timeout=2)
            except KafkaException:
                metadata = None
            if metadata is not None and metadata.brokers:
                break
            if self.running() is None or (self._child is not None and self._child.poll() is not None):
                raise ended()
            if time.monotonic() > deadline:
                raise BrokerError("the broker did not answer in time", f"see {self.log_path}")
            time.sleep(POLL_S)
        if metadata.cluster_id != self._cluster_id():
            raise BrokerError(f"another Kafka answers on port {self.port}", "set CREDITS_BROKER_PORT to a free port")

    def _last_lines(self) -> str:
        try:
            lines = self.log_path.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "it logged nothing"
        return _error_line(lines)

    def _remember(self, pid: int, port: int) -> None:
        started, owner_started = _process_started(pid), _process_started(os.getpid())
        known = {"pid": pid, "started": started, "port": port}
        known |= {"owner_pid": os.getpid(), "owner_started": owner_started}
        partial = self.home / "broker.json.partial"
        partial.write_text(json.dumps(known))
        partial.replace(self.home / "broker.json")

    def _end(self, how: signal.Signals, timeout_s: float) -> None:
        running = self.running()
        child, self._child = self._child, None
        if running is not None:
            _signal(running.pid, how)
            deadline = time.monotonic() + timeout_s
            while _process_started(running.pid) == running.started:
                if child is not None and child.poll() is not None:
                    break
                if time.monotonic() > deadline:
                    _signal(running.pid, signal.SIGKILL)
                    deadline = time.monotonic() + STOP_TIMEOUT_S
                time.sleep(POLL_S)
            (self.home / "broker.json").unlink(missing_ok=True)
        if child is not None:
            child.wait(timeout=STOP_TIMEOUT_S)

    @contextmanager
    def _lock(self, timeout_s: float) -> Iterator[None]:
        """Only one process at a time starts the broker of a data folder; the others then find it running."""
        with (self.home / "start.lock").open("w") as lock:
            deadline = time.monotonic() + timeout_s
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise BrokerError("another process is starting this broker", "wait for it, or end it") from None
                    time.sleep(POLL_S)
            yield


def _error_line(lines: list[str]) -> str:
    """The line of a Java program's last words that says what went wrong."""
    error_lines = [line for line in lines[-200:] if "Exception" in line or "ERROR" in line or "rror:" in line]
    return (error_lines or lines or ["it printed nothing"])[-1].strip()[:300]


def _process_started(pid: int) -> str:
    """A mark of the process with this id that no later process with the same id shares; "" when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "" if Path("/proc/self/stat").exists() else _process_started_by_ps(pid)
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def _process_started_by_ps(pid: int) -> str:
    """The same where there is no /proc (macOS)."""
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _signal(pid: int, how: signal.Signals) -> None:
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return


def _port_answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
