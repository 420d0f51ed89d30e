"""Parts of `credits up` that hang at the start do not keep the others from their work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from streams.errors import OperatorError
from streams.kafka import topics_admin
from streams.local.system import LocalSystem, Part
from tests.brokers import test_settings

READY = "print('ready: x', flush=True)\n"
HANGS = "import time; time.sleep(60)"
START_S = 3.0


class System(LocalSystem):
    """Its parts are small programs: those in `hanging` never become ready."""

    hanging: frozenset[str] = frozenset()

    def _launch(self, name: str, *, quiet: bool = False) -> None:
        code = HANGS if name in self.hanging else READY + HANGS
        self.parts[name] = Part(name, [sys.executable, "-c", code], {}, self._step, quiet=quiet)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(topics_admin, "apply", lambda settings: None)
    return []


def system(folder: Path, steps: list[str], *hanging: str) -> System:
    settings = test_settings(folder / "data", kafka_bootstrap_servers="127.0.0.1:1")
    made = System(settings, workers=1, say=steps.append)
    made.hanging = frozenset(hanging)
    return made


def test_a_serve_that_hangs_leaves_the_worker_at_work(tmp_path: Path, steps: list[str]) -> None:
    made = system(tmp_path, steps, "serve")
    try:
        made.start(START_S)
        assert all(part.status is None for part in made.parts.values())
        assert any("serve: not ready yet; everything else goes on" in step for step in steps)
    finally:
        made.stop(1)


def test_without_a_worker_nothing_is_started(tmp_path: Path, steps: list[str]) -> None:
    with pytest.raises(OperatorError, match="did not become ready in time"):
        system(tmp_path, steps, "worker-1").start(START_S)
