"""The Dockerfile and what goes into the image, checked without building it."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from typing import Any

import pytest

from tests.tidy.source import PACKAGES, ROOT, files

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_base_is_pinned_and_new_enough() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(bases) == 2
    for base in bases:
        version = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-\w+", base)
        assert version is not None, f"{base} is not pinned"
        assert (int(version[1]), int(version[2])) >= (3, 11)


def test_it_does_not_run_as_root() -> None:
    last_stage = DOCKERFILE.rpartition("FROM ")[2]
    assert re.search(r"^USER credits$", last_stage, re.MULTILINE)


def test_what_is_copied_is_sent_to_the_builder() -> None:
    """.dockerignore leaves out everything but what it names."""
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split() if line.startswith("!")}
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), f"COPY {source}: not there"
            assert source in sent, f".dockerignore keeps {source} from the builder"
    assert set(PACKAGES) <= sent


@pytest.mark.parametrize("package", PACKAGES)
def test_data_files_are_packaged(package: str) -> None:
    """A schema or a migration that is not in `package-data` is in the checkout and missing in the image."""
    patterns = project()["tool"]["setuptools"]["package-data"]
    missing = []
    for path in files():
        relative = path.relative_to(ROOT)
        if relative.parts[0] != package or path.suffix in {".py", ".md"}:
            continue
        inside = relative.relative_to(package).as_posix()
        # A pattern belongs to its package; one folder deep, `*` does not cross a `/`.
        fits = [one for one in patterns.get(package, []) if one.count("/") == inside.count("/")]
        if not any(fnmatch.fnmatch(inside, pattern) for pattern in fits):
            missing.append(relative.as_posix())
    assert not missing, f"name them in [tool.setuptools.package-data]: {missing}"
