"""`credits` as a newcomer runs it: as processes, with a data folder, ports and an environment of its own."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.brokers import free_port

ROOT = Path(__file__).parents[2]
READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 120.0


@dataclass
class Installation:
    """One installation on this machine. Commands run in `folder`, where their files are."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    """What `up` has printed."""

    @classmethod
    def at(cls, folder: Path, **settings: object) -> Installation:
        """In an empty folder; `settings` as CREDITS_ variables without the prefix, in lower case."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        given = {"data_dir": folder / "data", "broker_port": free_port(), "http_port": free_port()}
        given |= {"broker_heap_mib": 512, "broker_jit": "quick", "session_timeout_ms": 6_000, **settings}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CREDITS_")}
        environment |= {f"CREDITS_{name.upper()}": str(value) for name, value in given.items()}
        environment |= {"PATH": path, "PYTHONUNBUFFERED": "1"}
        return cls(folder, environment)

    @property
    def http(self) -> str:
        """Where `serve` listens."""
        return f"http://127.0.0.1:{self.environment['CREDITS_HTTP_PORT']}"

    @property
    def output(self) -> str:
        """What `up` has printed."""
        return "".join(self.lines)

    def run(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run `credits` with these arguments; it must end with `status`, and never with a traceback."""
        return self._finished(["credits", *arguments], status)

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run lines of a shell, as they stand in a document; the first that fails ends them."""
        return self._finished(["bash", "-eu", "-o", "pipefail", "-c", script], 0)

    def json(self, *arguments: str, status: int = 0) -> Any:
        """The JSON document that a command prints."""
        return json.loads(self.run(*arguments, "--json", status=status).stdout)

    def _finished(self, command: list[str], status: int) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        shown = f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == status, shown
        assert "Traceback" not in done.stderr, shown
        return done

    @contextmanager
    def up(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """`credits up` until the end of the block; then Ctrl-C, and a clean end."""
        process = subprocess.Popen(
            ["credits", "up", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        lines = self.lines
        lines.clear()
        output: queue.SimpleQueue[str | None] = queue.SimpleQueue()

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                output.put(line)
            output.put(None)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            deadline = time.monotonic() + READY_TIMEOUT_S
            while (line := output.get(timeout=max(0.1, deadline - time.monotonic()))) is not None:
                if line.startswith("ready"):
                    break
            else:
                raise AssertionError("it has ended:\n" + "".join(lines[-60:]))
            yield process
            process.send_signal(signal.SIGINT)
            assert process.wait(STOP_TIMEOUT_S) == 0, "".join(lines[-40:])
        except (queue.Empty, subprocess.TimeoutExpired) as error:
            raise AssertionError("".join(lines[-60:])) from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            reader.join(timeout=5)


def until(what: str, condition: Any, timeout_s: float = 90.0) -> Any:
    """The first true answer of `condition`; it is asked again for `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what}: {answer!r}"
        time.sleep(0.1)
