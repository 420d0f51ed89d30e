"""The Makefile and `.ci/run`: what a newcomer and a check type first.

Run dry in a folder of their own, so that no test installs anything.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tidy.source import ROOT

TARGETS = (
    "install",
    "demo",
    "up",
    "bench",
    "check",
    "test",
    "test-all",
    "faults",
    "lint",
    "lock",
    "licences",
    "audit",
    "clean",
)


def make(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path or os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def installed(folder: Path) -> None:
    """As after an installation: an interpreter, and stamps newer than pyproject.toml."""
    (folder / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
    (folder / ".venv" / "bin" / "python").touch()
    for stamp in ("run.stamp", "dev.stamp"):
        (folder / ".venv" / stamp).touch()


@pytest.mark.parametrize("target", TARGETS)
def test_targets_are_there(checkout: Path, target: str) -> None:
    done = make(checkout, "-n", target)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", ["install", "demo", "up", "bench", "check", "test", "test-all", "faults", "lint"])
def test_each_does_its_own_set_up(checkout: Path, target: str) -> None:
    commands = make(checkout, "-n", target).stdout
    assert "-m venv .venv" in commands
    assert "pip install" in commands


def test_nothing_is_done_twice(checkout: Path) -> None:
    installed(checkout)
    assert "pip install" not in make(checkout, "-n", "test").stdout
    assert "venv .venv" not in make(checkout, "-n", "demo").stdout
    for name in ("pyproject.toml", "requirements/run.txt"):
        installed(checkout)
        os.utime(checkout / name, (4e9, 4e9))
        assert "pip install" in make(checkout, "-n", "test").stdout
        os.utime(checkout / name, (1e9, 1e9))


def test_every_package_is_installed_by_its_hashes(checkout: Path) -> None:
    """Nothing is fetched but what the locks name: not for the project, nor to build it."""
    for target in ("install", "test"):
        lines = [line for line in make(checkout, "-n", target).stdout.splitlines() if "pip install" in line]
        assert len(lines) == 2
        assert "--require-hashes --requirement requirements/" in lines[0]
        assert "--no-deps --no-build-isolation --editable ." in lines[1]


def test_the_default_run_leaves_out_what_is_slow_and_the_long_one_does_not(checkout: Path) -> None:
    installed(checkout)
    assert "-m pytest" in make(checkout, "-n", "test").stdout
    assert "-m 'slow or not slow'" in make(checkout, "-n", "test-all").stdout
    assert '"not slow"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_check_has_lint_types_quick_tests_and_one_on_a_broker(checkout: Path) -> None:
    installed(checkout)
    done = make(checkout, "-n", "check")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for tool in ("ruff check .", "ruff format --check .", "mypy"):
        assert sum(line.endswith(f"python -m {tool}") for line in lines) == 1, tool
    quick, on_a_broker = (line for line in lines if "-m pytest" in line)
    assert quick.split()[-3:] == ["tests/tidy", "tests/unit", "tests/contract"]
    (test,) = re.findall(r"'(tests/integration/\S+)'", on_a_broker)
    path, _, name = test.partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text(encoding="utf-8")


def test_one_part_that_fails_fails_the_check(checkout: Path) -> None:
    """And the others are run all the same."""
    installed(checkout)
    python = checkout / ".venv" / "bin" / "python"
    for failing in ("mypy", "tests/unit", "tests/integration"):
        calls = checkout / "told"
        calls.unlink(missing_ok=True)
        python.write_text(f'#!/bin/sh\necho "$@" >> {calls}\ncase "$*" in *{failing}*) exit 1;; esac\n')
        python.chmod(0o755)
        assert make(checkout, "check").returncode != 0, failing
        assert len(calls.read_text().splitlines()) == 5
    python.write_text("#!/bin/sh\n")
    assert make(checkout, "check").returncode == 0


def test_an_old_python_is_told_in_one_line(checkout: Path) -> None:
    tools = checkout / "tools"
    tools.mkdir()
    for name in ("bash", "sh", "echo"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    old = tools / "python3"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    make_itself = shutil.which("make")
    assert make_itself is not None
    (tools / "make").symlink_to(make_itself)
    done = make(checkout, "install", path=str(tools))
    assert done.returncode != 0
    assert "No Python 3.11 or newer found" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_whole_check_calls_lint_then_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert lines[-2:] == ["make lint", "make test"], "pytest's summary must be the last thing that is said"
