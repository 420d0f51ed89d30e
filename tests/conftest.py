"""Rules for every test: nothing of the developer's own set-up gets in, quick tests run first, seeds are printed.

Variables `CREDITS_TEST_…` steer the tests themselves and stay; every other `CREDITS_…` variable is taken away, so
that a run says the same on every machine.
"""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

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
    "integration",
    "e2e",
    "bench",
)

for _name in [name for name in os.environ if name.startswith("CREDITS_") and not name.startswith("CREDITS_TEST_")]:
    del os.environ[_name]

# A law that fails says so at once, with the example that was found and the line that runs it again. The smallest
# example takes minutes where one costs a database or a ledger: CREDITS_TEST_HYPOTHESIS_PROFILE=shrink looks for it.
FIND = (hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate, hypothesis.Phase.target)
hypothesis.settings.register_profile(
    "default", deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow], phases=FIND
)
hypothesis.settings.register_profile(
    "shrink", hypothesis.settings.get_profile("default"), phases=(*FIND, hypothesis.Phase.shrink)
)
hypothesis.settings.register_profile("long", hypothesis.settings.get_profile("shrink"), max_examples=2_000)
hypothesis.settings.load_profile(os.environ.get("CREDITS_TEST_HYPOTHESIS_PROFILE", "default"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order by folder, keeping the order within a folder."""
    tests = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(tests).parts[0]
        return ORDER.index(folder) if folder in ORDER else len(ORDER)

    items.sort(key=rank)
