"""All parts on one machine, as processes of their own: what `credits up` and `credits demo` run.

The rules of this file:
1. Order of starting: broker, topics, `serve`, workers. Order of stopping: workers (they commit), `serve`, broker.
2. Parts fall alone. A part that ends by itself is started again at once, `RESTARTS_MAX` times within
   `RESTARTS_WINDOW_S`, counted for each part by itself. After that, or when it cannot start, it is down: that is said
   once, with its own last error, and it is tried again with growing pauses; its lines are left out until it is ready.
3. What others cannot go on without ends everything: the broker, when it keeps ending; and at the start the workers,
   when none can start, because nothing would be booked.
4. All parts get the same settings, through the environment. They end when this process ends, however it does.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pydantic import SecretStr

from streams.data_folder import prepare
from streams.errors import OperatorError
from streams.local.broker import LocalBroker
from streams.local.parent import PARENT_VARIABLE

if TYPE_CHECKING:
    from streams.settings import Settings

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 25.0
# After a failed start: nothing was taken yet that a part would have to finish.
GIVE_UP_TIMEOUT_S = 5.0
WATCH_S = 0.1
RESTARTS_MAX = 3
RESTARTS_WINDOW_S = 60.0
DOWN_PAUSE_FIRST_S = 2.0
DOWN_PAUSE_MAX_S = 60.0
LAST_LINES = 20

# Not any `ready`: a client complains of a node that is not ready.
READY = re.compile(r"^ready: |\bWorker is ready\b|\"event\": \"ready\"")
ADDRESS = re.compile(r"https?://[^\s\"]+")
ERROR = re.compile(r"(?:^|\")error: ([^\"]+)")
STYLE = re.compile(r"\x1b\[[0-9;]*m")

Say = Callable[[str], None]


class Part:
    """One process of the system; its lines are handed to `say` with its name in front."""

    def __init__(
        self, name: str, command: list[str], environment: Mapping[str, str], say: Say, *, quiet: bool = False
    ) -> None:
        """`quiet`: its lines are not handed on before it is ready."""
        self.name = name
        self._quiet = quiet
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self.ready = threading.Event()
        self.ready_line = ""
        self.reported = False
        """Whether its end has been dealt with."""
        self._say = say
        self._process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us alone: we stop the parts in order
        )
        self._reader = threading.Thread(target=self._read, name=f"{name} lines", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.poll()

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self.status is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, deadline: float) -> None:
        """Wait for its end; kill it when `deadline` (monotonic seconds) has passed."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._say(f"{self.name} | did not stop in time, killed")
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=1)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip()
            self.last_lines.append(STYLE.sub("", line))
            if not self._quiet or self.ready.is_set() or READY.search(self.last_lines[-1]):
                self._say(f"{self.name} | {line}")
            if not self.ready.is_set() and READY.search(self.last_lines[-1]):
                self.ready_line = self.last_lines[-1]
                self.ready.set()


class Endings:
    """How often a part has ended lately, and whether it is down. Times are monotonic seconds, given by the caller."""

    def __init__(self) -> None:
        self._ended_at: deque[float] = deque()
        self.problem: str | None = None
        """Why it is down; None when it is not."""
        self._pause_s = DOWN_PAUSE_FIRST_S
        self.retry_at_s = 0.0

    def too_many(self, now_s: float) -> bool:
        """Count one end; whether these are more than may be answered by starting it again at once."""
        while self._ended_at and now_s - self._ended_at[0] > RESTARTS_WINDOW_S:
            self._ended_at.popleft()
        self._ended_at.append(now_s)
        return len(self._ended_at) > RESTARTS_MAX

    def down(self, problem: str, now_s: float) -> bool:
        """It is down for this reason, and tried again later; whether that is news."""
        news = problem != self.problem
        self._pause_s = DOWN_PAUSE_FIRST_S if self.problem is None else min(2 * self._pause_s, DOWN_PAUSE_MAX_S)
        self.problem = problem
        self.retry_at_s = now_s + self._pause_s
        return news

    def up(self) -> None:
        """It is ready again."""
        self.problem = None


