"""Rules for every test: nothing of the developer's own set-up gets in, quick tests run first, seeds are printed.

Variables `CREDITS_TEST_…` steer the tests themselves and stay; every other `CREDITS_…` variable is taken away, so
that a run says the same on every machine.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import laws

pytest_plugins = ("tests.faults.plugin",)

# Cheap and broad first: a wrong rule or a broken contract shows before a broker is started.
ORDER = (
    "tidy",
    "unit",
    "property",
    "contract",
    "model",
    "products",
    "simulation",
    "deploy",
    "e2e",
    "integration",
    "bench",
)

for _name in [name for name in os.environ if name.startswith("CREDITS_") and not name.startswith("CREDITS_TEST_")]:
    del os.environ[_name]

# Processes that tests start may keep what they compile, whatever this one may: each would compile every module again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

laws.load_profile()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order by folder, keeping the order within a folder."""
    tests = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(tests).parts[0]
        return ORDER.index(folder) if folder in ORDER else len(ORDER)

    items.sort(key=rank)
    if laws.PROFILE != "default":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker(pytest.mark.timeout(laws.TIMEOUT_S), append=False)
