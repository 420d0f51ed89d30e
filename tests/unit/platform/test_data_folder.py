"""The data folder is for its owner alone, and what is not ours is left alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.data_folder import prepare


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_is_closed(tmp_path: Path) -> None:
    folder = prepare(tmp_path / "a" / "b")
    (folder / "kafka").mkdir()
    (folder / "kafka" / "log").write_text("x")
    assert (mode(folder), mode(folder / "kafka"), mode(folder / "kafka" / "log")) == (0o700, 0o700, 0o600)


@pytest.mark.fault(
    "open-data-folder",
    title="a data folder that other users can read",
    provoked="folders of mode 755 and files of mode 644 in it, and a link out of it",
    holds="the folder and what is in it are closed; nothing outside is touched; one line says so",
)
def test_a_looser_folder_is_closed_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, seen: Callable[[str], None]
) -> None:
    folder, outside = tmp_path / "data", tmp_path / "outside"
    (folder / "kafka" / "data").mkdir(parents=True)
    (folder / "kafka" / "data" / "log").write_text("x")
    outside.write_text("x")
    (folder / "kafka" / "link").symlink_to(outside)
    prepare(folder)
    assert {mode(each) for each in folder.rglob("*") if each.is_dir()} == {0o700}
    assert mode(folder / "kafka" / "data" / "log") == 0o600
    assert mode(outside) == 0o644
    assert len(caplog.records) == 1
    assert "closed to them now" in caplog.text
    prepare(folder)
    assert len(caplog.records) == 1
    seen("folders had mode 700 and files 600; the file outside kept its mode; one line")


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """CREDITS_DATA_DIR=/tmp, or a home folder."""
    folder = tmp_path / "home"
    (folder / "letters").mkdir(parents=True)
    before = mode(folder)
    prepare(folder)
    assert (mode(folder), mode(folder / "letters")) == (before, 0o755)
    assert "also holds letters" in caplog.text