class LocalSystem:
    """A broker (unless one is given), `serve` and workers.

    `say` gets every line of every part; `step` the steps of starting. Use as a context manager, or call `stop`.
    """

    def __init__(
        self, settings: Settings, *, workers: int = 1, say: Say, step: Say | None = None, keys: bool = False
    ) -> None:
        """`keys`: HTTP asks for API keys; it always does where it listens beyond this machine."""
        self.workers = workers
        self._asks_for_keys = keys or not settings.http_on_loopback
        self.broker: LocalBroker | None = None
        self.parts: dict[str, Part] = {}
        self._given = settings
        self._say = say
        self._step = step or say
        self._endings: dict[str, Endings] = {}
        self._claim: TextIO | None = None

    @property
    def settings(self) -> Settings:
        """The settings that clients of this system use: as given, with the broker's address."""
        if self.broker is None:
            return self._given
        return self._given.model_copy(
            update={
                "kafka_bootstrap_servers": self.broker.bootstrap_servers,
                "data_dir": self._given.data_dir.absolute(),
            }
        )

    @property
    def http_address(self) -> str:
        """Where `serve` answers, as it says itself; empty before it is ready."""
        serve = self.parts.get("serve")
        found = ADDRESS.search(serve.ready_line) if serve is not None else None
        return found.group() if found is not None else ""

    def __enter__(self) -> LocalSystem:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, timeout_s: float = READY_TIMEOUT_S, *, all_parts: bool = False) -> None:
        """Start everything; returns when events are taken. Raises `OperatorError`, and has stopped everything then.

        A part that cannot start is down from then on, and one that is not ready in time is left to itself, unless that
        is every worker, or `all_parts` are needed.
        """
        from streams.kafka import topics_admin
        from streams.kafka.key_topic import check_keys_file

        check_keys_file(self._given)
        self._claim_folder()
        try:
            if self._given.kafka_bootstrap_servers is None:
                self.broker = LocalBroker(self._given, progress=self._step)
                if not self.broker.start():
                    self._step(f"using the Kafka that runs at {self.broker.bootstrap_servers}")
            topics_admin.apply(self.settings)
            self._make_first_key()
            self._step(f"starting serve and {self.workers} worker{'s' if self.workers != 1 else ''}")
            for name in self.names():
                self._launch(name)
            self._wait_until_ready(time.monotonic() + timeout_s, all_parts=all_parts)
        except BaseException:
            self.stop(GIVE_UP_TIMEOUT_S)
            raise

    def _make_first_key(self) -> None:
        """The first key, shown once: it cannot be read again."""
        from streams.kafka.key_topic import first_admin_key

        token = first_admin_key(self.settings) if self._asks_for_keys else None
        if token is not None:
            self._step(f"the first admin key, shown this once: {token}")

    def names(self) -> list[str]:
        """The parts, in the order of starting."""
        return ["serve", *(f"worker-{number}" for number in range(1, self.workers + 1))]

    @property
    def down(self) -> dict[str, str]:
        """The parts that are down, and why."""
        return {name: each.problem for name, each in self._endings.items() if each.problem is not None}

    def watch(self) -> None:
        """Look after the parts once: start again what ended. Raises `OperatorError` when the broker keeps ending."""
        now_s = time.monotonic()
        if self.broker is not None and self.broker.pid is None:
            if self._ending("broker").too_many(now_s):
                raise OperatorError(
                    f"the broker keeps ending (more than {RESTARTS_MAX} ends in a minute)",
                    f"see {self.broker.log_path}",
                )
            self._step("the broker ended; starting it again")
            self.broker.start()
        for name, part in list(self.parts.items()):
            endings = self._ending(name)
            if part.status is None:
                if endings.problem is not None and part.ready.is_set():
                    endings.up()
                    self._step(f"{name} is back")
            elif endings.problem is not None and now_s < endings.retry_at_s:
                continue
            elif part.reported:
                self._launch(name, quiet=endings.problem is not None)
            elif part.ready.is_set() and not endings.too_many(now_s):
                self._step(f"{name} ended with status {part.status}; starting it again")
                self._launch(name)
            else:
                self._is_down(name, part, now_s)

    def _ending(self, name: str) -> Endings:
        return self._endings.setdefault(name, Endings())

    def _is_down(self, name: str, part: Part, now_s: float) -> None:
        """Say once why a part is down; it is tried again when its pause has passed."""
        part.reported = True
        part.wait(now_s + 1)
        if self._ending(name).down(problem_of(part), now_s):
            self._step(f"{name} is down: {problem_of(part)}; everything else goes on, and it is tried again by itself")

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop everything in order; what does not end in time is killed. Nothing that was committed is lost."""
        workers = [part for name, part in self.parts.items() if name != "serve"]
        rest = [part for name, part in self.parts.items() if name == "serve"]
        for group in (workers, rest):
            deadline = time.monotonic() + timeout_s
            for part in group:
                part.ask_to_stop()
            for part in group:
                part.wait(deadline)
        self.parts.clear()
        if self.broker is not None and self.broker.owned():
            self.broker.stop()
        self._let_go()

    def kill(self) -> None:
        """End everything at once (SIGKILL)."""
        for part in self.parts.values():
            part.wait(0.0)
        self.parts.clear()
        if self.broker is not None and self.broker.owned():
            self.broker.kill()
        self._let_go()

    def _let_go(self) -> None:
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def _claim_folder(self) -> None:
        """One system a data folder: two would have workers of the same names, and one ClickHouse folder."""
        folder = self._given.data_dir
        prepare(folder)
        claim = (folder / "up.lock").open("a+")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go of when this process ends, however it does
        except BlockingIOError as error:
            with claim:
                claim.seek(0)
                pid = claim.read().strip() or "unknown"
            raise OperatorError(
                f"everything runs already on {folder.absolute()} (process {pid})", "use it, or set CREDITS_DATA_DIR"
            ) from error
        claim.truncate(0)
        claim.write(str(os.getpid()))
        claim.flush()
        self._claim = claim

    def _launch(self, name: str, *, quiet: bool = False) -> None:
        command = [sys.executable, "-m", "streams", name.partition("-")[0]]
        environment = self._environment()
        if name != "serve":
            environment["CREDITS_WORKER_NAME"] = self._worker_name(name)
        self.parts[name] = Part(name, command, environment, self._say, quiet=quiet)

    def _worker_name(self, name: str) -> str:
        """The same at every start, and of no other folder: one `up` at a time uses a data folder."""
        folder = zlib.crc32(str(self._given.data_dir.absolute()).encode())
        return f"{socket.gethostname()}-{folder:08x}-{name}"

    def _environment(self) -> dict[str, str]:
        """This process's environment with the settings in force: a child must not read another `.env`."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CREDITS_")}
        for name, value in self.settings.model_dump(exclude_none=True).items():
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            environment[f"CREDITS_{name.upper()}"] = text
        environment[PARENT_VARIABLE] = str(os.getpid())
        environment["PYTHONUNBUFFERED"] = "1"
        root = str(Path(__file__).parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        return environment

    def _wait_until_ready(self, deadline: float, *, all_parts: bool) -> None:
        """Return when each part is ready or down, and at least one worker is ready."""
        while waiting := [name for name, part in self.parts.items() if not part.ready.is_set() and not part.reported]:
            for name in waiting:
                part = self.parts[name]
                if part.status is not None:
                    others = [
                        each for each in self.names() if each != "serve" and each not in self.down and each != name
                    ]
                    if all_parts or (name != "serve" and not others):
                        raise _failed(name, part)
                    self._is_down(name, part, time.monotonic())
            if time.monotonic() > deadline:
                if all_parts or not any(part.ready.is_set() for name, part in self.parts.items() if name != "serve"):
                    raise OperatorError(f"{', '.join(waiting)} did not become ready in time", "look at the lines above")
                self._step(f"{', '.join(waiting)}: not ready yet; everything else goes on")
                return
            time.sleep(WATCH_S)


def problem_of(part: Part) -> str:
    """Why a part has ended, in its own words: its error, else its last line."""
    lines = [line for line in part.last_lines if line.strip()]
    # In a line of its own, or as a field of a JSON line.
    error = next((found[1] for line in reversed(lines) if (found := ERROR.search(line))), None)
    status = part.status
    how = f"killed by signal {-status}" if status is not None and status < 0 else f"status {status}"
    return f"{error or (lines[-1] if lines else 'it printed nothing')} ({how})"


def _failed(name: str, part: Part) -> OperatorError:
    part.wait(time.monotonic() + 1)
    return OperatorError(f"{name} could not start: {problem_of(part)}")
