"""The pages for each role, command by command, on one running installation, in the order in which people come."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.e2e.installation import ROOT, Installation
from tests.e2e.pages import Shell, blocks_of, run_page

ROLES = ("admin", "payments", "producer", "gateway", "subscriber")
FIRST_KEY = re.compile(r"the first admin key, shown this once: (credits_\S+)")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """`credits up --keys`, and the key that it shows."""
    made = Installation.at(tmp_path_factory.mktemp("roles"))
    with made.up("--keys"):
        shown = FIRST_KEY.search(made.output)
        assert shown is not None, made.output
        made.environment["ADMIN_KEY"] = shown[1]
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
def test_a_roles_page_is_true(installation: Installation, role: str) -> None:
    shell = Shell(installation.folder, installation.environment)
    page = ROOT / "docs" / f"{role}.md"
    try:
        compared = run_page(page, shell, {"http://127.0.0.1:8080": installation.http})
    finally:
        shell.close()
    assert compared >= 3
    unshown = [block.script for block in blocks_of(page) if "curl" in block.script and block.shown is None]
    assert all("=$(" in script or ">" in script for script in unshown), "each call shows its answer"
