"""The engine's installation on the shared broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.settings import Settings
from tests.integration.engine.workers import Installation


@pytest.fixture
def installation(settings: Settings, tmp_path: Path) -> Iterator[Installation]:
    """Topics and workers of the test's own."""
    made = Installation(settings, tmp_path)
    try:
        yield made
    finally:
        made.stop()
